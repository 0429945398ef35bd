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
from ktrdr.features.labels import CLASS_NAMES, make_labels
from ktrdr.features.pipeline import compute_inputs
from ktrdr.strategy.schema import DataSplit, Strategy

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

    `inputs` is float32 [N, F], C-contiguous; `labels` int64 [N], indices into `class_names`;
    `timestamps` int64 [N], open times in microseconds UTC. `digest` covers the bytes of inputs and
    labels, and the splits.
    """

    inputs: InputArray
    labels: IntArray
    timestamps: IntArray
    input_names: tuple[str, ...]
    class_names: tuple[str, ...]
    splits: Splits
    digest: str


def build_dataset(strategy: Strategy, bars: Bars) -> Dataset:
    """Compute inputs and labels, split and purge.

    Raises InvalidData, with numbers, for too few bars, an empty split, or a class that never
    occurs in training.
    """
    inputs = compute_inputs(strategy, bars)
    labels = make_labels(strategy.training.labels, bars)
    rows = inputs.warm_up + np.flatnonzero(labels.valid[inputs.warm_up :])
    splits = split_rows(rows, labels.known_at[rows], strategy.training.data_split)
    values = labels.values[rows]
    _check_splits(splits, strategy.training.data_split, len(rows), bars)
    _check_classes(values[splits.train.start : splits.train.stop], strategy)
    matrix = np.ascontiguousarray(inputs.matrix[rows - inputs.warm_up])
    return Dataset(
        inputs=matrix,
        labels=values,
        timestamps=bars.timestamps[rows],
        input_names=inputs.names,
        class_names=CLASS_NAMES,
        splits=splits,
        digest=dataset_digest(matrix, values, splits),
    )


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


def dataset_digest(inputs: InputArray, labels: IntArray, splits: Splits) -> str:
    """The sha256 over shape and bytes of inputs and labels, and the splits' edges."""
    edges = [[part.start, part.stop] for part in astuple(splits)]
    digest = hashlib.sha256(json.dumps([list(inputs.shape), edges]).encode())
    digest.update(inputs.data)
    digest.update(labels.data)
    return digest.hexdigest()


def _check_splits(splits: Splits, shares: DataSplit, count: int, bars: Bars) -> None:
    for name in ("train", "validation", "test"):
        if getattr(shares, name) > 0 and len(getattr(splits, name)) == 0:
            raise InvalidData(
                f"the {name} split is empty: {len(bars):,} bars of {bars.symbol} {bars.timeframe} "
                f"leave {count:,} labelled rows before the purge; import more bars, widen the "
                "dates, or shorten the labels' horizon",
                split=name,
                bars=len(bars),
                rows=count,
            )


def _check_classes(labels: IntArray, strategy: Strategy) -> None:
    counts = np.bincount(labels, minlength=len(CLASS_NAMES)).tolist()
    shown = ", ".join(f"{name} {n:,}" for name, n in zip(CLASS_NAMES, counts, strict=True))
    missing = [name for name, n in zip(CLASS_NAMES, counts, strict=True) if n == 0]
    if missing:
        raise InvalidData(
            f"no {' and no '.join(missing)} among the {len(labels):,} training rows "
            f"({shown}): change training.labels ({strategy.training.labels.source}), or use more "
            "bars",
            counts=dict(zip(CLASS_NAMES, counts, strict=True)),
        )
