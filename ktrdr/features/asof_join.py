"""As-of join of timeframes: a bar is known from its close on."""

from __future__ import annotations

import numpy as np

from ktrdr.data.bars import Bars, IntArray, timeframe_us


def last_closed(bars: Bars, base: Bars) -> IntArray:
    """For each base bar the index of the last of `bars` that has closed when it closes.

    -1 where none has. A bar closes one length of its timeframe after it opened; over a gap the
    last one before it stands.
    """
    if bars is base:
        return np.arange(len(base))
    closes = bars.timestamps + timeframe_us(bars.timeframe)
    moments = base.timestamps + timeframe_us(base.timeframe)
    return np.searchsorted(closes, moments, side="right") - 1
