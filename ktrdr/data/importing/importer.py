"""Import of bars from a file, or a refusal that names lines and reasons.

Nothing is invented and nothing is dropped in silence: a file is imported as it stands, or, with
`fix`, without the rows that cannot be used, and the report says how many those were.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktrdr.data.bars import (
    PRICE_COLUMNS,
    SECOND_US,
    Bars,
    FloatArray,
    IntArray,
    timeframe_us,
)
from ktrdr.data.importing.archives import refuse
from ktrdr.data.importing.options import Choices, Said, check_said, settle
from ktrdr.data.importing.raw_table import NUMBER_COLUMNS, RawTable, readings
from ktrdr.data.importing.timestamps import Stamps, place_times, read_times, wall_clock_us
from ktrdr.errors import InvalidData

Mask = NDArray[np.bool_]

# What is wrong with a row, in the order in which it is looked for: a row counts once.
KINDS = {
    "ragged": "with a wrong number of fields",
    "ambiguous_time": "at a local time that occurs twice",
    "nonexistent_time": "at a local time that does not exist",
    "unparsable_time": "whose time cannot be read",
    "unparsable_number": "with a missing or unreadable number",
    "not_finite": "with NaN or infinity",
    "price_not_positive": "with a price not above zero",
    "negative_volume": "with a volume below zero",
    "impossible": "with a high or low inside the body",
    "duplicate": "that repeat a time",
    "unsorted": "earlier than the row before",
}
_SHOWN_LINES = 10
_FEWEST_ENDS = 20
_QUARTER_HOUR_US = 900 * SECOND_US
_HOUR_US = 3600 * SECOND_US


@dataclass(frozen=True)
class ImportReport:
    """The bars of a file; `dropped` rows by kind, `moved` rows that were out of order.

    `format` is the dialect it was read as, `columns` names the columns that each value of a bar was
    taken from, `timezone` is the zone of times without an offset.
    """

    bars: Bars
    dropped: dict[str, int]
    moved: int
    notes: tuple[str, ...]
    format: str
    columns: dict[str, list[str]]
    timezone: str


@dataclass(frozen=True)
class _Rows:
    """A file's rows as numbers, with the kinds of trouble found in them."""

    lines: IntArray
    stamps: IntArray
    numbers: tuple[FloatArray, ...]
    troubles: dict[str, Mask]

    def without(self, bad: Mask) -> _Rows:
        """The other rows, in the order of time."""
        if not bad.any() and (np.diff(self.stamps) > 0).all():
            return _Rows(self.lines, self.stamps, self.numbers, {})
        keep = np.flatnonzero(~bad)
        keep = keep[np.argsort(self.stamps[keep], kind="stable")]
        numbers = tuple(column[keep] for column in self.numbers)
        return _Rows(self.lines[keep], self.stamps[keep], numbers, {})


@dataclass(frozen=True)
class _Examined:
    """One reading of a file: its rows, and what they were taken for."""

    raw: RawTable
    rows: _Rows
    timezone: str
    notes: tuple[str, ...]


def import_file(
    path: Path, symbol: str, timeframe: str, **choices: Unpack[Choices]
) -> ImportReport:
    """Read and check a file of OHLCV bars: CSV, JSON (also .gz or in a .zip), Parquet, Feather.

    With `fix` unusable rows are dropped (of a repeated time all but the first) and the rest
    is sorted. A file of which more than half would be dropped is refused nevertheless, and so is
    one whose rows do not have the timeframe's spacing.

    Raises:
        Usage: no such file, symbol, timeframe, time zone or format; or the file leaves something
            open that only the user knows (`details["flags"]`).
        InvalidData: unusable rows (`details["problems"]`: kind -> count and first lines), not
            OHLC, or another timeframe.
    """
    said = check_said(Said(symbol, timeframe, **choices))
    examined = _read(path, said)
    place, rows, timezone = examined.raw.place, examined.rows, examined.timezone
    if rows.troubles and not said.fix:
        raise _unusable(path, place, rows)
    dropped = {kind: int(m.sum()) for kind, m in rows.troubles.items() if kind != "unsorted"}
    moved = int(rows.troubles.get("unsorted", np.zeros(1, bool)).sum())
    kept = rows.without(_any(rows, [kind for kind in rows.troubles if kind != "unsorted"]))
    if len(kept.stamps) * 2 < len(rows.stamps):
        raise _unusable(path, place, rows)
    _check_spacing(path, place, kept, timeframe, timezone)
    reading = examined.raw.reading
    return ImportReport(
        bars=Bars(symbol, timeframe, kept.stamps, *kept.numbers),
        dropped=dropped,
        moved=moved,
        notes=examined.notes,
        format=reading.format,
        columns={role: reading.layout.names(role) for role in reading.layout.columns},
        timezone=timezone,
    )


def _read(path: Path, said: Said) -> _Examined:
    """The first reading without trouble, or the exact one with its troubles."""
    result = None
    for raw in readings(path, said.format):
        if raw.frame.is_empty():
            raise refuse(path, "it has no rows")
        result = _examine(path, raw, said)
        if not result.rows.troubles:
            return result
    assert result is not None  # there is always an exact reading
    return result


def _examine(path: Path, raw: RawTable, said: Said) -> _Examined:
    times = read_times(raw.frame["timestamp"], raw.reading.order)
    prices = {name: _floats(raw.frame[name]) for name in PRICE_COLUMNS}
    answers = settle(path, raw.reading, times, prices, said)
    stamps = place_times(times, answers.timezone)
    values = (*answers.prices.values(), _floats(raw.frame["volume"]))
    backwards = _runs_backwards(stamps)
    if raw.reading.layout.head.header is None:
        _check_ends(path, prices["open"], prices["close"], backwards)
    found: dict[str, Mask] = {
        "ambiguous_time": stamps.ambiguous,
        "nonexistent_time": stamps.nonexistent,
        "unparsable_time": ~stamps.readable,
    }
    if "ragged" in raw.frame.columns:
        found = {"ragged": raw.frame["ragged"].to_numpy(), **found}
    found["unparsable_number"] = np.zeros(len(times.moments), bool)
    for name in NUMBER_COLUMNS:
        found["unparsable_number"] |= raw.frame[name].is_null().to_numpy()
    found.update(_number_troubles(*values))
    troubles = dict(_each_row_once(found, -stamps.values if backwards else stamps.values))
    lines = raw.frame["line"].to_numpy().astype(np.int64)
    notes = (*raw.notes, *answers.notes)
    if backwards:
        notes = (*notes, "rows run from the newest to the oldest: turned round")
    return _Examined(raw, _Rows(lines, stamps.values, values, troubles), answers.timezone, notes)


def _check_ends(path: Path, opens: FloatArray, closes: FloatArray, backwards: bool) -> None:
    """Refuse columns without names of which the first price is the close: a bar opens near where
    the one before closed, and the other way round it is two bars from there."""
    known = np.isfinite(opens) & np.isfinite(closes)
    step = -1 if backwards else 1
    opens, closes = opens[known][::step], closes[known][::step]
    if len(opens) < _FEWEST_ENDS:
        return
    with np.errstate(over="ignore"):  # numbers beyond all prices
        taken = np.abs(opens[1:] - closes[:-1]).mean()
        swapped = np.abs(closes[1:] - opens[:-1]).mean()
    if swapped < taken / 2:
        raise refuse(
            path,
            "it has no header, and its first price looks like the close and the last like the open",
            "the first line must name timestamp,open,high,low,close,volume",
        )


def _floats(column: pl.Series) -> FloatArray:
    floats: FloatArray = column.fill_null(np.nan).to_numpy()
    return floats


def _runs_backwards(stamps: Stamps) -> bool:
    """Whether most rows are older than the row before, as in files that start with today."""
    steps = np.diff(stamps.values[stamps.readable])
    return 2 * int((steps < 0).sum()) > len(steps)


def _number_troubles(
    opens: FloatArray, highs: FloatArray, lows: FloatArray, closes: FloatArray, volumes: FloatArray
) -> dict[str, Mask]:
    finite = np.isfinite(opens) & np.isfinite(highs) & np.isfinite(lows) & np.isfinite(closes)
    body_top, body_foot = np.maximum(opens, closes), np.minimum(opens, closes)
    return {
        "not_finite": ~(finite & np.isfinite(volumes)),
        "price_not_positive": np.minimum(np.minimum(opens, closes), np.minimum(highs, lows)) <= 0,
        "negative_volume": volumes < 0,
        "impossible": (highs < body_top) | (lows > body_foot),
    }


def _each_row_once(found: dict[str, Mask], times: IntArray) -> Iterator[tuple[str, Mask]]:
    """Kinds that occur, each row under its first one; order is judged among the good rows."""
    bad = np.zeros(len(times), bool)
    for kind, mask in found.items():
        news = mask & ~bad
        if news.any():
            yield kind, news
            bad |= news
    good = np.flatnonzero(~bad)
    if (np.diff(times[good]) > 0).all():
        return
    firsts = np.unique(times[good], return_index=True)[1]
    repeated = np.ones(len(good), bool)
    repeated[firsts] = False
    if repeated.any():
        yield "duplicate", _mask_of(good[repeated], len(times))
    rest = good[~repeated]
    early = times[rest] < np.maximum.accumulate(times[rest])
    if early.any():
        yield "unsorted", _mask_of(rest[early], len(times))


def _mask_of(rows: IntArray, count: int) -> Mask:
    mask = np.zeros(count, bool)
    mask[rows] = True
    return mask


def _any(rows: _Rows, kinds: list[str]) -> Mask:
    mask = np.zeros(len(rows.stamps), bool)
    for kind in kinds:
        mask |= rows.troubles[kind]
    return mask


def _unusable(path: Path, place: str, rows: _Rows) -> InvalidData:
    problems = {
        kind: {"count": int(mask.sum()), "lines": rows.lines[mask][:_SHOWN_LINES].tolist()}
        for kind, mask in rows.troubles.items()
    }
    said = [
        f"{p['count']:,} {KINDS[kind]} ({_say_lines(place, p['lines'], p['count'])})"
        for kind, p in problems.items()
    ]
    total = sum(p["count"] for p in problems.values())
    advice = "correct them, or drop them with --fix"
    if 2 * (total - problems.get("unsorted", {"count": 0})["count"]) > len(rows.stamps):
        advice = "more than half of it: this is no file of OHLCV bars"
        if 2 * problems.get("unparsable_time", {"count": 0})["count"] > len(rows.stamps):
            advice += ", or its times are not written as 2024-01-31 14:30 or seconds since 1970"
    return InvalidData(
        f"{path.name}: {total:,} of {len(rows.stamps):,} rows cannot be used: "
        f"{', '.join(said)}; {advice}",
        path=str(path),
        rows=len(rows.stamps),
        problems=problems,
    )


def _say_lines(place: str, lines: list[int], count: int) -> str:
    more = ", ..." if count > len(lines) else ""
    return f"{place}{'s' if count > 1 else ''} {', '.join(map(str, lines))}{more}"


def _check_spacing(path: Path, place: str, rows: _Rows, timeframe: str, timezone: str) -> None:
    """Refuse rows of another timeframe.

    Up to an hour a grid is one of UTC; above, one of the local clock, which daylight saving shifts.
    All bars must open at the same phase of it (exchanges open at half past), on a quarter hour.
    """
    step = timeframe_us(timeframe)
    stamps = pl.Series(rows.stamps)
    clock = stamps if step <= _HOUR_US else wall_clock_us(stamps, timezone)
    times = clock.to_numpy()
    gaps, phases = np.diff(times), times % step
    off_grid = (phases != _most_common(phases)) | (phases % min(step, _QUARTER_HOUR_US) != 0)
    if len(gaps) and gaps.min() < step:
        near = rows.lines[1:][gaps < step][:_SHOWN_LINES].tolist()
        problem = (
            f"rows are closer together than {timeframe} ({_say_lines(place, near, len(near))})"
        )
    elif off_grid.any():
        off = rows.lines[off_grid][:_SHOWN_LINES].tolist()
        problem = f"rows are not on the grid of {timeframe} ({_say_lines(place, off, len(off))})"
    elif len(gaps) > 1 and gaps.min() > step:
        problem = f"no two rows are {timeframe} apart"
    else:
        return
    advice = "import it with the right --timeframe"
    if step > _HOUR_US:
        advice += ", or say with --timezone on whose clock its days begin"
    raise refuse(path, f"{problem}; {_say_spacing(gaps)}", advice)


def _most_common(numbers: IntArray) -> int:
    if (numbers == numbers[0]).all():
        return int(numbers[0])
    values, counts = np.unique(numbers, return_counts=True)
    return int(values[counts.argmax()])


def _say_spacing(gaps: IntArray) -> str:
    if len(gaps) == 0:
        return "it has one row"
    return f"the usual spacing is {_say_span(_most_common(gaps))}"


def _say_span(span_us: int) -> str:
    for unit, seconds in (("w", 604_800), ("d", 86_400), ("h", 3600), ("m", 60)):
        if span_us % (seconds * SECOND_US) == 0:
            return f"{span_us // (seconds * SECOND_US)}{unit}"
    return f"{span_us / SECOND_US:g} s"
