"""Volatility indicators: ranges, bands and channels."""

from __future__ import annotations

import numpy as np
import talib

from ktrdr.data.bars import Bars, FloatArray
from ktrdr.features.indicators.definition import (
    IndicatorDefinition,
    Outputs,
    Parameters,
    number,
    of_prices,
    whole,
)
from ktrdr.features.indicators.rolling import (
    ema,
    gap_and_deviation,
    highest,
    lowest,
    ratio,
    rolling_sum,
)
from ktrdr.features.indicators.statistics import log_returns

_SQUEEZE_ATR_PERIOD = 10  # that of keltnerchannels, unless it is given


def _bollinger(_: Bars, source: FloatArray, p: Parameters) -> Outputs:
    """Bollinger (2001): the simple mean, and the population's deviation around it.

    Not TA-Lib's BBANDS: its running sums of squares leave a width where there is none.
    """
    gap, deviation = gap_and_deviation(source, whole(p))
    middle, reach = source - gap, number(p) * deviation
    return middle + reach, middle, middle - reach


def _band_width(_: Bars, source: FloatArray, p: Parameters) -> Outputs:
    """(upper - lower) / middle; 0 where the middle is 0 (a volume source without any trade)."""
    gap, deviation = gap_and_deviation(source, whole(p))
    return (ratio(2 * number(p) * deviation, source - gap),)


def _percent_b(_: Bars, source: FloatArray, p: Parameters) -> Outputs:
    """(source - lower) / (upper - lower): 0 at the lower band, 1 at the upper one, 0.5 where both
    are the same."""
    gap, deviation = gap_and_deviation(source, whole(p))
    return (0.5 + ratio(gap, 2 * number(p) * deviation),)


def _keltner(bars: Bars, _: FloatArray, p: Parameters) -> Outputs:
    """Raschke's channels: an exponential average of the close, and Wilder's average true range
    around it. The middle line may have a value before the other two."""
    return _channel(bars, whole(p), whole(p, "atr_period"), number(p))


def _channel(bars: Bars, period: int, atr_period: int, multiplier: float) -> Outputs:
    middle = ema(bars.close, period)
    reach = multiplier * talib.ATR(bars.high, bars.low, bars.close, atr_period)
    return middle + reach, middle, middle - reach


def _donchian(bars: Bars, _: FloatArray, p: Parameters) -> Outputs:
    """The range of the last `period` bars, this one among them."""
    upper, lower = highest(bars.high, whole(p)), lowest(bars.low, whole(p))
    return upper, (upper + lower) / 2, lower


def _squeeze(bars: Bars, __: FloatArray, p: Parameters) -> Outputs:
    """How far Bollinger's bands lie inside Keltner's channels (Carter, Mastering the Trade, 2005):
    the smaller of both gaps over the channel's width, 0 to 0.5; 0 where a band lies outside, or
    where the channel has no width.

    The channel's average true range is over 10 bars, as in `keltnerchannels`.
    """
    gap, deviation = gap_and_deviation(bars.close, whole(p, "bb_period"))
    middle, reach = bars.close - gap, number(p, "bb_multiplier") * deviation
    upper, _, lower = _channel(
        bars, whole(p, "kc_period"), _SQUEEZE_ATR_PERIOD, number(p, "kc_multiplier")
    )
    inside = np.minimum(upper - (middle + reach), (middle - reach) - lower)
    return (np.maximum(ratio(inside, upper - lower), 0.0),)


def _squeeze_warm_ups(p: Parameters) -> tuple[int, ...]:
    return (max(whole(p, "bb_period") - 1, whole(p, "kc_period") - 1, _SQUEEZE_ATR_PERIOD),)


def _realised(_: Bars, source: FloatArray, p: Parameters) -> Outputs:
    """The root of the sum of squared log returns of `period` bars (Andersen, Bollerslev, Diebold
    and Labys 2003); not annualised."""
    returns = log_returns(source, 1)
    found = np.full(len(source), np.nan)
    found[1:] = np.sqrt(rolling_sum(returns[1:] ** 2, whole(p)))
    return (found,)


DEFINITIONS: dict[str, IndicatorDefinition] = {
    "atr": of_prices(talib.ATR, extra=0),
    "natr": of_prices(talib.NATR, extra=0),
    "bollingerbands": IndicatorDefinition(_bollinger, lambda p: (whole(p) - 1,) * 3),
    "bollingerbandwidth": IndicatorDefinition(_band_width, lambda p: (whole(p) - 1,)),
    "percent_b": IndicatorDefinition(_percent_b, lambda p: (whole(p) - 1,)),
    "keltnerchannels": IndicatorDefinition(
        _keltner,
        lambda p: (
            max(whole(p) - 1, whole(p, "atr_period")),
            whole(p) - 1,
            max(whole(p) - 1, whole(p, "atr_period")),
        ),
    ),
    "donchianchannels": IndicatorDefinition(_donchian, lambda p: (whole(p) - 1,) * 3),
    "squeezeintensity": IndicatorDefinition(_squeeze, _squeeze_warm_ups),
    "realised_volatility": IndicatorDefinition(_realised, lambda p: (whole(p),)),
}
