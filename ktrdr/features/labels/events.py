"""CUSUM events: the bars at which labels are sampled."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ktrdr.data.bars import FloatArray


def cusum_events(closes: FloatArray, thresholds: FloatArray) -> NDArray[np.bool_]:
    """Marks the bars of a symmetric CUSUM filter.

    Lopez de Prado, Advances in Financial Machine Learning (2018), 2.5.2.1 with snippet 2.4: two
    sums of log returns, S+ = max(0, S+ + r) and S- = min(0, S- + r). A bar is an event when S+
    rises above its threshold h or S- falls below -h; that sum then starts again at 0. The first
    bar is none.

    Args:
        closes: above 0.
        thresholds: h of each bar, a log return, above 0.

    S+ is the log of the close over the lowest close since it last was 0, so that no sum is needed
    and no rounding gathers. Sequential, one pass over plain floats; a bar depends on no later one.
    """
    events = np.zeros(len(closes), dtype=np.bool_)
    factors = np.exp(thresholds)
    lowest, highest = math.inf, 0.0
    found = []
    for place, (close, factor) in enumerate(zip(closes.tolist(), factors.tolist(), strict=True)):
        if close < lowest:
            lowest = close
        elif close > lowest * factor:
            lowest = close
            found.append(place)
        if close > highest:
            highest = close
        elif close * factor < highest:
            highest = close
            found.append(place)
    events[found] = True
    return events
