"""The bars that a strategy is computed from: several symbols, each at several timeframes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ktrdr.data.bars import Bars, fingerprint, format_us, timeframe_us
from ktrdr.data.resampling import can_resample, resample
from ktrdr.errors import DataNotFound, InvalidData

Read = Callable[[str, str], Bars | None]
Stored = Callable[[str], Iterable[str]]


@dataclass(frozen=True)
class Span:
    """Rows of a stored series: open times in microseconds UTC, both ends included."""

    symbol: str
    timeframe: str
    first: int
    last: int
    rows: int

    def __str__(self) -> str:
        return (
            f"{self.symbol} {self.timeframe} from {format_us(self.first)} to {format_us(self.last)}"
        )


@dataclass(frozen=True, eq=False)
class Market:
    """Bars of every symbol at every timeframe, each with at least one row.

    `series` is what is computed from, by symbol and timeframe; `sources` are the stored bars that
    it consists of or was made from.
    """

    symbols: tuple[str, ...]
    timeframes: tuple[str, ...]
    base_timeframe: str
    series: Mapping[tuple[str, str], Bars]
    sources: tuple[Bars, ...]

    def base(self, symbol: str) -> Bars:
        """The bars that are a symbol's rows."""
        return self.series[symbol, self.base_timeframe]

    @property
    def spans(self) -> tuple[Span, ...]:
        return tuple(span_of(bars) for bars in self.sources)

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 over exactly these rows: appended bars do not change it."""
        return fingerprint_of(self.sources)


def fingerprint_of(sources: Iterable[Bars]) -> str:
    """The sha256 over the rows of several series, in their order; of one it is that series' own,
    as operations have it that are older than this."""
    digests = [fingerprint(bars) for bars in sources]
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def span_of(bars: Bars) -> Span:
    return Span(bars.symbol, bars.timeframe, bars.first, bars.last, len(bars))


def one_series(bars: Bars) -> Market:
    """A market of one symbol at one timeframe."""
    series = {(bars.symbol, bars.timeframe): bars}
    return Market((bars.symbol,), (bars.timeframe,), bars.timeframe, series, (bars,))


def gather(
    symbols: Sequence[str],
    timeframes: Sequence[str],
    base_timeframe: str,
    read: Read,
    stored: Stored | None = None,
) -> Market:
    """Everything that is needed, read once.

    Args:
        read: the bars of a symbol and timeframe, at least one, or None where there are none.
        stored: the timeframes that a symbol has; given where missing ones may be made from the
            longest lower one that fits into them.

    Raises:
        DataNotFound: bars are missing and cannot be made; every missing one is named.
        InvalidData: the lower bars fill no whole bar.
    """
    series: dict[tuple[str, str], Bars] = {}
    sources: dict[tuple[str, str], Bars] = {}
    for symbol in symbols:
        for timeframe in timeframes:
            source = _source(symbol, timeframe, read, stored)
            if source is not None:
                source = sources.setdefault((symbol, source.timeframe), source)
                series[symbol, timeframe] = _at(timeframe, source)
    missing = [(s, t) for s in symbols for t in timeframes if (s, t) not in series]
    if missing:
        raise _nothing_for(missing, can_be_made=stored is not None)
    return Market(
        tuple(symbols), tuple(timeframes), base_timeframe, series, tuple(sources.values())
    )


def _source(symbol: str, timeframe: str, read: Read, stored: Stored | None) -> Bars | None:
    """The stored bars that a timeframe is, or is made from."""
    bars = read(symbol, timeframe)
    if bars is not None or stored is None:
        return bars
    lower = [name for name in stored(symbol) if can_resample(name, timeframe)]
    return read(symbol, max(lower, key=timeframe_us)) if lower else None


def _at(timeframe: str, source: Bars) -> Bars:
    if source.timeframe == timeframe:
        return source
    made = resample(source, timeframe)
    if len(made):
        return made
    raise InvalidData(
        f"the {len(source):,} bars of {source.symbol} {source.timeframe} fill no whole {timeframe} "
        "bar: import more bars or widen the dates",
        symbol=source.symbol,
        timeframe=timeframe,
    )


def _nothing_for(missing: list[tuple[str, str]], can_be_made: bool) -> DataNotFound:
    listed = ", ".join(f"{symbol} {timeframe}" for symbol, timeframe in missing)
    symbol, timeframe = missing[0]
    hint = ", nor a lower timeframe to make them from" if can_be_made else ""
    return DataNotFound(
        f"no bars of {listed}{hint}; import them with 'ktrdr data import FILE --symbol {symbol} "
        f"--timeframe {timeframe}', see 'ktrdr data list'",
        missing=[{"symbol": symbol, "timeframe": timeframe} for symbol, timeframe in missing],
    )
