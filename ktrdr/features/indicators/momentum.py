"""Oscillators of momentum.

Where a market stands still, TA-Lib's oscillators are 0 (Aroon: 100 up and down), and so are ours.
"""

from __future__ import annotations

import numpy as np
import talib

from ktrdr.data.bars import Bars, FloatArray
from ktrdr.features.indicators.definition import (
    IndicatorDefinition,
    Outputs,
    Parameters,
    of_prices,
    of_series,
    whole,
)
from ktrdr.features.indicators.rolling import (
    ema,
    highest,
    lowest,
    ratio,
    rolling_mean,
    rolling_sum,
    shifted,
)

_ROUNDING = 1e-9  # of RSI, in percent


def _fast_slow_signal(p: Parameters) -> tuple[int, int, int]:
    return whole(p, "fast_period"), whole(p, "slow_period"), whole(p, "signal_period")


def _macd(_: Bars, source: FloatArray, p: Parameters) -> Outputs:
    """TA-Lib's: all three outputs begin with the signal."""
    line, signal, histogram = talib.MACD(source, *_fast_slow_signal(p))
    return line, signal, histogram


def _macd_warm_ups(p: Parameters) -> tuple[int, ...]:
    _, slow, signal = _fast_slow_signal(p)
    return (slow + signal - 2,) * 3


def _ppo(_: Bars, source: FloatArray, p: Parameters) -> Outputs:
    """100 (fast - slow) / slow of exponential averages (Appel), 0 where the slow one is 0."""
    fast, slow, signal_period = _fast_slow_signal(p)
    slow_average = ema(source, slow)
    line = 100 * ratio(ema(source, fast) - slow_average, slow_average)
    signal = ema(line, signal_period)
    return line, signal, line - signal


def _ppo_warm_ups(p: Parameters) -> tuple[int, ...]:
    _, slow, signal = _fast_slow_signal(p)
    return slow - 1, slow + signal - 2, slow + signal - 2


def _stochastic_rsi(_: Bars, source: FloatArray, p: Parameters) -> Outputs:
    """Chande and Kroll (1994), in percent: where RSI stands in its own range of `k_period` bars;
    d is the mean of `d_period` of it.

    Not TA-Lib's STOCHRSI: in a market that stands still RSI moves by its rounding alone, and where
    it stands in that range says nothing; k is 0 there.
    """
    rsi, period = talib.RSI(source, whole(p)), whole(p, "k_period")
    low = lowest(rsi, period)
    span = highest(rsi, period) - low
    span[span < _ROUNDING] = 0.0
    k = 100 * ratio(rsi - low, span)
    d = np.full(len(k), np.nan)
    first = whole(p) + period - 1
    d[first:] = rolling_mean(k[first:], whole(p, "d_period"))
    return k, np.clip(d, 0.0, 100.0)


def _stochastic_rsi_warm_ups(p: Parameters) -> tuple[int, ...]:
    first = whole(p) + whole(p, "k_period") - 1
    return first, first + whole(p, "d_period") - 1


def _stochastic(bars: Bars, _: FloatArray, p: Parameters) -> Outputs:
    """Lane's slow stochastic; both averages are simple."""
    k, d = talib.STOCH(
        bars.high,
        bars.low,
        bars.close,
        fastk_period=whole(p, "k_period"),
        slowk_period=whole(p, "smooth_k"),
        slowd_period=whole(p, "d_period"),
    )
    return _percent(k), _percent(d)


def _percent(values: FloatArray) -> FloatArray:
    """TA-Lib's running means leave 0 to 100 by their rounding; a fuzzy set may end there."""
    return np.clip(values, 0.0, 100.0)


def _stochastic_warm_ups(p: Parameters) -> tuple[int, ...]:
    """TA-Lib gives no k before there is a d."""
    return (whole(p, "k_period") + whole(p, "smooth_k") + whole(p, "d_period") - 3,) * 2


def _ultimate(bars: Bars, _: FloatArray, p: Parameters) -> Outputs:
    periods = [whole(p, f"{name}_period") for name in ("short", "medium", "long")]
    return (talib.ULTOSC(bars.high, bars.low, bars.close, *periods),)


def _vigor(bars: Bars, _: FloatArray, p: Parameters) -> Outputs:
    """Ehlers' relative vigor index (2002): sums of close - open over sums of high - low, each
    weighted 1 2 2 1 over four bars; 0 where no bar of the window has a range.

    The signal is the simple mean of `signal_period` values, as in the system that this grammar
    comes from.
    """
    moves = rolling_sum(_weighted(bars.close - bars.open), whole(p))
    ranges = rolling_sum(_weighted(bars.high - bars.low), whole(p))
    vigor = np.clip(ratio(moves, ranges), -1.0, 1.0)  # rounding may pass what it cannot
    signal = rolling_mean(vigor, whole(p, "signal_period"))
    return tuple(_behind(3, series, len(bars)) for series in (vigor, signal))


def _weighted(values: FloatArray) -> FloatArray:
    return values[3:] + 2 * values[2:-1] + 2 * values[1:-2] + values[:-3]


def _behind(start: int, values: FloatArray, length: int) -> FloatArray:
    found = np.full(length, np.nan)
    found[start:] = values
    return found


def _fisher(bars: Bars, _: FloatArray, p: Parameters) -> Outputs:
    """Fisher's transform (Ehlers 2002) of where the middle of the bar stands in the range of
    `period` bars, from -1 to 1 and kept within 0.999; 0 where there is no range.

    Smoothed by an exponential average, where Ehlers filters before and after by fixed weights;
    the signal is the value of one bar before. So it is in the system that this grammar comes from.
    """
    low = lowest(bars.low, whole(p))
    span = highest(bars.high, whole(p)) - low
    place = 2 * ratio((bars.high + bars.low) / 2 - low, span, otherwise=0.5) - 1
    fisher = ema(np.arctanh(np.clip(place, -0.999, 0.999)), whole(p, "smoothing"))
    return fisher, shifted(fisher, 1)


def _fisher_warm_ups(p: Parameters) -> tuple[int, ...]:
    first = whole(p) + whole(p, "smoothing") - 2
    return first, first + 1


def _aroon(bars: Bars, _: FloatArray, p: Parameters) -> Outputs:
    """Chande (1995); the oscillator is up - down."""
    down, up = talib.AROON(bars.high, bars.low, whole(p))
    return up, down, up - down


DEFINITIONS: dict[str, IndicatorDefinition] = {
    "rsi": of_series(talib.RSI, extra=0),
    "roc": of_series(talib.ROC, extra=0),
    "momentum": of_series(talib.MOM, extra=0),
    "cmo": of_series(talib.CMO, extra=0),
    "trix": IndicatorDefinition(
        lambda _, source, p: (talib.TRIX(source, whole(p)),), lambda p: (3 * whole(p) - 2,)
    ),
    "macd": IndicatorDefinition(_macd, _macd_warm_ups),
    "ppo": IndicatorDefinition(_ppo, _ppo_warm_ups),
    "stochrsi": IndicatorDefinition(_stochastic_rsi, _stochastic_rsi_warm_ups),
    "stochastic": IndicatorDefinition(_stochastic, _stochastic_warm_ups),
    "williamsr": of_prices(talib.WILLR),
    "cci": of_prices(talib.CCI),
    "ultosc": IndicatorDefinition(_ultimate, lambda p: (whole(p, "long_period"),)),
    "rvi": IndicatorDefinition(
        _vigor, lambda p: (whole(p) + 2, whole(p) + whole(p, "signal_period") + 1)
    ),
    "fishertransform": IndicatorDefinition(_fisher, _fisher_warm_ups),
    "aroon": IndicatorDefinition(_aroon, lambda p: (whole(p),) * 3),
}
