"""A user's file of bars as a table of unchecked columns that remembers its line numbers.

A clean CSV is read by one vectorised pass. Only when something in it is wrong is it read again,
line by line, to say where: `readings` yields the quick reading first and the exact one after it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from ktrdr.data.bars import PRICE_COLUMNS, echo
from ktrdr.data.binary import is_binary, is_json, read_binary, read_json
from ktrdr.data.dialects import AUTO, Reading, recognise
from ktrdr.data.heads import read_head
from ktrdr.data.layouts import Layout, column_notes, lay_out
from ktrdr.data.stamps import DAY_US
from ktrdr.data.unpacking import Content, refuse, unpack

NUMBER_COLUMNS = (*PRICE_COLUMNS, "volume")

_CHUNK_ROWS = 200_000
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
        del quick
    yield _assemble(_read_exactly(content, reading.layout), reading, "line")


def _read_quickly(data: bytes, layout: Layout) -> pl.DataFrame | None:
    """All fields of all rows in one pass, or None where that is not possible.

    Too many fields and text among the numbers make polars refuse; too few become nulls.
    """
    numbers = {i for role in NUMBER_COLUMNS for i in layout.columns[role]}
    schema = {_name(i): pl.Float64 if i in numbers else pl.String for i in range(layout.head.width)}
    separator, above = layout.head.separator, layout.head.first_line - 1
    if (layout.decimal_comma and separator == ",") or _has_stray_returns(data):
        return None
    if above > 1:
        data, above = data[_offset_of(data, layout.head.first_line) :], 0
    try:
        frame = pl.read_csv(
            data,
            has_header=False,
            skip_rows=above,
            schema=schema,
            separator=separator,
            decimal_comma=layout.decimal_comma,
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


def _read_exactly(content: Content, layout: Layout) -> pl.DataFrame:
    """Row by row, as text, each with the number of the line it ends on."""
    text = io.TextIOWrapper(
        io.BytesIO(content.data), encoding="utf-8", errors="replace", newline=""
    )
    rows = csv.reader(text, delimiter=layout.head.separator)
    used, width = _used(layout), layout.head.width
    chunks: list[pl.DataFrame] = []
    taken: list[tuple[int, bool, list[str | None]]] = []
    try:
        for row in rows:
            if row and rows.line_num >= layout.head.first_line:
                ragged = len(row) > width or len(row) <= used[-1]
                taken.append((rows.line_num, ragged, _pick(row, used)))
            if len(taken) == _CHUNK_ROWS:
                chunks.append(_to_frame(taken, used))
                taken = []
    except csv.Error as error:
        raise refuse(content.path, f"line {rows.line_num} is not CSV ({error})") from error
    return pl.concat([*chunks, _to_frame(taken, used)])


def _pick(row: list[str], used: list[int]) -> list[str | None]:
    return [row[i] if i < len(row) else None for i in used]


def _to_frame(rows: list[tuple[int, bool, list[str | None]]], used: list[int]) -> pl.DataFrame:
    fields = pl.DataFrame(
        [row[2] for row in rows], schema=dict.fromkeys(map(_name, used), pl.String), orient="row"
    )
    return fields.with_columns(
        pl.Series("line", [row[0] for row in rows], pl.UInt32),
        pl.Series("ragged", [row[1] for row in rows], pl.Boolean),
    )


def _used(layout: Layout) -> list[int]:
    return sorted({i for places in layout.columns.values() for i in places})


def _name(place: int) -> str:
    return f"c{place}"


def _assemble(fields: pl.DataFrame, reading: Reading, place: str) -> RawTable:
    """From the columns of the file (`c0`, ...) to the columns of bars."""
    layout = reading.layout
    places = {i for role in NUMBER_COLUMNS for i in layout.columns[role]}
    numbers = {i: to_floats(fields[_name(i)], layout.decimal_comma) for i in places}
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
    return date + " " + clock


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
