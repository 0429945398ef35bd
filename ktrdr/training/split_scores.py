"""Loss and hit rate of a network on a split."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ktrdr.training.batch_invariant import predictions
from ktrdr.training.batches import Split
from ktrdr.training.losses import Criterion


@dataclass(frozen=True, eq=False)
class SplitScores:
    """`loss` is the mean over the split; `predictions` [N] lie on its device."""

    loss: float
    hit_rate: float
    predictions: Tensor


def evaluate(model: nn.Module, split: Split, criterion: Criterion) -> SplitScores:
    """Judge a split that has samples; no random state is used."""
    model.eval()
    outputs = predictions(model, split.inputs, split.indices)
    model.train()
    with torch.no_grad():
        total, weight = criterion.total(outputs, split.labels, split.weights)
        predicted = criterion.predictions(outputs)
        hits = int(criterion.hits(predicted, split.labels).sum().item())
    return SplitScores((total / weight).item(), hits / len(split), predicted)
