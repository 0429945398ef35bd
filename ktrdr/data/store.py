"""Stored bars: one Parquet file per symbol and timeframe, replaced as a whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ktrdr.data.bars import (
    PRICE_COLUMNS,
    Bars,
    FloatArray,
    check_symbol,
    check_timeframe,
    columns,
    is_timeframe,
)
from ktrdr.errors import DataNotFound, InvalidData, StorageUnavailable, Usage
from ktrdr.files import replacement, sync_folder

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("timestamp", *PRICE_COLUMNS, "volume")
SYNTHETIC = "synthetic"
IMPORTED = "imported"

_SOURCE_KEY = b"ktrdr.source"
_ORIGIN_KEY = b"ktrdr.imported_from"
_SUFFIX = ".parquet"

Range = tuple[int, int]


@dataclass(frozen=True)
class BarsSummary:
    """What is stored, without its rows; times in microseconds UTC.

    `source` is `imported`, `synthetic` or `unknown`. A file that cannot be read has `problem`, no
    rows and no times.
    """

    symbol: str
    timeframe: str
    rows: int
    first: int | None
    last: int | None
    source: str
    imported_from: str | None
    problem: str | None = None


@dataclass(frozen=True)
class BarStore:
    """The folder `bars` below a storage root."""

    root: Path

    def read(self, symbol: str, timeframe: str) -> Bars:
        """All bars of a symbol and timeframe.

        Raises DataNotFound, InvalidData for a damaged file, StorageUnavailable for a failing disk.
        """
        import pyarrow.parquet as pq

        path = self._existing(symbol, timeframe)
        with _reading(path):
            table = pq.read_table(
                path, columns=list(COLUMNS), partitioning=None, page_checksum_verification=True
            )
            bars = _to_bars(symbol, timeframe, table)
        problem = problem_of(bars)
        if problem is not None:
            raise _damaged(path, problem)
        return bars

    def write(
        self, bars: Bars, source: str = IMPORTED, imported_from: str | None = None
    ) -> tuple[Range | None, Range]:
        """Replace the stored bars of this symbol and timeframe; at least one row.

        Durable on return. Returns the old range of open times (None: there was none) and the new.
        """
        path = self._path(bars.symbol, bars.timeframe)
        old = _range(_summary(path)) if path.is_file() else None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, _to_table(bars, source, imported_from))
        except OSError as error:
            raise StorageUnavailable(
                f"cannot write {path}: {error.strerror or error}; the stored bars are unchanged: "
                "free space or fix the permissions, and import again",
                path=str(path),
            ) from error
        return old, (bars.first, bars.last)

    def timeframes(self, symbol: str) -> list[str]:
        """Those that a symbol has bars of; files by other names are none of ours."""
        folder = self.root / "bars" / check_symbol(symbol)
        return sorted(p.stem for p in folder.glob(f"*{_SUFFIX}") if is_timeframe(p.stem))

    def summaries(self) -> list[BarsSummary]:
        """Everything that is stored, by symbol and timeframe, read from the files' footers only."""
        return [_summary(path) for path in self._paths()]

    def summary(self, symbol: str, timeframe: str) -> BarsSummary:
        """What is stored of one symbol and timeframe; raises DataNotFound, InvalidData."""
        path = self._existing(symbol, timeframe)
        summary = _summary(path)
        if summary.problem is not None:
            raise _damaged(path, summary.problem)
        return summary

    def _path(self, symbol: str, timeframe: str) -> Path:
        base = self.root / "bars"
        path = base / check_symbol(symbol) / f"{check_timeframe(timeframe)}{_SUFFIX}"
        if not path.resolve().is_relative_to(base.resolve()):
            raise Usage(f"{path} leads out of {base}: remove the link and import the bars again")
        return path

    def _existing(self, symbol: str, timeframe: str) -> Path:
        path = self._path(symbol, timeframe)
        if path.is_file():
            return path
        stored = [f"{p.parent.name} {p.stem}" for p in self._paths()]
        raise DataNotFound(
            f"no bars of {symbol} {timeframe}; {_say_stored(stored)}; import them with 'ktrdr data "
            f"import FILE --symbol {symbol} --timeframe {timeframe}'",
            symbol=symbol,
            timeframe=timeframe,
            stored=stored,
        )

    def _paths(self) -> list[Path]:
        found = (self.root / "bars").glob(f"*/*{_SUFFIX}")
        return sorted(p for p in found if not p.name.startswith("."))


def _say_stored(stored: list[str]) -> str:
    if not stored:
        return "none are stored yet"
    more = f" and {len(stored) - 8} more" if len(stored) > 8 else ""
    return f"stored are {', '.join(stored[:8])}{more}"


def _to_table(bars: Bars, source: str, imported_from: str | None) -> pa.Table:
    import pyarrow as pa

    arrays = [pa.array(column) for column in columns(bars)]
    arrays[0] = arrays[0].cast(pa.timestamp("us", tz="UTC"))
    metadata = {_SOURCE_KEY: source}
    if imported_from is not None:
        metadata[_ORIGIN_KEY] = imported_from
    return pa.table(dict(zip(COLUMNS, arrays, strict=True))).replace_schema_metadata(metadata)


def _to_bars(symbol: str, timeframe: str, table: pa.Table) -> Bars:
    import pyarrow as pa

    stamps = table["timestamp"].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
    prices = [_floats(table[name]) for name in COLUMNS[1:]]
    return Bars(symbol, timeframe, _numpy(stamps), *prices)


def _floats(column: Any) -> FloatArray:
    import pyarrow as pa

    values: FloatArray = _numpy(column.cast(pa.float64()))
    return values


def _numpy(column: Any) -> Any:
    """One contiguous array; a null becomes what no check lets through."""
    return np.ascontiguousarray(column.to_numpy())


def problem_of(bars: Bars) -> str | None:
    """What makes stored rows unusable: another program may have written the file."""
    if bars.timestamps.dtype != np.int64:
        return "it has rows without a time"
    if len(bars) == 0:
        return "it has no rows"
    if not (np.diff(bars.timestamps) > 0).all():
        return "its rows are not in the order of time"
    if not all(np.isfinite(column).all() for column in columns(bars)[1:]):
        return "it has prices or volumes that are no numbers"
    if min(bars.open.min(), bars.low.min(), bars.close.min()) <= 0 or bars.volume.min() < 0:
        return "it has prices that are not above zero, or volumes below zero"
    if (bars.high < np.maximum(bars.open, bars.close)).any() or (
        bars.low > np.minimum(bars.open, bars.close)
    ).any():
        return "it has impossible rows (a high or a low within the body)"
    return None


def _replace(path: Path, table: pa.Table) -> None:
    import pyarrow.parquet as pq

    with replacement(path) as file:
        pq.write_table(table, file, compression="zstd", write_page_checksum=True)
    sync_folder(path.parent.parent)


def _summary(path: Path) -> BarsSummary:
    symbol, timeframe = path.parent.name, path.stem
    try:
        with _reading(path):
            return _read_summary(path)
    except InvalidData as error:
        problem = str(error.details["problem"])
        return BarsSummary(symbol, timeframe, 0, None, None, "unknown", None, problem)


def _read_summary(path: Path) -> BarsSummary:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        footer, stamps = file.metadata, file.schema_arrow.get_field_index("timestamp")
        if stamps < 0 or footer.num_rows == 0:
            raise _damaged(path, "it holds no bars")
        if file.schema_arrow.field(stamps).type != pa.timestamp("us", tz="UTC"):
            raise _damaged(path, "its times are not microseconds UTC")
        groups = [footer.row_group(i).column(stamps) for i in range(footer.num_row_groups)]
        metadata = file.schema_arrow.metadata or {}
    statistics = [group.statistics for group in groups if group.is_stats_set]
    if len(statistics) < len(groups):
        raise _damaged(path, "it does not say which times it covers")
    origin = metadata.get(_ORIGIN_KEY)
    return BarsSummary(
        symbol=path.parent.name,
        timeframe=path.stem,
        rows=footer.num_rows,
        first=min(s.min_raw for s in statistics),
        last=max(s.max_raw for s in statistics),
        source=metadata.get(_SOURCE_KEY, b"unknown").decode(),
        imported_from=None if origin is None else origin.decode(),
    )


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what Arrow raises into what a user can act on."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise StorageUnavailable(
                f"cannot read {path}: {error.strerror}; check the storage and its permissions",
                path=str(path),
            ) from error
        raise _damaged(
            path, str(error).splitlines()[0][:200] if str(error) else "unreadable"
        ) from error


def _damaged(path: Path, problem: str) -> InvalidData:
    return InvalidData(
        f"{path} is no usable bars file ({problem}): remove it and import the bars again",
        path=str(path),
        problem=problem,
    )


def _range(summary: BarsSummary) -> Range | None:
    if summary.first is None or summary.last is None:
        return None
    return summary.first, summary.last
