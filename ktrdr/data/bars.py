"""Bars, and the validation of symbols, timeframes and dates.

Bars are stamped with their open time, UTC, in microseconds since 1970. Everything that reaches a
path or a message (symbols, timeframes, dates) is checked here, once, at the edge.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ktrdr.errors import Usage
from ktrdr.strategy.field_types import canonical_timeframe, timeframe_seconds

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

SECOND_US = 1_000_000
PRICE_COLUMNS = ("open", "high", "low", "close")

_SYMBOL = re.compile(r"[A-Za-z0-9^][A-Za-z0-9._=^-]{0,31}")
_TIMEFRAME = re.compile(r"[1-9][0-9]{0,3}[mhdw]")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_LONGEST_ECHO = 40


@dataclass(frozen=True, eq=False)
class Bars:
    """OHLCV rows of one symbol and timeframe, strictly increasing in time, all finite.

    `timestamps` are open times in microseconds UTC; prices are above zero, volume is not negative.
    """

    symbol: str
    timeframe: str
    timestamps: IntArray
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray

    def __len__(self) -> int:
        return len(self.timestamps)

    @property
    def first(self) -> int:
        """Open time of the first bar; there must be one."""
        return int(self.timestamps[0])

    @property
    def last(self) -> int:
        """Open time of the last bar; there must be one."""
        return int(self.timestamps[-1])

    def between(self, start_us: int | None, end_us: int | None) -> Bars:
        """The bars that open within [start_us, end_us], both ends included; None leaves it open."""
        low = 0 if start_us is None else int(np.searchsorted(self.timestamps, start_us, "left"))
        high = len(self)
        if end_us is not None:
            high = int(np.searchsorted(self.timestamps, end_us, "right"))
        return self.rows(low, high)

    def rows(self, start: int, stop: int) -> Bars:
        """Rows [start, stop) as views of the same memory."""
        part = slice(start, max(start, stop))
        return Bars(
            symbol=self.symbol,
            timeframe=self.timeframe,
            timestamps=self.timestamps[part],
            open=self.open[part],
            high=self.high[part],
            low=self.low[part],
            close=self.close[part],
            volume=self.volume[part],
        )


def columns(
    bars: Bars,
) -> tuple[IntArray, FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
    """Timestamps, open, high, low, close, volume."""
    return bars.timestamps, bars.open, bars.high, bars.low, bars.close, bars.volume


def fingerprint(bars: Bars) -> str:
    """The sha256 of symbol, timeframe and exactly these rows: appended bars do not change it."""
    digest = hashlib.sha256(f"{bars.symbol}\n{bars.timeframe}\n{len(bars)}\n".encode())
    for column in columns(bars):
        digest.update(column.astype(column.dtype.newbyteorder("<"), order="C", copy=False).data)
    return digest.hexdigest()


def check_symbol(symbol: str) -> str:
    """Return the symbol; raise Usage where it is not one, proposing one that is."""
    if _SYMBOL.fullmatch(symbol) and ".." not in symbol:
        return symbol
    proposal = re.sub(r"[^A-Za-z0-9^]", "", symbol)
    hint = f"; write {proposal}" if _SYMBOL.fullmatch(proposal) else ""
    raise Usage(
        f"{echo(symbol)} is not a symbol: letters, digits and . _ = ^ -, at most 32, "
        f"without '..'{hint}",
        symbol=symbol[:_LONGEST_ECHO],
    )


def check_timeframe(timeframe: str) -> str:
    """Return the timeframe; raise Usage where it is not one such as 5m, 1h, 1d, 1w."""
    if not _TIMEFRAME.fullmatch(timeframe):
        raise Usage(
            f"{echo(timeframe)} is not a timeframe: write a number and m, h, d or w, such as "
            "5m, 1h, 4h, 1d",
            timeframe=timeframe[:_LONGEST_ECHO],
        )
    canonical = canonical_timeframe(timeframe)
    if canonical != timeframe:
        raise Usage(f"{timeframe} is written {canonical}; write {canonical}", timeframe=timeframe)
    return timeframe


def is_timeframe(text: str) -> bool:
    """Whether `check_timeframe` lets it through."""
    return bool(_TIMEFRAME.fullmatch(text)) and canonical_timeframe(text) == text


def timeframe_us(timeframe: str) -> int:
    """The length of a checked timeframe in microseconds."""
    return timeframe_seconds(timeframe) * SECOND_US


def closing_time(bars: Bars) -> int:
    """When the last bar closes, in microseconds UTC; there must be one."""
    return bars.last + timeframe_us(bars.timeframe)


def parse_date_range(
    start: str | dt.date | None, end: str | dt.date | None
) -> tuple[int | None, int | None]:
    """First and last microsecond UTC of the days from `start` to `end`, both whole.

    Raises Usage for what is not a date (YYYY-MM-DD), or an end before its start.
    """
    first = None if start is None else _midnight_us(_parse_date(start))
    last = None if end is None else _midnight_us(_parse_date(end)) + 86_400 * SECOND_US - 1
    if first is not None and last is not None and last < first:
        raise Usage(f"the end date {end} is before the start date {start}: swap them")
    return first, last


def format_us(timestamp_us: int) -> str:
    """A moment as ISO 8601 with Z, to the second unless it has a fraction."""
    moment = dt.datetime(1970, 1, 1) + dt.timedelta(microseconds=timestamp_us)
    return moment.isoformat() + "Z"


def echo(text: str) -> str:
    """A user's word as it may stand in a message: quoted, escaped, cut short."""
    cut = text if len(text) <= _LONGEST_ECHO else text[:_LONGEST_ECHO] + "..."
    return ascii(cut)


def _parse_date(value: str | dt.date) -> dt.date:
    if isinstance(value, dt.datetime):
        return value.date()
    if isinstance(value, dt.date):
        return value
    try:
        if _DATE.fullmatch(value):
            return dt.date.fromisoformat(value)
    except ValueError:
        pass
    raise Usage(f"{echo(value)} is not a date: write it as YYYY-MM-DD, such as 2020-01-31")


def _midnight_us(day: dt.date) -> int:
    return (day - dt.date(1970, 1, 1)).days * 86_400 * SECOND_US
