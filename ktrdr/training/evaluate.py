"""How good a network is on a split it does not train on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ktrdr.training.batches import Split
from ktrdr.training.losses import Criterion


@dataclass(frozen=True, eq=False)
class Evaluation:
    """`loss` is the mean over the split; `predictions` [N] lie on its device."""

    loss: float
    hit_rate: float
    predictions: Tensor


def evaluate(model: nn.Module, split: Split, criterion: Criterion) -> Evaluation:
    """Judge a split that has samples; no random state is used."""
    total = torch.zeros((), dtype=torch.float64, device=split.labels.device)
    weight = torch.zeros_like(total)
    predictions = []
    model.eval()
    with torch.no_grad():
        for inputs, labels in split.chunks():
            outputs = model(inputs)
            chunk_total, chunk_weight = criterion.total(outputs, labels)
            total += chunk_total
            weight += chunk_weight
            predictions.append(criterion.predictions(outputs))
    model.train()
    predicted = torch.cat(predictions)
    hits = int(criterion.hits(predicted, split.labels).sum().item())
    return Evaluation((total / weight).item(), hits / len(split), predicted)
