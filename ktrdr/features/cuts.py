"""Chronological splits into training, validation and test, purged and embargoed.

The cuts are moments, the same for every symbol. A row may stay in a part only if what its label
depends on is known `embargo` bars before the first bar of the next part that judges it, and only
if it lies as far behind the last label of an earlier part that judges it (Lopez de Prado, Advances
in Financial Machine Learning, 7.4). Of two neighbours the earlier in this order loses rows:
training, validation, test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ktrdr.data.bars import Bars, IntArray
from ktrdr.strategy.splits import AnySplit, PurgedKFold, WalkForward

_NEVER = np.iinfo(np.int64).max

SPLITS = ("train", "validation", "test")
"""In the order in which rows are given up: training first, test last."""


@dataclass(frozen=True)
class Piece:
    """A stretch of time for one use: [start, stop) in microseconds UTC; None: to the end."""

    split: str
    start: int
    stop: int | None


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """The rows of one symbol, in the order of time.

    `bars`: index of each row's bar in `base`. `known_at`: index of the last bar that its label
    depends on, never falling among samples. `weights`: float32, 0 where a row is no sample but
    only history for others.
    """

    base: Bars
    bars: IntArray
    labels: NDArray[np.int64] | NDArray[np.float32]
    known_at: IntArray
    weights: NDArray[np.float32]

    @property
    def is_sample(self) -> NDArray[np.bool_]:
        return self.weights > 0

    @property
    def moments(self) -> IntArray:
        """Open times of the samples."""
        moments: IntArray = self.base.timestamps[self.bars[self.is_sample]]
        return moments


Cut = tuple[tuple[str, range], ...]
"""The row ranges of one symbol, each with its split, in the order of time."""


def pieces(moments: IntArray, spec: AnySplit, fold: int) -> tuple[Piece, ...]:
    """The stretches of time of a fold (1-based), in their order.

    `moments` are those of all samples of all symbols, in any order; at least one.
    """
    ordered = np.sort(moments, kind="stable")  # quick where they rise already
    if isinstance(spec, WalkForward):
        edges = _walk_forward(len(ordered), spec, fold)
    elif isinstance(spec, PurgedKFold):
        edges = _purged_kfold(len(ordered), spec, fold)
    else:
        train = round(len(ordered) * spec.train)
        validated = round(len(ordered) * (spec.train + spec.validation)) if spec.test else None
        edges = [("train", 0, train), ("validation", train, validated)]
        edges += [] if validated is None else [("test", validated, None)]
    return tuple(
        Piece(split, _moment(ordered, start), None if stop is None else _moment(ordered, stop))
        for split, start, stop in edges
        if start < len(ordered) and (stop is None or start < stop)
    )


def cut(rows: LabelledRows, stretches: Sequence[Piece], embargo: int) -> Cut:
    """The row ranges of one symbol for each stretch, purged and embargoed; some may be empty.

    They begin and end with what is needed: no range ends with rows that are only history.
    """
    stamps = rows.base.timestamps
    starts = [int(np.searchsorted(stamps, piece.start)) for piece in stretches]
    stops = [
        len(stamps) if piece.stop is None else int(np.searchsorted(stamps, piece.stop))
        for piece in stretches
    ]
    ranges = [range(0)] * len(stretches)
    for index in sorted(range(len(stretches)), key=lambda i: -_worth(stretches[i])):
        worth, low, high = _worth(stretches[index]), starts[index], _NEVER
        for other, piece in enumerate(stretches):
            if _worth(piece) <= worth:
                continue
            if other > index:
                high = min(high, starts[other] - embargo)
            elif len(ranges[other]):
                low = max(low, int(rows.known_at[ranges[other][-1]]) + embargo + 1)
        ranges[index] = _samples_between(rows, low, stops[index], high)
    return tuple((piece.split, part) for piece, part in zip(stretches, ranges, strict=True))


def _worth(piece: Piece) -> int:
    return SPLITS.index(piece.split)


def _samples_between(rows: LabelledRows, first_bar: int, stop_bar: int, known_by: int) -> range:
    """Rows of the bars [first_bar, stop_bar), up to the last sample whose label is known before
    the bar `known_by`."""
    start = int(np.searchsorted(rows.bars, first_bar))
    stop = int(np.searchsorted(rows.bars, stop_bar))
    inside = start + np.flatnonzero(rows.is_sample[start:stop])
    known = int(np.searchsorted(rows.known_at[inside], known_by))
    return range(start, int(inside[known - 1]) + 1) if known else range(start, start)


def _moment(ordered: IntArray, place: int) -> int:
    """When the sample at a place opens; behind the last one, a moment after it."""
    return int(ordered[place]) if place < len(ordered) else int(ordered[-1]) + 1


def _walk_forward(count: int, spec: WalkForward, fold: int) -> list[tuple[str, int, int | None]]:
    untested = count * (1 - spec.test)
    step = count * spec.test / spec.folds
    tested = round(untested + step * (fold - 1))
    end = round(untested + step * fold)
    validated = max(0, tested - round(count * spec.validation))
    begin = 0 if spec.anchored else max(0, validated - round(count * spec.train))
    return [
        ("train", begin, validated),
        ("validation", validated, tested),
        ("test", tested, None if fold == spec.folds else end),
    ]


def _purged_kfold(count: int, spec: PurgedKFold, fold: int) -> list[tuple[str, int, int | None]]:
    begin, end = round(count * (fold - 1) / spec.folds), round(count * fold / spec.folds)
    training = round((count - (end - begin)) * (1 - spec.validation))
    test = ("test", begin, end)
    if training <= begin:  # the rows before the test are enough: the rest validates
        return [
            ("train", 0, training),
            ("validation", training, begin),
            test,
            ("validation", end, count),
        ]
    later = training - begin
    return [
        ("train", 0, begin),
        test,
        ("train", end, end + later),
        ("validation", end + later, count),
    ]
