"""The training set: inputs, labels, and chronological splits that do not know their future."""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from ktrdr.data.bars import Bars, IntArray
from ktrdr.errors import InvalidData
from ktrdr.features.columns import InputColumn
from ktrdr.features.labels import LabelArray, class_names, make_labels
from ktrdr.features.pipeline import compute_inputs
from ktrdr.strategy.schema import Strategy
from ktrdr.strategy.splits import DataSplit

InputArray = NDArray[np.float32]


@dataclass(frozen=True)
class Splits:
    """Half-open row ranges, in the order of time; rows between them were purged."""

    train: range
    validation: range
    test: range


@dataclass(frozen=True, eq=False)
class Dataset:
    """What a model trains on; arrays may be read-only memory maps.

    Rows are consecutive bars, as they were imported: where a market was closed, the next bar is
    the next row. `inputs` is float32 [N, F], C-contiguous; `labels` int64 [N], indices
    into `class_names`, or float32 [N] and no class names, for regression; `timestamps` int64 [N],
    open times in microseconds UTC. `digest` covers the bytes of inputs and labels, and the splits.
    """

    inputs: InputArray
    labels: LabelArray
    timestamps: IntArray
    columns: tuple[InputColumn, ...]
    class_names: tuple[str, ...]
    splits: Splits
    digest: str

    @property
    def input_names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)


def build_dataset(strategy: Strategy, bars: Bars) -> Dataset:
    """Compute inputs and labels, split and purge.

    Raises InvalidData, with numbers, for too few bars, a split without a single sample, and
    training labels that teach nothing: a class that never occurs, or a value that never changes.
    """
    inputs = compute_inputs(strategy, bars)
    labels = make_labels(strategy.training.labels, bars)
    rows = inputs.warm_up + np.flatnonzero(labels.valid[inputs.warm_up :])
    splits = split_rows(rows, labels.known_at[rows], strategy.training.data_split)
    values = labels.values[rows]
    _check_splits(splits, strategy, len(rows), bars)
    _check_labels(values[splits.train.start + rows_before(strategy) : splits.train.stop], strategy)
    matrix = np.ascontiguousarray(inputs.matrix[rows - inputs.warm_up])
    return Dataset(
        inputs=matrix,
        labels=values,
        timestamps=bars.timestamps[rows],
        columns=tuple(map(InputColumn, inputs.names)),
        class_names=class_names(strategy.training.labels),
        splits=splits,
        digest=dataset_digest(matrix, values, splits),
    )


def rows_before(strategy: Strategy) -> int:
    """Rows that a sample needs before its last one; so many first rows of a split are no sample."""
    return (strategy.model.sequence_length or 1) - 1


def split_rows(bar_of_row: IntArray, known_at: IntArray, shares: DataSplit) -> Splits:
    """Cut the rows by their shares, then purge the end of each part.

    Args:
        bar_of_row: index of each row's bar, rising.
        known_at: index of the last bar that each row's label depends on, never falling.

    A row stays in a part only if its label is known before the first bar of the next part.
    """
    count = len(bar_of_row)
    edges = [0, round(count * shares.train), round(count * (shares.train + shares.validation))]
    edges = [min(edge, count) for edge in (*edges, count)]
    parts = []
    for start, stop in itertools.pairwise(edges):
        if start < stop < count:
            stop = max(start, int(np.searchsorted(known_at, bar_of_row[stop], side="left")))
        parts.append(range(start, stop))
    return Splits(*parts)


def dataset_digest(inputs: InputArray, labels: LabelArray, splits: Splits) -> str:
    """The sha256 over shape and bytes of inputs and labels, and the splits' edges."""
    edges = [[part.start, part.stop] for part in astuple(splits)]
    digest = hashlib.sha256(json.dumps([list(inputs.shape), edges]).encode())
    digest.update(inputs.data)
    digest.update(labels.data)
    return digest.hexdigest()


def _check_splits(splits: Splits, strategy: Strategy, count: int, bars: Bars) -> None:
    needed = rows_before(strategy) + 1
    for name in ("train", "validation", "test"):
        left = len(getattr(splits, name))
        if getattr(strategy.training.data_split, name) == 0 or left >= needed:
            continue
        if left == 0:
            what, shorter = f"the {name} split is empty", "the labels' horizon"
        else:
            what = (
                f"the {name} split has {left:,} rows, too few for one sequence of {needed:,} "
                "(model.architecture.sequence_length)"
            )
            shorter = "the sequences"
        raise InvalidData(
            f"{what}: {len(bars):,} bars of {bars.symbol} {bars.timeframe} leave {count:,} "
            "labelled rows before the purge; import more bars, widen the dates, or shorten "
            f"{shorter}",
            split=name,
            bars=len(bars),
            rows=count,
        )


def _check_labels(labels: LabelArray, strategy: Strategy) -> None:
    """Look at the labels of the training samples."""
    names = class_names(strategy.training.labels)
    if names:
        _check_classes(np.bincount(labels, minlength=len(names)).tolist(), names, strategy)
    else:
        _check_values(labels, strategy)


def _check_classes(counts: list[int], names: tuple[str, ...], strategy: Strategy) -> None:
    missing = [name for name, n in zip(names, counts, strict=True) if n == 0]
    if missing:
        shown = ", ".join(f"{name} {n:,}" for name, n in zip(names, counts, strict=True))
        raise InvalidData(
            f"no {' and no '.join(missing)} among the {sum(counts):,} training rows ({shown}): "
            f"change training.labels ({strategy.training.labels.source}), or use more bars",
            counts=dict(zip(names, counts, strict=True)),
        )


def _check_values(values: LabelArray, strategy: Strategy) -> None:
    source = strategy.training.labels.source
    if values.min() == values.max():
        raise InvalidData(
            f"training.labels ({source}) are {values[0]:g} in all {len(values):,} training rows: "
            "there is nothing to learn from a target that never changes; use other bars",
            rows=len(values),
        )
