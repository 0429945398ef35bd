"""Optimizers and learning rate schedules."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LRScheduler,
    ReduceLROnPlateau,
    StepLR,
)

from ktrdr.strategy.training import (
    CosineSchedule,
    ExponentialSchedule,
    PlateauSchedule,
    StepSchedule,
    Training,
)


def make_optimizer(
    training: Training, parameters: Iterable[nn.Parameter], device: torch.device
) -> Optimizer:
    rate, decay = training.learning_rate, training.weight_decay
    fused = device.type in ("cpu", "cuda")
    if training.optimizer == "adam":
        return Adam(parameters, lr=rate, weight_decay=decay, fused=fused)
    if training.optimizer == "adamw":
        return AdamW(parameters, lr=rate, weight_decay=decay, fused=fused)
    momentum = training.momentum
    if training.optimizer == "sgd":
        return SGD(parameters, lr=rate, momentum=momentum, weight_decay=decay, fused=fused)
    return RMSprop(parameters, lr=rate, momentum=momentum, weight_decay=decay)


def make_scheduler(training: Training, optimizer: Optimizer) -> LRScheduler | None:
    """The schedule, stepped once per epoch."""
    schedule = training.lr_scheduler
    match schedule:
        case StepSchedule():
            return StepLR(optimizer, schedule.step_size, schedule.gamma)
        case ExponentialSchedule():
            return ExponentialLR(optimizer, schedule.gamma)
        case CosineSchedule():
            return CosineAnnealingLR(optimizer, training.epochs)
        case PlateauSchedule():
            return ReduceLROnPlateau(
                optimizer,
                "max" if training.higher_is_better else "min",
                factor=schedule.factor,
                patience=schedule.patience,
            )
    return None


def step_scheduler(scheduler: LRScheduler | None, score: float | None) -> None:
    """Advance by one epoch; `score` is the monitored metric of that epoch."""
    if isinstance(scheduler, ReduceLROnPlateau):
        assert score is not None, "the strategy asks for a validation split"
        scheduler.step(score)
    elif scheduler is not None:
        scheduler.step()


def catch_up(scheduler: LRScheduler | None, scores: Iterable[float | None]) -> None:
    """Step a new schedule through epochs that are done, to where it would stand had it been there.

    It is in step with the optimizer, though torch would say that this one has not moved yet.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*`lr_scheduler.step\\(\\)` before", UserWarning)
        for score in scores:
            step_scheduler(scheduler, score)


def learning_rate(optimizer: Optimizer) -> float:
    return float(optimizer.param_groups[0]["lr"])
