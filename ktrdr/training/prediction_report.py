"""Test metrics of a network's predictions, as JSON values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def class_report(predictions: Tensor, labels: Tensor, names: Sequence[str]) -> dict[str, Any]:
    """Figures per class, and the confusion matrix [true][predicted]; a ratio without a single case
    is 0."""
    count = len(names)
    pairs = torch.bincount(labels * count + predictions, minlength=count * count)
    confusion = pairs.reshape(count, count).cpu()
    return {
        "per_class": {name: _figures(confusion, index) for index, name in enumerate(names)},
        "confusion_matrix": confusion.tolist(),
    }


def value_report(predictions: Tensor, labels: Tensor) -> dict[str, Any]:
    """Mean absolute error, and R2, the share of the variance that is explained: below 0 where the
    labels' mean would have been the better guess, None where they do not vary."""
    actual = labels.double()
    errors = predictions.double() - actual
    spread = ((actual - actual.mean()) ** 2).sum().item()
    constant = bool((labels == labels[0]).all())
    return {
        "test_mae": errors.abs().mean().item(),
        "test_r2": None if constant else 1.0 - (errors**2).sum().item() / spread,
    }


def _figures(confusion: Tensor, index: int) -> dict[str, float | int]:
    hits = int(confusion[index, index])
    actual, predicted = int(confusion[index].sum()), int(confusion[:, index].sum())
    return {
        "precision": hits / predicted if predicted else 0.0,
        "recall": hits / actual if actual else 0.0,
        "f1": 2 * hits / (actual + predicted) if actual + predicted else 0.0,
        "support": actual,
    }
