"""The state that a resume restores: copied at a batch boundary, stored without pickle."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ktrdr.checkpoints.history import HISTORY, encode_history
from ktrdr.operations.types import CheckpointType, HistoryRow
from ktrdr.training.weights import save_state


class NonFiniteLoss(Exception):
    """Loss, weights or optimizer state ran out of the numbers: the run ends `non_finite_loss`."""


@dataclass
class Loop:
    """Where the loop stands and what it remembers; `batch` counts those done of the next epoch."""

    seed: int
    epoch: int = 0
    batch: int = 0
    history: list[HistoryRow] = field(default_factory=list)
    best_epoch: int = 0
    best_score: float | None = None
    reference_score: float | None = None
    """What early stopping measures `min_delta` from."""
    stale_epochs: int = 0
    """Epochs since early stopping last saw an improvement."""
    loss_total: float = 0.0
    """Of the running epoch: the sum of batch losses, each times its rows."""
    correct: int = 0
    """Of the running epoch: rows whose likeliest class, or whose sign, was theirs."""
    seconds: float = 0.0
    """Spent on the running epoch, in all executions."""


@dataclass(frozen=True)
class Snapshot:
    """A consistent copy on the CPU, safe to encode while training goes on."""

    checkpoint_type: CheckpointType
    loop: Loop
    global_step: int
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    scheduler: dict[str, Any] | None
    best_model: dict[str, Tensor] | None
    random_state: dict[str, Any]
    rank: int

    @property
    def is_best(self) -> bool:
        """Whether its weights are those of the best epoch so far."""
        loop = self.loop
        return loop.batch == 0 and loop.epoch > 0 and loop.epoch == loop.best_epoch


def encode(snapshot: Snapshot) -> dict[str, bytes]:
    """The files of a checkpoint; for the writer's thread."""
    states = {
        "model.pt": snapshot.model,
        "optimizer.pt": snapshot.optimizer,
        "scheduler.pt": snapshot.scheduler,
        "best_model.pt": snapshot.best_model,
        "loop.pt": {
            **_without_history(snapshot.loop),
            "global_step": snapshot.global_step,
            "random_states": {str(snapshot.rank): plain_random_state(snapshot.random_state)},
        },
    }
    files = {name: save_state(state) for name, state in states.items() if state is not None}
    return files | {HISTORY: encode_history(snapshot.loop.history)}


def _without_history(loop: Loop) -> dict[str, Any]:
    """The history has a file of its own, readable without torch, and stands nowhere else."""
    names = [entry.name for entry in dataclasses.fields(Loop)]
    return {name: getattr(loop, name) for name in names if name != "history"}


def cpu_copy(value: Any) -> Any:
    """A copy of nested containers whose tensors lie on the CPU and share nothing."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: cpu_copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [cpu_copy(item) for item in value]
    return value


def check_finite(value: Any, what: str) -> None:
    """Raise NonFiniteLoss when any tensor in nested containers holds a NaN or an infinity."""
    flat = [t.reshape(-1) for t in _tensors(value) if t.is_floating_point()]
    if flat and not torch.isfinite(torch.cat(flat)).all().item():
        raise NonFiniteLoss(
            f"{what} holds values that are not finite: lower training.learning_rate,"
            " or set training.gradient_clip"
        )


def seed_everything(seed: int) -> None:
    """Seed python, numpy and torch (every device) of this process."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def random_state(device: torch.device) -> dict[str, Any]:
    """The state of every source of randomness, as each library gives it."""
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def plain_random_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """The same with long arrays as tensors: numpy's own do not load with `weights_only=True`."""
    version, words, gauss = state["python"]
    numpy = state["numpy"]
    key = torch.from_numpy(numpy["state"]["key"].astype(np.int64))
    return {
        **state,
        "python": {"version": version, "words": torch.tensor(words), "gauss": gauss},
        "numpy": {**numpy, "state": {**numpy["state"], "key": key}},
    }


def restore_random_state(plain: Mapping[str, Any], device: torch.device) -> None:
    """Set every source of randomness to what `plain_random_state` returned."""
    python, numpy = plain["python"], plain["numpy"]
    key = numpy["state"]["key"].numpy().astype(np.uint32)
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    np.random.set_state({**numpy, "state": {**numpy["state"], "key": key}})
    torch.set_rng_state(plain["torch"])
    if device.type == "cuda" and "cuda" in plain:
        torch.cuda.set_rng_state(plain["cuda"], device)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list):
        for item in value:
            yield from _tensors(item)
