"""Trend indicators: directional movement, trailing stops, Ichimoku's lines."""

from __future__ import annotations

import numpy as np
import talib

from ktrdr.data.bars import Bars, FloatArray
from ktrdr.features.indicators.definition import (
    IndicatorDefinition,
    Outputs,
    Parameters,
    number,
    whole,
)
from ktrdr.features.indicators.rolling import highest, lowest, shifted


def _adx(bars: Bars, _: FloatArray, p: Parameters) -> Outputs:
    prices, period = (bars.high, bars.low, bars.close), whole(p)
    return (
        talib.ADX(*prices, period),
        talib.PLUS_DI(*prices, period),
        talib.MINUS_DI(*prices, period),
    )


def _supertrend(bars: Bars, _: FloatArray, p: Parameters) -> Outputs:
    """Seban's supertrend: bands `multiplier` average true ranges (Wilder's) above and below the
    middle of the bar, each moving only towards the price until a close goes beyond it.

    `trend` is the lower band of a rising market and the upper one of a falling one, `direction` 1
    or -1; a close beyond the band changes the market. It begins as rising.
    """
    start = whole(p)
    trend, found = talib.SUPERTREND(bars.high, bars.low, bars.close, start, number(p))
    direction = found.astype(np.float64)
    direction[:start] = np.nan  # TA-Lib says 0 where it cannot know
    return trend, direction


def _parabolic(bars: Bars, _: FloatArray, p: Parameters) -> Outputs:
    """Wilder's parabolic stop and reverse (1978); TA-Lib's SAREXT marks short positions by a
    minus sign, which is taken off."""
    steps = [number(p, name) for name in ("initial_af", "step_af", "max_af")]
    return (np.abs(talib.SAREXT(bars.high, bars.low, 0.0, 0.0, *steps, *steps)),)


def _ichimoku(bars: Bars, _: FloatArray, p: Parameters) -> Outputs:
    """Hosoda's lines, each the middle of the range of its period. The spans at a bar are those
    that stand over it in the chart, computed `displacement` bars before. There is no chikou span:
    it is a later close drawn at an earlier bar.
    """
    tenkan, kijun, span_b = (
        (highest(bars.high, period) + lowest(bars.low, period)) / 2 for period in _periods(p)
    )
    ahead = whole(p, "displacement")
    return tenkan, kijun, shifted((tenkan + kijun) / 2, ahead), shifted(span_b, ahead)


def _ichimoku_warm_ups(p: Parameters) -> tuple[int, ...]:
    tenkan, kijun, span_b = _periods(p)
    ahead = whole(p, "displacement")
    return tenkan - 1, kijun - 1, kijun - 1 + ahead, span_b - 1 + ahead


def _periods(p: Parameters) -> tuple[int, int, int]:
    return whole(p, "tenkan_period"), whole(p, "kijun_period"), whole(p, "senkou_b_period")


DEFINITIONS: dict[str, IndicatorDefinition] = {
    "adx": IndicatorDefinition(_adx, lambda p: (2 * whole(p) - 1, whole(p), whole(p))),
    "supertrend": IndicatorDefinition(_supertrend, lambda p: (whole(p),) * 2),
    "parabolicsar": IndicatorDefinition(_parabolic, lambda _: (1,)),
    "ichimoku": IndicatorDefinition(_ichimoku, _ichimoku_warm_ups),
}
