"""How good a network is on a split it does not train on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ktrdr.training.batches import Split
from ktrdr.training.losses import Criterion

_CHUNK_ROWS = 65_536


def evaluate(
    model: nn.Module, split: Split, criterion: Criterion, num_classes: int
) -> tuple[float, Tensor]:
    """Mean loss, and the confusion matrix [true, predicted] on the CPU; no random state is used."""
    device = split.labels.device
    total = torch.zeros((), dtype=torch.float64, device=device)
    weight = torch.zeros_like(total)
    pairs = torch.zeros(num_classes * num_classes, dtype=torch.int64, device=device)
    model.eval()
    with torch.no_grad():
        for inputs, labels in split.chunks(_CHUNK_ROWS):
            outputs = model(inputs)
            chunk_total, chunk_weight = criterion.total(outputs, labels)
            total += chunk_total
            weight += chunk_weight
            pair = labels * num_classes + outputs.argmax(dim=1)
            pairs += torch.bincount(pair, minlength=len(pairs))
    model.train()
    return (total / weight).item(), pairs.reshape(num_classes, num_classes).cpu()


def accuracy(confusion: Tensor) -> float:
    return confusion.trace().item() / confusion.sum().item()


def classification_report(
    loss: float, confusion: Tensor, class_names: Sequence[str]
) -> dict[str, Any]:
    """Test metrics as JSON values; a ratio without a single case is 0."""
    return {
        "test_loss": loss,
        "test_accuracy": accuracy(confusion),
        "per_class": {
            name: _class_report(confusion, index) for index, name in enumerate(class_names)
        },
        "confusion_matrix": confusion.tolist(),
    }


def _class_report(confusion: Tensor, index: int) -> dict[str, float | int]:
    hits = int(confusion[index, index])
    actual, predicted = int(confusion[index].sum()), int(confusion[:, index].sum())
    return {
        "precision": hits / predicted if predicted else 0.0,
        "recall": hits / actual if actual else 0.0,
        "f1": 2 * hits / (actual + predicted) if actual + predicted else 0.0,
        "support": actual,
    }
