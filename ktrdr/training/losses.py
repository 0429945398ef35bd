"""Loss, predictions and hits of each output format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ktrdr.strategy.training import Training
from ktrdr.training.prediction_report import class_report, value_report

_LEAST_WEIGHT = 0.1
_LARGEST_WEIGHT = 10.0


class Criterion(Protocol):
    """Judges outputs [N, num_outputs] by labels [N]."""

    @property
    def num_outputs(self) -> int: ...

    @property
    def hit_metric(self) -> str:
        """What the share of hits is called, as in `train_accuracy`."""

    def mean(self, outputs: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        """Mean loss over the rows, each by its weight, a scalar: what a training step minimises."""

    def total(
        self, outputs: Tensor, labels: Tensor, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Sum of the losses, each by its weight, and of the weights to divide it by."""

    def predictions(self, outputs: Tensor) -> Tensor:
        """What the outputs say, [N], to be compared with labels."""

    def hits(self, predictions: Tensor, labels: Tensor) -> Tensor:
        """Which rows were predicted right: bool [N]."""

    def report(self, predictions: Tensor, labels: Tensor) -> dict[str, Any]:
        """Test metrics besides the loss, as JSON values."""


@dataclass(frozen=True, eq=False)
class ClassCriterion:
    """Cross entropy, or focal loss when `focal_gamma` is given (Lin et al. 2017, eq. 5), both
    weighted by class. Hits are rows whose likeliest class is theirs."""

    class_weights: Tensor
    focal_gamma: float | None
    class_names: Sequence[str]

    hit_metric = "accuracy"

    @property
    def num_outputs(self) -> int:
        return len(self.class_names)

    def mean(self, outputs: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        if self.focal_gamma is None and weights is None:
            return F.cross_entropy(outputs, labels, self.class_weights)
        total, weight = self.total(outputs, labels, weights)
        return total / weight

    def total(
        self, outputs: Tensor, labels: Tensor, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        of_class = self.class_weights[labels]
        weights = of_class if weights is None else of_class * weights
        losses = F.cross_entropy(outputs, labels, reduction="none")
        if self.focal_gamma is not None:
            losses = (1.0 - torch.exp(-losses)) ** self.focal_gamma * losses
        return (weights * losses).sum(), weights.sum()

    def predictions(self, outputs: Tensor) -> Tensor:
        return outputs.argmax(dim=1)

    def hits(self, predictions: Tensor, labels: Tensor) -> Tensor:
        return predictions == labels

    def report(self, predictions: Tensor, labels: Tensor) -> dict[str, Any]:
        return class_report(predictions, labels, self.class_names)


@dataclass(frozen=True)
class ValueCriterion:
    """Squared error, or Huber's loss when `huber_delta` is given: half the square up to delta,
    linear beyond (Huber 1964). Hits are rows whose sign is right."""

    huber_delta: float | None

    hit_metric = "sign_agreement"
    num_outputs = 1

    def mean(self, outputs: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        if weights is None:
            return self._loss(outputs[:, 0], labels, "mean")
        total, weight = self.total(outputs, labels, weights)
        return total / weight

    def total(
        self, outputs: Tensor, labels: Tensor, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        if weights is None:
            loss = self._loss(outputs[:, 0], labels, "sum")
            return loss, loss.new_tensor(len(labels))
        losses = self._loss(outputs[:, 0], labels, "none")
        return (weights * losses).sum(), weights.sum()

    def predictions(self, outputs: Tensor) -> Tensor:
        return outputs[:, 0]

    def hits(self, predictions: Tensor, labels: Tensor) -> Tensor:
        return torch.sign(predictions) == torch.sign(labels)

    def report(self, predictions: Tensor, labels: Tensor) -> dict[str, Any]:
        return value_report(predictions, labels)

    def _loss(self, values: Tensor, labels: Tensor, reduction: str) -> Tensor:
        if self.huber_delta is None:
            return F.mse_loss(values, labels, reduction=reduction)
        return F.huber_loss(values, labels, reduction=reduction, delta=self.huber_delta)


def make_criterion(training: Training, labels: Tensor, class_names: Sequence[str]) -> Criterion:
    """The loss that a strategy asks for; `labels` are those of the training samples."""
    if training.loss in ("huber", "mse"):
        return ValueCriterion(training.huber_delta if training.loss == "huber" else None)
    return ClassCriterion(
        class_weights(labels, len(class_names)),
        training.focal_gamma if training.loss == "focal" else None,
        class_names,
    )


def class_weights(labels: Tensor, num_classes: int) -> Tensor:
    """Inverse frequency of each class among the training rows, bounded to 0.1 .. 10."""
    counts = torch.bincount(labels, minlength=num_classes).clamp(min=1).double()
    weights = len(labels) / (num_classes * counts)
    return weights.clamp(_LEAST_WEIGHT, _LARGEST_WEIGHT).float()
