"""Synthetic bars, marked as such, to try everything without market data."""

from __future__ import annotations

import numpy as np

from ktrdr.data.bars import SECOND_US, Bars, FloatArray, IntArray, timeframe_us

SAMPLE_SYMBOL = "SAMPLE"
SAMPLE_TIMEFRAME = "1h"
SAMPLE_ROWS = 20_000
SAMPLE_SEED = 7

_START_US = 1_577_836_800 * SECOND_US  # 2020-01-01
_REGIME_BARS = 250  # mean length of a regime
_DRIFTS = np.array([0.0012, -0.0012, 0.0, 0.0])
_VOLATILITIES = np.array([0.004, 0.005, 0.002, 0.009])
_TICK = 4  # decimals of a price


def sample_bars(
    symbol: str = SAMPLE_SYMBOL,
    timeframe: str = SAMPLE_TIMEFRAME,
    rows: int = SAMPLE_ROWS,
    seed: int = SAMPLE_SEED,
) -> Bars:
    """A market that switches between rising, falling, quiet and wild regimes.

    Its trends last long enough for a strategy to learn a little. The same arguments give the same
    bits: only correctly rounded operations and integer draws are used, no `exp` or `log`, whose
    last bit differs between machines.
    """
    random = np.random.Generator(np.random.PCG64(seed))
    regimes = _regimes(random, rows)
    moves = _DRIFTS[regimes] + _VOLATILITIES[regimes] * _noise(random, rows)
    closes = np.round(100.0 * np.cumprod(1.0 + _pulled_back(moves)), _TICK)
    opens = np.concatenate(([100.0], closes[:-1]))
    reach = _VOLATILITIES[regimes] * closes * 0.5
    highs = np.round(np.maximum(opens, closes) + reach * random.random(rows), _TICK)
    lows = np.round(np.minimum(opens, closes) - reach * random.random(rows), _TICK)
    volumes = np.round(1000.0 * (0.5 + random.random(rows)) * (1.0 + 200.0 * np.abs(moves)))
    stamps = _START_US + timeframe_us(timeframe) * np.arange(rows, dtype=np.int64)
    return Bars(symbol, timeframe, stamps, opens, highs, lows, closes, volumes)


def _regimes(random: np.random.Generator, rows: int) -> IntArray:
    """The regime of each bar; a new one is drawn with probability 1 / _REGIME_BARS."""
    switches = random.integers(_REGIME_BARS, size=rows) == 0
    drawn = random.integers(len(_DRIFTS), size=rows)
    switches[0] = True
    regimes: IntArray = drawn[np.flatnonzero(switches)[np.cumsum(switches) - 1]]
    return regimes


def _noise(random: np.random.Generator, rows: int) -> FloatArray:
    """About normal, variance 1: a sum of twelve uniform draws."""
    total = np.full(rows, -6.0)
    for draws in random.random((12, rows)):
        total += draws
    return total


def _pulled_back(moves: FloatArray) -> FloatArray:
    """Centre the moves over long stretches, so that the price neither dies nor explodes."""
    stretch = 2_000
    centred = moves.copy()
    for start in range(0, len(moves), stretch):
        part = centred[start : start + stretch]
        part -= part.cumsum()[-1] / len(part)
    return centred
