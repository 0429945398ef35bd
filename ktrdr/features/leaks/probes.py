"""Probes at points in time: the future is cut off or changed, nothing before may change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ktrdr.data.bars import FloatArray, IntArray, format_us
from ktrdr.data.market import Market
from ktrdr.errors import DataNotFound, InvalidData
from ktrdr.features.cuts import LabelledRows
from ktrdr.features.dataset import label_rows
from ktrdr.features.leaks.comparison import (
    LABEL,
    ROWS,
    AnyArray,
    Kind,
    Leak,
    bits,
    differing,
    largest,
)
from ktrdr.features.leaks.cut_points import CutPoint
from ktrdr.features.leaks.perturbations import CHANGES, Change, with_other_future, without_future
from ktrdr.features.leaks.pipeline_run import PipelineRun, SymbolRows
from ktrdr.features.pipeline import SymbolSeries, compute_series


def leaks_at_points(
    run: PipelineRun,
    points: tuple[tuple[CutPoint, ...], ...],
    random: np.random.Generator,
    notes: list[str],
) -> Iterator[Leak]:
    """What changes at the points of each symbol, which come in the run's order."""
    for one, own in zip(run.symbols, points, strict=True):
        prober = _Prober(run, one)
        for place, point in enumerate(own):
            yield from prober.probe_cut(point)
            yield from prober.probe_changed(point, CHANGES[place % len(CHANGES)], random, notes)


class _Prober:
    """The inputs and labels of a symbol as the whole bars give them, to compare others with."""

    def __init__(self, run: PipelineRun, one: SymbolRows) -> None:
        self._strategy = run.strategy
        self._transforms = run.folds[0].dataset.transforms
        self._one = one
        bars = np.arange(one.series.first, len(one.series.base))
        self._columns = [
            list(transform.apply(one.series.shown(group, bars)))
            for group, transform in enumerate(self._transforms)
        ]

    def probe_cut(self, point: CutPoint) -> Iterator[Leak]:
        """What differs, up to the point, when no bar follows."""
        try:
            market = without_future(self._one.market, {point.symbol: point.moment})
            computed = self._computed(market)
        except (InvalidData, DataNotFound):  # the same bars were enough as long as more followed
            base = self._one.series.base
            opened, moment = int(base.timestamps[point.bar]), point.moment
            yield Leak(ROWS, base.timeframe, "cut", point.symbol, opened, 1, None, moment)
        else:
            yield from self._differences(point, "cut", *computed)

    def probe_changed(
        self, point: CutPoint, change: Change, random: np.random.Generator, notes: list[str]
    ) -> Iterator[Leak]:
        """What differs, up to the point, when other bars follow."""
        moments = {point.symbol: point.moment}
        try:
            market = with_other_future(self._one.market, moments, change, random)
            computed = self._computed(market)
        except InvalidData as error:  # it may be the other bars that cannot be computed with
            notes.append(
                f"{point.symbol}: other bars after {format_us(point.moment)} could not be tried:"
                f" {error.message}"
            )
        else:
            yield from self._differences(point, "perturbed", *computed)

    def _computed(self, market: Market) -> tuple[SymbolSeries, LabelledRows]:
        series = compute_series(self._strategy, market, self._one.symbol)
        return series, label_rows(self._strategy, series)

    def _differences(
        self, point: CutPoint, kind: Kind, series: SymbolSeries, rows: LabelledRows
    ) -> Iterator[Leak]:
        yield from self._rows(point, kind, series)
        yield from self._inputs(point, kind, series)
        yield from self._labels(point, rows)

    def _rows(self, point: CutPoint, kind: Kind, series: SymbolSeries) -> Iterator[Leak]:
        whole = self._one.series
        there, here = (one.base.timestamps[one.first : point.bar + 1] for one in (whole, series))
        missing = np.setxor1d(there, here)
        if len(missing):
            source, first, count = whole.base.timeframe, int(missing[0]), len(missing)
            yield Leak(ROWS, source, kind, point.symbol, first, count, None, point.moment)

    def _inputs(self, point: CutPoint, kind: Kind, series: SymbolSeries) -> Iterator[Leak]:
        whole = self._one.series
        first = max(whole.first, series.first)
        bars = np.arange(first, min(point.bar + 1, len(series.base)))
        for group, transform in enumerate(self._transforms):
            before, after = whole.shown(group, bars), series.shown(group, bars)
            changed = self._changed_columns(group, first, after)
            if not any(len(change.indices) for change in changed):
                changed = [_Change.between(before, after)] * len(changed)
            for column, change in zip(transform.columns, changed, strict=True):
                if len(change.indices):
                    yield Leak(
                        feature=column.name,
                        source=whole.groups[group].reference,
                        kind=kind,
                        symbol=point.symbol,
                        first=int(whole.base.timestamps[bars[change.indices[0]]]),
                        rows=len(change.indices),
                        largest_change=change.largest,
                        at=point.moment,
                    )

    def _changed_columns(self, group: int, first: int, after: FloatArray) -> list[_Change]:
        """Of the columns that the group's values from the bar `first` on become."""
        start = first - self._one.series.first
        part = slice(start, start + len(after))
        return [
            _Change.between(column[part], new)
            for column, new in zip(
                self._columns[group], self._transforms[group].apply(after), strict=True
            )
        ]

    def _labels(self, point: CutPoint, rows: LabelledRows) -> Iterator[Leak]:
        there, here = (_decided(one, point.bar) for one in (self._one.rows, rows))
        changed = np.flatnonzero(there.changed(here))
        if len(changed):
            stamps = self._one.series.base.timestamps
            yield Leak(
                feature=LABEL,
                source=self._strategy.training.labels.source,
                kind="label",
                symbol=point.symbol,
                first=int(stamps[changed[0]]),
                rows=len(changed),
                largest_change=there.largest(here),
                at=point.moment,
            )


@dataclass(frozen=True, eq=False)
class _Change:
    """At which indices two arrays differ, and by how much at most."""

    indices: IntArray
    largest: float | None

    @classmethod
    def between(cls, before: AnyArray, after: AnyArray) -> _Change:
        indices = differing(before, after)
        return cls(indices, largest(before[indices], after[indices]))


@dataclass(frozen=True, eq=False)
class _Decided:
    """By base bar, up to a point: whether its label is known there, the label, its weight."""

    known: NDArray[np.bool_]
    labels: AnyArray
    weights: AnyArray

    def changed(self, other: _Decided) -> NDArray[np.bool_]:
        changed: NDArray[np.bool_] = self.known != other.known
        changed |= bits(self.labels) != bits(other.labels)
        changed |= bits(self.weights) != bits(other.weights)
        return changed

    def largest(self, other: _Decided) -> float | None:
        """Of values; classes are no numbers."""
        both = self.known & other.known
        if self.labels.dtype.kind != "f" or not both.any():
            return None
        return largest(self.labels[both], other.labels[both])


def _decided(rows: LabelledRows, bar: int) -> _Decided:
    some = rows.is_sample & (rows.known_at <= bar)
    bars = rows.bars[some]
    known = np.zeros(bar + 1, np.bool_)
    labels, weights = np.zeros(bar + 1, rows.labels.dtype), np.zeros(bar + 1, np.float32)
    known[bars], labels[bars], weights[bars] = True, rows.labels[some], rows.weights[some]
    return _Decided(known, labels, weights)
