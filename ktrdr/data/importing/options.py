"""Options of an import: given by the user, known from the vendor, or detected in the rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np

from ktrdr.data.bars import FloatArray, check_symbol, check_timeframe, echo, timeframe_us
from ktrdr.data.importing.dialects import AUTO, Reading, check_format
from ktrdr.data.importing.timestamps import DAY_US, Times, check_timezone
from ktrdr.errors import Usage

_NOISE = 1e-6
_LARGEST_SCALE = 1e12
_FEWEST_POINTS = 10_000.0
_FEWEST_PAIR_POINTS = 1_000.0
# Currencies of which a thousand do not buy one of another kind; no pair of them quotes above that.
_CURRENCIES = frozenset(
    ("EUR", "USD", "GBP", "AUD", "NZD", "CAD", "CHF", "JPY", "SEK", "NOK", "DKK", "SGD", "HKD")
)


@dataclass(frozen=True)
class Answers:
    """The zone of local times, prices as prices, and what to tell the user about both."""

    timezone: str
    prices: dict[str, FloatArray]
    notes: tuple[str, ...]


class Choices(TypedDict, total=False):
    """What a user may say about a file.

    `format` is a dialect's name or `auto`. `timezone` is the zone of times without an offset and
    `price_scale` what one unit of the file's prices is worth; where these are not said, the file
    decides, or the import asks. `fix` drops what cannot be used instead of refusing.
    """

    format: str
    timezone: str | None
    price_scale: float | None
    fix: bool


@dataclass(frozen=True)
class Said:
    """The bars that a user wants, and the choices made about the file."""

    symbol: str
    timeframe: str
    format: str = AUTO
    timezone: str | None = None
    price_scale: float | None = None
    fix: bool = False


def check_said(said: Said) -> Said:
    """Return what was said; raise Usage for a symbol, timeframe, format, zone or scale that is
    none."""
    check_symbol(said.symbol)
    check_timeframe(said.timeframe)
    check_format(said.format)
    if said.timezone is not None:
        check_timezone(said.timezone)
    scale = said.price_scale
    if scale is not None and not 1 / _LARGEST_SCALE <= scale <= _LARGEST_SCALE:
        raise Usage(
            f"--price-scale must lie between {1 / _LARGEST_SCALE:g} and {_LARGEST_SCALE:g}: what "
            "one unit of the file's prices is worth"
        )
    return said


def settle(
    path: Path, reading: Reading, times: Times, prices: dict[str, FloatArray], said: Said
) -> Answers:
    """Raises Usage, with all questions in one message, where an answer would be a guess."""
    zone = said.timezone
    if zone is None:
        zone = _zone_of(reading, times, said.timeframe)
    points = _looks_like_points(reading, prices, said)
    questions = {}
    if times.undecided is not None:
        questions["--format"] = (
            f"a date such as {echo(times.undecided)} may be day/month or month/day: say which with "
            "--format csv-dmy or --format csv-mdy"
        )
    if zone is None:
        questions["--timezone"] = f"{reading.clock.said}: say which zone with --timezone"
    if points:
        questions["--price-scale"] = (
            f"prices are whole numbers (around {np.nanmedian(prices['close']):,.0f}) and may be "
            "points: say what one is worth with --price-scale, such as 0.00001, or 1 if they are "
            "prices"
        )
    if questions or zone is None:
        raise Usage(
            f"{path.name} ({reading.format}): {'; '.join(questions.values())}",
            path=str(path),
            format=reading.format,
            flags=list(questions),
        )
    scaled, scale_notes = _scale(reading, prices, said.price_scale)
    return Answers(zone, scaled, (*_time_notes(reading, times, zone, said), *scale_notes))


def _zone_of(reading: Reading, times: Times, timeframe: str) -> str | None:
    """The zone of times without an offset, as far as the file and its vendor tell."""
    if reading.clock.zone is not None:
        return reading.clock.zone
    if not times.is_local.any() or _are_dates(times, timeframe):
        return "UTC"
    return None


def _are_dates(times: Times, timeframe: str) -> bool:
    return timeframe_us(timeframe) >= DAY_US and times.all_midnights()


def _time_notes(reading: Reading, times: Times, zone: str, said: Said) -> list[str]:
    notes = []
    if times.order is not None:
        order = "day before month" if times.order == "dmy" else "month before day"
        notes.append(f"dates are read with the {order}")
    if not times.is_local.any():
        if said.timezone is not None or not reading.layout.is_canonical():
            notes.append("times carry their own zone: they are epochs (UTC) or have an offset")
    elif said.timezone is not None:
        notes.append(f"times are read in {zone}, as --timezone says")
    elif _are_dates(times, said.timeframe):
        notes.append(f"dates are taken for their midnight in {zone}")
    else:
        notes.append(f"times without an offset are read in {zone}, {reading.clock.said}")
    return notes


def _looks_like_points(reading: Reading, prices: dict[str, FloatArray], said: Said) -> bool:
    """Whether prices may be counted in points: whole and larger than such prices usually are."""
    if said.price_scale is not None or reading.exact_prices or not _are_whole(prices):
        return False
    symbol = said.symbol.upper()[:6]
    is_pair = symbol[:3] in _CURRENCIES and symbol[3:] in _CURRENCIES
    least = _FEWEST_PAIR_POINTS if is_pair else _FEWEST_POINTS
    return bool(np.nanmedian(prices["close"]) >= least)


def _are_whole(prices: dict[str, FloatArray]) -> bool:
    """Whether all finite prices are whole numbers, but for the noise of a multiplication."""
    for rows in (slice(1000), slice(None)):
        for column in prices.values():
            known = column[rows][np.isfinite(column[rows])]
            if len(known) == 0 or (np.abs(known - np.rint(known)) > _NOISE).any():
                return False
    return True


def _scale(
    reading: Reading, prices: dict[str, FloatArray], scale: float | None
) -> tuple[dict[str, FloatArray], list[str]]:
    """Prices in money. Where a unit is one of a whole number of parts they are divided by that
    number, which gives the float nearest to the decimal price."""
    whole = (scale is not None or reading.points is not None) and _are_whole(prices)
    if scale is None and reading.points is not None and whole:
        divided = {name: np.rint(column) / reading.points for name, column in prices.items()}
        return divided, [f"prices are whole numbers: divided by {reading.points:,}"]
    if scale is None or scale == 1.0:
        return prices, []
    parts = 1.0 / scale
    exact = parts >= 1.0 and abs(parts - round(parts)) < 1e-9 * parts
    bare = {n: np.rint(c) if whole else c for n, c in prices.items()}
    scaled = {n: c / round(parts) if exact else c * scale for n, c in bare.items()}
    return scaled, [f"prices are multiplied by {scale:g}, as --price-scale says"]
