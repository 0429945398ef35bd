"""Detection of unlikely prices and volumes: spikes, jumps, stale prices, splits.

Moves are measured in robust deviations: the median absolute log return (or range) of the bars
around, which a few wild bars cannot raise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ktrdr.data.bars import Bars, FloatArray, IntArray, timeframe_us

OUTLIER_DEVIATIONS = 60.0  # real crashes of liquid markets reach 30 to 60, seldom 100
TICK_DEVIATIONS = 25.0
SPLIT_RATIOS = (
    *(1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0),
    *(12.0, 15.0, 20.0, 25.0, 30.0, 40.0, 50.0, 100.0, 1000.0),
)

_DAY_US = 86_400_000_000
_MAD_TO_SIGMA = 1.4826
_BLOCK = 256
_FEWEST = 30  # returns to say what is usual
_RETURNED = 0.1  # of a spike may remain
_SPLIT_TOLERANCE = 0.025
_SPLIT_DEVIATIONS = 8.0
_NEIGHBOURS = 20  # bars on each side of a split whose volume is compared
_SHORTEST_RUN = 3


@dataclass(frozen=True, eq=False)
class Moves:
    """Places of bad ticks, of outliers in moves and in ranges, and of split-like jumps.

    `deviations` are those of each bar's move since the bar before (0 for the first), `stretch`
    those of its range.
    """

    ticks: IntArray
    moves: IntArray
    ranges: IntArray
    splits: IntArray
    deviations: FloatArray
    stretch: FloatArray


@dataclass(frozen=True, eq=False)
class Runs:
    """Runs of one kind of bar: first place and length, those of at least `shortest` bars."""

    share: float
    shortest: int
    start: IntArray
    length: IntArray


def find_moves(bars: Bars) -> Moves:
    """Each bar is at most of one kind: split, bad tick, outlier of its move, of its range."""
    close = np.log(bars.close)
    moved = np.diff(close, prepend=close[0])
    ranged = np.log(bars.high) - np.log(bars.low)
    broken = np.diff(bars.timestamps, prepend=bars.first) > timeframe_us(bars.timeframe)
    if timeframe_us(bars.timeframe) >= _DAY_US:
        broken[:] = False
    deviations = _deviations(moved, broken)
    stretch = _deviations(ranged, np.zeros(len(bars), bool))
    ticks = _ticks(moved, deviations)
    splits = np.setdiff1d(_splits(bars, deviations), np.concatenate([ticks, ticks + 1]))
    known = np.concatenate([ticks, ticks + 1, splits])
    moves = np.setdiff1d(np.flatnonzero(np.abs(deviations) > OUTLIER_DEVIATIONS), known)
    known = np.concatenate([known, moves])
    ranges = np.setdiff1d(np.flatnonzero(stretch > OUTLIER_DEVIATIONS), known)
    return Moves(ticks, moves, ranges, splits, deviations, stretch)


def split_name(ratio: float) -> str:
    """`2:1` for a price that halved, `1:10` for one that rose tenfold."""
    times = min(SPLIT_RATIOS, key=lambda r: abs(math.log(r) - abs(math.log(ratio))))
    new, old = (round(times * 2), 2) if times != round(times) else (round(times), 1)
    return f"{new}:{old}" if ratio < 1 else f"{old}:{new}"


def volume_ratio(volume: FloatArray, place: int) -> float | None:
    """The median volume of the bars from a place on, to that before; None where there is none."""
    before = volume[max(place - _NEIGHBOURS, 0) : place]
    after = volume[place : place + _NEIGHBOURS]
    if len(before) == 0 or np.median(before) == 0:
        return None
    return float(np.median(after) / np.median(before))


def find_stale(bars: Bars) -> Runs:
    """Bars that say nothing new: the same prices as the bar before, or flat at its close."""
    prices = (bars.open, bars.high, bars.low, bars.close)
    same = np.zeros(len(bars), bool)
    same[1:] = np.logical_and.reduce([p[1:] == p[:-1] for p in prices])
    same[1:] |= (bars.high[1:] == bars.low[1:]) & (bars.close[1:] == bars.close[:-1])
    return _runs(same)


def find_silent(bars: Bars) -> Runs:
    """Bars without volume."""
    return _runs(bars.volume == 0)


def _deviations(values: FloatArray, broken: NDArray[np.bool_]) -> FloatArray:
    """Each value in robust deviations of the values around; those of bars that follow a break (a
    night, a weekend) are compared with one another."""
    result = np.zeros(len(values))
    whole = ~broken
    scale = _scale(np.abs(values[whole]), _BLOCK)
    result[whole] = _divide(values[whole], scale)
    if broken.sum() >= _FEWEST:
        opening = np.maximum(_scale(np.abs(values[broken]), _BLOCK // 8), _typical(scale))
        result[broken] = _divide(values[broken], opening)
    return result


def _scale(sizes: FloatArray, block: int) -> FloatArray:
    """About one standard deviation of the values around each: the largest median of its block and
    the two beside, and at least a quarter of the median of all."""
    if len(sizes) < _FEWEST:
        return np.full(len(sizes), np.inf)
    whole = max(len(sizes) // block, 1)
    medians = np.array([np.median(part) for part in np.array_split(sizes, whole)])
    around = np.maximum.reduce([medians, np.append(medians[1:], 0), np.append(0, medians[:-1])])
    floor = float(np.median(sizes)) / 4
    if floor == 0:  # most bars stand still: what those that move do
        floor = float(np.median(sizes[sizes > 0])) if (sizes > 0).any() else np.inf
    counts = [len(part) for part in np.array_split(sizes, whole)]
    return _MAD_TO_SIGMA * np.repeat(np.maximum(around, floor), counts)


def _typical(scale: FloatArray) -> float:
    finite = scale[np.isfinite(scale)]
    return float(np.median(finite)) if len(finite) else 0.0


def _divide(values: FloatArray, scale: FloatArray) -> FloatArray:
    result: FloatArray = values / scale
    return result


def _ticks(moved: FloatArray, deviations: FloatArray) -> IntArray:
    """Return bars whose close jumps and whose next close is back."""
    there, back = moved[:-1], moved[1:]
    wild = (np.abs(deviations[:-1]) > TICK_DEVIATIONS) & (np.abs(there) > 0)
    return np.flatnonzero(wild & (np.abs(there + back) <= _RETURNED * np.abs(there)))


def _splits(bars: Bars, deviations: FloatArray) -> IntArray:
    """Bars that open, and stay, at a split's ratio to the close before."""
    ratio = np.ones(len(bars))
    ratio[1:] = bars.open[1:] / bars.close[:-1]
    away = np.abs(np.log(ratio))
    ratios = np.log(np.array(SPLIT_RATIOS))
    candidates = np.flatnonzero(away > ratios[0] - _SPLIT_TOLERANCE)
    near = np.abs(away[candidates, None] - ratios).min(axis=1, initial=np.inf) < _SPLIT_TOLERANCE
    candidates = candidates[near]
    # Too few bars to know what is usual have no deviations: there the ratio alone decides.
    wild = (np.abs(deviations[candidates]) > _SPLIT_DEVIATIONS) | (deviations[candidates] == 0)
    stays = _stays(bars.close, candidates, np.log(ratio[candidates]))
    splits: IntArray = candidates[wild & stays]
    return splits


def _stays(close: FloatArray, places: IntArray, jump: FloatArray) -> NDArray[np.bool_]:
    """Whether the closes after stand to those before about as the jump says."""
    around = places[:, None] + np.arange(-5, 5)
    level = np.log(close[np.clip(around, 0, len(close) - 1)])
    moved = np.median(level[:, 5:], axis=1) - np.median(level[:, :5], axis=1)
    stays: NDArray[np.bool_] = np.abs(moved - jump) < np.abs(jump) / 3
    return stays


def _runs(flags: NDArray[np.bool_]) -> Runs:
    """The runs of marked bars that are longer than chance and habit make them."""
    edges = np.flatnonzero(np.diff(flags.astype(np.int8), prepend=0, append=0))
    start, length = edges[::2], edges[1::2] - edges[::2]
    shortest = _unusual(length, len(flags))
    told = length >= shortest
    return Runs(float(flags.mean()), shortest, start[told], length[told])


def _unusual(lengths: IntArray, rows: int) -> int:
    """A run of m bars occurs somewhere by chance with rows * q^m; quiet hours make it likelier, so
    where runs are common their 95th percentile counts too."""
    if len(lengths) < 20:
        return _SHORTEST_RUN
    usual = float(np.percentile(lengths, 95, method="lower"))
    q = min(float(lengths[lengths <= usual].sum()) / rows, 0.95)
    chance = math.log(0.01 / rows) / math.log(q)
    return max(_SHORTEST_RUN, math.ceil(chance), math.ceil(3 * usual))
