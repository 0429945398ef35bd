"""From bars to predictions, by the same pipeline as the training rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ktrdr.data.bars import Bars, IntArray, check_timeframe
from ktrdr.data.frames import GIVEN, to_bars, to_frame
from ktrdr.data.market import Market, gather
from ktrdr.data.resampling import can_resample
from ktrdr.data.store import BarStore
from ktrdr.errors import InvalidData, Usage
from ktrdr.features.pipeline import Inputs, compute_inputs
from ktrdr.features.transforms import Transform, unfitted
from ktrdr.inference.trained_network import TrainedNetwork
from ktrdr.strategy.loading import with_overrides
from ktrdr.strategy.schema import Strategy

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, eq=False)
class ModelInputs:
    """A model's inputs over a symbol's bars.

    `first` is the index of the first base bar with a prediction: it has the history that training
    asked for, and `sequence_length` - 1 rows before it.
    """

    inputs: Inputs
    first: int

    @property
    def base(self) -> Bars:
        return self.inputs.base

    def between(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return the input rows for predictions at the base bars [start, stop)."""
        before = self.first - self.inputs.first
        low = start - before - self.inputs.first
        rows: NDArray[np.float32] = self.inputs.matrix[low : stop - self.inputs.first]
        return rows


def predict(
    model: TrainedNetwork,
    market: Market,
    start_us: int | None = None,
    end_us: int | None = None,
) -> pl.DataFrame:
    """Predict at the bars that open within [start_us, end_us]; None leaves it open.

    All bars before them are history. See `LoadedModel.predict` for the columns.

    Raises InvalidData, with numbers, where no bar within has enough history.
    """
    made = model_inputs(model, market)
    start, stop = rows_between(made, start_us, end_us)
    shown = made.between(start, stop)
    if model.strategy.is_regression:
        columns = {"value": model.outputs(shown)[:, 0]}
    else:
        by_class = np.ascontiguousarray(model.probabilities(shown).T)
        columns = dict(zip(model.class_names, by_class, strict=True))
    return to_frame(made.base.timestamps[start:stop], columns)


def model_inputs(model: TrainedNetwork, market: Market) -> ModelInputs:
    """The inputs of the market's only symbol.

    Raises InvalidData where no bar has enough history behind it.
    """
    strategy = at_timeframes(model.strategy, market.timeframes)
    inputs = compute_inputs(strategy, market, market.symbols[0], transforms_of(model))
    length = strategy.model.sequence_length or 1
    first = inputs.first + length - 1
    if first >= len(inputs.base):
        base = inputs.base
        raise InvalidData(
            f"{len(base):,} bars of {base.symbol} {base.timeframe} are too few: {model.name} needs "
            f"{inputs.first:,} bars of history and then {length:,} for its first prediction; give "
            "earlier bars too",
            bars=len(base),
            needed=first + 1,
        )
    return ModelInputs(inputs, first)


def rows_between(made: ModelInputs, start_us: int | None, end_us: int | None) -> tuple[int, int]:
    """Return the base bars [start, stop) with predictions that open within [start_us, end_us].

    Raises InvalidData where there are none.
    """
    base = made.base
    start, stop = bars_between(base, start_us, end_us)
    start = max(start, made.first)
    if start < stop:
        return start, stop
    found = stop - bars_between(base, start_us, end_us)[0]
    raise InvalidData(
        f"none of the {found:,} bars of {base.symbol} {base.timeframe} between the dates can be "
        f"answered: of {len(base):,} bars the first {made.first:,} are history; choose other dates "
        "or import earlier bars",
        bars=found,
        history=made.first,
    )


def bars_between(base: Bars, start_us: int | None, end_us: int | None) -> tuple[int, int]:
    """The bars [start, stop) that open within [start_us, end_us]; None leaves it open."""
    stamps: IntArray = base.timestamps
    start = 0 if start_us is None else int(np.searchsorted(stamps, start_us, "left"))
    stop = len(base) if end_us is None else int(np.searchsorted(stamps, end_us, "right"))
    return start, max(start, stop)


def transforms_of(model: TrainedNetwork) -> tuple[Transform, ...]:
    """Those of its training; a model of an earlier version has only what its strategy says."""
    return model.input_schema.transforms or unfitted(model.strategy)


def at_timeframes(strategy: Strategy, timeframes: tuple[str, ...]) -> Strategy:
    """The strategy on bars of these timeframes, which are its own or a single other one."""
    if timeframes == strategy.timeframes:
        return strategy
    return with_overrides(strategy, {"timeframes": list(timeframes)})


def timeframes_for(model: TrainedNetwork, timeframe: str | None) -> tuple[str, ...]:
    """The timeframes to read bars of, when the base is to be this one; None: its own.

    Raises Usage for another base where the model has several timeframes.
    """
    own = model.strategy.timeframes
    if timeframe is None or timeframe == model.strategy.base_timeframe:
        return own
    check_timeframe(timeframe)
    if len(own) > 1:
        raise Usage(
            f"{model.name} predicts at {model.strategy.base_timeframe} bars and sees "
            f"{', '.join(own)}: it cannot be used on {timeframe} bars; leave the timeframe out"
        )
    return (timeframe,)


def market_of(
    model: TrainedNetwork, bars: Any, timeframe: str | None = None, symbol: str | None = None
) -> Market:
    """What a caller gives to `LoadedModel.predict`, as a market of one symbol.

    Raises InvalidData for what is no bars, or not all that the model needs.
    """
    timeframes = timeframes_for(model, timeframe)
    base = timeframes[0] if len(timeframes) == 1 else model.strategy.base_timeframe
    tables = bars if isinstance(bars, Mapping) else {base: bars}
    resample = model.strategy.training_data.timeframes.resample
    used = {name: table for name, table in tables.items() if resample or name in timeframes}
    given = {check_timeframe(name): to_bars(table, name) for name, table in used.items()}
    name = symbol or next((b.symbol for b in given.values() if b.symbol != GIVEN), GIVEN)
    given = {frame: replace(one, symbol=name) for frame, one in given.items()}
    _check_complete(model, timeframes, given, resample)
    return gather(
        (name,),
        timeframes,
        base,
        lambda _, wanted: given.get(wanted),
        (lambda _: list(given)) if resample else None,
    )


def stored_market(
    model: TrainedNetwork,
    store: BarStore,
    symbol: str,
    timeframe: str | None = None,
    within: tuple[int | None, int | None] = (None, None),
) -> Market:
    """The stored bars of a symbol that a model needs, as a market of that symbol.

    Args:
        timeframe: see `timeframes_for`.
        within: first and last open time, microseconds UTC; None leaves it open.

    Raises DataNotFound where some are missing, Usage for what is no symbol or no such timeframe.
    """
    timeframes = timeframes_for(model, timeframe)
    base = timeframes[0] if len(timeframes) == 1 else model.strategy.base_timeframe
    stored = store.timeframes(symbol)

    def read(_: str, name: str) -> Bars | None:
        if name not in stored:
            return None
        bars = store.read(symbol, name).between(*within)
        return bars if len(bars) else None

    resample = model.strategy.training_data.timeframes.resample
    return gather((symbol,), timeframes, base, read, (lambda _: stored) if resample else None)


def _check_complete(
    model: TrainedNetwork, timeframes: tuple[str, ...], given: Mapping[str, Bars], resample: bool
) -> None:
    missing = [
        name
        for name in timeframes
        if name not in given and not (resample and any(can_resample(low, name) for low in given))
    ]
    if missing:
        raise InvalidData(
            f"{model.name} needs bars of {', '.join(timeframes)}, and {', '.join(missing)} is "
            f"missing: give a mapping such as {{{timeframes[0]!r}: bars, ...}}",
            missing=missing,
        )
