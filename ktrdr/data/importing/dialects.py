"""Known export formats of vendors, with their time zones and price sides.

A dialect is recognised by what its rows and names look like, the first that fits; where none does,
the table is a plain one. What a vendor leaves open stays open here: the import asks for it.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ktrdr.data.bars import PRICE_COLUMNS, echo
from ktrdr.data.importing.archives import refuse
from ktrdr.data.importing.columns import Layout, is_since_midnight
from ktrdr.data.importing.timestamps import DAY_US, check_timezone
from ktrdr.errors import Usage

AUTO = "auto"
LEAN = "lean"
_DATE_ORDERS = {"csv-dmy": "dmy", "csv-mdy": "mdy"}
_PLAIN = ("csv", *_DATE_ORDERS)


@dataclass(frozen=True)
class Clock:
    """The zone of times without an offset: `zone` and who says so or, where the vendor leaves it
    open, None and which zones are usual."""

    zone: str | None
    said: str


@dataclass(frozen=True)
class Reading:
    """A layout with what its dialect adds.

    `order` is the order of day and month that the user names. `day_us` is the day (microseconds
    since 1970) that times of day belong to. `points` is what a price is divided by where all prices
    are whole numbers. `exact_prices` tells that whole prices are prices.
    """

    format: str
    layout: Layout
    clock: Clock
    order: str | None = None
    day_us: int | None = None
    points: int | None = None
    exact_prices: bool = True


@dataclass(frozen=True)
class _Dialect:
    name: str
    fits: Callable[[Layout], bool]
    clock: Clock


def recognise(path: Path, layout: Layout, wanted: str = AUTO) -> Reading:
    """The dialect of a table; `wanted` is `auto` or the one that the user says it is.

    Raises Usage for an unknown name, InvalidData where the table is not what it is said to be.
    """
    check_format(wanted)
    found = [dialect for dialect in _DIALECTS if dialect.fits(layout)]
    if wanted not in (AUTO, *_PLAIN):
        known = [d for d in found if d.name == wanted]
        if not known and layout.head.kind != wanted:
            looks = found[0].name if found else _plain_name(layout)
            raise refuse(
                path,
                f"it does not look like {wanted}, but like {looks}",
                f"import it with --format {looks}, or auto",
            )
        found = known
    elif wanted in _PLAIN:
        found = []
    if not found:
        return _read_plainly(layout, wanted)
    if found[0].name == LEAN:
        return _read_lean(path, layout, found[0].clock)
    named = _named_clock(layout)
    return Reading(found[0].name, layout, named or found[0].clock)


def check_format(name: str) -> str:
    """Return the name of a format, or raise Usage with all of them."""
    if name not in FORMATS:
        raise Usage(f"{echo(name)} is not a format: write one of {', '.join(FORMATS)}")
    return name


def _plain_name(layout: Layout) -> str:
    return "csv" if layout.head.kind == "text" else layout.head.kind


def _read_plainly(layout: Layout, wanted: str) -> Reading:
    return Reading(
        wanted if wanted in _DATE_ORDERS else _plain_name(layout),
        layout,
        _named_clock(layout) or _UNSAID,
        order=_DATE_ORDERS.get(wanted),
        exact_prices=False,
    )


def _named_clock(layout: Layout) -> Clock | None:
    """The zone that the time's own column names: `Time (EET)`, `Gmt time`, `date_utc`."""
    header = layout.head.header
    for place in layout.columns["timestamp"] if header else ():
        name = header[place] if header else ""
        inside = re.search(r"\(([A-Za-z0-9_/+-]+)\)", name)
        zone = inside[1] if inside else None
        if zone is None and re.search(r"(?i)(^|[ _])(utc|gmt)([ _]|$)", name):
            zone = "UTC"
        if zone is not None and _is_zone(zone):
            zone = "UTC" if zone.upper() in ("UTC", "GMT", "Z") else zone
            return Clock(zone, f"as its column {echo(name)} says")
    return None


def _is_zone(name: str) -> bool:
    try:
        check_timezone(name)
    except Usage:
        return False
    return True


def _read_lean(path: Path, layout: Layout, clock: Clock) -> Reading:
    """QuantConnect: a day in the file's name, prices of shares in ten-thousandths of a dollar."""
    day_us = _day_in(path, layout) if is_since_midnight(layout.head.rows) else None
    if layout.head.width >= 11:
        quotes = {role: (1 + i, 6 + i) for i, role in enumerate(PRICE_COLUMNS)}
        layout = replace(layout, columns={"timestamp": (0,), **quotes, "volume": ()})
    return Reading(LEAN, layout, clock, day_us=day_us, points=10_000)


def _day_in(path: Path, layout: Layout) -> int:
    for name in (layout.head.name, path.name):
        found = re.search(r"(?<![0-9])([0-9]{8})(?![0-9])", name)
        if found is not None:
            try:
                day = dt.datetime.strptime(found[1], "%Y%m%d").date()
            except ValueError:
                continue
            return (day - dt.date(1970, 1, 1)).days * DAY_US
    raise refuse(
        path,
        "its times count from midnight, and its name does not say of which day",
        "keep the day in the file's name, such as 20131007_trade.csv",
    )


def _is_headless(layout: Layout, *forms: str) -> bool:
    """Whether there is no header and most rows begin with fields of these forms."""
    head = layout.head
    if head.header is not None or head.kind != "text":
        return False
    return _begin(layout, *forms)


def _begin(layout: Layout, *forms: str) -> bool:
    rows = layout.head.rows
    right = sum(
        all(re.fullmatch(form, field) for form, field in zip(forms, row, strict=False))
        for row in rows
    )
    return len(rows) > 0 and right * 2 >= len(rows)


def _is_cryptodatadownload(layout: Layout) -> bool:
    names = layout.head.names
    by_currency = any(name.startswith("volume_") for name in names) and "symbol" in names
    return "cryptodatadownload" in layout.head.preamble.lower() or by_currency


def _is_metatrader5(layout: Layout) -> bool:
    header = {name.lower() for name in layout.head.header or ()}
    if "<ticker>" not in header and {"<date>", "<open>"} <= header:
        return True
    return layout.head.separator == "\t" and _is_headless(layout, _DOTTED, _HH_MM_SS)


def _is_metatrader4(layout: Layout) -> bool:
    """The dotted date with the year first is MetaTrader's own."""
    two = len(layout.columns["timestamp"]) == 2
    dotted = _is_headless(layout, _DOTTED if two else _DOTTED + " " + _HH_MM)
    return dotted or (two and layout.columns["timestamp"] == (0, 1) and _begin(layout, _DOTTED))


def _is_histdata(layout: Layout) -> bool:
    if re.match(r"(?i)dat_(ascii|mt|nt|ms|xlsx)_", layout.head.name):
        return layout.head.header is None
    return layout.head.separator == ";" and _is_headless(layout, r"[0-9]{8} [0-9]{6}")


def _is_dukascopy(layout: Layout) -> bool:
    place = layout.columns["timestamp"][0]
    name = (layout.head.header or ("",) * (place + 1))[place]
    return re.fullmatch(r"(?i)(gmt|local) time|time \([a-z0-9/_+-]+\)", name) is not None


def _is_yahoo(layout: Layout) -> bool:
    head = layout.head
    three_lines = head.first_line == 4 and head.names[1:2] in (["close"], ["adj_close"])
    adjusted = any(name.startswith("adj_close") for name in head.names)
    return adjusted or three_lines  # the latter as yfinance writes them


def _is_binance(layout: Layout) -> bool:
    head = layout.head
    if head.header is not None:
        return "close_time" in head.names and any("taker" in n for n in head.names)
    epochs = all(re.fullmatch("[0-9]{13,16}", r[0]) for r in head.rows[-5:])
    return head.width in (11, 12) and epochs and all(r[0] <= r[6] for r in head.rows[-5:])


def _is_bitfinex(layout: Layout) -> bool:
    place = layout.columns["timestamp"][0]
    epochs = [re.fullmatch("[0-9]{13}", row[place]) for row in layout.head.rows[-5:]]
    return layout.price_order == "ochl" and len(epochs) > 0 and all(epochs)


def _is_backtesting(layout: Layout) -> bool:
    header = layout.head.header or ()
    place = layout.columns["timestamp"][0]
    return layout.head.kind == "text" and header[place : place + 2] == ("", "Open")


def _is_lean(layout: Layout) -> bool:
    if layout.head.header is not None or layout.head.separator != ",":
        return False
    counted = is_since_midnight(layout.head.rows)
    return counted or _is_headless(layout, r"[0-9]{8} [0-9]{2}:[0-9]{2}")


def _is_freqtrade(layout: Layout) -> bool:
    head = layout.head
    if head.kind == "json":
        return head.header is None and head.width == 6
    names = ["date", *PRICE_COLUMNS, "volume"]
    return head.kind == "feather" and head.names == names


_DOTTED = r"[0-9]{4}\.[0-9]{2}\.[0-9]{2}"
_HH_MM = r"[0-9]{2}:[0-9]{2}(:[0-9]{2})?"
_HH_MM_SS = r"[0-9]{2}:[0-9]{2}:[0-9]{2}"
_UNSAID = Clock("UTC", "which is assumed where a file says nothing; --timezone names another zone")
_SERVER = Clock(
    None,
    "MetaTrader writes the time of the broker's server: often Europe/Athens, Etc/GMT-2 (two hours "
    "ahead of UTC) or UTC",
)
_EASTERN = Clock(
    None,
    "HistData writes New York's time: its files name EST, which knows no daylight saving, and many "
    "follow America/New_York",
)
_LOCAL = Clock(None, "Dukascopy's local time is that of the computer which wrote the file")
_EXCHANGE = Clock(
    None,
    "Lean writes the time of the exchange or feed: America/New_York for US shares, UTC for crypto "
    "currencies and most foreign exchange",
)


def _utc_of(vendor: str) -> Clock:
    return Clock("UTC", f"as {vendor} writes them")


# In the order in which they are tried: what is most particular comes first.
_DIALECTS = (
    _Dialect("cryptodatadownload", _is_cryptodatadownload, _utc_of("CryptoDataDownload")),
    _Dialect("histdata", _is_histdata, _EASTERN),
    _Dialect("metatrader5", _is_metatrader5, _SERVER),
    _Dialect("metatrader4", _is_metatrader4, _SERVER),
    _Dialect("dukascopy", _is_dukascopy, _LOCAL),
    _Dialect("yahoo", _is_yahoo, _UNSAID),
    _Dialect("binance", _is_binance, _utc_of("Binance")),
    _Dialect("bitfinex", _is_bitfinex, _utc_of("Bitfinex")),
    _Dialect(LEAN, _is_lean, _EXCHANGE),
    _Dialect("freqtrade", _is_freqtrade, _utc_of("freqtrade")),
    _Dialect("backtesting", _is_backtesting, _UNSAID),
)
FORMATS = (
    *(AUTO, "metatrader4", "metatrader5", "histdata", "dukascopy", "yahoo", "binance", "bitfinex"),
    *("cryptodatadownload", "backtesting", LEAN, "freqtrade", *_PLAIN, "json", "parquet"),
    "feather",
)
