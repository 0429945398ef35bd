"""Conversion between bars and data frames: polars, or pandas where it is installed.

Times are open times. What a frame calls `timestamp` is a date and time with a zone, or without one
in UTC; a pandas frame may have it as its index.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ktrdr.data.bars import Bars, IntArray, format_us, timeframe_us
from ktrdr.data.store import COLUMNS, problem_of
from ktrdr.errors import InvalidData, Usage
from ktrdr.files import replacement

if TYPE_CHECKING:
    import polars as pl

GIVEN = "given"
"""What the symbol of bars is called that came without one."""

_WRITTEN_AS = (".csv", ".parquet")


def to_bars(given: Any, timeframe: str) -> Bars:
    """Bars of a timeframe from `Bars`, a polars or a pandas frame.

    Raises InvalidData where they are none, or not of that timeframe.
    """
    bars = given if isinstance(given, Bars) else _from_frame(given, timeframe)
    if bars.timeframe != timeframe:
        raise InvalidData(
            f"these are {bars.timeframe} bars of {bars.symbol}, not {timeframe} bars: give those, "
            "or say the timeframe"
        )
    problem = problem_of(bars)
    if problem is not None:
        raise InvalidData(f"the table of {timeframe} bars cannot be used ({problem}): correct it")
    _check_spacing(bars)
    return bars


def to_frame(timestamps: IntArray, columns: Mapping[str, NDArray[np.float32]]) -> pl.DataFrame:
    """A frame of `timestamp` (microseconds UTC) and float32 columns."""
    import polars as pl

    times = pl.Series("timestamp", timestamps).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return pl.DataFrame([times, *(pl.Series(name, values) for name, values in columns.items())])


def with_plain_values(frame: pl.DataFrame) -> pl.DataFrame:
    """The same rows as text may say them: times ISO 8601 with Z, numbers as short as they can be
    and still be the same float32, null where they are none."""
    import polars as pl
    import polars.selectors as cs

    times = frame["timestamp"].dt.epoch("us")
    fraction = "%.6f" if (times % 1_000_000 != 0).any() else ""
    return frame.with_columns(
        frame["timestamp"].dt.strftime(f"%Y-%m-%dT%H:%M:%S{fraction}Z"),
        pl.when(cs.float().is_finite()).then(cs.float().cast(pl.String).cast(pl.Float64)),
    )


def output_path(value: str) -> Path:
    """Return the path of a file to write results to; Usage unless it can be one."""
    path = Path(value)
    if path.suffix.lower() not in _WRITTEN_AS:
        raise Usage(f"{value[:200]!r}: name a file that ends in {' or '.join(_WRITTEN_AS)}")
    if os.path.isdir(path):  # unlike Path.is_dir, False where it may not be looked at
        raise Usage(f"{value[:200]!r} is a folder: name a file in it")
    if not os.path.isdir(path.parent):
        raise Usage(
            f"{value[:200]!r}: there is no folder {str(path.parent)[:200]!r}: make it first"
        )
    return path


def write_frame(frame: pl.DataFrame, path: Path) -> None:
    """Write CSV or Parquet, by the suffix: whole or not at all; what was there is replaced.

    Raises Usage where the disk refuses.
    """
    buffer = io.BytesIO()  # polars would hide a full disk behind errors of its own
    if path.suffix.lower() == ".csv":
        with_plain_values(frame).write_csv(buffer)
    else:
        frame.write_parquet(buffer)
    try:
        with replacement(path) as file:
            file.write(buffer.getbuffer())
    except OSError as error:
        reason = error.strerror or error
        raise Usage(f"cannot write {str(path)[:200]}: {reason}; name another file") from None


def _from_frame(given: Any, timeframe: str) -> Bars:
    import polars as pl

    frame = given if isinstance(given, pl.DataFrame) else _from_pandas(given)
    own = {name.strip().lower(): name for name in reversed(frame.columns)}
    missing = [name for name in COLUMNS if name not in own]
    if missing:
        raise InvalidData(
            f"the {timeframe} bars lack {', '.join(missing)}: give a frame with the columns "
            f"{', '.join(COLUMNS)}"
        )
    stamps = _microseconds(frame[own["timestamp"]], timeframe)
    return Bars(GIVEN, timeframe, stamps, *(_floats(frame[own[n]], n) for n in COLUMNS[1:]))


def _from_pandas(given: Any) -> pl.DataFrame:
    """A pandas frame as a polars one; pandas itself is not needed here."""
    import polars as pl

    if type(given).__module__.partition(".")[0] != "pandas" or not hasattr(given, "reset_index"):
        raise InvalidData(
            f"{type(given).__name__} is no table of bars: give ktrdr Bars, or a polars or pandas "
            f"DataFrame with the columns {', '.join(COLUMNS)}"
        )
    if "timestamp" not in (str(name).strip().lower() for name in given.columns):
        given = given.reset_index(names="timestamp")
    return pl.DataFrame({str(name): _column(given[name]) for name in given.columns})


def _column(series: Any) -> pl.Series:
    import polars as pl

    if getattr(series.dtype, "kind", "") != "M":
        return pl.Series(series.to_list() if series.dtype == object else series.to_numpy())
    plain = series.dt.tz_convert("UTC").dt.tz_localize(None) if series.dt.tz else series
    return pl.Series(plain.to_numpy())


def _microseconds(column: pl.Series, timeframe: str) -> IntArray:
    import polars as pl

    if not isinstance(column.dtype, pl.Datetime | pl.Date):
        raise InvalidData(
            f"timestamp of the {timeframe} bars holds {column.dtype}, no dates and times: "
            "convert it, to UTC where it has no zone"
        )
    if column.null_count():
        raise InvalidData(f"{column.null_count():,} of the {timeframe} bars have no timestamp")
    moments = column.cast(pl.Datetime("us")) if column.dtype == pl.Date else column
    return np.ascontiguousarray(moments.dt.epoch("us").to_numpy())


def _floats(column: pl.Series, name: str) -> NDArray[np.float64]:
    import polars as pl

    if not column.dtype.is_numeric():
        raise InvalidData(f"{name} of the bars holds {column.dtype}, no numbers: convert it")
    values: NDArray[np.float64] = column.cast(pl.Float64).to_numpy()
    return np.ascontiguousarray(values)


def _check_spacing(bars: Bars) -> None:
    """Refuse bars of a lower timeframe under the name of a higher one."""
    steps = np.diff(bars.timestamps)
    close = np.flatnonzero(steps < timeframe_us(bars.timeframe))
    if len(close):
        first = int(close[0])
        raise InvalidData(
            f"{len(close):,} of the bars open less than {bars.timeframe} after the one before, "
            f"first at {format_us(int(bars.timestamps[first + 1]))}: give {bars.timeframe} bars, "
            "or name their timeframe",
            timeframe=bars.timeframe,
        )
