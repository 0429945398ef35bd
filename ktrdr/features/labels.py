"""What a model is to foresee. Labels look at the future by declaration and are never inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import talib
from numpy.typing import NDArray

from ktrdr.data.bars import Bars, FloatArray, IntArray
from ktrdr.errors import InvalidData
from ktrdr.strategy.labels import ForwardReturnLabels, TripleBarrierLabels, ZigzagLabels

LabelSpec = ZigzagLabels | TripleBarrierLabels | ForwardReturnLabels
LabelArray = NDArray[np.int64] | NDArray[np.float32]

CLASS_NAMES = ("BUY", "HOLD", "SELL")
BUY, HOLD, SELL = range(3)

_EXPIRY_SHARE = 0.5  # of the volatility expected over the holding period


@dataclass(frozen=True, eq=False)
class Labels:
    """A class per bar (int64), or a value (float32).

    `valid` marks the bars whose label is final within these bars. `known_at` is the index of the
    last bar that a valid label depends on; it never decreases from one valid bar to the next.
    """

    values: LabelArray
    valid: NDArray[np.bool_]
    known_at: IntArray
    weights: NDArray[np.float32] | None = None


def make_labels(spec: LabelSpec, bars: Bars) -> Labels:
    """The labels that a strategy asks for."""
    match spec:
        case ZigzagLabels():
            return zigzag(bars, spec.zigzag_threshold)
        case TripleBarrierLabels():
            return triple_barrier(bars, spec)
        case ForwardReturnLabels():
            return forward_return(bars, spec.horizon)


def class_names(spec: LabelSpec) -> tuple[str, ...]:
    """What the classes are called, in the order of their numbers; none where labels are values."""
    return () if isinstance(spec, ForwardReturnLabels) else CLASS_NAMES


def forward_return(bars: Bars, horizon: int) -> Labels:
    """How far the close moves within the next `horizon` bars: close[t + horizon] / close[t] - 1.

    Bars without that future have no label. Raises InvalidData where float32 cannot hold the change.
    """
    count = len(bars)
    places = np.arange(count)
    values = np.zeros(count, dtype=np.float32)
    with np.errstate(over="ignore"):
        values[: max(0, count - horizon)] = bars.close[horizon:] / bars.close[:-horizon] - 1
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise InvalidData(
            f"the close of {bars.symbol} {bars.timeframe} changes too much for float32 within "
            f"{horizon} bars of row {int(bad[0]):,}; check the bars there",
            rows=len(bad),
        )
    return Labels(values, places + horizon < count, places + horizon)


def triple_barrier(bars: Bars, spec: TripleBarrierLabels) -> Labels:
    """Which barrier the price meets first after the close of a bar.

    The barriers close * (1 + pt * vol) and close * (1 - sl * vol) are tested on the highs and lows
    of the next `max_holding_period` bars: upper BUY, lower SELL; both in one bar: by that bar's
    direction, HOLD if it has none. At expiry: the sign of the return if it is at least
    vol * sqrt(holding period) / 2, else HOLD. (Lopez de Prado, Advances in Financial Machine
    Learning, 3.4.) Every label waits for the whole period, also one that is decided early: else
    the last rows before an edge would be the quick ones only.
    """
    count, hold = len(bars), spec.max_holding_period
    volatility = _volatility(bars, spec)
    valid = np.isfinite(volatility) & (np.arange(count) + hold < count)
    rows = np.flatnonzero(valid)
    upper = bars.close * (1 + spec.pt_multiplier * volatility)
    lower = bars.close * (1 - spec.sl_multiplier * volatility)
    values, waiting = _walk_to_barriers(bars, rows, upper, lower, hold)
    returns = bars.close[waiting + hold] / bars.close[waiting] - 1
    decided = np.abs(returns) >= volatility[waiting] * np.sqrt(hold) * _EXPIRY_SHARE
    values[waiting] = np.where(decided, _by_sign(returns), HOLD)
    return Labels(values, valid, np.arange(count) + hold)


def zigzag(bars: Bars, threshold: float) -> Labels:
    """The swing that a bar is in: BUY while it rises, SELL while it falls, HOLD at its pivots.

    A pivot is the first highest (lowest) close of a swing; it is known when a later close has come
    back from it by `threshold`, as a fraction. A bar between two pivots is known with the later
    one. Bars before the first and after the last known pivot have no label.
    """
    count = len(bars)
    pivots, known, rising = _pivots(bars.close, threshold)
    values, known_at = np.full(count, HOLD), np.full(count, count)
    valid = np.zeros(count, dtype=np.bool_)
    if len(pivots):
        rows = np.arange(pivots[0], pivots[-1] + 1)
        swing = np.searchsorted(pivots, rows, side="right") - 1
        is_pivot = pivots[swing] == rows
        values[rows] = np.where(is_pivot, HOLD, np.where(rising[swing], BUY, SELL))
        known_at[rows] = known[np.where(is_pivot, swing, swing + 1 - (swing == len(pivots) - 1))]
        valid[rows] = True
    return Labels(values, valid, known_at)


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


def _walk_to_barriers(
    bars: Bars, rows: IntArray, upper: FloatArray, lower: FloatArray, hold: int
) -> tuple[IntArray, IntArray]:
    """Labels of the rows that meet a barrier, and the rows that meet none within `hold` bars."""
    values = np.full(len(bars), HOLD)
    highs_needed, lows_needed = upper[rows], lower[rows]
    for step in range(1, hold + 1):
        at = rows + step
        above, below = bars.high[at] >= highs_needed, bars.low[at] <= lows_needed
        met = above | below
        if not met.any():
            continue
        direction = _by_sign(bars.close[at[met]] - bars.open[at[met]])
        one_side = np.where(above[met], BUY, SELL)
        values[rows[met]] = np.where(above[met] & below[met], direction, one_side)
        rows, highs_needed, lows_needed = rows[~met], highs_needed[~met], lows_needed[~met]
        if len(rows) == 0:
            break
    return values, rows


def _by_sign(moves: FloatArray) -> IntArray:
    return np.where(moves > 0, BUY, np.where(moves < 0, SELL, HOLD))


def _pivots(closes: FloatArray, threshold: float) -> tuple[IntArray, IntArray, NDArray[np.bool_]]:
    """Index of each known pivot, index of the bar that made it known, and whether a rise follows.

    One pass over plain floats: a swing's end depends on its beginning, so this is sequential.
    """
    found: list[tuple[int, int, bool]] = []
    up, down = 1 + threshold, 1 - threshold
    low = high = 0  # places of the extremes since the last pivot
    lowest = highest = float(closes[0]) if len(closes) else 0.0
    rising: bool | None = None  # unknown before the first pivot
    for place, close in enumerate(closes.tolist()):
        if close > highest:
            high, highest = place, close
        elif close < lowest:
            low, lowest = place, close
        if rising is not True and close >= lowest * up:
            found.append((low, place, True))
            rising, high, highest = True, place, close
        elif rising is not False and close <= highest * down:
            found.append((high, place, False))
            rising, low, lowest = False, place, close
    table = np.array(found, dtype=np.int64).reshape(-1, 3)
    return table[:, 0], table[:, 1], table[:, 2].astype(np.bool_)
