"""From a strategy file and options to a request and its plan; nothing is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ktrdr.data.bars import Bars, check_symbol, check_timeframe, parse_date_range
from ktrdr.data.market import Market, gather
from ktrdr.data.store import BarStore
from ktrdr.errors import DataNotFound, Usage
from ktrdr.operations.types import Plan, Request
from ktrdr.storage.root import Storage
from ktrdr.strategy import loading
from ktrdr.strategy.schema import Strategy


@dataclass(frozen=True)
class TrainingOptions:
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
            Usage: one of them cannot be.
        """
        if self.epochs is not None and self.epochs < 1:
            raise Usage(f"epochs must be at least 1, not {self.epochs}")
        if self.seed is not None and not 0 <= self.seed < 2**32:
            raise Usage(f"the seed must lie between 0 and {2**32 - 1}, not {self.seed}")
        parse_date_range(self.start_date, self.end_date)
        given = {
            "symbols": _checked("symbol", self.symbols, check_symbol),
            "timeframes": _checked("timeframe", self.timeframes, check_timeframe),
            "start_date": self.start_date,
            "end_date": self.end_date,
            "epochs": self.epochs,
            "seed": self.seed,
        }
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class Choice:
    """A strategy and its bars, checked; no features are computed yet."""

    path: Path
    strategy_given: str
    """The path as the user wrote it."""
    given: dict[str, Any]
    own: Strategy
    """As the file says, without the options."""
    strategy: Strategy
    market: Market
    storage: Storage
    only_fold: int | None = None

    @property
    def folds(self) -> tuple[int, ...]:
        """The folds to be trained; none when the split does not have the one asked for."""
        every = range(1, self.strategy.training.data_split.num_folds + 1)
        return tuple(fold for fold in every if self.only_fold in (None, fold))

    def prepare(self, cache_bytes: int | None = None) -> tuple[tuple[Request, Plan], ...]:
        """Compute the features of each fold, and resolve what every attempt will use.

        One request and plan for each fold. `cache_bytes` bounds the features kept on the storage
        (None: without bound).

        Raises:
            InvalidData: the bars do not do for the strategy.
        """
        from ktrdr.features.cache import prepare_dataset

        root, num_folds = self.storage.root, self.strategy.training.data_split.num_folds
        prepared = []
        for fold in self.folds:
            digest = prepare_dataset(root, self.strategy, self.market, fold, cache_bytes)
            request = _request(self.path, self.strategy, fold if num_folds > 1 else None)
            prepared.append((request, self._plan(digest)))
        return tuple(prepared)

    def _plan(self, dataset_digest: str) -> Plan:
        epochs = {"epochs": self.own.training.epochs}
        return Plan(
            config=loading.config(self.strategy),
            overrides=self.given,
            strategy_fingerprint=loading.fingerprint(self.strategy),
            data_fingerprint=self.market.fingerprint,
            dataset_digest=dataset_digest,
            spans=[asdict(span) for span in self.market.spans],
            storage=str(self.storage.root),
            strategy_given=self.strategy_given,
            overridden=epochs if "epochs" in self.given else {},
        )


def choose(
    path: Path, overrides: TrainingOptions, storage: Storage, only_fold: int | None = None
) -> Choice:
    """Check strategy, options and bars.

    Raises:
        StrategyNotFound, InvalidStrategy, Usage, DataNotFound, InvalidData.
    """
    given = overrides.checked()
    given_path, path = path, path.absolute()
    own = loading.load_strategy(path)
    strategy = loading.with_overrides(own, given)
    market = selected_bars(strategy, storage)
    return Choice(path, str(given_path), given, own, strategy, market, storage, only_fold)


def prepare(
    path: Path, overrides: TrainingOptions, storage: Storage, cache_bytes: int | None = None
) -> tuple[tuple[Request, Plan], ...]:
    """Choose and prepare in one."""
    return choose(path, overrides, storage).prepare(cache_bytes)


def selected_bars(strategy: Strategy, storage: Storage) -> Market:
    """The stored bars of the strategy's symbols, timeframes and dates.

    Raises:
        DataNotFound: some are missing.
    """
    store, data = BarStore(storage.root), strategy.training_data
    days = parse_date_range(data.start_date, data.end_date)

    def read(symbol: str, timeframe: str) -> Bars | None:
        if timeframe not in store.timeframes(symbol):
            return None
        chosen = store.read(symbol, timeframe).between(*days)
        if not len(chosen):
            raise DataNotFound(
                f"no bars of {symbol} {timeframe} between {data.start_date or 'the first'} and"
                f" {data.end_date or 'the last'}: see `ktrdr data show {symbol} {timeframe}`"
            )
        return chosen

    stored = store.timeframes if data.timeframes.resample else None
    return gather(strategy.symbols, strategy.timeframes, strategy.base_timeframe, read, stored)


def _request(path: Path, strategy: Strategy, fold: int | None) -> Request:
    data = strategy.training_data
    return Request(
        strategy_path=str(path),
        strategy_name=strategy.name,
        symbols=strategy.symbols,
        timeframes=strategy.timeframes,
        start_date=data.start_date.isoformat() if data.start_date else None,
        end_date=data.end_date.isoformat() if data.end_date else None,
        epochs=strategy.training.epochs,
        seed=strategy.training.seed,
        workers=1,
        fold=fold,
    )


def _checked(
    what: str, values: Sequence[str] | None, check: Callable[[str], str]
) -> list[str] | None:
    if values is None:
        return None
    names = [check(value) for value in values]
    if not names or len(set(names)) < len(names):
        raise Usage(f"name each {what} once: {', '.join(names) or 'none is given'}")
    return names
