"""Volume indicators.

`obv` and `adline` add up from the first bar given: their level depends on where the bars begin,
and only their changes mean anything. A `zscore` or `linreg_slope` of one makes an input of it.
"""

from __future__ import annotations

import numpy as np
import talib

from ktrdr.data.bars import Bars, FloatArray
from ktrdr.features.indicators.definition import IndicatorDefinition, Outputs, Parameters, whole
from ktrdr.features.indicators.rolling import ratio, rolling_mean, rolling_sum


def _vwap(bars: Bars, source: FloatArray, p: Parameters) -> Outputs:
    """The mean of the source (hlc3 unless named) over `period` bars, weighted by volume; without
    any volume every bar weighs the same. Rolling, so that it does not depend on where a day or
    the data begin."""
    volumes = rolling_sum(bars.volume, whole(p))
    weighted = ratio(rolling_sum(source * bars.volume, whole(p)), volumes)
    return (np.where(volumes == 0, rolling_mean(source, whole(p)), weighted),)


def _money_flow(bars: Bars, _: FloatArray, p: Parameters) -> Outputs:
    """Quong and Soudack (1989); TA-Lib's value without any flow is 0."""
    return (talib.MFI(bars.high, bars.low, bars.close, bars.volume, whole(p)),)


def _chaikin_flow(bars: Bars, _: FloatArray, p: Parameters) -> Outputs:
    """Chaikin's money flow: volume times where the close stands in its bar (-1 to 1, 0 for a bar
    without range), over volume; 0 without any volume."""
    place = ratio(2 * bars.close - bars.high - bars.low, bars.high - bars.low)
    flow = rolling_sum(place * bars.volume, whole(p))
    share = ratio(flow, rolling_sum(bars.volume, whole(p)))
    return (np.clip(share, -1.0, 1.0),)  # rounding may pass what it cannot


def _accumulation(bars: Bars, _: FloatArray, __: Parameters) -> Outputs:
    """Chaikin's accumulation/distribution line; a bar without range adds nothing."""
    return (talib.AD(bars.high, bars.low, bars.close, bars.volume),)


def _oscillator(bars: Bars, _: FloatArray, p: Parameters) -> Outputs:
    """Chaikin's oscillator: a fast exponential average of that line minus a slow one."""
    periods = whole(p, "fast_period"), whole(p, "slow_period")
    return (talib.ADOSC(bars.high, bars.low, bars.close, bars.volume, *periods),)


def _volume_ratio(bars: Bars, _: FloatArray, p: Parameters) -> Outputs:
    """Volume over its simple mean of `period` bars, this one among them; 1 without any volume."""
    return (ratio(bars.volume, rolling_mean(bars.volume, whole(p)), otherwise=1.0),)


DEFINITIONS: dict[str, IndicatorDefinition] = {
    "obv": IndicatorDefinition(
        lambda bars, _, __: (talib.OBV(bars.close, bars.volume),), lambda _: (0,)
    ),
    "vwap": IndicatorDefinition(_vwap, lambda p: (whole(p) - 1,)),
    "mfi": IndicatorDefinition(_money_flow, lambda p: (whole(p),)),
    "cmf": IndicatorDefinition(_chaikin_flow, lambda p: (whole(p) - 1,)),
    "adline": IndicatorDefinition(_accumulation, lambda _: (0,)),
    "adosc": IndicatorDefinition(_oscillator, lambda p: (whole(p, "slow_period") - 1,)),
    "volumeratio": IndicatorDefinition(_volume_ratio, lambda p: (whole(p) - 1,)),
}
