"""Reading binary and JSON tables: Parquet, Feather (Arrow) and lists of rows.

Parquet and Feather are read by pyarrow: polars panics, with a backtrace on stderr, on much that is
damaged.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import feather

from ktrdr.data.importing.archives import MAX_BYTES, Content, refuse
from ktrdr.data.importing.columns import Layout
from ktrdr.data.importing.csv_sniffer import Head, Row
from ktrdr.data.importing.timestamps import is_time
from ktrdr.errors import InvalidData

_PARQUET, _FEATHER, _OLD_FEATHER = b"PAR1", b"ARROW1", b"FEA1"
_MOST_ROWS = 1 << 26
_MOST_JSON_BYTES = 256 << 20
_SAMPLE_ROWS = 500


@dataclass(frozen=True)
class Table:
    """A table's head, and its columns on demand: `c0`, ... as far as a layout uses them, `line`
    and, where rows may differ in length, `ragged`."""

    head: Head
    take: Callable[[Layout], pl.DataFrame]


def is_binary(content: Content) -> bool:
    return content.data.startswith((_PARQUET, _FEATHER, _OLD_FEATHER))


def is_json(content: Content) -> bool:
    return content.data[:64].lstrip()[:1] in (b"[", b"{")


def read_binary(content: Content) -> Table:
    """The table in a Parquet or Feather file; raises InvalidData where it is damaged."""
    if content.data.startswith(_PARQUET):
        return _read_parquet(content)
    return _read_feather(content)


def read_json(content: Content) -> Table:
    """A list of rows, or of objects with the same keys, also one below a name or one a line;
    raises InvalidData for any other JSON."""
    path = content.path
    if len(content.data) > _MOST_JSON_BYTES:
        raise refuse(path, "it is JSON larger than 256 MiB", "split it, or convert it to Parquet")
    try:
        found = _rows_in(_load(content.data))
    except (ValueError, RecursionError) as error:
        raise refuse(path, "its JSON is damaged", "download it again") from error
    if not found:
        raise refuse(
            path, "its JSON holds no list of rows", "write it as a list of rows or objects"
        )
    header = tuple(map(str, found[0])) if isinstance(found[0], dict) else None
    rows = [_fields(row, header) for row in found]
    width = len(header) if header else len(rows[0])
    sample = tuple(row for row in rows[:_SAMPLE_ROWS] if len(row) == width)
    head = Head(content.name, "json", header, sample, width)

    def take(layout: Layout) -> pl.DataFrame:
        used = sorted({i for places in layout.columns.values() for i in places})
        columns = {
            f"c{i}": pl.Series([row[i] if i < len(row) else None for row in rows], dtype=pl.String)
            for i in used
        }
        ragged = pl.Series("ragged", [len(row) != width for row in rows])
        return pl.DataFrame(columns).with_columns(ragged).with_row_index("line", 1)

    return Table(head, take)


def _load(data: bytes) -> Any:
    """One document, or the list of those that stand on a line each."""
    try:
        return json.loads(data)
    except ValueError:
        first, _, rest = data.strip().partition(b"\n")
        if not (rest and first.rstrip().endswith((b"}", b"]"))):
            raise
        return [json.loads(line) for line in data.splitlines() if line.strip()]


def _rows_in(found: Any) -> list[Any]:
    """The list itself, or the longest one in the answer of a web service; objects by their time
    become rows with a timestamp. Empty where there is none."""
    if isinstance(found, list):
        return found
    if not isinstance(found, dict) or not found:
        return []
    if all(isinstance(row, dict) and is_time(name) for name, row in found.items()):
        return [{"timestamp": name, **row} for name, row in found.items()]
    return max(map(_rows_in, found.values()), key=len)


def _fields(row: Any, header: Row | None) -> Row:
    if header is not None:
        row = [row.get(name) for name in header] if isinstance(row, dict) else []
    return tuple(map(_text, row)) if isinstance(row, list) else ()


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return repr(value) if is_number else ""


def _read_parquet(content: Content) -> Table:
    path = content.path
    try:
        file = pq.ParquetFile(pa.BufferReader(content.data), page_checksum_verification=True)
        names = list(file.schema_arrow.names)
        rows = file.metadata.num_rows
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(path, "Parquet") from error
    if rows > _MOST_ROWS:
        raise _too_long(path)

    def take(layout: Layout) -> pl.DataFrame:
        try:
            table = file.read(columns=[names[i] for i in _used(layout)])
            return _to_frame(path, table, names, layout)
        except (pa.ArrowException, pl.exceptions.PolarsError, OSError, ValueError) as error:
            raise _damaged(path, "Parquet") from error

    return Table(_head(content, "parquet", names), take)


def _read_feather(content: Content) -> Table:
    """Feather has no checksums: what is damaged within its numbers looks like other numbers."""
    path = content.path
    try:
        names, read = _open_feather(content)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(path, "Feather") from error

    def take(layout: Layout) -> pl.DataFrame:
        try:
            table = read([names[i] for i in _used(layout)])
            table.validate(full=True)
            return _to_frame(path, table, names, layout)
        except (pa.ArrowException, pl.exceptions.PolarsError, OSError, ValueError) as error:
            raise _damaged(path, "Feather") from error

    return Table(_head(content, "feather", names), take)


def _open_feather(content: Content) -> tuple[list[str], Callable[[list[str]], pa.Table]]:
    """The names of the columns, and a way to read some of them batch by batch."""
    data = pa.BufferReader(content.data)
    if content.data.startswith(_OLD_FEATHER):
        whole = feather.read_table(data)
        return list(whole.column_names), whole.select
    file = pa.ipc.open_file(data)

    def read(wanted: list[str]) -> pa.Table:
        batches, rows = [], 0
        for place in range(file.num_record_batches):
            batch = file.get_batch(place)
            batch.validate(full=True)
            rows += batch.num_rows
            if rows > _MOST_ROWS or batch.nbytes > MAX_BYTES:
                raise _too_long(content.path)
            batches.append(batch.select(wanted))
        return pa.Table.from_batches(batches, pa.schema([file.schema.field(n) for n in wanted]))

    return list(file.schema.names), read


def _head(content: Content, kind: str, names: list[str]) -> Head:
    return Head(content.name, kind, tuple(names), (), len(names))


def _used(layout: Layout) -> list[int]:
    return sorted({i for places in layout.columns.values() for i in places})


def _to_frame(path: Path, table: pa.Table, names: list[str], layout: Layout) -> pl.DataFrame:
    if len(layout.columns["timestamp"]) > 1:
        raise refuse(path, "date and time stand in two columns", "join them in one named timestamp")
    columns = {f"c{i}": _plain_type(table[names[i]]) for i in _used(layout)}
    frame = pl.DataFrame(pl.from_arrow(pa.table(columns)))
    return frame.with_row_index("line", 1)


def _plain_type(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Moments of any zone as moments of UTC, since polars panics on a zone's name that is junk."""
    if pa.types.is_timestamp(column.type) and column.type.tz is not None:
        return column.cast(pa.timestamp("us", tz="UTC"), safe=False)
    return column


def _damaged(path: Path, what: str) -> InvalidData:
    return refuse(path, f"its {what} data is damaged", "download it again")


def _too_long(path: Path) -> InvalidData:
    return refuse(path, f"it has more than {_MOST_ROWS:,} rows", "split it")
