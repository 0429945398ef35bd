"""From bars to network inputs: indicators, then fuzzy memberships, in the strategy's order.

Nothing here is fitted: the strategy and the bars up to a row determine that row's inputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ktrdr.data.bars import Bars, FloatArray
from ktrdr.errors import InvalidData
from ktrdr.features.fuzzy import grade
from ktrdr.features.indicators import compute_indicator, lookback
from ktrdr.strategy.memberships import FuzzySet
from ktrdr.strategy.schema import Strategy


@dataclass(frozen=True, eq=False)
class Inputs:
    """Network inputs of the bars from `warm_up` on.

    `matrix` is float32 [len(bars) - warm_up, len(names)], C-contiguous, values in [0, 1].
    """

    names: tuple[str, ...]
    matrix: NDArray[np.float32]
    warm_up: int


def compute_inputs(strategy: Strategy, bars: Bars) -> Inputs:
    """The inputs of every bar that has enough history behind it.

    Raises InvalidData where no bar has, or where an indicator leaves the finite numbers.
    """
    warm_up = first_usable_row(strategy)
    if len(bars) <= warm_up:
        raise InvalidData(
            f"{len(bars):,} bars of {bars.symbol} {bars.timeframe} are too few: the strategy needs "
            f"{warm_up:,} bars of history before its first row; import more bars or widen the "
            "dates",
            bars=len(bars),
            needed=warm_up + 1,
        )
    names = input_names(strategy, bars.timeframe)
    matrix = np.empty((len(bars) - warm_up, len(names)), dtype=np.float32)
    column = 0
    for fuzzy_set in used_sets(strategy).values():
        values = _series(strategy, fuzzy_set.indicator, bars)[warm_up:]
        _check_finite(values, fuzzy_set.indicator, bars, warm_up)
        for _, membership in fuzzy_set.ordered:
            matrix[:, column] = grade(membership, values)
            column += 1
    return Inputs(names, matrix, warm_up)


def first_usable_row(strategy: Strategy) -> int:
    """Bars to leave out at the beginning: `history_required`, or an indicator's longer lookback."""
    used = {fuzzy_set.indicator.partition(".")[0] for fuzzy_set in used_sets(strategy).values()}
    lookbacks = [lookback(strategy.indicators[indicator_id]) for indicator_id in used]
    return max(strategy.training_data.history_required, *lookbacks)


def input_names(strategy: Strategy, timeframe: str) -> tuple[str, ...]:
    """`{timeframe}_{fuzzy_set}_{membership}` in the order of the matrix's columns."""
    return tuple(
        f"{timeframe}_{set_id}_{membership}"
        for set_id, fuzzy_set in used_sets(strategy).items()
        for membership in fuzzy_set.order
    )


def used_sets(strategy: Strategy) -> dict[str, FuzzySet]:
    """The fuzzy sets that are network inputs, in the order of the inputs."""
    return {item.fuzzy_set: strategy.fuzzy_sets[item.fuzzy_set] for item in strategy.nn_inputs}


def _series(strategy: Strategy, reference: str, bars: Bars) -> FloatArray:
    """What `indicator` or `indicator.output` refers to; the bare id means the first output."""
    indicator_id, _, output = reference.partition(".")
    outputs = compute_indicator(strategy.indicators[indicator_id], bars)
    return outputs[output] if output else next(iter(outputs.values()))


def _check_finite(values: FloatArray, reference: str, bars: Bars, warm_up: int) -> None:
    """Prices are checked, but extreme ones can overflow in an indicator's arithmetic."""
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise InvalidData(
            f"indicator {reference} has no finite value at {len(bad):,} bars of {bars.symbol} "
            f"{bars.timeframe}, first at row {warm_up + int(bad[0]):,}; check the bars there",
            rows=len(bad),
        )
