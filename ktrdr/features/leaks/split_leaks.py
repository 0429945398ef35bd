"""Leaks from a later split into fitted values, and into the rows of an earlier split.

The bars from the beginning of a split on (less the embargo) become other ones, the edges between
splits stay where they are, and the whole training set is built again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ktrdr.data.bars import IntArray
from ktrdr.errors import InvalidData
from ktrdr.features.cuts import SPLITS, Piece, pieces
from ktrdr.features.dataset import Dataset, build_dataset, label_rows
from ktrdr.features.leaks.comparison import LABEL, ROWS, AnyArray, Leak, bits, differing, largest
from ktrdr.features.leaks.perturbations import CHANGES, Moments, with_other_future
from ktrdr.features.leaks.pipeline_run import Fold, PipelineRun
from ktrdr.features.transforms import Transform
from ktrdr.strategy.input_names import input_groups


def leaks_behind_splits(
    run: PipelineRun, fold: Fold, random: np.random.Generator, notes: list[str]
) -> Iterator[Leak]:
    """What changes before each split that judges an earlier one."""
    for place, later in enumerate(fold.stretches):
        if not any(_worth(piece) < _worth(later) for piece in fold.stretches[:place]):
            continue
        moments = _moments(run, later)
        evaluates_all = not any(piece.split == "train" for piece in fold.stretches[place:])
        others = _others(run, fold, moments, random)
        for other in others:
            yield from _rows_and_labels(run, fold.dataset, other, later, moments)
            if evaluates_all:
                yield from _fitted(run, fold.dataset, other, moments)
        if not others:
            notes.append(
                f"fold {fold.number}: whether training knows its {later.split} split could not be"
                " tried: with other bars in there, too little is left of it; use more bars"
            )


def _others(
    run: PipelineRun, fold: Fold, moments: Moments, random: np.random.Generator
) -> list[Dataset]:
    """The training set with other futures; without those that leave a split without samples."""
    found = []
    for change in CHANGES:
        market = with_other_future(run.market, moments, change, random)
        with contextlib.suppress(InvalidData):
            found.append(build_dataset(run.strategy, market, fold.number, fold.stretches))
    return found


def edges_follow_prices(run: PipelineRun, random: np.random.Generator) -> bool:
    """Whether the last fold's splits lie elsewhere with other prices in its last one.

    Edges are shares of the labelled rows, and how many there will be is up to the market where
    labels wait for an event.
    """
    fold, spec = run.folds[-1], run.strategy.training.data_split
    market = with_other_future(run.market, _moments(run, fold.stretches[-1]), CHANGES[0], random)
    opened = [
        label_rows(run.strategy, replace(one.series, base=market.base(one.symbol))).moments
        for one in run.symbols
    ]
    return pieces(np.concatenate(opened), spec, fold.number) != fold.stretches


def _worth(piece: Piece) -> int:
    return SPLITS.index(piece.split)


def _moments(run: PipelineRun, later: Piece) -> Moments:
    """The close of the last bar that rows before the later may know, of each symbol."""
    embargo = run.strategy.training.data_split.embargo
    return {
        one.symbol: one.moment(
            int(np.searchsorted(one.series.base.timestamps, later.start)) - embargo - 1
        )
        for one in run.symbols
    }


def _rows_and_labels(
    run: PipelineRun, before: Dataset, after: Dataset, later: Piece, moments: Moments
) -> Iterator[Leak]:
    labels, split = run.strategy.training.labels, run.strategy.training.data_split
    for name in SPLITS[: _worth(later)]:
        for symbol, moment in moments.items():
            there = _Samples.of(before, name, symbol, later.start)
            here = _Samples.of(after, name, symbol, later.start)
            missing = np.setxor1d(there.opened, here.opened)
            if len(missing):
                first, count = int(missing[0]), len(missing)
                source = f"{name} of {split.mode}"
                yield Leak(ROWS, source, "split", symbol, first, count, None, moment)
                continue
            changed = np.flatnonzero(
                (bits(there.labels) != bits(here.labels))
                | (bits(there.weights) != bits(here.weights))
            )
            if len(changed):
                values = there.labels.dtype.kind == "f"
                yield Leak(
                    feature=LABEL,
                    source=labels.source,
                    kind="label",
                    symbol=symbol,
                    first=int(there.opened[changed[0]]),
                    rows=len(changed),
                    largest_change=largest(there.labels, here.labels) if values else None,
                    at=moment,
                )


@dataclass(frozen=True, eq=False)
class _Samples:
    """Samples of one symbol in one split that open before a moment."""

    opened: IntArray
    labels: AnyArray
    weights: AnyArray

    @classmethod
    def of(cls, dataset: Dataset, split: str, symbol: str, before: int) -> _Samples:
        rows: range = getattr(dataset.splits, split)
        inside = np.zeros(len(dataset.labels), np.bool_)
        for part in dataset.segments:
            if part.symbol == symbol:
                inside[max(part.start, rows.start) : min(part.stop, rows.stop)] = True
        weights = dataset.weights
        weights = np.ones(len(inside), np.float32) if weights is None else weights
        inside &= (dataset.timestamps < before) & (weights > 0)
        return cls(dataset.timestamps[inside], dataset.labels[inside], weights[inside])


def _fitted(run: PipelineRun, before: Dataset, after: Dataset, moments: Moments) -> Iterator[Leak]:
    """What was fitted, and the columns of training rows in which something else was."""
    column, rows = 0, before.splits.train
    same_rows = np.array_equal(before.timestamps[: rows.stop], after.timestamps[: rows.stop])
    for group, there, here in zip(
        input_groups(run.strategy), before.transforms, after.transforms, strict=True
    ):
        if there.as_json() != here.as_json():
            change, moment = largest(_numbers(there), _numbers(here)), max(moments.values())
            for name in there.names:
                yield Leak(name, group.reference, "fit", None, None, 0, change, moment)
        elif same_rows:
            for place, name in enumerate(there.names, column):
                yield from _column(before, after, place, (name, group.reference), moments)
        column += len(there.names)


def _column(
    before: Dataset, after: Dataset, place: int, called: tuple[str, str], moments: Moments
) -> Iterator[Leak]:
    for part in before.segments_of(before.splits.train):
        rows = slice(part.start, part.stop)
        there, here = before.inputs[rows, place], after.inputs[rows, place]
        changed = differing(there, here)
        if len(changed):
            symbol = next(s.symbol for s in before.segments if s.start == part.start)
            first = int(before.timestamps[part.start + int(changed[0])])
            change = largest(there, here)
            yield Leak(*called, "fit", symbol, first, len(changed), change, moments[symbol])


def _numbers(transform: Transform) -> AnyArray:
    """All that was fitted about it."""
    found = [] if transform.scaler is None else [transform.scaler.centre, transform.scaler.scale]
    for _, curve in transform.memberships:
        found += curve.parameters
    return np.array(found)
