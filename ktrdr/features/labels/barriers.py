"""Triple-barrier labels: which barrier the price meets first after the close of a bar."""

from __future__ import annotations

import numpy as np
import polars as pl
import talib

from ktrdr.data.bars import Bars, FloatArray, IntArray
from ktrdr.features.labels.classes import BUY, HOLD, SELL, Labels, by_sign
from ktrdr.features.labels.events import cusum_events
from ktrdr.features.labels.uniqueness import average_uniqueness
from ktrdr.strategy.labels import TripleBarrierLabels

Pair = tuple[FloatArray, FloatArray]  # of the upper and the lower side

_EXPIRY_SHARE = 0.5  # of the volatility expected over the holding period
_STRETCH = 1 << 16  # bars searched at a time, so that the tables stay in the processor's cache


def triple_barrier(bars: Bars, spec: TripleBarrierLabels) -> Labels:
    """Which barrier the price meets first after the close of a bar.

    The barriers close * (1 + pt * vol) and close * (1 - sl * vol) are tested on the highs and lows
    of the next `max_holding_period` bars: upper BUY, lower SELL; both in one bar: by that bar's
    direction, HOLD if it has none. At expiry: the sign of the return if it is at least
    vol * sqrt(holding period) / 2, else HOLD. (Lopez de Prado, Advances in Financial Machine
    Learning, 3.4.) Every label waits for the whole period, also one that is decided early: else
    the last rows before an edge would be the quick ones only.

    Bars without a volatility, or with one of 0, have no label. With `cusum_threshold` the others
    have one at events only (see `cusum_events`). With `compute_weights` the weight of a row is its
    average uniqueness (see `average_uniqueness`): it depends on the labels that were made before
    its own was decided, whatever becomes of those, and on no bar after that.
    """
    count, hold = len(bars), spec.max_holding_period
    volatility = _volatility(bars, spec)
    barriers = _barriers(bars, volatility, spec)
    entries = _entries(bars, volatility, spec)
    met = _first_met(bars, entries, barriers, hold)
    final = entries + hold < count
    rows, at = entries[final], met[final]
    expected = volatility[rows] * np.sqrt(hold)
    values, valid = np.full(count, HOLD), np.zeros(count, dtype=np.bool_)
    values[rows] = np.where(
        at > rows + hold,
        _at_expiry(bars.close[rows + hold] / bars.close[rows] - 1, expected),
        _at_barrier(bars, rows, np.minimum(at, rows + hold), barriers),
    )
    valid[rows] = True
    weights = None
    if spec.compute_weights:
        unique = average_uniqueness(entries, np.minimum(met, entries + hold), count)
        weights = np.zeros(count, dtype=np.float32)
        weights[rows] = unique[final]
    return Labels(values, valid, np.arange(count) + hold, weights)


def _volatility(bars: Bars, spec: TripleBarrierLabels) -> FloatArray:
    """Expected move of one bar as a fraction of the close; NaN before `vol_span` bars are known.

    `atr`: average true range over the close; `close`: the exponentially weighted standard
    deviation (span `vol_span`) of close-to-close returns.
    """
    if spec.vol_method == "atr":
        ranges: FloatArray = talib.ATR(bars.high, bars.low, bars.close, spec.vol_span)
        return ranges / bars.close
    returns = pl.Series(bars.close).pct_change()
    deviations = returns.ewm_std(span=spec.vol_span, min_samples=spec.vol_span)
    return deviations.cast(pl.Float64).fill_null(np.nan).to_numpy()


def _entries(bars: Bars, volatility: FloatArray, spec: TripleBarrierLabels) -> IntArray:
    """Return the bars at whose close a label begins; CUSUM starts at the first of them."""
    indices = np.flatnonzero(volatility > 0)
    if spec.cusum_threshold is None or len(indices) == 0:
        return indices
    since = slice(indices[0], None)
    if spec.cusum_threshold == "auto":
        thresholds = spec.cusum_multiplier * volatility[since]
    else:
        thresholds = np.full(len(volatility[since]), spec.cusum_threshold)
    events = cusum_events(bars.close[since], thresholds)
    at_events: IntArray = indices[events[indices - indices[0]]]
    return at_events


def _barriers(bars: Bars, volatility: FloatArray, spec: TripleBarrierLabels) -> Pair:
    """Upper and lower barrier of each bar; one out of all reach is infinite."""
    return (
        bars.close * (1 + spec.pt_multiplier * volatility),
        bars.close * (1 - spec.sl_multiplier * volatility),
    )


def _at_barrier(bars: Bars, rows: IntArray, at: IntArray, barriers: Pair) -> IntArray:
    """The class of each row by the barrier that bar `at` meets."""
    upper, lower = barriers
    above, below = bars.high[at] >= upper[rows], bars.low[at] <= lower[rows]
    direction = by_sign(bars.close[at] - bars.open[at])
    return np.where(above & below, direction, np.where(above, BUY, SELL))


def _at_expiry(returns: FloatArray, expected: FloatArray) -> IntArray:
    return np.where(np.abs(returns) >= expected * _EXPIRY_SHARE, by_sign(returns), HOLD)


def _first_met(bars: Bars, entries: IntArray, barriers: Pair, hold: int) -> IntArray:
    """The first bar after each entry that meets one of its barriers.

    Where none does within `hold` bars: some later bar, or the number of bars.
    """
    met = np.empty_like(entries)
    stretch = max(_STRETCH, hold)
    for start in range(0, len(bars), stretch):
        some = slice(*np.searchsorted(entries, [start, start + stretch]))
        rows = entries[some]
        ahead = slice(start + 1, min(start + stretch + hold, len(bars)))
        ranges = bars.high[ahead], bars.low[ahead]
        wanted = barriers[0][rows], barriers[1][rows]
        met[some] = start + 1 + _search(ranges, rows - start, wanted, hold)
    return met


def _search(ranges: Pair, indices: IntArray, barriers: Pair, hold: int) -> IntArray:
    """Step over blocks of 2^k bars that meet no barrier, from long to short ones.

    What is left then is the first bar that meets one. Exact, and the work of a row grows with the
    logarithm of the holding period.
    """
    upper, lower = barriers
    end = len(ranges[0])
    for size, (highs, lows) in reversed(list(enumerate(_block_extremes(ranges, hold)))):
        clear = (highs[indices] < upper) & (lows[indices] > lower)
        indices = np.minimum(indices + (clear.astype(np.int64) << size), end)
    return indices


def _block_extremes(ranges: Pair, hold: int) -> list[Pair]:
    """Highest high and lowest low of the blocks of 2^k bars from each bar on, k = 0, 1, ...

    Blocks end with the bars; one more place, behind them, meets no barrier. All the blocks in a
    row are at least `hold` bars long.
    """
    highs, lows = np.append(ranges[0], -np.inf), np.append(ranges[1], np.inf)
    levels = [(highs, lows)]
    for size in range(hold.bit_length() - 1):
        step = 1 << size
        longer_highs, longer_lows = highs.copy(), lows.copy()
        np.maximum(highs[:-step], highs[step:], out=longer_highs[:-step])
        np.minimum(lows[:-step], lows[step:], out=longer_lows[:-step])
        highs, lows = longer_highs, longer_lows
        levels.append((highs, lows))
    return levels
