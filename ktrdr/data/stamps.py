"""Times as people write them, turned into microseconds UTC without guessing."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from ktrdr.data.bars import echo
from ktrdr.errors import Usage

_EPOCH = r"^[0-9]{9,19}(\.0*)?$"
_OLDEST_EPOCH_S = 100_000_000  # 1973; smaller whole numbers are counters, not times
_FIRST_US = -2_208_988_800_000_000  # 1900-01-01
_LAST_US = 4_102_444_800_000_000  # 2100-01-01

# Tried on text whose T became a blank; the first that reads the most of the head goes first.
_UTC_FORMATS = ("%Y-%m-%d %H:%M:%SZ", "%Y-%m-%d %H:%M:%S%.fZ", "%Y-%m-%d %H:%MZ")
_OFFSET_FORMATS = ("%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%d %H:%M%#z")
_NAIVE_FORMATS = (
    *("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M"),
    *("%Y-%m-%d", "%Y%m%d"),
)
_HEAD_ROWS = 50


@dataclass(frozen=True)
class Stamps:
    """Microseconds UTC, null where the text is no time; and which local times a clock change made
    ambiguous (the earlier one stands) or nonexistent (null)."""

    values: pl.Series
    ambiguous: pl.Series
    nonexistent: pl.Series


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


def parse_stamps(column: pl.Series, timezone: str) -> Stamps:
    """Read ISO 8601 text, dates, or epoch numbers (s, ms, us or ns by their size).

    What carries no offset is in `timezone`. Times before 1900 or after 2099 are no times.
    """
    utc, naive = _read(column)
    early = naive.dt.replace_time_zone(timezone, ambiguous="earliest", non_existent="null")
    late = naive.dt.replace_time_zone(timezone, ambiguous="latest", non_existent="null")
    ambiguous = (early != late).fill_null(False)
    local = _to_us(early.dt.convert_time_zone("UTC"))
    values = utc.fill_null(local) if utc.has_nulls() else utc
    possible = values.is_between(_FIRST_US, _LAST_US - 1)
    return Stamps(values.set(~possible, None), ambiguous, naive.is_not_null() & early.is_null())


def wall_clock_us(stamps_us: pl.Series, timezone: str) -> pl.Series:
    """What a clock in `timezone` shows at these moments, as microseconds."""
    local = stamps_us.cast(pl.Datetime("us", "UTC")).dt.convert_time_zone(timezone)
    return _to_us(local.dt.replace_time_zone(None))


def _read(column: pl.Series) -> tuple[pl.Series, pl.Series]:
    """(microseconds UTC, local times without a zone); a row has at most one of the two."""
    none_utc = pl.Series([None], dtype=pl.Int64).new_from_index(0, len(column))
    none_naive = none_utc.cast(pl.Datetime("us"))
    kind = column.dtype
    if isinstance(kind, pl.Datetime):
        stamps = column.cast(pl.Datetime("us", kind.time_zone))
        if kind.time_zone is None:
            return none_utc, stamps
        return _to_us(stamps.dt.convert_time_zone("UTC")), none_naive
    if kind == pl.Date:
        return none_utc, column.cast(pl.Datetime("us"))
    if kind.is_float():
        column = column.cast(pl.Int64, strict=False).cast(pl.String)
    if not (kind.is_numeric() or kind == pl.String):
        return none_utc, none_naive
    return _read_text(column.cast(pl.String).str.strip_chars())


def _read_text(text: pl.Series) -> tuple[pl.Series, pl.Series]:
    is_epoch = text.str.contains(_EPOCH).fill_null(False)
    utc = _read_epochs(text.set(~is_epoch, None))
    written = text.set(is_epoch, None).str.replace("T", " ", literal=True)
    naive = pl.Series([None], dtype=pl.Datetime("us")).new_from_index(0, len(text))
    for form in _by_success(written.drop_nulls().head(_HEAD_ROWS)):
        missing = utc.is_null() & naive.is_null() & written.is_not_null()
        if not missing.any():
            break
        found = written.str.to_datetime(form, time_unit="us", strict=False)
        if form in _NAIVE_FORMATS:
            naive = naive.zip_with(~missing, found)
        else:
            utc = utc.zip_with(~missing, _to_us(found))
    return utc, naive


def _by_success(head: pl.Series) -> list[str]:
    def failures(form: str) -> int:
        return int(head.str.to_datetime(form, time_unit="us", strict=False).null_count())

    return sorted((*_UTC_FORMATS, *_OFFSET_FORMATS, *_NAIVE_FORMATS), key=failures)


def _read_epochs(text: pl.Series) -> pl.Series:
    """The unit follows from the size, row by row: vendors change it in the middle of a file."""
    value = pl.col("value")
    whole = text.str.extract(r"^([0-9]+)").cast(pl.Int64, strict=False).alias("value")
    scaled = (
        pl.when(value < _OLDEST_EPOCH_S)
        .then(None)
        .when(value < 10**11)
        .then(value * 1_000_000)
        .when(value < 10**14)
        .then(value * 1_000)
        .when(value < 10**17)
        .then(value)
        .otherwise(value // 1_000)
    )
    return whole.to_frame().select(scaled.alias("value"))["value"]


def _to_us(stamps: pl.Series) -> pl.Series:
    return stamps.cast(pl.Int64)
