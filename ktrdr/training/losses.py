"""Loss functions over class scores, weighted against rare classes being ignored."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_LEAST_WEIGHT = 0.1
_LARGEST_WEIGHT = 10.0


@dataclass(frozen=True)
class Criterion:
    """Cross entropy, or focal loss when `focal_gamma` is given (Lin et al. 2017, eq. 5)."""

    class_weights: Tensor
    focal_gamma: float | None

    def mean(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Weighted mean over the rows, a scalar: what a training step minimises."""
        if self.focal_gamma is None:
            return F.cross_entropy(outputs, labels, self.class_weights)
        total, weight = self.total(outputs, labels)
        return total / weight

    def total(self, outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted sum over the rows, and the sum of the weights: to average over chunks."""
        weights = self.class_weights[labels]
        losses = F.cross_entropy(outputs, labels, reduction="none")
        if self.focal_gamma is not None:
            losses = (1.0 - torch.exp(-losses)) ** self.focal_gamma * losses
        return (weights * losses).sum(), weights.sum()


def class_weights(labels: Tensor, num_classes: int) -> Tensor:
    """Inverse frequency of each class among the training rows, bounded to 0.1 .. 10."""
    counts = torch.bincount(labels, minlength=num_classes).clamp(min=1).double()
    weights = len(labels) / (num_classes * counts)
    return weights.clamp(_LEAST_WEIGHT, _LARGEST_WEIGHT).float()
