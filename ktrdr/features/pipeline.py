"""From bars to the values that inputs are made of: indicators at every timeframe.

Nothing here is fitted: the strategy and the bars that have closed determine a row's values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ktrdr.data.bars import Bars, FloatArray, IntArray
from ktrdr.data.market import Market
from ktrdr.errors import InvalidData
from ktrdr.features.asof_join import last_closed
from ktrdr.features.indicators import IndicatorOutputs, warm_up
from ktrdr.features.transforms import Transform
from ktrdr.strategy.input_names import InputGroup, input_groups
from ktrdr.strategy.schema import Strategy

InputArray = NDArray[np.float32]

_BLOCK_ROWS = 8_192  # of the matrix written at a time, so that they stay in the processor's cache


@dataclass(frozen=True, eq=False)
class SymbolSeries:
    """A symbol's values of every input group, on the bars of the group's timeframe.

    `last_closed` has by timeframe, for each base bar, the index of the last closed bar. `first` is
    the index of the first base bar that has enough history behind it at every timeframe.
    """

    base: Bars
    groups: tuple[InputGroup, ...]
    values: tuple[FloatArray, ...]
    last_closed: Mapping[str, IntArray]
    first: int

    def shown(self, group: int, bars: IntArray) -> FloatArray:
        """The values of a group at base bars, by their indices."""
        indices = self.last_closed[self.groups[group].timeframe]
        values: FloatArray = self.values[group][indices[bars]]
        return values


def compute_series(strategy: Strategy, market: Market, symbol: str) -> SymbolSeries:
    """The values that a symbol's inputs are made of.

    Raises InvalidData where no bar has enough history, or where an indicator leaves the finite
    numbers.
    """
    base, groups = market.base(symbol), input_groups(strategy)
    timeframes = dict.fromkeys(group.timeframe for group in groups)
    indices = {name: last_closed(market.series[symbol, name], base) for name in timeframes}
    first = _first_usable(strategy, market, base, groups, indices)
    values: list[FloatArray] = [np.empty(0)] * len(groups)
    for timeframe in timeframes:
        bars = market.series[symbol, timeframe]
        outputs = IndicatorOutputs(strategy.indicators, bars)
        for index, group in enumerate(groups):
            if group.timeframe == timeframe:
                series = outputs.series(group.reference)
                _check_finite(series, int(indices[timeframe][first]), group.reference, bars)
                values[index] = series
    return SymbolSeries(base, groups, tuple(values), indices, first)


@dataclass(frozen=True, eq=False)
class Inputs:
    """Network inputs of the base bars from `first` on, float32 [len(base) - first, columns],
    C-contiguous."""

    base: Bars
    first: int
    matrix: InputArray


def compute_inputs(
    strategy: Strategy, market: Market, symbol: str, transforms: tuple[Transform, ...]
) -> Inputs:
    """The inputs of every bar of a symbol that has enough history behind it.

    Raises InvalidData where none has, or where an indicator leaves the finite numbers.
    """
    series = compute_series(strategy, market, symbol)
    bars = np.arange(series.first, len(series.base))
    columns = sum(len(transform.columns) for transform in transforms)
    matrix = np.empty((len(bars), columns), np.float32)
    fill_matrix(matrix, series, bars, transforms)
    return Inputs(series.base, series.first, matrix)


def fill_matrix(
    matrix: InputArray, series: SymbolSeries, bars: IntArray, transforms: tuple[Transform, ...]
) -> None:
    """Write the columns of these base bars, rising indices, into the rows of `matrix`,
    [len(bars), columns]."""
    for start in range(0, len(bars), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        for column, values in enumerate(_columns(series, bars[block], transforms)):
            matrix[block, column] = values


def _columns(
    series: SymbolSeries, bars: IntArray, transforms: tuple[Transform, ...]
) -> Iterator[InputArray]:
    """The columns of some base bars. What many of them share, such as the value of an hour over
    its minutes, is transformed once."""
    indices = {timeframe: of_base[bars] for timeframe, of_base in series.last_closed.items()}
    for group, values, transform in zip(series.groups, series.values, transforms, strict=True):
        at = indices[group.timeframe]
        first, stop = int(at[0]), int(at[-1]) + 1
        if stop - first < len(at):
            for column in transform.apply(values[first:stop]):
                yield column[at - first]
        else:
            yield from transform.apply(values[at])


def _first_usable(
    strategy: Strategy,
    market: Market,
    base: Bars,
    groups: tuple[InputGroup, ...],
    indices: Mapping[str, IntArray],
) -> int:
    """Bars to leave out at the beginning: `history_required`, or what an indicator needs more."""
    needed = dict.fromkeys(indices, 0)
    for group in groups:
        lookback = warm_up(strategy.indicators, group.reference)
        needed[group.timeframe] = max(needed[group.timeframe], lookback)
    history = strategy.training_data.history_required
    starts = {name: int(np.searchsorted(indices[name], needed[name])) for name in indices}
    first = max(history, *starts.values())
    if first < len(base):
        return first
    if history >= len(base):
        raise _too_few(base, len(base), max(history, needed.get(base.timeframe, 0)), base)
    late = next(name for name in starts if starts[name] >= len(base))
    closed = int(indices[late][-1]) + 1
    raise _too_few(market.series[base.symbol, late], closed, needed[late], base)


def _too_few(bars: Bars, closed: int, wanted: int, base: Bars) -> InvalidData:
    by_then = "" if closed == len(bars) else f" that close by the last {base.timeframe} bar"
    return InvalidData(
        f"{closed:,} bars of {bars.symbol} {bars.timeframe}{by_then} are too few: the strategy "
        f"needs {wanted:,} bars of history before its first row; import more bars or widen the "
        "dates",
        symbol=bars.symbol,
        timeframe=bars.timeframe,
        bars=closed,
        needed=wanted + 1,
    )


def _check_finite(values: FloatArray, first: int, reference: str, bars: Bars) -> None:
    """Prices are checked, but extreme ones can overflow in an indicator's arithmetic."""
    bad = np.flatnonzero(~np.isfinite(values[first:]))
    if len(bad):
        raise InvalidData(
            f"indicator {reference} has no finite value at {len(bad):,} bars of {bars.symbol} "
            f"{bars.timeframe}, first at row {first + int(bad[0]):,}; check the bars there",
            rows=len(bad),
        )
