"""The outputs of a strategy's indicators over bars, chained along their sources."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ktrdr.data.bars import Bars, FloatArray
from ktrdr.features.indicators import (
    averages,
    candles,
    clock,
    momentum,
    statistics,
    trend,
    volatility,
    volume,
)
from ktrdr.features.indicators.definition import IndicatorDefinition
from ktrdr.strategy.indicator_types import Indicator
from ktrdr.strategy.indicators import PRICE_SERIES

DEFINITIONS: dict[str, IndicatorDefinition] = {
    **averages.DEFINITIONS,
    **momentum.DEFINITIONS,
    **trend.DEFINITIONS,
    **volatility.DEFINITIONS,
    **volume.DEFINITIONS,
    **statistics.DEFINITIONS,
    **clock.DEFINITIONS,
    **candles.DEFINITIONS,
}

_SERIES: dict[str, Callable[[Bars], FloatArray]] = {
    "open": lambda bars: bars.open,
    "high": lambda bars: bars.high,
    "low": lambda bars: bars.low,
    "close": lambda bars: bars.close,
    "volume": lambda bars: bars.volume,
    "hl2": lambda bars: (bars.high + bars.low) / 2,
    "hlc3": lambda bars: (bars.high + bars.low + bars.close) / 3,
    "ohlc4": lambda bars: (bars.open + bars.high + bars.low + bars.close) / 4,
}


class IndicatorOutputs:
    """Series by reference (`id` or `id.output`), each indicator computed once.

    What was computed is kept as long as this object is.

    Args:
        indicators: of a checked strategy, so that every reference leads somewhere.
    """

    def __init__(self, indicators: Mapping[str, Indicator], bars: Bars) -> None:
        self._indicators = indicators
        self._bars = bars
        self._outputs: dict[str, dict[str, FloatArray]] = {}
        self._starts: dict[str, int] = {}  # the first bar at which its source has a value

    def series(self, reference: str) -> FloatArray:
        """float64 [len(bars)], NaN exactly before its warm-up; the bare id is the first output."""
        for indicator_id, _ in reversed(_chain(self._indicators, reference)):
            if indicator_id not in self._outputs:
                self._compute(indicator_id)
        return self._output(reference)

    def _compute(self, indicator_id: str) -> None:
        indicator, rows = self._indicators[indicator_id], len(self._bars)
        source, start = self._source(indicator)
        self._starts[indicator_id] = start
        names = indicator.grammar.outputs
        if start >= rows:
            self._outputs[indicator_id] = {name: np.full(rows, np.nan) for name in names}
            return
        bars = self._bars.rows(start, rows)
        with np.errstate(over="ignore", invalid="ignore"):  # the pipeline names what overflows
            found = DEFINITIONS[indicator.type].compute(bars, source[start:], indicator.parameters)
        self._outputs[indicator_id] = {
            name: _from_bar(start, series, rows) for name, series in zip(names, found, strict=True)
        }

    def _source(self, indicator: Indicator) -> tuple[FloatArray, int]:
        """The series that an indicator is computed from, and the first bar that has a value."""
        name = indicator.series_source or "close"
        if name in PRICE_SERIES:
            return source_series(self._bars, name), 0
        indicator_id, _, output = name.partition(".")
        own = _own_warm_up(self._indicators[indicator_id], output)
        return self._output(name), self._starts[indicator_id] + own

    def _output(self, reference: str) -> FloatArray:
        indicator_id, _, output = reference.partition(".")
        outputs = self._outputs[indicator_id]
        return outputs[output] if output else next(iter(outputs.values()))


def warm_up(indicators: Mapping[str, Indicator], reference: str) -> int:
    """Index of the first bar at which this very output has a value."""
    return sum(
        _own_warm_up(indicators[indicator_id], output)
        for indicator_id, output in _chain(indicators, reference)
    )


def source_series(bars: Bars, name: str) -> FloatArray:
    """The price (or volume) that a strategy calls by this name."""
    return _SERIES[name](bars)


def _chain(indicators: Mapping[str, Indicator], reference: str) -> list[tuple[str, str]]:
    """The indicators and outputs that a reference leads through, itself first."""
    steps: list[tuple[str, str]] = []
    at: str | None = reference
    while at is not None and at not in PRICE_SERIES:
        indicator_id, _, output = at.partition(".")
        steps.append((indicator_id, output))
        at = indicators[indicator_id].series_source
    return steps


def _own_warm_up(indicator: Indicator, output: str) -> int:
    warm_ups = DEFINITIONS[indicator.type].warm_ups(indicator.parameters)
    return warm_ups[indicator.grammar.outputs.index(output)] if output else warm_ups[0]


def _from_bar(start: int, series: FloatArray, rows: int) -> FloatArray:
    if start == 0:
        return series
    found = np.full(rows, np.nan)
    found[start:] = series
    return found
