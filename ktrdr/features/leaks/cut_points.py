"""The points in time after which the future is cut off or changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ktrdr.data.bars import Bars, IntArray, timeframe_us
from ktrdr.features.leaks.perturbations import is_told_by_bars
from ktrdr.features.leaks.pipeline_run import Fold, PipelineRun, SymbolRows


@dataclass(frozen=True)
class CutPoint:
    """The close of a base bar of a symbol, in microseconds UTC; `place` says why there."""

    symbol: str
    bar: int
    moment: int
    place: str


def sample_points(
    run: PipelineRun, count: int, random: np.random.Generator
) -> tuple[tuple[CutPoint, ...], ...]:
    """`count` different points of each symbol, in the order of time; fewer where bars are few.

    They are sampled in turn right after the warm-up, at the edges of splits, where a session ends,
    inside bars of each other timeframe, and anywhere. A bar follows each of them.
    """
    return tuple(_of_symbol(one, run.folds, count, random) for one in run.symbols)


def _of_symbol(
    one: SymbolRows, folds: tuple[Fold, ...], count: int, random: np.random.Generator
) -> tuple[CutPoint, ...]:
    sampled = {
        place: _in_random_order(bars, one, random) for place, bars in _places(one, folds).items()
    }
    found: dict[int, CutPoint] = {}
    while sampled and len(found) < count:
        for place in list(sampled):
            bar = next((bar for bar in sampled[place] if bar not in found), None)
            if bar is None:
                del sampled[place]
            elif len(found) < count:
                found[bar] = CutPoint(one.symbol, bar, one.moment(bar), place)
    return tuple(found[bar] for bar in sorted(found))


def _places(one: SymbolRows, folds: tuple[Fold, ...]) -> dict[str, IntArray]:
    """Indices of base bars, by what happens there."""
    base, first, last = one.series.base, one.series.first, len(one.series.base) - 2
    starts = sorted({piece.start for fold in folds for piece in fold.stretches})
    found = {
        "after the warm-up": np.array([first]),
        "edge of a split": np.searchsorted(base.timestamps, starts) - 1,
        "end of a session": np.flatnonzero(np.diff(base.timestamps) > timeframe_us(base.timeframe)),
    }
    for (_, timeframe), bars in one.market.series.items():
        if timeframe != base.timeframe:
            found[f"inside a {timeframe} bar"] = _inside(bars, base)
    found["anywhere"] = np.arange(first, last + 1)
    return {place: bars[(bars >= first) & (bars <= last)] for place, bars in found.items()}


def _inside(bars: Bars, base: Bars) -> IntArray:
    """The base bars that close while one of `bars` is open. (The pipeline's own join is what is
    being examined.)"""
    width = timeframe_us(bars.timeframe)
    moments = base.timestamps + timeframe_us(base.timeframe)
    opened = np.searchsorted(bars.timestamps, moments, "left") - 1
    return np.flatnonzero((opened >= 0) & (moments < bars.timestamps[opened] + width))


def _in_random_order(bars: IntArray, one: SymbolRows, random: np.random.Generator) -> Iterator[int]:
    return (
        int(bar)
        for bar in random.permutation(bars)
        if is_told_by_bars(one.market, one.moment(int(bar)))
    )
