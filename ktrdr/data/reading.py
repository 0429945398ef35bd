"""A user's file of bars as a table of unchecked columns that remembers its line numbers.

A clean CSV is read by one vectorised pass. Only when something in it is wrong is it read again,
line by line, to say where: `readings` yields the quick reading first and the exact one after it.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ktrdr.data.bars import PRICE_COLUMNS, echo
from ktrdr.errors import InvalidData, Usage

MAX_BYTES = 2 << 30
NUMBER_COLUMNS = (*PRICE_COLUMNS, "volume")

# Names seen in the wild, best first; compared in lower case, blanks and hyphens as underscores.
ALIASES: dict[str, tuple[str, ...]] = {
    "timestamp": (
        *("timestamp", "datetime", "date_time", "open_time", "opentime", "time", "date", "ts"),
        *("bar_time", "start_time", "open_timestamp", "unix", "epoch", "t"),
    ),
    "open": ("open", "open_price", "o"),
    "high": ("high", "high_price", "max", "h"),
    "low": ("low", "low_price", "min", "l"),
    "close": ("close", "close_price", "c"),
    "volume": ("volume", "vol", "base_volume", "tick_volume", "tickvolume", "tickvol", "v"),
}

_CHUNK_ROWS = 200_000
_SAMPLE_BYTES = 1 << 16


@dataclass(frozen=True)
class RawTable:
    """Columns `timestamp`, the five numbers (text or numbers), `line` and, where a CSV row has the
    wrong number of fields, `ragged`. `place` is what a line number counts."""

    frame: pl.DataFrame
    place: str
    notes: tuple[str, ...]


def readings(path: Path) -> Iterator[RawTable]:
    """The file's rows, quickly read if that is possible, then exactly; they agree on clean files.

    Raises Usage where there is no such file, InvalidData where it is no table of OHLCV.
    """
    data = _read_bytes(path)
    if data[:4] == b"PAR1":
        yield _read_parquet(path, data)
        return
    if data[:2] == b"\x1f\x8b":
        data = _unzip(path, data)
    header = _read_header(path, data)
    chosen, notes = _choose_columns(path, header)
    quick = _read_quickly(data, header, chosen)
    if quick is not None:
        yield RawTable(quick, "line", notes)
    yield RawTable(_read_exactly(path, data, header, chosen), "line", notes)


def refuse(path: Path, problem: str, advice: str = "nothing was imported") -> InvalidData:
    """The error of a file that cannot be imported at all."""
    return InvalidData(f"{path.name}: {problem}; {advice}", path=str(path))


def _read_bytes(path: Path) -> bytes:
    try:
        if not path.exists():
            raise Usage(f"no such file: {echo(str(path))}; check the path", path=str(path))
        if not path.is_file():
            raise Usage(f"{echo(str(path))} is not a regular file; name a CSV or Parquet file")
        if path.stat().st_size > MAX_BYTES:
            raise refuse(path, "it is larger than 2 GiB", "split it, or import a coarser timeframe")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise Usage(f"cannot read {echo(str(path))}: {reason}; check the path") from error


def _unzip(path: Path, data: bytes) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            text = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise refuse(path, f"its gzip data is damaged ({error})", "download it again") from error
    if len(text) > MAX_BYTES:
        raise refuse(path, "it is larger than 2 GiB when unpacked", "split it")
    return text


def _read_header(path: Path, data: bytes) -> list[str]:
    if not data.strip():
        raise refuse(path, "it is empty")
    if b"\0" in data[:_SAMPLE_BYTES]:
        raise refuse(path, "it is neither text nor Parquet", "export it as CSV in UTF-8")
    try:
        line = data.removeprefix(b"\xef\xbb\xbf").split(b"\n", 1)[0].decode("utf-8")
        return next(csv.reader([line.rstrip("\r")]), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise refuse(
            path, "its first line is not UTF-8 CSV", "export it as CSV in UTF-8"
        ) from error


def _choose_columns(path: Path, header: list[str]) -> tuple[dict[str, int], tuple[str, ...]]:
    """Which column holds what, and what to tell the user about it."""
    names = [_plain(name) for name in header]
    chosen = {
        role: names.index(found)
        for role, aliases in ALIASES.items()
        if (found := next((a for a in aliases if a in names), None)) is not None
    }
    missing = [role for role in ALIASES if role not in chosen]
    if missing:
        shown = ", ".join(echo(name) for name in header[:12])
        raise refuse(
            path,
            f"no column for {', '.join(missing)}: its first line reads {shown}",
            "the first line must name timestamp,open,high,low,close,volume",
        )
    if names[chosen["timestamp"]] == "time" and "date" in names:
        raise refuse(path, "date and time stand in two columns", "join them in one named timestamp")
    twice = sorted({header[i] for i in chosen.values() if names.count(names[i]) > 1})
    if twice:
        raise refuse(path, f"two columns are named {', '.join(map(echo, twice))}", "rename one")
    return chosen, _notes(header, chosen)


def _plain(name: str) -> str:
    return name.strip().strip("<>").lower().replace(" ", "_").replace("-", "_")


def _notes(header: list[str], chosen: dict[str, int]) -> tuple[str, ...]:
    renamed = [f"{role} from {echo(header[i])}" for role, i in chosen.items() if header[i] != role]
    ignored = [echo(name) for i, name in enumerate(header) if i not in chosen.values()]
    notes = [f"took {', '.join(renamed)}"] if renamed else []
    return (*notes, f"ignored columns {', '.join(ignored[:12])}") if ignored else tuple(notes)


def _read_quickly(data: bytes, header: list[str], chosen: dict[str, int]) -> pl.DataFrame | None:
    """All fields of all rows in one pass, or None where that is not possible.

    Too many fields and text among the numbers make polars refuse; too few become nulls.
    """
    roles = {index: role for role, index in chosen.items()}
    schema = {
        roles.get(i, f"unused {i}"): pl.Float64 if roles.get(i) in NUMBER_COLUMNS else pl.String
        for i in range(len(header))
    }
    try:
        frame = pl.read_csv(data, has_header=False, skip_rows=1, schema=schema)
    except pl.exceptions.PolarsError:
        return None
    return frame.select(*ALIASES).with_row_index("line", offset=2)


def _read_exactly(
    path: Path, data: bytes, header: list[str], chosen: dict[str, int]
) -> pl.DataFrame:
    """Row by row, as text, each with the number of the line it ends on."""
    text = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", errors="replace", newline="")
    rows = csv.reader(text)
    chunks: list[pl.DataFrame] = []
    taken: list[tuple[int, bool, list[str | None]]] = []
    try:
        next(rows)
        for row in rows:
            if row:
                ragged = len(row) > len(header) or len(row) <= max(chosen.values())
                taken.append((rows.line_num, ragged, _pick(row, chosen)))
            if len(taken) == _CHUNK_ROWS:
                chunks.append(_to_frame(taken))
                taken = []
    except csv.Error as error:
        raise refuse(path, f"line {rows.line_num} is not CSV ({error})") from error
    return pl.concat([*chunks, _to_frame(taken)])


def _pick(row: list[str], chosen: dict[str, int]) -> list[str | None]:
    return [row[i] if i < len(row) else None for i in chosen.values()]


def _to_frame(rows: list[tuple[int, bool, list[str | None]]]) -> pl.DataFrame:
    fields = pl.DataFrame(
        [row[2] for row in rows], schema=dict.fromkeys(ALIASES, pl.String), orient="row"
    )
    return fields.with_columns(
        pl.Series("line", [row[0] for row in rows], pl.UInt32),
        pl.Series("ragged", [row[1] for row in rows], pl.Boolean),
    )


def _read_parquet(path: Path, data: bytes) -> RawTable:
    """By pyarrow: polars panics, with a backtrace on stderr, on much that is damaged."""
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        header = list(file.schema_arrow.names)
        chosen, notes = _choose_columns(path, header)
        table = file.read(columns=[header[i] for i in chosen.values()])
        bare = pa.table({role: _plain_type(table[header[i]]) for role, i in chosen.items()})
        frame = pl.DataFrame(pl.from_arrow(bare))
    except (pa.ArrowException, pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise refuse(path, "its Parquet data is damaged", "download it again") from error
    return RawTable(frame.select(*ALIASES).with_row_index("line", offset=1), "row", notes)


def _plain_type(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Moments of any zone as moments of UTC, since polars panics on a zone's name that is junk."""
    if pa.types.is_timestamp(column.type) and column.type.tz is not None:
        return column.cast(pa.timestamp("us", tz="UTC"), safe=False)
    return column
