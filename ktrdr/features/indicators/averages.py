"""Moving averages and regression lines of one series."""

from __future__ import annotations

import math

import talib

from ktrdr.data.bars import Bars, FloatArray
from ktrdr.features.indicators.definition import (
    IndicatorDefinition,
    Outputs,
    Parameters,
    of_series,
    whole,
)
from ktrdr.features.indicators.rolling import ratio


def _hull(source: FloatArray, period: int) -> FloatArray:
    """Hull (2005): WMA(2 WMA(n / 2) - WMA(n), sqrt(n)), both divisions rounded down."""
    raw = 2 * talib.WMA(source, period // 2) - talib.WMA(source, period)
    return talib.WMA(raw, math.isqrt(period))


def _distance(_: Bars, source: FloatArray, p: Parameters) -> Outputs:
    """100 (source - average) / average; 0 where the average is 0."""
    average = talib.EMA if p["ma_type"] == "ema" else talib.SMA
    level = average(source, whole(p))
    return (100 * ratio(source - level, level),)


DEFINITIONS: dict[str, IndicatorDefinition] = {
    "sma": of_series(talib.SMA),
    "ema": of_series(talib.EMA),
    "wma": of_series(talib.WMA),
    "dema": IndicatorDefinition(
        lambda _, source, p: (talib.DEMA(source, whole(p)),), lambda p: (2 * (whole(p) - 1),)
    ),
    "tema": IndicatorDefinition(
        lambda _, source, p: (talib.TEMA(source, whole(p)),), lambda p: (3 * (whole(p) - 1),)
    ),
    "kama": of_series(talib.KAMA, extra=0),
    "hma": IndicatorDefinition(
        lambda _, source, p: (_hull(source, whole(p)),),
        lambda p: (whole(p) + math.isqrt(whole(p)) - 2,),
    ),
    "linreg_slope": of_series(talib.LINEARREG_SLOPE),
    "linreg_angle": of_series(talib.LINEARREG_ANGLE),
    "distancefromma": IndicatorDefinition(_distance, lambda p: (whole(p) - 1,)),
}
