"""Batches without a loader: a split lies whole on the device, shuffled once per epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ktrdr.features.dataset import Dataset


class Split:
    """The rows of a split as tensors on the device: inputs float32 [N, F], labels int64 [N]."""

    def __init__(self, dataset: Dataset, rows: range, device: torch.device) -> None:
        # Copied: the arrays may be read-only memory maps, which torch cannot stand.
        window = slice(rows.start, rows.stop)
        self.inputs = torch.from_numpy(np.array(dataset.inputs[window])).to(device)
        self.labels = torch.from_numpy(np.array(dataset.labels[window])).to(device)

    def __len__(self) -> int:
        return len(self.labels)

    def chunks(self, rows: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The rows in their own order, some at a time."""
        return zip(torch.split(self.inputs, rows), torch.split(self.labels, rows), strict=True)


class ShuffledBatches:
    """The training rows in each epoch's order; the position in them is two integers."""

    def __init__(self, split: Split, batch_size: int, seed: int) -> None:
        self._split = split
        self._seed = seed
        self._inputs = torch.empty_like(split.inputs)
        self.labels = torch.empty_like(split.labels)
        """The labels in the order of the epoch that was arranged last."""
        # Views of the two buffers: made once, filled anew by every epoch.
        self._batches = list(
            zip(
                torch.split(self._inputs, batch_size),
                torch.split(self.labels, batch_size),
                strict=True,
            )
        )

    def __len__(self) -> int:
        return len(self._batches)

    def arrange(self, epoch: int, first: int) -> list[tuple[Tensor, Tensor]]:
        """Shuffle for an epoch (whole epochs done before it); its batches from `first` on."""
        order = permutation(self._seed, epoch, len(self._split)).to(self.labels.device)
        torch.index_select(self._split.inputs, 0, order, out=self._inputs)
        torch.index_select(self._split.labels, 0, order, out=self.labels)
        return self._batches[first:]


def permutation(seed: int, epoch: int, n: int) -> Tensor:
    """The order of `n` rows: a function of seed and epoch, whatever happened before."""
    mixed = hashlib.sha256(f"{seed}:{epoch}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(mixed[:8], "big") >> 1)
    return torch.randperm(n, generator=generator)
