"""Zigzag swings, and labels that say which swing a bar is in."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ktrdr.data.bars import Bars, FloatArray, IntArray
from ktrdr.features.labels.classes import BUY, HOLD, SELL, Labels


@dataclass(frozen=True, eq=False)
class Pivots:
    """Where swings end, in the order of time; lows and highs take turns.

    `indices` and `known` are indices of bars: the pivot, and the bar that made it known. `rising`
    says whether the pivot is a low, so that a rise follows.
    """

    indices: IntArray
    known: IntArray
    rising: NDArray[np.bool_]


def zigzag(bars: Bars, threshold: float) -> Labels:
    """The swing that a bar is in: BUY while it rises, SELL while it falls, HOLD at its pivots.

    A pivot is the first highest (lowest) close of a swing; it is known when a later close has come
    back from it by `threshold`, as a fraction. A bar between two pivots is known with the later
    one. Bars before the first and after the last known pivot have no label.
    """
    count = len(bars)
    pivots = find_pivots(bars.close, share=threshold)
    values, known_at = np.full(count, HOLD), np.full(count, count)
    valid = np.zeros(count, dtype=np.bool_)
    if len(pivots.indices):
        rows = np.arange(pivots.indices[0], pivots.indices[-1] + 1)
        swing = np.searchsorted(pivots.indices, rows, side="right") - 1
        is_pivot = pivots.indices[swing] == rows
        values[rows] = np.where(is_pivot, HOLD, np.where(pivots.rising[swing], BUY, SELL))
        known_at[rows] = pivots.known[swing + ~is_pivot]
        valid[rows] = True
    return Labels(values, valid, known_at)


def find_pivots(
    closes: FloatArray, *, share: float = 0.0, distances: FloatArray | None = None
) -> Pivots:
    """The pivots that these closes make known.

    A pivot is the first highest (lowest) close of a swing, which begins with the pivot before. Once
    that one is known, it is known at the first later bar whose close has truly come back from it:
    by `share` of the pivot's close plus the distance of the pivot's bar, in units of price. Bars
    that have no distance yet (NaN) are passed over.

    One pass over plain floats: a swing's end depends on its beginning, so this is sequential.
    """
    start = 0 if distances is None else int(np.count_nonzero(np.isnan(distances)))
    steps = itertools.repeat(0.0) if distances is None else distances[start:].tolist()
    up, down = 1 + share, 1 - share
    indices: list[int] = []
    known: list[int] = []
    low = high = start  # indices of the extremes of the swing
    lowest, highest = math.inf, -math.inf
    bottom_at, top_at = math.inf, -math.inf  # closes that make them known
    rising: bool | None = None  # unknown before the first pivot
    for place, (close, step) in enumerate(zip(closes[start:].tolist(), steps, strict=False), start):
        if rising is not True:
            if close < lowest:
                low, lowest, bottom_at = place, close, close * up + step
            elif close >= bottom_at and close > lowest:
                indices.append(low)
                known.append(place)
                rising, high, highest, top_at = True, place, close, close * down - step
        if rising is not False:
            if close > highest:
                high, highest, top_at = place, close, close * down - step
            elif close <= top_at and close < highest:
                indices.append(high)
                known.append(place)
                rising, low, lowest, bottom_at = False, place, close, close * up + step
    # Lows and highs take turns up to the last one.
    is_low = (np.arange(len(indices)) % 2 == (len(indices) - 1) % 2) == bool(rising)
    return Pivots(np.array(indices, dtype=np.int64), np.array(known, dtype=np.int64), is_low)
