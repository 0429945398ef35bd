"""Regime labels: trending, ranging, or a crisis of volatility."""

from __future__ import annotations

import numpy as np
import talib
from numpy.typing import NDArray

from ktrdr.data.bars import Bars, FloatArray, IntArray
from ktrdr.features.labels.classes import (
    RANGING,
    TREND_DOWN,
    TREND_UP,
    VOLATILE,
    Labels,
)
from ktrdr.features.labels.swings import Pivots, find_pivots
from ktrdr.strategy.labels import RegimeLabels

_FEWEST_PIVOTS = 4  # two lows and two highs: fewer show no structure

Moments = tuple[FloatArray, FloatArray, int]  # mean and sum of squared deviations, of so many


def regime(bars: Bars, spec: RegimeLabels) -> Labels:
    """The regime that a bar is in, read from swings of two sizes and from what is ahead.

    1. Pivots of two sizes (see `find_pivots`): a pivot is known at the first bar whose close has
       come back from it by `macro_atr_mult` (`micro_atr_mult`) times the average true range at the
       pivot (TA-Lib's ATR over `atr_period` bars). The bars from one macro pivot up to, but
       without, the next are a segment.
    2. A segment from a macro low is TREND_UP when its micro lows rise: of those that have a micro
       low before them in the segment, a share of `progression_tolerance` or more is higher than
       that. A segment from a macro high is TREND_DOWN when its micro highs fall likewise. Micro
       pivots on the bars of both macro pivots belong to the segment; those count that are known
       when the macro pivot at its end is. With fewer than four of them, as where too few progress,
       the segment is RANGING: a straight line shows no structure.
    3. A bar is VOLATILE, whatever its segment, when the sample standard deviation of the next
       `atr_period` log returns is above `vol_crisis_threshold` times that of the last
       `vol_lookback` ones, and the latter is not 0.

    A label is known when its segment's end and the next `atr_period` bars are. Bars before the
    first and from the last known macro pivot on, and the first `vol_lookback` bars, have none.
    """
    count = len(bars)
    ranges: FloatArray = talib.ATR(bars.high, bars.low, bars.close, spec.atr_period)
    macro = find_pivots(bars.close, distances=spec.macro_atr_mult * ranges)
    micro = find_pivots(bars.close, distances=spec.micro_atr_mult * ranges)
    values, known_at = np.full(count, RANGING), np.full(count, count)
    if len(macro.indices) > 1:
        rows = np.arange(max(macro.indices[0], spec.vol_lookback), macro.indices[-1])
        segment = np.searchsorted(macro.indices, rows, side="right") - 1
        values[rows] = _classes(macro, micro, bars.close, spec.progression_tolerance)[segment]
        known_at[rows] = np.maximum(macro.known[segment + 1], rows + spec.atr_period)
        values[_is_volatile(bars.close, spec)] = VOLATILE
    return Labels(values, known_at < count, known_at)


def _classes(macro: Pivots, micro: Pivots, closes: FloatArray, tolerance: float) -> IntArray:
    """The class of each segment between macro pivots, volatility aside."""
    first = np.searchsorted(micro.indices, macro.indices[:-1], side="left")
    stop = np.searchsorted(micro.indices, macro.indices[1:], side="right")
    stop = np.minimum(stop, np.searchsorted(micro.known, macro.known[1:], side="right"))
    enough = stop - first >= _FEWEST_PIVOTS
    prices = closes[micro.indices]
    upwards = macro.rising[:-1]
    share = np.zeros(len(first))
    for is_up in (True, False):
        of_kind = micro.rising == is_up
        progress = np.zeros(len(prices), dtype=np.bool_)
        # Lows and highs take turns: the pivot before of the same kind is the last but one.
        progress[2:] = prices[2:] > prices[:-2] if is_up else prices[2:] < prices[:-2]
        some = enough & (upwards == is_up)
        pairs = _tally(of_kind, first[some] + 2, stop[some])
        share[some] = _tally(of_kind & progress, first[some] + 2, stop[some]) / pairs
    trending = enough & (share >= tolerance)
    return np.where(trending, np.where(upwards, TREND_UP, TREND_DOWN), RANGING)


def _tally(flags: NDArray[np.bool_], starts: IntArray, stops: IntArray) -> IntArray:
    """How many flags are set within [start, stop)."""
    sums = np.concatenate(([0], np.cumsum(flags)))
    tally: IntArray = sums[stops] - sums[starts]
    return tally


def _is_volatile(closes: FloatArray, spec: RegimeLabels) -> NDArray[np.bool_]:
    """Where the next returns deviate that much more than the last; not where some are missing."""
    count, ahead, back = len(closes), spec.atr_period, spec.vol_lookback
    volatile = np.zeros(count, dtype=np.bool_)
    if count > ahead + back:
        returns = np.diff(np.log(closes))  # the one at t leads from bar t to t + 1
        after = _deviations(returns, ahead)[back:]
        before = _deviations(returns, back)[: len(after)]
        wild = after > spec.vol_crisis_threshold * before
        volatile[back : back + len(after)] = wild & (before > 0)
    return volatile


def _deviations(values: FloatArray, size: int) -> FloatArray:
    """The sample standard deviation of each window of `size` values, by its first value's place.

    A window depends on its own values only, and its deviation is exactly 0 where they do not vary.
    """
    _, squares, _ = _moments(values, size)
    return np.sqrt(squares / (size - 1))


def _moments(values: FloatArray, size: int) -> Moments:
    """Windows put together from halves (Chan, Golub and LeVeque, 1979)."""
    if size == 1:
        return values, np.zeros(len(values)), 1
    half = _moments(values, size // 2)
    whole = _joined(half, half)
    return _joined(whole, _moments(values, 1)) if size % 2 else whole


def _joined(left: Moments, right: Moments) -> Moments:
    """The moments of windows that begin as the left ones, each followed by a right one."""
    (mean, squares, size), (next_mean, next_squares, next_size) = left, right
    length = min(len(mean), len(next_mean) - size)
    step = next_mean[size : size + length] - mean[:length]
    whole = size + next_size
    joined = squares[:length] + next_squares[size : size + length]
    joined += step * step * (size * next_size / whole)
    return mean[:length] + step * (next_size / whole), joined, whole
