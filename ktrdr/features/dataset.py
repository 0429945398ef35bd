"""The dataset of a training: inputs, labels and chronological splits, without look-ahead."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from ktrdr.data.bars import IntArray
from ktrdr.data.market import Market
from ktrdr.errors import InvalidData
from ktrdr.features.columns import InputColumn
from ktrdr.features.cuts import SPLITS, Cut, LabelledRows, Piece, cut, pieces
from ktrdr.features.dataset_checks import check_cuts, check_labels, check_overlap
from ktrdr.features.labels import LabelArray, class_names, make_labels
from ktrdr.features.pipeline import InputArray, SymbolSeries, compute_series, fill_matrix
from ktrdr.features.transforms import Transform, fit_transform, grades_itself, needs_fitting
from ktrdr.strategy.schema import Strategy

WeightArray = NDArray[np.float32]


@dataclass(frozen=True)
class Splits:
    """Half-open ranges of rows."""

    train: range
    validation: range
    test: range


@dataclass(frozen=True)
class Segment:
    """Rows [start, stop) of one symbol that follow each other in time without a cut."""

    symbol: str
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class Dataset:
    """What a model trains on; arrays may be read-only memory maps.

    `inputs` is float32 [N, F], C-contiguous; `labels` int64 [N], indices into `class_names`, or
    float32 [N] and no class names, for regression; `timestamps` int64 [N], open times in
    microseconds UTC. A split is the rows of all symbols, symbol by symbol, in `segments`: within
    one, rows are consecutive bars, as they were imported (where a market was closed, the next bar
    is the next row), and no sequence reaches from one into another. Without segments each split is
    one. `weights` is float32 [N], how much a sample counts, 0 for a row that is only history; None
    where every row is a sample that counts 1. `digest` covers the bytes of all but the timestamps.
    """

    inputs: InputArray
    labels: LabelArray
    timestamps: IntArray
    columns: tuple[InputColumn, ...]
    class_names: tuple[str, ...]
    splits: Splits
    digest: str
    segments: tuple[Segment, ...] = ()
    weights: WeightArray | None = None
    transforms: tuple[Transform, ...] = ()

    @property
    def input_names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def samples(self, rows: range, sequence_length: int | None) -> IntArray:
        """The rows of a split that are samples: those that count, and have enough rows before."""
        before = (sequence_length or 1) - 1
        found = [
            np.arange(part.start + before, part.stop, dtype=np.int64)
            for part in self.segments_of(rows)
        ]
        indices = np.concatenate(found) if found else np.empty(0, np.int64)
        return indices if self.weights is None else indices[self.weights[indices] > 0]

    def segments_of(self, rows: range) -> tuple[range, ...]:
        """The stretches of consecutive bars within a split."""
        if not self.segments:
            return (rows,)
        parts = (
            range(max(rows.start, part.start), min(rows.stop, part.stop)) for part in self.segments
        )
        return tuple(part for part in parts if len(part))


def build_dataset(
    strategy: Strategy,
    market: Market,
    fold: int = 1,
    stretches: Sequence[Piece] | None = None,
) -> Dataset:
    """Compute inputs and labels, split, purge, and fit what is fitted on the training rows.

    `fold` counts from 1; a chronological split has one. `stretches` are those of the fold unless
    given: the same cuts for other bars.

    Raises InvalidData, with numbers, for too few bars, symbols that do not overlap, a split
    without a single sample, and training labels that teach nothing: a class that never occurs, or
    a value that never changes.
    """
    check_overlap(market)
    series = [compute_series(strategy, market, symbol) for symbol in market.symbols]
    labelled = [label_rows(strategy, one) for one in series]
    if stretches is None:
        moments = np.concatenate([rows.moments for rows in labelled])
        split = strategy.training.data_split
        stretches = pieces(moments, split, fold) if len(moments) else ()
    try:
        return _cut_at(stretches, strategy, market, series, labelled)
    except InvalidData as error:
        folds = strategy.training.data_split.num_folds
        if folds == 1:
            raise
        message = f"fold {fold} of {folds}: {error.message}"
        raise InvalidData(message, **error.details, fold=fold) from None


def _cut_at(
    stretches: Sequence[Piece],
    strategy: Strategy,
    market: Market,
    series: list[SymbolSeries],
    labelled: list[LabelledRows],
) -> Dataset:
    spec, names = strategy.training.data_split, class_names(strategy.training.labels)
    cuts = [cut(rows, stretches, spec.embargo) for rows in labelled]
    check_cuts(strategy, market, labelled, cuts)
    transforms = _fit(strategy, series, _training_bars(labelled, cuts))
    dataset = _assemble(series, labelled, cuts, transforms, names)
    samples = dataset.samples(dataset.splits.train, strategy.model.sequence_length)
    check_labels(dataset.labels[samples], strategy)
    return dataset


def label_rows(strategy: Strategy, series: SymbolSeries) -> LabelledRows:
    """The rows of a symbol: its samples and, where sequences need them, the bars between."""
    labels = make_labels(strategy.training.labels, series.base)
    usable = labels.valid.copy()
    usable[: series.first] = False
    bars = np.flatnonzero(usable)
    if strategy.model.sequence_length is not None and len(bars):
        bars = np.arange(bars[0], bars[-1] + 1)
    ones = np.ones(len(bars), np.float32)
    weights = ones if labels.weights is None else labels.weights[bars]
    return LabelledRows(
        series.base,
        bars,
        labels.values[bars],
        labels.known_at[bars],
        np.where(usable[bars], weights, np.float32(0)),
    )


def dataset_digest(
    inputs: InputArray,
    labels: LabelArray,
    splits: Splits,
    segments: Sequence[Segment] = (),
    weights: WeightArray | None = None,
) -> str:
    """The sha256 over shape and bytes of inputs, labels and weights, and the edges."""
    edges = [[part.start, part.stop] for part in astuple(splits)]
    head = [list(inputs.shape), edges, [list(astuple(part)) for part in segments]]
    digest = hashlib.sha256(json.dumps(head).encode())
    for array in (inputs, labels, *(() if weights is None else (weights,))):
        digest.update(array.data)
    return digest.hexdigest()


def _training_bars(labelled: list[LabelledRows], cuts: list[Cut]) -> list[IntArray]:
    """The bars of each symbol's training samples."""
    return [
        np.concatenate(
            [np.empty(0, np.int64)]
            + [
                rows.bars[part.start : part.stop][rows.is_sample[part.start : part.stop]]
                for split, part in parts
                if split == "train"
            ]
        )
        for rows, parts in zip(labelled, cuts, strict=True)
    ]


def _fit(
    strategy: Strategy, series: list[SymbolSeries], training: list[IntArray]
) -> tuple[Transform, ...]:
    crisp = grades_itself(strategy)
    fitted = []
    for index, group in enumerate(series[0].groups):
        values = None
        if needs_fitting(group):
            values = np.concatenate(
                [one.shown(index, bars) for one, bars in zip(series, training, strict=True)]
            )
        fitted.append(fit_transform(group, values, crisp))
    return tuple(fitted)


def _assemble(
    series: list[SymbolSeries],
    labelled: list[LabelledRows],
    cuts: list[Cut],
    transforms: tuple[Transform, ...],
    names: tuple[str, ...],
) -> Dataset:
    """Split by split, symbol by symbol, stretch by stretch."""
    chosen = [
        (split, index, part)
        for split in SPLITS
        for index, parts in enumerate(cuts)
        for name, part in parts
        if name == split and len(part)
    ]
    columns = tuple(column for transform in transforms for column in transform.columns)
    count = sum(len(part) for _, _, part in chosen)
    inputs = np.empty((count, len(columns)), np.float32)
    segments, edges, row = list[Segment](), {split: [0, 0] for split in SPLITS}, 0
    for split, index, part in chosen:
        stop = row + len(part)
        bars = labelled[index].bars[part.start : part.stop]
        fill_matrix(inputs[row:stop], series[index], bars, transforms)
        segments.append(Segment(series[index].base.symbol, row, stop))
        row = stop
        edges[split][1] = stop
    splits = _splits(edges)
    kept = [(labelled[index], slice(part.start, part.stop)) for _, index, part in chosen]
    labels = np.concatenate([labelled[0].labels[:0], *(r.labels[part] for r, part in kept)])
    weights = np.concatenate([r.weights[part] for r, part in kept] or [np.empty(0, np.float32)])
    given = None if bool((weights == 1).all()) else weights
    return Dataset(
        inputs=inputs,
        labels=labels,
        timestamps=np.concatenate(
            [np.empty(0, np.int64), *(r.base.timestamps[r.bars[part]] for r, part in kept)]
        ),
        columns=columns,
        class_names=names,
        splits=splits,
        digest=dataset_digest(inputs, labels, splits, segments, given),
        segments=tuple(segments),
        weights=given,
        transforms=transforms,
    )


def _splits(edges: dict[str, list[int]]) -> Splits:
    """Each split begins where the one before ended."""
    start, ranges = 0, {}
    for split in SPLITS:
        stop = max(start, edges[split][1])
        ranges[split] = range(start, stop)
        start = stop
    return Splits(**ranges)
