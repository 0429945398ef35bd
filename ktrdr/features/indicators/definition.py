"""The definition of an indicator: its computation and its warm-up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ktrdr.data.bars import Bars, FloatArray

Parameters = Mapping[str, int | float | str]
Outputs = tuple[FloatArray, ...]


@dataclass(frozen=True)
class IndicatorDefinition:
    """How a type is computed from bars, its source series and its parameters.

    `compute` returns the outputs in the grammar's order, each float64 [len(bars)]. `warm_ups` are
    the indices of the first bar with a value, for each output. Both see bars and source from the
    first bar on at which the source has a value. A type without source must not look at it.
    """

    compute: Callable[[Bars, FloatArray, Parameters], Outputs]
    warm_ups: Callable[[Parameters], tuple[int, ...]]


def whole(parameters: Parameters, name: str = "period") -> int:
    """A count of bars among the parameters."""
    return int(parameters[name])


def number(parameters: Parameters, name: str = "multiplier") -> float:
    return float(parameters[name])


def of_series(
    function: Callable[[FloatArray, int], FloatArray], extra: int = -1
) -> IndicatorDefinition:
    """A type with one output over its source, of one period; it warms up in period + extra."""
    return IndicatorDefinition(
        lambda _, source, p: (function(source, whole(p)),),
        lambda p: (whole(p) + extra,),
    )


def of_prices(
    function: Callable[[FloatArray, FloatArray, FloatArray, int], FloatArray], extra: int = -1
) -> IndicatorDefinition:
    """The same over high, low and close."""
    return IndicatorDefinition(
        lambda bars, _, p: (function(bars.high, bars.low, bars.close, whole(p)),),
        lambda p: (whole(p) + extra,),
    )
