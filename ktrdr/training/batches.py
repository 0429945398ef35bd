"""Batches without a loader: a split lies whole on the device, shuffled once per epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from ktrdr.features.dataset import Dataset

Batch = tuple[Tensor, Tensor]

_CHUNK_ROWS = 65_536


class Split:
    """The samples of a split as tensors on the device.

    `inputs` are those of `samples`, float32 [N, F] or [N, L, F]; `labels`, int64 or float32 [N],
    belong to the last row of each. No sample reaches into another split.
    """

    def __init__(
        self, dataset: Dataset, rows: range, device: torch.device, sequence_length: int | None
    ) -> None:
        # Copied: the arrays may be read-only memory maps, which torch cannot stand.
        window = slice(rows.start, rows.stop)
        inputs = torch.from_numpy(np.array(dataset.inputs[window])).to(device)
        labels = torch.from_numpy(np.array(dataset.labels[window])).to(device)
        self.inputs = samples(inputs, sequence_length)
        self.labels = labels[len(rows) - len(self.inputs) :]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def last_rows(self) -> Tensor:
        """The last row of each sample, [N, F]."""
        return self.inputs if self.inputs.dim() == 2 else self.inputs[:, -1]

    def chunks(self) -> Iterator[Batch]:
        """The samples in their own order, as many at a time as memory stands."""
        inputs = chunks(self.inputs)
        return zip(inputs, torch.split(self.labels, len(inputs[0])), strict=True)


def samples(rows: Tensor, sequence_length: int | None) -> Tensor:
    """What a network is shown, from rows [N, F] in the order of time.

    Without a `sequence_length` the rows themselves. Else, for every row that has enough rows before
    it, the L rows that end with it: [N - L + 1, L, F], a view that takes no memory.
    """
    if sequence_length is None:
        return rows
    if len(rows) < sequence_length:
        return rows.new_empty(0, sequence_length, rows.shape[1])
    return rows.unfold(0, sequence_length, 1).transpose(1, 2)


def chunks(inputs: Tensor) -> tuple[Tensor, ...]:
    """Samples cut into parts of as many rows as a network is shown at once outside training."""
    rows_each = inputs.shape[1] if inputs.dim() == 3 else 1
    return torch.split(inputs, max(1, _CHUNK_ROWS // rows_each))


class ShuffledBatches:
    """The training samples in each epoch's order; the position in them is two integers."""

    def __init__(self, split: Split, batch_size: int, seed: int) -> None:
        self._split = split
        self._batch_size = batch_size
        self._seed = seed
        self.labels = torch.empty_like(split.labels)
        """The labels in the order of the epoch that was arranged last."""
        # Views of buffers: made once, filled anew by every epoch.
        self._label_batches = torch.split(self.labels, batch_size)
        self._inputs = None if split.inputs.dim() == 3 else torch.empty_like(split.inputs)
        """None for sequences: they overlap, and a copy of all would be L times the split."""
        self._batches: list[Batch] = []
        if self._inputs is not None:
            input_batches = torch.split(self._inputs, batch_size)
            self._batches = list(zip(input_batches, self._label_batches, strict=True))

    def __len__(self) -> int:
        return len(self._label_batches)

    def arrange(self, epoch: int, first: int) -> Iterable[Batch]:
        """Shuffle for an epoch (whole epochs done before it); its batches from `first` on."""
        order = permutation(self._seed, epoch, len(self._split)).to(self.labels.device)
        torch.index_select(self._split.labels, 0, order, out=self.labels)
        if self._inputs is None:
            return self._gathered(torch.split(order, self._batch_size)[first:], first)
        torch.index_select(self._split.inputs, 0, order, out=self._inputs)
        return self._batches[first:]

    def _gathered(self, places: Iterable[Tensor], first: int) -> Iterator[Batch]:
        for place, labels in zip(places, self._label_batches[first:], strict=True):
            yield self._split.inputs.index_select(0, place), labels


def permutation(seed: int, epoch: int, n: int) -> Tensor:
    """The order of `n` rows: a function of seed and epoch, whatever happened before."""
    mixed = hashlib.sha256(f"{seed}:{epoch}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(mixed[:8], "big") >> 1)
    return torch.randperm(n, generator=generator)
