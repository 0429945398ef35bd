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
from ktrdr.features.indicators import IndicatorOutputs, warm_up
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
    start = first_usable_row(strategy)
    if len(bars) <= start:
        raise InvalidData(
            f"{len(bars):,} bars of {bars.symbol} {bars.timeframe} are too few: the strategy needs "
            f"{start:,} bars of history before its first row; import more bars or widen the "
            "dates",
            bars=len(bars),
            needed=start + 1,
        )
    names = input_names(strategy, bars.timeframe)
    matrix = np.empty((len(bars) - start, len(names)), dtype=np.float32)
    outputs = IndicatorOutputs(strategy.indicators, bars)
    column = 0
    for fuzzy_set in used_sets(strategy).values():
        values = outputs.series(fuzzy_set.indicator)[start:]
        _check_finite(values, fuzzy_set.indicator, bars, start)
        for _, membership in fuzzy_set.ordered:
            matrix[:, column] = grade(membership, values)
            column += 1
    return Inputs(names, matrix, start)


def first_usable_row(strategy: Strategy) -> int:
    """Bars to leave out at the beginning: `history_required`, or an output's longer warm-up."""
    used = {fuzzy_set.indicator for fuzzy_set in used_sets(strategy).values()}
    warm_ups = [warm_up(strategy.indicators, reference) for reference in used]
    return max(strategy.training_data.history_required, *warm_ups)


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


def _check_finite(values: FloatArray, reference: str, bars: Bars, start: int) -> None:
    """Prices are checked, but extreme ones can overflow in an indicator's arithmetic."""
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise InvalidData(
            f"indicator {reference} has no finite value at {len(bad):,} bars of {bars.symbol} "
            f"{bars.timeframe}, first at row {start + int(bad[0]):,}; check the bars there",
            rows=len(bad),
        )
