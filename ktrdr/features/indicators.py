"""The door to TA-Lib: every indicator of the grammar as an array per output.

`ktrdr.strategy.indicators` is the grammar side of the same table. Values before the lookback are
NaN; no value depends on a later bar.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import talib

from ktrdr.data.bars import Bars, FloatArray
from ktrdr.strategy.indicator_types import Indicator

Parameters = Mapping[str, int | float]
Outputs = tuple[FloatArray, ...]


@dataclass(frozen=True)
class _Door:
    """How a type is computed from bars, its source series and its parameters: the outputs in the
    grammar's order, and the index of the first bar that has all of them."""

    compute: Callable[[Bars, FloatArray, Parameters], Outputs]
    lookback: Callable[[Parameters], int]


def compute_indicator(indicator: Indicator, bars: Bars) -> dict[str, FloatArray]:
    """Every output by name, float64 [len(bars)], NaN where its history is too short."""
    source = source_series(bars, indicator.price_source)
    outputs = DOORS[indicator.type].compute(bars, source, indicator.parameters)
    return dict(zip(indicator.grammar.outputs, outputs, strict=True))


def lookback(indicator: Indicator) -> int:
    """Index of the first bar at which every output has a value."""
    return DOORS[indicator.type].lookback(indicator.parameters)


def source_series(bars: Bars, source: str) -> FloatArray:
    """The price (or volume) that a strategy calls by this name."""
    return _SOURCES[source](bars)


_SOURCES: dict[str, Callable[[Bars], FloatArray]] = {
    "open": lambda bars: bars.open,
    "high": lambda bars: bars.high,
    "low": lambda bars: bars.low,
    "close": lambda bars: bars.close,
    "volume": lambda bars: bars.volume,
    "hl2": lambda bars: (bars.high + bars.low) / 2,
    "hlc3": lambda bars: (bars.high + bars.low + bars.close) / 3,
    "ohlc4": lambda bars: (bars.open + bars.high + bars.low + bars.close) / 4,
}


def _rsi(_: Bars, source: FloatArray, p: Parameters) -> Outputs:
    return (talib.RSI(source, int(p["period"])),)


def _roc(_: Bars, source: FloatArray, p: Parameters) -> Outputs:
    return (talib.ROC(source, int(p["period"])),)


def _ema(_: Bars, source: FloatArray, p: Parameters) -> Outputs:
    return (talib.EMA(source, int(p["period"])),)


def _macd(_: Bars, source: FloatArray, p: Parameters) -> Outputs:
    periods = int(p["fast_period"]), int(p["slow_period"]), int(p["signal_period"])
    line, signal, histogram = talib.MACD(source, *periods)
    return line, signal, histogram


def _macd_lookback(p: Parameters) -> int:
    """TA-Lib swaps a fast period that is the longer one."""
    return int(max(p["fast_period"], p["slow_period"]) + p["signal_period"]) - 2


def _band_width(_: Bars, source: FloatArray, p: Parameters) -> Outputs:
    """(upper - lower) / middle; 0 where the middle is 0 (a volume source without any trade)."""
    multiplier = float(p["multiplier"])
    upper, middle, lower = talib.BBANDS(source, int(p["period"]), multiplier, multiplier)
    return (np.divide(upper - lower, middle, out=np.zeros_like(middle), where=middle != 0),)


def _atr(bars: Bars, _: FloatArray, p: Parameters) -> Outputs:
    return (talib.ATR(bars.high, bars.low, bars.close, int(p["period"])),)


def _adx(bars: Bars, _: FloatArray, p: Parameters) -> Outputs:
    prices, period = (bars.high, bars.low, bars.close), int(p["period"])
    return (
        talib.ADX(*prices, period),
        talib.PLUS_DI(*prices, period),
        talib.MINUS_DI(*prices, period),
    )


DOORS: dict[str, _Door] = {
    "rsi": _Door(_rsi, lambda p: int(p["period"])),
    "roc": _Door(_roc, lambda p: int(p["period"])),
    "ema": _Door(_ema, lambda p: int(p["period"]) - 1),
    "macd": _Door(_macd, _macd_lookback),
    "bollingerbandwidth": _Door(_band_width, lambda p: int(p["period"]) - 1),
    "atr": _Door(_atr, lambda p: int(p["period"])),
    "adx": _Door(_adx, lambda p: 2 * int(p["period"]) - 1),
}


class IndicatorOutputs:
    def __init__(self, indicators, bars):  # type: ignore
        self.i, self.b, self.m = indicators, bars, {}

    def series(self, reference):  # type: ignore
        name, _, output = reference.partition(".")
        if name not in self.m:
            self.m[name] = compute_indicator(self.i[name], self.b)
        return self.m[name][output] if output else next(iter(self.m[name].values()))


def warm_up(indicators, reference):  # type: ignore
    return lookback(indicators[reference.partition(".")[0]])
