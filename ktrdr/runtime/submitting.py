"""From a user's words to what an operation is submitted with; nothing is written on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ktrdr.checkpoints.storage import Storage
from ktrdr.data.bars import Bars, check_symbol, check_timeframe, fingerprint, parse_date_range
from ktrdr.data.store import BarStore
from ktrdr.errors import DataNotFound, Usage
from ktrdr.operations.model import Plan, Request
from ktrdr.strategy import loading
from ktrdr.strategy.schema import Strategy


@dataclass(frozen=True)
class Overrides:
    """What the request says in place of the strategy; None leaves the strategy's own."""

    symbols: Sequence[str] | None = None
    timeframes: Sequence[str] | None = None
    start_date: str | None = None
    end_date: str | None = None
    epochs: int | None = None
    seed: int | None = None

    def checked(self) -> dict[str, Any]:
        """Those given, by the names that `loading.with_overrides` takes.

        Raises:
            Usage: one of them cannot be; several symbols or timeframes among them.
        """
        if self.epochs is not None and self.epochs < 1:
            raise Usage(f"epochs must be at least 1, not {self.epochs}")
        if self.seed is not None and not 0 <= self.seed < 2**32:
            raise Usage(f"the seed must lie between 0 and {2**32 - 1}, not {self.seed}")
        parse_date_range(self.start_date, self.end_date)
        given = {
            "symbol": _only_one("symbol", self.symbols, check_symbol),
            "timeframe": _only_one("timeframe", self.timeframes, check_timeframe),
            "start_date": self.start_date,
            "end_date": self.end_date,
            "epochs": self.epochs,
            "seed": self.seed,
        }
        return {name: value for name, value in given.items() if value is not None}


def prepare(path: Path, overrides: Overrides, storage: Storage) -> tuple[Request, Plan]:
    """Check strategy, options and bars, and resolve what every attempt will use.

    Raises:
        StrategyNotFound, InvalidStrategy, Usage, DataNotFound, InvalidData.
    """
    from ktrdr.features.cache import cached_dataset

    given = overrides.checked()
    given_path, path = path, path.absolute()
    own = loading.load_strategy(path)
    strategy = loading.with_overrides(own, given)
    bars = selected_bars(strategy, storage)
    dataset = cached_dataset(storage.root, strategy, bars)
    plan = Plan(
        config=loading.config(strategy),
        overrides=given,
        strategy_fingerprint=loading.fingerprint(strategy),
        data_fingerprint=fingerprint(bars),
        dataset_digest=dataset.digest,
        span={"first": bars.first, "last": bars.last, "rows": len(bars)},
        storage=str(storage.root),
        strategy_given=str(given_path),
        overridden={"epochs": own.training.epochs} if "epochs" in given else {},
    )
    return _request(path, strategy), plan


def selected_bars(strategy: Strategy, storage: Storage) -> Bars:
    """The stored bars of the strategy's symbol, timeframe and dates.

    Raises:
        DataNotFound: there are none.
    """
    data = strategy.training_data
    bars = BarStore(storage.root).read(strategy.symbol, strategy.timeframe)
    chosen = bars.between(*parse_date_range(data.start_date, data.end_date))
    if not len(chosen):
        raise DataNotFound(
            f"no bars of {strategy.symbol} {strategy.timeframe} between"
            f" {data.start_date or 'the first'} and {data.end_date or 'the last'}:"
            f" see `ktrdr data show {strategy.symbol} {strategy.timeframe}`"
        )
    return chosen


def _request(path: Path, strategy: Strategy) -> Request:
    data = strategy.training_data
    return Request(
        strategy_path=str(path),
        strategy_name=strategy.name,
        symbols=(strategy.symbol,),
        timeframes=(strategy.timeframe,),
        start_date=data.start_date.isoformat() if data.start_date else None,
        end_date=data.end_date.isoformat() if data.end_date else None,
        epochs=strategy.training.epochs,
        seed=strategy.training.seed,
        workers=1,
    )


def _only_one(what: str, values: Sequence[str] | None, check: Callable[[str], str]) -> str | None:
    if values is None:
        return None
    if len(values) != 1:
        raise Usage(f"give one {what}, not {len(values)}: a strategy trains on one")
    return check(values[0])
