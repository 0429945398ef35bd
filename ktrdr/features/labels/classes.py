"""The labels that every source returns, and the names of their classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ktrdr.data.bars import FloatArray, IntArray

LabelArray = NDArray[np.int64] | NDArray[np.float32]

CLASS_NAMES = ("BUY", "HOLD", "SELL")
BUY, HOLD, SELL = range(3)

CONTEXT_NAMES = ("BULLISH", "BEARISH", "NEUTRAL")
BULLISH, BEARISH, NEUTRAL = range(3)

REGIME_NAMES = ("TREND_UP", "TREND_DOWN", "RANGING", "VOLATILE")
TREND_UP, TREND_DOWN, RANGING, VOLATILE = range(4)


@dataclass(frozen=True, eq=False)
class Labels:
    """A class per bar (int64), or a value (float32).

    `valid` marks the bars whose label is final within these bars. `known_at` is the index of the
    last bar that a valid label and its weight depend on: that bar makes the row valid, later ones
    change nothing. It never decreases from one valid bar to the next. `weights` (float32) says how
    much of its own a label has to tell, above 0 and at most 1 where valid, else 0; None: all alike.
    """

    values: LabelArray
    valid: NDArray[np.bool_]
    known_at: IntArray
    weights: NDArray[np.float32] | None = None


def by_sign(moves: FloatArray) -> IntArray:
    """BUY for a rise, SELL for a fall, HOLD for neither."""
    return np.where(moves > 0, BUY, np.where(moves < 0, SELL, HOLD))
