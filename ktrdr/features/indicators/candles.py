"""TA-Lib's candle patterns: 100 where a bullish one ends, -100 for a bearish one, else 0.

Some say more: 200 for a confirmed hikkake, 80 for an engulfing or harami that shares an edge.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import talib
from talib import abstract

from ktrdr.data.bars import Bars, FloatArray
from ktrdr.features.indicators.definition import IndicatorDefinition, Outputs, Parameters
from ktrdr.strategy.candle_patterns import CANDLE_PATTERNS


def _definition(name: str) -> IndicatorDefinition:
    function = getattr(talib, name.upper())

    def compute(bars: Bars, _: FloatArray, p: Parameters) -> Outputs:
        found = function(bars.open, bars.high, bars.low, bars.close, **p).astype(np.float64)
        found[: _lookback(name)] = np.nan  # TA-Lib says 0 where it cannot know
        return (found,)

    return IndicatorDefinition(compute, lambda _: (_lookback(name),))


@cache
def _lookback(name: str) -> int:
    """Bars that TA-Lib needs before the first value; penetration does not change it."""
    return int(getattr(abstract, name.upper()).lookback)


DEFINITIONS: dict[str, IndicatorDefinition] = {name: _definition(name) for name in CANDLE_PATTERNS}
