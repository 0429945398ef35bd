"""Assignment of table columns to fields, by header names or, without a header, by content."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ktrdr.data.bars import PRICE_COLUMNS, echo
from ktrdr.data.importing.archives import refuse
from ktrdr.data.importing.csv_sniffer import Head, Row
from ktrdr.data.importing.timestamps import is_time
from ktrdr.errors import InvalidData

# Names seen in the wild, best first, as `heads.plain` writes them.
ALIASES: dict[str, tuple[str, ...]] = {
    "timestamp": (
        *("open_time", "opentime", "timeopen", "time_open", "window_start", "start_time"),
        *("starttime", "start_at", "timestamp", "timestamp_utc", "datetime", "datetime_utc"),
        *("date_time", "unix", "unix_timestamp", "unix_time", "epoch", "mts", "gmt_time"),
        *("utc_time", "time_utc", "date_utc", "local_time", "time", "date", "dtyyyymmdd", "ts"),
        *("bar_time", "open_timestamp", "ts_event", "datum", "t", "__index_level_0__"),
    ),
    "open": ("open", "open_price", "o"),
    "high": ("high", "high_price", "max", "h"),
    "low": ("low", "low_price", "min", "l"),
    "close": (
        *("close", "close_price", "close/last", "c", "last", "last_price", "latest", "price"),
        "close_close_price_adjusted_for_splits",  # what Yahoo's page says over its column
    ),
    "volume": (
        *("volume", "vol", "base_volume", "real_volume", "tick_volume", "tickvolume"),
        *("tickvol", "volumefrom", "v"),
    ),
}
_DATE_NAMES = ("date", "dtyyyymmdd")
_CLOCK = re.compile(
    r"[0-9]{1,2}:[0-9]{2}(:[0-9]{2}([.,][0-9]+)?)?( ?[AaPp][Mm])?|[0-9]{4}|[0-9]{6}"
)
_ORDERS = {"ohlc": (0, 1, 2, 3), "ochl": (0, 2, 3, 1)}
_FEWEST_SHARE = 0.9
_FEWEST_ROWS = 5
_DAY_MS = 86_400_000

Columns = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Layout:
    """The columns of each role: the date and the clock of a time, bid and ask of a price, or
    several volumes of which the first that is not all zero counts (none: there is no volume)."""

    head: Head
    columns: Columns
    decimal_comma: bool = False
    price_order: str = "ohlc"

    def names(self, role: str) -> list[str]:
        """The columns of a role as the file names them, or by their place, counted from 1."""
        header = self.head.header or ("",) * self.head.width
        return [header[i] or f"column {i + 1}" for i in self.columns[role]]

    def is_canonical(self) -> bool:
        """Whether the file calls everything what it is called here."""
        return all(self.names(role) == [role] for role in self.columns)

    def say(self, role: str) -> str:
        """The same for a message."""
        header = self.head.header or ("",) * self.head.width
        places = self.columns[role]
        return " and ".join(echo(header[i]) if header[i] else f"column {i + 1}" for i in places)


def lay_out(path: Path, head: Head) -> Layout:
    """Choose the columns; raises InvalidData where it is no table of OHLC."""
    if head.header is not None:
        columns = _by_name(path, head)
        order = "ochl" if _is_ochl(columns) else "ohlc"
    else:
        columns, order = _by_place(path, head)
    return Layout(head, columns, _has_decimal_comma(head, columns), order)


def column_notes(layout: Layout) -> list[str]:
    """What to tell the user about the columns: what is called otherwise, ignored or missing."""
    header, columns = layout.head.header, layout.columns
    taken = [
        f"{role} from {layout.say(role)}"
        for role, places in columns.items()
        if places and (header is None or [header[i] for i in places] != [role])
    ]
    notes = [f"{'no header: ' if header is None else ''}took {', '.join(taken)}"] if taken else []
    if layout.head.preamble:
        notes.append(f"skipped what stands above: {echo(layout.head.preamble)}")
    if len(columns["open"]) == 2:
        notes.append("prices are the middle of bid and ask")
    ignored = _ignored(layout)
    if ignored:
        notes.append(f"ignored columns {', '.join(ignored[:12])}")
    if not columns["volume"]:
        notes.append("no column for volume: it is 0 in every row")
    if layout.decimal_comma:
        notes.append("took the comma in numbers for a decimal point")
    elif _has_thousands(layout):
        notes.append("took the comma in numbers for a mark between thousands")
    return notes


def _ignored(layout: Layout) -> list[str]:
    """The columns that nothing is taken from; a nameless one counts if anything is in it."""
    chosen = {i for places in layout.columns.values() for i in places}
    rest = [i for i in range(layout.head.width) if i not in chosen]
    if layout.head.header is not None:
        return [echo(layout.head.header[i]) for i in rest if layout.head.header[i]]
    return [str(i + 1) for i in rest if any(row[i] for row in layout.head.rows)]


def _numbers_of(row: Row, places: tuple[int, ...]) -> list[float] | None:
    """The fields at these places as numbers, or None where one is none."""
    try:
        return [float(row[place].replace(",", ".")) for place in places]
    except (ValueError, IndexError):
        return None


def _by_name(path: Path, head: Head) -> Columns:
    names = head.names
    columns: Columns = {"timestamp": _time_columns(head)}
    for role in PRICE_COLUMNS:
        found = next((a for a in ALIASES[role] if a in names), None)
        columns[role] = _quotes(names, role) if found is None else (names.index(found),)
    columns["volume"] = _volume_columns(head)
    if not all(columns[role] for role in ("timestamp", *PRICE_COLUMNS)):
        raise _no_columns(path, head, [role for role in ALIASES if not columns[role]])
    chosen = [i for places in columns.values() for i in places]
    twice = sorted({(head.header or ())[i] for i in chosen if names.count(names[i]) > 1})
    if twice:
        raise refuse(path, f"two columns are named {', '.join(map(echo, twice))}", "rename one")
    return columns


def _quotes(names: list[str], role: str) -> tuple[int, ...]:
    """The bid and the ask of a price, or the one that there is: `BidOpen`, `ask_open`."""
    bare = [name.replace("_", "") for name in names]
    return tuple(bare.index(side + role) for side in ("bid", "ask") if side + role in bare)


def _no_columns(path: Path, head: Head, missing: list[str]) -> InvalidData:
    """The error of a table that has no column for some roles."""
    first = head.header or (head.rows[0] if head.rows else ())
    shown = ", ".join(echo(name) for name in first[:12])
    return refuse(
        path,
        f"no column for {', '.join(missing)}: its first line reads {shown}",
        "the first line must name timestamp,open,high,low,close,volume",
    )


def _time_columns(head: Head) -> tuple[int, ...]:
    names = head.names
    found = next((a for a in ALIASES["timestamp"] if a in names), None)
    date = next((a for a in _DATE_NAMES if a in names), None)
    if found in ("time", *_DATE_NAMES) and date is not None and "time" in names:
        clock = names.index("time")
        if all(_CLOCK.fullmatch(row[clock]) for row in head.rows[:20]):
            return names.index(date), clock
        return (clock,)
    if found is not None:
        return (names.index(found),)
    if "" in names and any(is_time(row[names.index("")]) for row in head.rows[:20]):
        return (names.index(""),)
    return ()


def _volume_columns(head: Head) -> tuple[int, ...]:
    """All volumes; of an exchange's two, the one in the base currency."""
    names = head.names
    plain = tuple(names.index(a) for a in ALIASES["volume"] if a in names)
    by_currency = [i for i, n in enumerate(names) if re.fullmatch("volume_[a-z0-9]+", n)]
    if plain or not by_currency:
        return plain
    symbol = ""
    if "symbol" in names and head.rows:
        symbol = head.rows[0][names.index("symbol")].lower()
    base = [i for i in by_currency if symbol.startswith(names[i].removeprefix("volume_"))]
    return ((base or by_currency)[0],)


def _is_ochl(columns: Columns) -> bool:
    opens, highs, lows, closes = (columns[role][0] for role in PRICE_COLUMNS)
    return opens < closes < highs < lows


def _by_place(path: Path, head: Head) -> tuple[Columns, str]:
    """A table without header: the time, then four prices whose order the rows show, the volume."""
    time = _leading_time(head.rows)
    if time is None or _is_all_words(head.rows[0]):
        raise _no_columns(path, head, list(ALIASES))
    start = time[-1] + 1
    order = _price_order(head.rows, start)
    if order == "ochl" and _share(_is_epoch_ms, head.rows, time[0]) < 0.5:
        order = None  # Bitfinex writes it; elsewhere the first may as well be the close
    if order is None:
        raise refuse(
            path,
            "it has no header, and its rows do not show which column is the high and which the low",
            "the first line must name timestamp,open,high,low,close,volume",
        )
    prices = {
        role: (start + place,) for role, place in zip(PRICE_COLUMNS, _ORDERS[order], strict=True)
    }
    bar = (prices["low"][0], prices["high"][0])
    volumes = tuple(i for i in range(start + 4, head.width) if not _is_price(head.rows, i, bar))[:1]
    if volumes and all(row[volumes[0]] == "" for row in head.rows):
        volumes = ()
    return {"timestamp": time, **prices, "volume": volumes}, order


def _is_price(rows: tuple[Row, ...], place: int, bar: tuple[int, int]) -> bool:
    """Whether a column always lies between the low and the high, as an average price does."""
    known = [n for row in rows if (n := _numbers_of(row, (place, *bar))) is not None]
    return len(known) >= _FEWEST_ROWS and all(low <= n <= high for n, low, high in known)


def _leading_time(rows: tuple[Row, ...]) -> tuple[int, ...] | None:
    """The column of the time, or the two of date and clock: the first, or after a symbol."""
    if not rows or len(rows[0]) < 5:
        return None
    start = 1 if _is_symbol(rows) and len(rows[0]) > 5 else 0
    if _share(is_time, rows, start) < 0.5 and not is_since_midnight(rows):
        return None
    clocks = _share(lambda text: _CLOCK.fullmatch(text) is not None, rows, start + 1)
    if clocks < 0.5 or len(rows[0]) < start + 6 or _price_order(rows, start + 1) is not None:
        return (start,)
    return start, start + 1


def _is_all_words(row: Row) -> bool:
    """Whether it is a header, of names that are not known."""
    return not any(re.search("[0-9]", field) for field in row) and "" not in row


def _is_epoch_ms(text: str) -> bool:
    return re.fullmatch("[0-9]{13}", text) is not None


def _is_symbol(rows: tuple[Row, ...]) -> bool:
    """Whether the first column repeats one word."""
    same = all(row[0] == rows[0][0] for row in rows)
    return same and re.search("[A-Za-z]", rows[0][0]) is not None


def _share(test: Callable[[str], bool], rows: tuple[Row, ...], place: int) -> float:
    return sum(test(row[place]) for row in rows) / len(rows)


def is_since_midnight(rows: tuple[Row, ...]) -> bool:
    """Whether the first column counts the milliseconds of one day, as QuantConnect's files do."""
    texts = [row[0] for row in rows if row]
    if not texts or not all(re.fullmatch("[0-9]{1,8}", text) for text in texts):
        return False
    dates = all(len(text) == 8 and text[:2] in ("19", "20") for text in texts)
    return not dates and all(int(text) < _DAY_MS for text in texts)


def _price_order(rows: tuple[Row, ...], start: int) -> str | None:
    """The order in which the high and the low are where they must be, if it is the only one."""
    known = [n for r in rows if (n := _numbers_of(r, tuple(range(start, start + 4)))) is not None]
    known = [row for row in known if min(row) < max(row)]  # a flat row shows nothing
    if not known:
        return None
    fits = []
    for order, (_, high, low, _) in _ORDERS.items():
        right = sum(row[high] == max(row) and row[low] == min(row) for row in known)
        if right >= _FEWEST_SHARE * len(known):
            fits.append(order)
    return fits[0] if len(fits) == 1 else None


def _has_thousands(layout: Layout) -> bool:
    places = [i for role, found in layout.columns.items() if role != "timestamp" for i in found]
    return any("," in row[i] for row in layout.head.rows for i in places)


def _has_decimal_comma(head: Head, columns: Columns) -> bool:
    """Whether most prices with a mark in them are written 1,0552 or 1.234,5. Where the comma also
    separates fields, one before three digits stands between thousands."""
    places = [columns[role][0] for role in PRICE_COLUMNS]
    marked = [text for row in head.rows for i in places if re.search("[.,]", text := row[i])]
    commas = [text for text in marked if re.fullmatch(r"[0-9.]+,[0-9]+", text)]
    if head.separator == ",":
        commas = [text for text in commas if not re.search(r",[0-9]{3}$", text)]
    return 2 * len(commas) > len(marked)
