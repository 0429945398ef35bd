"""Batches without a loader: a split lies on the device, shuffled once per epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ktrdr.data.bars import IntArray
from ktrdr.features.dataset import Dataset


class Batch(NamedTuple):
    """Some samples: inputs [B, F] or [B, L, F], labels [B], and weights [B] where they differ."""

    inputs: Tensor
    labels: Tensor
    weights: Tensor | None = None


class Split:
    """The samples of a split as tensors on the device.

    `inputs` is float32 [N, F], or all sequences of the split as a view [M, L, F], of which
    `indices` [N] are the samples (None: all). `labels`, int64 or float32 [N], belong to the last
    row of each sample, `weights`, float32 [N], likewise (None: all count 1). No sample reaches over
    a segment's edge.
    """

    def __init__(
        self, dataset: Dataset, rows: range, device: torch.device, sequence_length: int | None
    ) -> None:
        indices = dataset.samples(rows, sequence_length)
        # Copied: the arrays may be read-only memory maps, which torch cannot stand.
        self.labels = torch.from_numpy(dataset.labels[indices]).to(device)
        self.weights = (
            None
            if dataset.weights is None
            else torch.from_numpy(dataset.weights[indices]).to(device)
        )
        self.indices: Tensor | None = None
        if sequence_length is None:
            self.inputs = torch.from_numpy(_taken(dataset.inputs, indices)).to(device)
            return
        window = np.array(dataset.inputs[rows.start : rows.stop])
        self.inputs = sequences(torch.from_numpy(window).to(device), sequence_length)
        if len(indices) < len(self.inputs):
            first = indices - rows.start - (sequence_length - 1)
            self.indices = torch.from_numpy(first).to(device)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def last_rows(self) -> Tensor:
        """The last row of each sample, [N, F]."""
        if self.inputs.dim() == 2:
            return self.inputs
        last = self.inputs[:, -1]
        return last if self.indices is None else last[self.indices]


def _taken(array: NDArray[np.float32], indices: IntArray) -> NDArray[np.float32]:
    """The rows at rising indices, copied; a plain slice where they follow each other."""
    if len(indices) and int(indices[-1]) - int(indices[0]) + 1 == len(indices):
        return np.array(array[int(indices[0]) : int(indices[-1]) + 1])
    return np.ascontiguousarray(array[indices])


def sequences(rows: Tensor, sequence_length: int) -> Tensor:
    """For every row that has enough rows before it the L rows that end with it, from [N, F] in the
    order of time: [N - L + 1, L, F], a view that takes no memory.
    """
    if len(rows) < sequence_length:
        return rows.new_empty(0, sequence_length, rows.shape[1])
    return rows.unfold(0, sequence_length, 1).transpose(1, 2)


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
        self._weights = None if split.weights is None else torch.empty_like(split.weights)
        self._weight_batches: tuple[Tensor | None, ...] = (
            (None,) * len(self._label_batches)
            if self._weights is None
            else torch.split(self._weights, batch_size)
        )
        self._inputs = None if split.inputs.dim() == 3 else torch.empty_like(split.inputs)
        """None for sequences: they overlap, and a copy of all would be L times the split."""
        self._batches: list[Batch] = []
        if self._inputs is not None:
            input_batches = torch.split(self._inputs, batch_size)
            whole = zip(input_batches, self._label_batches, self._weight_batches, strict=True)
            self._batches = [Batch(*parts) for parts in whole]

    def __len__(self) -> int:
        return len(self._label_batches)

    def arrange(self, epoch: int, first: int) -> Iterable[Batch]:
        """Shuffle for an epoch (whole epochs done before it); its batches from `first` on."""
        order = permutation(self._seed, epoch, len(self._split)).to(self.labels.device)
        torch.index_select(self._split.labels, 0, order, out=self.labels)
        if self._weights is not None and self._split.weights is not None:
            torch.index_select(self._split.weights, 0, order, out=self._weights)
        if self._inputs is None:
            order = order if self._split.indices is None else self._split.indices[order]
            return self._gathered(torch.split(order, self._batch_size)[first:], first)
        torch.index_select(self._split.inputs, 0, order, out=self._inputs)
        return self._batches[first:]

    def _gathered(self, indices: Iterable[Tensor], first: int) -> Iterator[Batch]:
        known = zip(self._label_batches[first:], self._weight_batches[first:], strict=True)
        for place, (labels, weights) in zip(indices, known, strict=True):
            yield Batch(self._split.inputs.index_select(0, place), labels, weights)


def permutation(seed: int, epoch: int, n: int) -> Tensor:
    """The order of `n` rows: a function of seed and epoch, whatever happened before."""
    mixed = hashlib.sha256(f"{seed}:{epoch}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(mixed[:8], "big") >> 1)
    return torch.randperm(n, generator=generator)
