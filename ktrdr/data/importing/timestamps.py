"""Parsing of timestamps into microseconds UTC; ambiguous ones are refused.

A column is read shape by shape (`shapes`): texts of one shape have year, month, ... at the same
places, so they are read together.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktrdr.data.bars import SECOND_US, IntArray, echo
from ktrdr.data.importing.text_patterns import Rows, by_shape, shape_of
from ktrdr.errors import Usage

Mask = NDArray[np.bool_]

DAY_US = 86_400 * SECOND_US
_OLDEST_EPOCH_S = 100_000_000  # 1973; smaller whole numbers are counters, not times
_FIRST_US = -2_208_988_800_000_000  # 1900-01-01
_LAST_US = 4_102_444_800_000_000  # 2100-01-01

_EPOCH = re.compile(r"(?P<whole>0{9,13}|0{15,19})(?:\.(?P<zeros>0*))?")
_DATES = (
    r"(?P<Y>0000)[-./](?P<m>00?)[-./](?P<d>00?)",
    r"(?P<Y>0000)(?P<m>00)(?P<d>00)",
    r"(?P<m>00?)(?P<mark>[-./])(?P<d>00?)(?P=mark)(?P<Y>0000)",
    r"(?P<m>00?)(?P<mark>[./])(?P<d>00?)(?P=mark)(?P<y>00)",
    r"(?P<d>00?)[- ](?P<name>[A-Za-z]{3,9})[- ,]{1,2}(?P<Y>0000)",
    r"(?P<d>00?)[- ](?P<name>[A-Za-z]{3,9})[- ](?P<y>00)",
    r"(?P<name>[A-Za-z]{3,9}) (?P<d>00?),? (?P<Y>0000)",
)
_CLOCKS = (
    r"",
    r"[ T]+(?P<H>00?):(?P<M>00)(?::(?P<S>00)(?:[.,](?P<f>0{1,9}))?)?",
    r"[ T](?P<H>00)(?P<M>00)(?:(?P<S>00)(?P<f>000)?)?",
    r" (?P<H>00?)(?=[- ]?[AaPp][Mm])",  # 12-AM
)
_HALF = r"(?:[- ]?(?P<half>[AaPp])[Mm])?"
_OFFSET = r"(?: ?(?P<utc>Z|UTC|GMT)| ?(?:GMT|UTC)?(?P<sign>[+-])(?P<oh>00)(?::?(?P<om>00))?)?"
_SHAPES = (
    *(
        re.compile(date + (clock + _HALF + _OFFSET if clock else ""))
        for date in _DATES
        for clock in _CLOCKS
    ),
    re.compile(r"(?P<Y>0000)(?P<m>00)(?P<d>00)(?P<H>00)(?P<M>00)(?P<S>00)"),
    re.compile(r"(?P<Y>0000)(?P<m>00)(?P<d>00)(?P<H>00)(?P<M>00)"),
)
_MONTHS = (
    *("january", "february", "march", "april", "may", "june", "july", "august", "september"),
    *("october", "november", "december"),
)
_NONE, _UTC, _LOCAL = 0, 1, 2


@dataclass(frozen=True)
class Times:
    """A column of times before its zone is known.

    `moments` are microseconds UTC where `is_utc`, microseconds of a local clock where `is_local`,
    and nothing where neither: that text is no time. `undecided` is a date that reads both as
    day/month and as month/day where no row tells which; `order` is the order that the rows tell.
    """

    moments: IntArray
    is_utc: Mask
    is_local: Mask
    order: str | None = None
    undecided: str | None = None

    def all_midnights(self) -> bool:
        """Whether no local time says more than a date."""
        return not (self.moments[self.is_local] % DAY_US).any()


@dataclass(frozen=True)
class Stamps:
    """Microseconds UTC, 0 where not `readable`; and which local times a clock change made
    ambiguous (the earlier one stands) or nonexistent (not readable)."""

    values: IntArray
    readable: Mask
    ambiguous: Mask
    nonexistent: Mask


@dataclass(frozen=True)
class _Group:
    """The rows of one shape: dates in fields, time of day and offset in microseconds."""

    rows: Rows
    year: IntArray
    month: IntArray
    day: IntArray
    clock: IntArray
    zoned: bool
    mark: str | None  # of a date whose month and day may stand the other way round
    example: str


def check_timezone(timezone: str) -> str:
    """Return the IANA zone's name, or raise Usage."""
    try:
        pl.Series([0]).cast(pl.Datetime("us")).dt.replace_time_zone(timezone or "?")
    except pl.exceptions.PolarsError:
        raise Usage(
            f"{echo(timezone)} is not a time zone: write an IANA name such as UTC, Europe/Berlin, "
            "America/New_York"
        ) from None
    return timezone


def read_times(column: pl.Series, order: str | None = None) -> Times:
    """Read ISO 8601 text, dates in any common order, or epochs (s, ms, us or ns by their size).

    Args:
        order: "dmy" or "mdy" for dates such as 01/02/2020; None lets the rows decide it.

    Times before 1900 or after 2099 are no times.
    """
    kind = column.dtype
    if isinstance(kind, pl.Datetime):
        column = column.cast(pl.Datetime("us", kind.time_zone))
        return _typed(column, _LOCAL if kind.time_zone is None else _UTC)
    if kind == pl.Date:
        return _typed(column.cast(pl.Datetime("us")), _LOCAL)
    if kind.is_float():
        column = column.cast(pl.Int64, strict=False)
    if not (column.dtype.is_numeric() or kind == pl.String):
        column = pl.Series([None], dtype=pl.String).new_from_index(0, len(column))
    return _read_text(column.cast(pl.String), order)


def is_time(text: str) -> bool:
    """Whether the text has the shape of a date, of a date and time, or of an epoch."""
    shape = shape_of(text)
    return _EPOCH.fullmatch(shape) is not None or _match(shape) is not None


def place_times(times: Times, timezone: str) -> Stamps:
    """The moments of these times, with local ones on the clock of a (checked) IANA zone."""
    ambiguous = nonexistent = np.zeros(len(times.moments), bool)
    values, readable = times.moments, times.is_utc | times.is_local
    if timezone != "UTC" and times.is_local.any():
        local = pl.Series(values).set(pl.Series(~times.is_local), None).cast(pl.Datetime("us"))
        early = local.dt.replace_time_zone(timezone, ambiguous="earliest", non_existent="null")
        late = local.dt.replace_time_zone(timezone, ambiguous="latest", non_existent="null")
        ambiguous = (early != late).fill_null(False).to_numpy()
        nonexistent = times.is_local & early.is_null().to_numpy()
        moved = early.dt.convert_time_zone("UTC").cast(pl.Int64).fill_null(0).to_numpy()
        values = np.where(times.is_local, moved, values)
        readable = readable & ~nonexistent
    return Stamps(values, readable, ambiguous, nonexistent)


def wall_clock_us(stamps_us: pl.Series, timezone: str) -> pl.Series:
    """What a clock in `timezone` shows at these moments, as microseconds."""
    local = stamps_us.cast(pl.Datetime("us", "UTC")).dt.convert_time_zone(timezone)
    return local.dt.replace_time_zone(None).cast(pl.Int64)


def _typed(column: pl.Series, kind: int) -> Times:
    moments = column.cast(pl.Int64).fill_null(_LAST_US).to_numpy()
    return _times(moments, np.full(len(moments), kind, np.uint8))


def _times(moments: IntArray, kinds: NDArray[np.uint8], **order: Any) -> Times:
    possible = (moments >= _FIRST_US) & (moments < _LAST_US)
    moments = moments if possible.all() else np.where(possible, moments, 0)
    return Times(moments, possible & (kinds == _UTC), possible & (kinds == _LOCAL), **order)


def _read_text(text: pl.Series, order: str | None) -> Times:
    moments = np.full(len(text), _LAST_US)
    kinds = np.zeros(len(text), np.uint8)
    groups: list[_Group] = []
    for shape, rows, digits in by_shape(text.fill_null("")):
        epoch = _EPOCH.fullmatch(shape)
        if epoch is not None and not _are_minutes(shape, digits):
            moments[rows], kinds[rows] = _read_epochs(digits, epoch), _UTC
        elif (match := _match(shape)) is not None:
            group = _read_group(match, rows, digits)
            groups += [] if _may_begin_with_year(match, group) else [group]
    told, undecided = _tell_order(groups)
    for group in groups:
        moments[group.rows] = _to_moments(group, order or told)
        kinds[group.rows] = _UTC if group.zoned else _LOCAL
    swappable = any(group.mark for group in groups)
    return _times(
        *(moments, kinds),
        order=(order or told) if swappable else None,
        undecided=None if order else undecided,
    )


def _are_minutes(shape: str, digits: NDArray[np.uint8]) -> bool:
    """Whether twelve digits are YYYYMMDDHHMM of these centuries, not milliseconds of 1976."""
    if len(shape) != 12 or "." in shape:
        return False
    century = digits[0] * 10.0 + digits[1] - 11 * 48
    return bool(((century == 19) | (century == 20)).mean() > 0.5)


def _may_begin_with_year(match: re.Match[str], group: _Group) -> bool:
    """Whether dates such as 24/01/03 may as well be of 2024: the first number never changes."""
    if not (match.groupdict().get("y") and group.mark == "/"):
        return False
    first = group.month
    return bool(first[0] > 12 and (first == first[0]).all())


def _match(shape: str) -> re.Match[str] | None:
    for form in _SHAPES:
        match = form.fullmatch(shape)
        if match is not None:
            return match
    return None


def _read_group(match: re.Match[str], rows: Rows, digits: NDArray[np.uint8]) -> _Group:
    parts = match.groupdict()
    zoned = bool(parts.get("utc") or parts.get("sign"))
    month = _number(digits, match, "m")
    if parts.get("name"):
        month = np.full_like(month, _month_of(parts["name"]))
    year = _number(digits, match, "Y")
    if parts.get("y"):
        short = _number(digits, match, "y")
        year = np.where(short < 69, 2000, 1900) + short  # as POSIX reads them
    return _Group(
        rows=rows,
        year=year,
        month=month,
        day=_number(digits, match, "d"),
        clock=_read_clock(digits, match),
        zoned=zoned,
        mark=parts.get("mark"),
        example=bytes(digits[:, 0]).decode("ascii", "replace"),
    )


def _read_clock(digits: NDArray[np.uint8], match: re.Match[str]) -> IntArray:
    """Microseconds since midnight UTC or of the local clock; an impossible clock leads far out."""
    parts = match.groupdict()
    hour, minute = _number(digits, match, "H"), _number(digits, match, "M")
    second = _number(digits, match, "S")
    wrong = (hour > 23) | (minute > 59) | (second > 59)
    if parts.get("half"):
        wrong |= (hour < 1) | (hour > 12)
        hour = hour % 12 + (12 if parts["half"] in "Pp" else 0)
    clock = ((hour * 60 + minute) * 60 + second) * SECOND_US
    if parts.get("f"):
        places = len(parts["f"])
        clock += _number(digits, match, "f") * 10**6 // 10**places
    if parts.get("sign"):
        ahead, minutes = _number(digits, match, "oh"), _number(digits, match, "om")
        wrong |= (ahead > 23) | (minutes > 59)
        shift = (ahead * 60 + minutes) * 60 * SECOND_US
        clock = clock - shift if parts["sign"] == "+" else clock + shift
    clock[wrong] = _LAST_US * 2
    return clock


def _number(digits: NDArray[np.uint8], match: re.Match[str], part: str) -> IntArray:
    """The whole numbers at a part's place, 0 where the shape does not have it."""
    start, stop = match.span(part) if part in match.re.groupindex else (-1, -1)
    value: IntArray = np.zeros(digits.shape[1], np.int64)
    for place in digits[max(start, 0) : max(stop, 0)]:
        value *= 10
        value += place
        value -= 48
    return value


def _month_of(name: str) -> int:
    """1 to 12 by an English name or its first letters; 0, which is no month, for other words."""
    fits = [i for i, month in enumerate(_MONTHS, 1) if month.startswith(name.lower())]
    return fits[0] if len(fits) == 1 else 9 if name.lower() == "sept" else 0


def _tell_order(groups: list[_Group]) -> tuple[str | None, str | None]:
    """(order, None), or (None, an example) where no row tells the day from the month."""
    open_groups = [group for group in groups if group.mark]
    day_first = sum(int(((g.month > 12) & (g.day <= 12)).sum()) for g in open_groups)
    month_first = sum(int(((g.day > 12) & (g.month <= 12)).sum()) for g in open_groups)
    if day_first != month_first:
        return ("dmy" if day_first > month_first else "mdy"), None
    if all(group.mark == "." for group in open_groups):
        return "dmy", None  # nobody writes a month first and then a dot
    unclear = [g.example for g in open_groups if (g.month != g.day).any()]
    return "mdy", (unclear[0] if unclear else None)


def _to_moments(group: _Group, order: str | None) -> IntArray:
    """Microseconds, far out for a date that there is not. Neighbours mostly share their date, so
    each run of equal dates is looked up once."""
    month, day = group.month, group.day
    if group.mark and order == "dmy":
        month, day = day, month
    dates = (group.year * 100 + month) * 100 + day
    starts = np.flatnonzero(np.diff(dates, prepend=-1))
    days = _days_since_1970(group.year[starts], month[starts], day[starts])
    moments: IntArray = np.repeat(days * DAY_US, np.diff(starts, append=len(dates)))
    moments += group.clock
    return moments


def _days_since_1970(year: IntArray, month: IntArray, day: IntArray) -> IntArray:
    wrong = (month < 1) | (month > 12) | (year < 1900) | (year > 2100)
    months = np.where(wrong, 0, (year - 1970) * 12 + month - 1)
    starts = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    ends = (months + 1).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    wrong |= (day < 1) | (day > ends - starts)
    return np.where(wrong, _LAST_US // DAY_US, starts + day - 1)


def _read_epochs(digits: NDArray[np.uint8], match: re.Match[str]) -> IntArray:
    """The unit follows from the size, row by row: vendors change it in the middle of a file."""
    value = _number(digits, match, "whole")
    broken = _number(digits, match, "zeros") != 0
    broken |= value < _OLDEST_EPOCH_S
    scaled = np.select(
        [value < 10**11, value < 10**14, value < 10**17],
        [value * 1_000_000, value * 1_000, value],
        value // 1_000,
    )
    return np.where(broken, _LAST_US, scaled)
