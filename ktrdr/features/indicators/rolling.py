"""Sums, means and deviations over the last `period` values, without drift.

A running sum that adds the newest value and takes off the oldest keeps the rounding of everything
that ever went through it: after a busy day a quiet one has a volume of 1e-13 instead of 0. Here
every window is the sum of two parts that were each added up from zero: the end of one block of
`period` values and the start of the next (van Herk, Pattern Recognition Letters 13, 1992). That
costs the same for every period, and a window of equal values has a deviation of exactly 0.

Results are float64 [len(values)], NaN at the first period - 1 bars.
"""

from __future__ import annotations

import numpy as np
import talib
from numpy.typing import NDArray

from ktrdr.data.bars import FloatArray

_CHUNK = 16_384
_ROUNDING = 1e-13  # of a value; no market's prices lie that close to each other


def rolling_sum(values: FloatArray, period: int) -> FloatArray:
    blocks = _blocks(values, period)
    return _joined(blocks, blocks[:-1], len(values))


def rolling_mean(values: FloatArray, period: int) -> FloatArray:
    return rolling_sum(values, period) / period


def gap_and_deviation(values: FloatArray, period: int) -> tuple[FloatArray, FloatArray]:
    """How far each value lies above the mean of its window, and that window's standard deviation
    (of the population: divided by `period`).

    Each window is measured from one of its own values, so that nothing cancels. A deviation that
    is only the rounding of its values (an indicator over a market that stands still) counts as 0.
    """
    blocks = _blocks(values, period)
    level = blocks[:, :1]
    these, before = blocks - level, blocks[:-1] - level[1:]
    means = _joined(these, before, len(values)) / period
    squares = _joined(these * these, before * before, len(values)) / period
    gap = these.reshape(-1)[: len(values)] - means
    deviation = np.sqrt(np.maximum(squares - means * means, 0.0))
    deviation[deviation < _ROUNDING * np.abs(values)] = 0.0
    return gap, deviation


def rolling_rank(values: FloatArray, period: int) -> FloatArray:
    """How many of the period - 1 values before are smaller, in percent; equal ones count half."""
    ranks = np.full(len(values), np.nan)
    for start in range(period - 1, len(values), _CHUNK):
        these = values[start : start + _CHUNK]
        halves: NDArray[np.int32] = np.zeros(len(these), dtype=np.int32)
        for back in range(1, period):
            before = values[start - back : start - back + len(these)]
            halves += before < these
            halves += before <= these
        ranks[start : start + _CHUNK] = halves * 50.0 / (period - 1)
    return ranks


def highest(values: FloatArray, period: int) -> FloatArray:
    """TA-Lib's MAX, which knows no window of one value."""
    found: FloatArray = values.copy() if period == 1 else talib.MAX(values, period)
    return found


def lowest(values: FloatArray, period: int) -> FloatArray:
    """TA-Lib's MIN, which knows no window of one value."""
    found: FloatArray = values.copy() if period == 1 else talib.MIN(values, period)
    return found


def ema(values: FloatArray, period: int) -> FloatArray:
    """TA-Lib's EMA: begins as the mean of its first `period` values."""
    found: FloatArray = values.copy() if period == 1 else talib.EMA(values, period)
    return found


def ratio(numerator: FloatArray, denominator: FloatArray, otherwise: float = 0.0) -> FloatArray:
    """The quotient; `otherwise` where the denominator is 0."""
    found: FloatArray = np.full(len(numerator), otherwise)
    np.divide(numerator, denominator, out=found, where=denominator != 0)
    return found


def shifted(values: FloatArray, bars: int) -> FloatArray:
    """The value of so many bars before; NaN where there was none."""
    found = np.full(len(values), np.nan)
    found[bars:] = values[: max(len(values) - bars, 0)]
    return found


def _blocks(values: FloatArray, period: int) -> NDArray[np.float64]:
    """[blocks, period]; what lies behind the last value is 0 and is never part of a window."""
    count = -(-len(values) // period)
    padded = np.zeros(count * period)
    padded[: len(values)] = values
    return padded.reshape(count, period)


def _joined(these: NDArray[np.float64], before: NDArray[np.float64], length: int) -> FloatArray:
    """The sum of each window: the start of its block and the end of the block before."""
    period = these.shape[1]
    sums = np.cumsum(these, axis=1)
    sums[1:, :-1] += np.cumsum(before[:, :0:-1], axis=1)[:, ::-1]
    found: FloatArray = sums.reshape(-1)[:length]
    found[: period - 1] = np.nan
    return found
