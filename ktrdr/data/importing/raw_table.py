"""A file of bars as a table of unchecked columns, with the line number of each row.

A clean CSV is read by one vectorised pass. Only when something in it is wrong is it read again,
line by line, to say where: `readings` yields the quick reading first and the exact one after it.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from ktrdr.data.bars import PRICE_COLUMNS, IntArray, echo
from ktrdr.data.importing.archives import Content, refuse, unpack
from ktrdr.data.importing.binary import is_binary, is_json, read_binary, read_json
from ktrdr.data.importing.columns import Layout, column_notes, lay_out
from ktrdr.data.importing.csv_sniffer import read_head
from ktrdr.data.importing.dialects import AUTO, Reading, recognise
from ktrdr.data.importing.timestamps import DAY_US

NUMBER_COLUMNS = (*PRICE_COLUMNS, "volume")

_CHUNK_ROWS = 200_000
_BLANKS = ("", "-", "N/A", "n/a")
_WITH_UNIT = r"^([0-9.,]+) ?([KMBkmb])$"
_UNITS = {"K": 1e3, "M": 1e6, "B": 1e9}
_THOUSANDS = r"^[+-]?[0-9]{1,3}(,[0-9]{3})+(\.[0-9]+)?$"
_DECIMAL_COMMA = r"^[+-]?([0-9]+|[0-9]{1,3}(\.[0-9]{3})+)(,[0-9]+)?$"


@dataclass(frozen=True)
class RawTable:
    """Columns `timestamp` (as in the file), the five numbers (null where they are none), `line`
    and, where rows may have a wrong number of fields, `ragged`. `place` is what a line number
    counts."""

    frame: pl.DataFrame
    place: str
    reading: Reading
    notes: tuple[str, ...]


def readings(path: Path, wanted: str = AUTO) -> Iterator[RawTable]:
    """The file's rows, quickly read if that is possible, then exactly; they agree on clean files.

    Raises Usage where there is no such file, InvalidData where it is no table of OHLC.
    """
    content = unpack(path)
    if is_binary(content) or is_json(content):
        table = read_json(content) if is_json(content) else read_binary(content)
        reading = recognise(path, lay_out(path, table.head), wanted)
        yield _assemble(table.take(reading.layout), reading, "row")
        return
    reading = recognise(path, lay_out(path, read_head(content)), wanted)
    quick = _read_quickly(content.data, reading.layout)
    if quick is not None:
        yield _assemble(quick, reading, "line")
    exact = _read_by_lines(content.data, reading.layout)
    if exact is None:
        exact = _read_by_rows(content, reading.layout)
    yield _assemble(exact, reading, "line")


def _read_quickly(data: bytes, layout: Layout) -> pl.DataFrame | None:
    """All fields of all rows in one pass, or None where that is not possible.

    Too many fields and text among the numbers make polars refuse; too few become nulls.
    """
    numbers = {i for role in NUMBER_COLUMNS for i in layout.columns[role]}
    schema = {_name(i): pl.Float64 if i in numbers else pl.String for i in range(layout.head.width)}
    separator, above = layout.head.separator, layout.head.first_line - 1
    if layout.decimal_comma or _has_stray_returns(data):
        return None  # polars would read a decimal point among decimal commas too
    start = _offset_of(data, layout.head.first_line)
    if above > 1 or b'"' in data[:start]:
        data, above = data[start:], 0
    try:
        frame = pl.read_csv(
            data,
            has_header=False,
            skip_rows=above,
            schema=schema,
            separator=separator,
        )
    except pl.exceptions.PolarsError:
        return None
    return frame.select(*map(_name, _used(layout))).with_row_index("line", layout.head.first_line)


def _has_stray_returns(data: bytes) -> bool:
    """Whether a carriage return stands elsewhere than before a line feed: polars drops those."""
    return b"\r" in data and data.count(b"\r") != data.count(b"\r\n")


def _offset_of(data: bytes, line: int) -> int:
    offset = 0
    for _ in range(line - 1):
        end = data.find(b"\n", offset)
        if end < 0:
            return len(data)
        offset = end + 1
    return offset


def _read_by_lines(data: bytes, layout: Layout) -> pl.DataFrame | None:
    """As text, each row with the number of its line and whether it has the right number of fields;
    None where rows are not lines, since fields are quoted."""
    if b'"' in data or _has_stray_returns(data):
        return None
    first, width = layout.head.first_line, layout.head.width
    data = data[_offset_of(data, first) :]
    lengths, fields = _measure_lines(data, layout.head.separator)
    try:
        frame = pl.read_csv(
            data,
            has_header=False,
            schema={_name(i): pl.String for i in range(width)},
            separator=layout.head.separator,
            quote_char=None,
            truncate_ragged_lines=True,
        )
    except pl.exceptions.PolarsError:
        return None
    rows = np.flatnonzero(lengths)
    if len(rows) != len(frame):
        return None
    used = _used(layout)
    return frame.select(*map(_name, used)).with_columns(
        pl.Series("line", rows + first, pl.UInt32),
        pl.Series("ragged", (fields[rows] > width) | (fields[rows] <= used[-1])),
    )


def _measure_lines(data: bytes, separator: str) -> tuple[IntArray, IntArray]:
    """The length of each line without its end, and the number of its fields."""
    letters = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(letters == ord("\n"))
    if not data.endswith(b"\n"):
        ends = np.append(ends, len(data))
    lengths = np.diff(ends, prepend=-1) - 1
    returned = (lengths > 0) & (letters[ends - 1] == ord("\r"))
    before = np.searchsorted(np.flatnonzero(letters == ord(separator)), ends)
    return lengths - returned, np.diff(before, prepend=0) + 1


def _read_by_rows(content: Content, layout: Layout) -> pl.DataFrame:
    """The same by the csv module, each row with the number of the line it ends on."""
    text = io.TextIOWrapper(
        io.BytesIO(content.data), encoding="utf-8", errors="replace", newline=""
    )
    rows = csv.reader(text, delimiter=layout.head.separator)
    first = layout.head.first_line
    numbered = ((rows.line_num, row) for row in rows if row and rows.line_num >= first)
    chunks = [_to_frame([], layout)]
    try:
        while chunk := list(itertools.islice(numbered, _CHUNK_ROWS)):
            chunks.append(_to_frame(chunk, layout))
    except csv.Error as error:
        raise refuse(content.path, f"line {rows.line_num} is not CSV ({error})") from error
    return pl.concat(chunks)


def _to_frame(numbered: list[tuple[int, list[str]]], layout: Layout) -> pl.DataFrame:
    """Rows as columns; one with too few fields has nulls, one with too many loses the rest."""
    used, width = _used(layout), layout.head.width
    lines = [line for line, _ in numbered]
    ragged = [len(row) > width or len(row) <= used[-1] for _, row in numbered]
    whole = [row if len(row) == width else _pad(row, width) for _, row in numbered]
    columns = list(zip(*whole, strict=True)) or [()] * width
    return pl.DataFrame(
        [
            *(pl.Series(_name(i), columns[i], pl.String) for i in used),
            pl.Series("line", lines, pl.UInt32),
            pl.Series("ragged", ragged, pl.Boolean),
        ]
    )


def _pad(row: list[str], width: int) -> list[str | None]:
    return [*row[:width], *[None] * (width - len(row))]


def _used(layout: Layout) -> list[int]:
    return sorted({i for places in layout.columns.values() for i in places})


def _name(place: int) -> str:
    return f"c{place}"


def _assemble(fields: pl.DataFrame, reading: Reading, place: str) -> RawTable:
    """From the columns of the file (`c0`, ...) to the columns of bars."""
    layout = reading.layout
    places = {i for role in NUMBER_COLUMNS for i in layout.columns[role]}
    layout = replace(layout, columns={**layout.columns, "volume": _filled_volumes(fields, layout)})
    numbers = {
        i: to_floats(_without_units(fields[_name(i)], i, layout), layout.decimal_comma)
        for i in places
    }
    volume, volume_notes = _choose_volume(layout, numbers)
    layout = replace(layout, columns={**layout.columns, "volume": volume})
    frame = pl.DataFrame(
        [
            _join_times(fields, reading).alias("timestamp"),
            *(_price(layout, role, numbers) for role in PRICE_COLUMNS),
            numbers[volume[0]].alias("volume")
            if volume
            else pl.Series("volume", [0.0]).new_from_index(0, len(fields)),
            *(fields[name] for name in ("line", "ragged") if name in fields.columns),
        ]
    )
    notes = (*column_notes(layout), *volume_notes)
    return RawTable(frame, place, replace(reading, layout=layout), notes)


def _filled_volumes(fields: pl.DataFrame, layout: Layout) -> tuple[int, ...]:
    """The columns of volume that have anything in them, as a market without volume has not."""
    return tuple(i for i in layout.columns["volume"] if not _is_blank(fields[_name(i)]))


def _is_blank(column: pl.Series) -> bool:
    if column.null_count() == len(column):
        return True
    text = column.dtype == pl.String
    return text and bool(column.str.strip_chars().is_in(_BLANKS).all(ignore_nulls=False))


def _without_units(column: pl.Series, place: int, layout: Layout) -> pl.Series:
    """A volume of 1.25M as 1250000, a price of $1.25 as 1.25; other fields stay as they are."""
    if column.dtype != pl.String:
        return column
    if place not in layout.columns["volume"]:
        dollars = column.str.contains("$", literal=True).any()
        return column.str.replace(r"^\s*\$", "") if dollars else column
    found = column.str.strip_chars().str.extract_groups(_WITH_UNIT).struct.unnest()
    parts = to_floats(found["1"], layout.decimal_comma)
    factors = found["2"].str.to_uppercase().replace_strict(_UNITS, return_dtype=pl.Float64)
    whole = (parts * factors).round().cast(pl.Int64, strict=False).cast(pl.String)
    return whole.zip_with(whole.is_not_null(), column)


def _choose_volume(
    layout: Layout, numbers: dict[int, pl.Series]
) -> tuple[tuple[int, ...], list[str]]:
    """The first volume that is not all zero, and what to tell about it."""
    places, header = layout.columns["volume"], layout.head.header
    for count, place in enumerate(places):
        if not (numbers[place] == 0).all():
            idle = [echo(header[i]) if header else str(i + 1) for i in places[:count]]
            said = f"volume is not from {' or '.join(idle)}, which is 0 in every row"
            return (place,), [said] if idle else []
    return places[:1], ["volume is 0 in every row"] if places else []


def _price(layout: Layout, role: str, numbers: dict[int, pl.Series]) -> pl.Series:
    first, *second = (numbers[i] for i in layout.columns[role])
    return (first if not second else (first + second[0]) / 2).alias(role)


def _join_times(fields: pl.DataFrame, reading: Reading) -> pl.Series:
    first, *second = (fields[_name(i)] for i in reading.layout.columns["timestamp"])
    if reading.day_us is not None:
        since = first.cast(pl.String).str.strip_chars().cast(pl.Int64, strict=False) * 1000
        since = since.set(~since.is_between(0, DAY_US - 1), None)
        return (since + reading.day_us).cast(pl.Datetime("us"))
    if not second:
        return first
    date, clock = (part.cast(pl.String).str.strip_chars() for part in (first, second[0]))
    return date + " " + clock.set(clock == "", None)  # a missing clock is no midnight


def to_floats(column: pl.Series, decimal_comma: bool = False) -> pl.Series:
    """The numbers of a column, null where it holds something else."""
    if column.dtype == pl.String:
        column = _plain_digits(column.str.strip_chars(), decimal_comma)
    if not (column.dtype.is_numeric() or column.dtype == pl.String):
        return pl.Series(column.name, [None], dtype=pl.Float64).new_from_index(0, len(column))
    return column.cast(pl.Float64, strict=False)


def _plain_digits(text: pl.Series, decimal_comma: bool) -> pl.Series:
    """1,234.5 without its comma, or 1.234,5 as 1234.5; a comma elsewhere stays and is no number."""
    if decimal_comma:
        right = text.str.contains(_DECIMAL_COMMA)
        bare = text.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True)
        return bare.set(~right, None)
    if not text.str.contains(",", literal=True).any():
        return text
    bare = text.str.replace_all(",", "", literal=True)
    return text.zip_with(~text.str.contains(_THOUSANDS).fill_null(False), bare)
