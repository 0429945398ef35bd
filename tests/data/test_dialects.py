"""Files as vendors write them: what each is taken for, and what an import asks for."""

from __future__ import annotations

import datetime as dt
import gzip
import io
import json
import re
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import feather

from ktrdr.cli.main import run
from ktrdr.data.bars import Bars, columns, fingerprint, format_us
from ktrdr.data.importing.importer import ImportReport, import_file
from ktrdr.data.importing.options import Choices
from ktrdr.data.sample import sample_bars
from ktrdr.errors import InvalidData, Usage

REAL = Path(__file__).parents[2] / ".." / "shared" / "data" / "dialects"
BARS = sample_bars(rows=60)
OHLC = (BARS.open, BARS.high, BARS.low, BARS.close)

Row = Callable[[dt.datetime, str, str, str, str, str], str]


def moments(bars: Bars) -> list[dt.datetime]:
    return [
        dt.datetime(1970, 1, 1) + dt.timedelta(microseconds=t) for t in bars.timestamps.tolist()
    ]


def text_of(row: Row, header: str = "", bars: Bars = BARS) -> str:
    """A file of these bars, a line each as `row` writes it."""
    numbers = [map(repr, column.tolist()) for column in columns(bars)[1:]]
    lines = [row(*fields) for fields in zip(moments(bars), *numbers, strict=True)]
    return "\n".join([*([header] if header else []), *lines]) + "\n"


def ms(moment: dt.datetime) -> int:
    return int(moment.replace(tzinfo=dt.UTC).timestamp() * 1000)


def save(tmp_path: Path, content: str | bytes, name: str = "export.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def zipped(members: dict[str, str | bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def flags_asked(path: Path, timeframe: str = "1h", symbol: str = "SAMPLE") -> list[str]:
    with pytest.raises(Usage) as question:
        import_file(path, symbol, timeframe)
    assert "\n" not in question.value.message
    assert all(flag in question.value.message for flag in question.value.details["flags"])
    flags: list[str] = question.value.details["flags"]
    return flags


def metatrader4(t: dt.datetime, o: str, h: str, low: str, c: str, v: str) -> str:
    return f"{t:%Y.%m.%d,%H:%M},{o},{h},{low},{c},{v}"


def metatrader5(t: dt.datetime, o: str, h: str, low: str, c: str, v: str) -> str:
    return f"{t:%Y.%m.%d\t%H:%M:%S}\t{o}\t{h}\t{low}\t{c}\t{v}\t0\t7"


def histdata(t: dt.datetime, o: str, h: str, low: str, c: str, v: str) -> str:
    return f"{t:%Y%m%d %H%M%S};{o};{h};{low};{c};{v}"


def klines(t: dt.datetime, o: str, h: str, low: str, c: str, v: str) -> str:
    return f"{ms(t)},{o},{h},{low},{c},{v},{ms(t) + 3_599_999},1.5,7,1.0,1.0,0"


def klines_us(t: dt.datetime, o: str, h: str, low: str, c: str, v: str) -> str:
    return f"{ms(t)}000,{o},{h},{low},{c},{v},{ms(t)}999,1.5,7,1.0,1.0,0"


def bitfinex(t: dt.datetime, o: str, h: str, low: str, c: str, v: str) -> str:
    return f"{ms(t)},{o},{c},{h},{low},{v}"


def plain(form: str) -> Row:
    return lambda t, o, h, low, c, v: f"{t.strftime(form)},{o},{h},{low},{c},{v}"


MT5_HEADER = "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>"
KLINES_HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,"
    "taker_buy_quote_volume,ignore"
)
OHLCV = "Open,High,Low,Close,Volume"

# Each: whose, what a file of the sample bars looks like, what the user must say.
EXPORTS: dict[str, tuple[str, str, Choices]] = {
    "metatrader4": ("metatrader4", text_of(metatrader4), {"timezone": "UTC"}),
    "metatrader4, one column": (
        "metatrader4",
        text_of(plain("%Y.%m.%d %H:%M")),
        {"timezone": "UTC"},
    ),
    "metatrader4, trailing separator": (
        "metatrader4",
        text_of(lambda *row: metatrader4(*row) + ","),
        {"timezone": "UTC"},
    ),
    "metatrader5": ("metatrader5", text_of(metatrader5, MT5_HEADER), {"timezone": "UTC"}),
    "metatrader5, headerless": ("metatrader5", text_of(metatrader5), {"timezone": "UTC"}),
    "histdata": ("histdata", text_of(histdata), {"timezone": "UTC"}),
    "dukascopy, Gmt time": (
        "dukascopy",
        text_of(plain("%d.%m.%Y %H:%M:%S.000"), f"Gmt time,{OHLCV}"),
        {},
    ),
    "dukascopy, Local time with its offset": (
        "dukascopy",
        text_of(plain("%d.%m.%Y %H:%M:%S.000 GMT+0000"), f"Local time,{OHLCV}"),
        {},
    ),
    "dukascopy, named zone": (
        "dukascopy",
        text_of(plain("%Y.%m.%d %H:%M:%S"), f"Time (UTC),{OHLCV} "),
        {},
    ),
    "yahoo, intraday": (
        "yahoo",
        text_of(
            lambda t, o, h, low, c, v: f"{t}+00:00,{c},{h},{low},{o},{v}",
            "Price,Close,High,Low,Open,Volume\nTicker,X,X,X,X,X\nDatetime,,,,,",
        ),
        {},
    ),
    "binance": ("binance", text_of(klines), {}),
    "binance, named": ("binance", text_of(klines, KLINES_HEADER), {}),
    "binance, microseconds": ("binance", text_of(klines_us), {}),
    "bitfinex": ("bitfinex", text_of(bitfinex), {}),
    "bitfinex, named": ("bitfinex", text_of(bitfinex, "MTS,OPEN,CLOSE,HIGH,LOW,VOLUME"), {}),
    "cryptodatadownload": (
        "cryptodatadownload",
        text_of(
            lambda t, o, h, low, c, v: f"{ms(t)},{t},ETH/USD,{o},{h},{low},{c},9,{v}",
            "https://www.CryptoDataDownload.com\n"
            "unix,date,symbol,open,high,low,close,Volume USD,Volume ETH",
        ),
        {},
    ),
    "cryptodatadownload, by the half day": (
        "cryptodatadownload",
        text_of(
            lambda t, o, h, low, c, v: f"{t:%Y-%m-%d %I-%p},BTCUSD,{o},{h},{low},{c},{v},9",
            "https://www.CryptoDataDownload.com\n"
            "Date,Symbol,Open,High,Low,Close,Volume BTC,Volume USD",
        ),
        {},
    ),
    "backtesting": ("backtesting", text_of(plain("%Y-%m-%d %H:%M:%S"), f",{OHLCV}"), {}),
    "lean, hours": ("lean", text_of(plain("%Y%m%d %H:%M")), {"timezone": "UTC"}),
    "plain, headerless": ("csv", text_of(plain("%Y-%m-%dT%H:%M:%SZ")), {}),
    "plain, dots": ("csv", text_of(plain("%d.%m.%Y %H:%M"), f"Date,{OHLCV}"), {}),
    "plain, half days": ("csv", text_of(plain("%b %d %Y %I:%M %p"), f"Date,{OHLCV}"), {}),
    "plain, day first": (
        "csv-dmy",
        text_of(plain("%d/%m/%Y %H:%M:%S"), f"Date,{OHLCV}"),
        {"format": "csv-dmy"},
    ),
    "plain, month first": (
        "csv-mdy",
        text_of(plain("%m/%d/%Y %I:%M:%S %p"), f"Date,{OHLCV}"),
        {"format": "csv-mdy"},
    ),
    "plain, two columns": ("csv", text_of(plain("%Y-%m-%d,%H:%M:%S"), f"Date,Time,{OHLCV}"), {}),
    "stooq": (
        "csv",
        text_of(
            lambda t, o, h, low, c, v: f"X,60,{t:%Y%m%d,%H%M%S},{o},{h},{low},{c},{v},0",
            "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>",
        ),
        {},
    ),
    "plain, day first, short years": (
        "csv",
        text_of(plain("%d.%m.%y %H:%M"), f"Datum;{OHLCV.replace(',', ';')}").replace(",", ";"),
        {},
    ),
    "plain, month names, short years": (
        "csv",
        text_of(plain("%d-%b-%y %H:%M"), f"Date,{OHLCV}"),
        {},
    ),
    "plain, twelve digits": ("csv", text_of(plain("%Y%m%d%H%M")), {}),
    "plain, after a symbol": ("csv", text_of(plain("EURUSD,%Y%m%d%H%M")), {}),
    "plain, dollars": (
        "csv",
        text_of(
            lambda t, o, h, low, c, v: f"{t},${c},{v},${o},${h},${low}",
            "Date,Close/Last,Volume,Open,High,Low",
        ),
        {},
    ),
    "plain, Price and Vol.": (
        "csv",
        text_of(
            lambda t, o, h, low, c, v: (
                f'"{t:%b %d, %Y %H:%M}","{c}","{o}","{h}","{low}","{v}","1%"'
            ),
            '"Date","Price","Open","High","Low","Vol.","Change %"',
        ),
        {},
    ),
    "plain, volume by currency": (
        "csv",
        text_of(
            lambda t, *row: f"{ms(t) // 1000},{','.join(row)},7.5,1.0",
            "Timestamp,Open,High,Low,Close,Volume_(BTC),Volume_(Currency),Weighted_Price",
        ),
        {},
    ),
    "plain, opened and closed at": (
        "csv",
        text_of(
            lambda t, *row: f"{t}Z;{t}Z;{';'.join(row)};{t:%Y-%m-%d %H}:59:59.999Z",
            "timeOpen;timeHigh;open;high;low;close;volume;timestamp",
        ),
        {},
    ),
    "plain, by the nanosecond": (
        "csv",
        text_of(
            lambda t, o, h, low, c, v: f"X,{v},{o},{c},{h},{low},{ms(t)}000000,7",
            "ticker,volume,open,close,high,low,window_start,transactions",
        ),
        {},
    ),
    "plain, the latest price": (
        "csv",
        text_of(plain("%Y-%m-%d %H:%M"), "Time,Open,High,Low,Latest,Volume"),
        {},
    ),
    "plain, bid and ask": (
        "csv-mdy",
        text_of(
            lambda t, *row: f"{t:%m/%d/%Y %H:%M:%S.000},{','.join(row[:4] * 2)},{row[4]}",
            "DateTime,BidOpen,BidHigh,BidLow,BidClose,AskOpen,AskHigh,AskLow,AskClose,Volume",
        ),
        {"format": "csv-mdy"},
    ),
    "yahoo, as its page is copied": (
        "yahoo",
        text_of(
            lambda t, o, h, low, c, v: f"{t:%b %d, %Y %H:%M}\t{o}\t{h}\t{low}\t{c}\t1\t{v}",
            "Date\tOpen\tHigh\tLow\tClose*\tAdj Close**\tVolume",
        ),
        {},
    ),
    "unnamed index": (
        "csv",
        text_of(lambda t, *row: f"7,{t},{','.join(row)}", f",Date,{OHLCV}"),
        {},
    ),
}


@pytest.mark.parametrize("case", EXPORTS)
def test_an_export_becomes_exactly_its_bars(tmp_path: Path, case: str) -> None:
    vendor, text, choices = EXPORTS[case]
    report = import_file(save(tmp_path, text), "SAMPLE", "1h", **choices)
    assert fingerprint(report.bars) == fingerprint(BARS)
    assert (report.format, report.dropped, report.timezone) == (vendor, {}, "UTC")
    said: Choices = {**choices, "format": vendor}
    named = import_file(tmp_path / "export.csv", "SAMPLE", "1h", **said)
    assert fingerprint(named.bars) == fingerprint(BARS)
    assert (named.format, named.columns) == (vendor, report.columns)


@pytest.mark.parametrize("case", ["metatrader5", "histdata", "dukascopy, Gmt time", "plain, dots"])
def test_encodings_and_line_ends_make_no_difference(tmp_path: Path, case: str) -> None:
    vendor, text, choices = EXPORTS[case]
    crlf = text.replace("\n", "\r\n")
    variants: dict[str, bytes] = {
        "crlf": crlf.encode(),
        "bom": b"\xef\xbb\xbf" + crlf.encode(),
        "utf-16": crlf.encode("utf-16"),
        "utf-16-be": b"\xfe\xff" + crlf.encode("utf-16-be"),
        "utf-16 without a mark": crlf.encode("utf-16-le"),
        "gzip": gzip.compress(text.encode()),
        "zip": zipped({"export.csv": text, "readme.txt": "hello", "__MACOSX/export.csv": "x"}),
    }
    for name, content in variants.items():
        report = import_file(save(tmp_path, content), "SAMPLE", "1h", **choices)
        assert (report.format, fingerprint(report.bars)) == (vendor, fingerprint(BARS)), name


@pytest.mark.parametrize(
    "case", ["metatrader4", "metatrader5", "binance", "bitfinex", "plain, dots"]
)
def test_the_newest_first_is_turned_round_and_told(tmp_path: Path, case: str) -> None:
    _, text, choices = EXPORTS[case]
    lines = text.splitlines()
    names = lines[:1] if lines[0][0] in "<D" else []
    turned = "\n".join([*names, *reversed(lines[len(names) :])])
    report = import_file(save(tmp_path, turned), "SAMPLE", "1h", **choices)
    assert fingerprint(report.bars) == fingerprint(BARS)
    assert report.moved == 0
    assert any("newest" in note for note in report.notes)


def test_a_bad_row_of_a_file_that_runs_backwards_is_named_by_its_line(tmp_path: Path) -> None:
    lines = EXPORTS["binance"][1].splitlines()[::-1]
    lines[10], lines[20] = lines[11], "x" + lines[20]
    with pytest.raises(InvalidData) as refusal:
        import_file(save(tmp_path, "\n".join(lines)), "SAMPLE", "1h")
    assert refusal.value.details["problems"] == {
        "unparsable_time": {"count": 1, "lines": [21]},
        "duplicate": {"count": 1, "lines": [12]},
    }


@pytest.mark.parametrize("case", ["metatrader4", "metatrader5", "histdata", "lean, hours"])
def test_a_zone_that_a_vendor_leaves_open_is_asked_for(tmp_path: Path, case: str) -> None:
    path = save(tmp_path, EXPORTS[case][1])
    assert flags_asked(path) == ["--timezone"]
    report = import_file(path, "SAMPLE", "1h", timezone="Etc/GMT-2")
    assert report.bars.first == BARS.first - 2 * 3600 * 10**6
    assert report.timezone == "Etc/GMT-2"


def test_local_time_without_an_offset_is_asked_for(tmp_path: Path) -> None:
    text = text_of(plain("%d.%m.%Y %H:%M:%S.000"), f"Local time,{OHLCV}")
    assert flags_asked(save(tmp_path, text)) == ["--timezone"]


def test_bad_rows_have_the_same_lines_with_and_without_quoted_fields(tmp_path: Path) -> None:
    lines = EXPORTS["metatrader5"][1].splitlines()
    lines[20] = lines[20].replace("\t", "", 1)
    lines[30] += "\t1\t2"
    lines[40] = lines[40].split("\t")[0]
    lines[45] = "\t\t" + lines[45].split("\t", 2)[2]
    lines[50] = re.sub("\t[0-9:]{8}\t", "\t\t", lines[50])
    lines[10:10] = ["", ""]
    quoted = [*lines[:5], lines[5].replace("2020", '"2020').replace("\t", '"\t', 1), *lines[6:]]
    found = []
    for text in ("\n".join(lines), "\r\n".join(lines), "\n".join(quoted)):
        with pytest.raises(InvalidData) as refusal:
            import_file(save(tmp_path, text), "SAMPLE", "1h", timezone="UTC")
        found.append(refusal.value.details["problems"])
    assert found[0] == found[1] == found[2]
    assert {kind: problem["lines"] for kind, problem in found[0].items()} == {
        "ragged": [33, 43],
        "unparsable_time": [23, 48, 53],
    }


def test_a_zone_in_a_columns_name_is_used_and_a_users_is_believed(tmp_path: Path) -> None:
    rows = "2020.07.01 03:00:00,10,11,9,10.5,1\n2020.07.01 04:00:00,10,11,9,10.5,1\n"
    path = save(tmp_path, f"Time (EET),{OHLCV}\n{rows}")
    report = import_file(path, "X", "1h")
    assert (format_us(report.bars.first), report.timezone) == ("2020-07-01T00:00:00Z", "EET")
    assert any("'Time (EET)'" in note for note in report.notes)
    report = import_file(path, "X", "1h", timezone="Europe/Berlin")
    assert format_us(report.bars.first) == "2020-07-01T01:00:00Z"


def days(form: str, *dates: dt.date, header: str = f"Date,{OHLCV}") -> str:
    return "\n".join([header, *(f"{day.strftime(form)},10,11,9,10.5,1" for day in dates)]) + "\n"


def test_dates_need_no_zone(tmp_path: Path) -> None:
    text = days("%Y.%m.%d,00:00", dt.date(2020, 1, 30), dt.date(2020, 1, 31)).split("\n", 1)[1]
    report = import_file(save(tmp_path, text), "X", "1d")
    assert (report.format, format_us(report.bars.first)) == ("metatrader4", "2020-01-30T00:00:00Z")
    assert any("midnight" in note for note in report.notes)


@pytest.mark.parametrize("mark", ["/", "-"])
def test_the_order_of_day_and_month_is_told_by_a_row_or_asked_for(
    tmp_path: Path, mark: str
) -> None:
    clear = [dt.date(2020, 1, 11) + dt.timedelta(i) for i in range(4)]
    for form, order in ((f"%d{mark}%m{mark}%Y", "day before"), (f"%m{mark}%d{mark}%Y", "month be")):
        report = import_file(save(tmp_path, days(form, *clear)), "X", "1d")
        assert format_us(report.bars.last) == "2020-01-14T00:00:00Z"
        assert any(order in note for note in report.notes)
    unclear = days(f"%d{mark}%m{mark}%Y", dt.date(2020, 1, 11), dt.date(2020, 1, 12))
    path = save(tmp_path, unclear)
    assert flags_asked(path, "1d") == ["--format"]
    report = import_file(path, "X", "1d", format="csv-dmy")
    assert format_us(report.bars.last) == "2020-01-12T00:00:00Z"


def test_one_impossible_date_does_not_turn_the_others_round(tmp_path: Path) -> None:
    text = days("%d/%m/%Y", *(dt.date(2020, 1, 10) + dt.timedelta(i) for i in range(9)))
    path = save(tmp_path, text + "01/31/2020,10,11,9,10.5,1\n")
    with pytest.raises(InvalidData) as refusal:
        import_file(path, "X", "1d")
    assert refusal.value.details["problems"] == {"unparsable_time": {"count": 1, "lines": [11]}}


def test_dates_without_leading_zeros_are_read(tmp_path: Path) -> None:
    rows = [f"{d.month}/{d.day}/{d.year}" for d in (dt.date(2019, 12, 9), dt.date(2019, 12, 10))]
    rows += [f"{d.month}/{d.day}/{d.year}" for d in (dt.date(2020, 1, 8), dt.date(2020, 1, 13))]
    text = "\n".join([f"Date,{OHLCV}", *(f"{row},10,11,9,10.5,1" for row in rows)])
    report = import_file(save(tmp_path, text), "X", "1d")
    assert format_us(report.bars.first) == "2019-12-09T00:00:00Z"
    assert format_us(report.bars.last) == "2020-01-13T00:00:00Z"


def test_whole_prices_may_be_points_and_their_worth_is_asked_for(tmp_path: Path) -> None:
    rows = ["2020-01-01,104212.0,104838.00000000001,104085.0,104657.0,7"]
    rows += ["2020-01-02,104654.0,104831.00000000001,104414.99999999999,104414.99999999999,7"]
    path = save(tmp_path, "\n".join([f"Date,{OHLCV}", *rows]))
    assert flags_asked(path, "1d", "AUDUSD") == ["--price-scale"]
    report = import_file(path, "AUDUSD", "1d", price_scale=0.00001)
    assert report.bars.high.tolist() == [1.04838, 1.04831]
    assert report.bars.low.tolist() == [1.04085, 1.04415]
    whole = import_file(path, "BTCUSD", "1d", price_scale=1)
    assert whole.bars.open.tolist() == [104212, 104654]
    for scale in (-1.0, 0.0, 1e-320, 1e300, float("nan"), float("inf")):
        with pytest.raises(Usage, match="--price-scale must lie between"):
            import_file(path, "X", "1d", price_scale=scale)


def test_all_questions_are_asked_at_once(tmp_path: Path) -> None:
    rows = "03/04/2020,10400,10500,10300,10450,7\n04/04/2020,10400,10500,10300,10450,7\n"
    path = save(tmp_path, f"Date,{OHLCV}\n{rows}")
    assert flags_asked(path, "1d", "EURUSD") == ["--format", "--price-scale"]


def test_a_number_may_have_a_comma(tmp_path: Path) -> None:
    decimal = (
        "20200101 000000;1,05;1,07;1,0;1,06;0\n20200101 010000;1,06;1,0812;1,01;1,07;1.234,5\n"
    )
    report = import_file(save(tmp_path, decimal), "X", "1h", timezone="UTC")
    assert report.bars.high.tolist() == [1.07, 1.0812]
    assert report.bars.volume.tolist() == [0, 1234.5]
    assert any("comma" in note for note in report.notes)
    thousands = f'Date,{OHLCV}\n2020-01-02,"1,050.5","1,070.25",990.5,"1,060","1,234,567"\n'
    report = import_file(save(tmp_path, thousands), "X", "1d")
    assert [c[0] for c in columns(report.bars)[1:]] == [1050.5, 1070.25, 990.5, 1060, 1234567]
    assert any("thousands" in note for note in report.notes)
    quoted = f'Date,{OHLCV}\n2020-01-02,"1,0505","1,0702","0,9905","1,06","7"\n'
    report = import_file(save(tmp_path, quoted), "X", "1d")
    assert [c[0] for c in columns(report.bars)[1:]] == [1.0505, 1.0702, 0.9905, 1.06, 7]


def test_a_volume_may_have_a_unit_or_be_blank(tmp_path: Path) -> None:
    def volumes(*written: str) -> ImportReport:
        rows = [f"2024-01-0{i},2,3,1,2,{v}" for i, v in enumerate(written, 1)]
        text = "\n".join(["Date,Open,High,Low,Close,Vol.", *rows])
        return import_file(save(tmp_path, text), "X", "1d")

    assert volumes("1.23K", "0.29M", "1.1b", "17").bars.volume.tolist() == [
        1230,
        290_000,
        1.1e9,
        17,
    ]
    for blank in ("", "-", "N/A"):
        report = volumes(blank, blank)
        assert report.bars.volume.tolist() == [0, 0]
        assert "no column for volume: it is 0 in every row" in report.notes
        with pytest.raises(InvalidData, match="missing or unreadable number"):
            volumes("1", blank)
    with pytest.raises(InvalidData, match="missing or unreadable number"):
        volumes("1.2K", "1.2Q")


def test_short_years_that_may_stand_in_front_are_not_read(tmp_path: Path) -> None:
    text = "Date,Open,High,Low,Close\n24/01/03 09:00,2,3,1,2\n24/01/03 10:00,2,3,1,2\n"
    with pytest.raises(InvalidData, match="2 whose time cannot be read"):
        import_file(save(tmp_path, text), "X", "1h")


def test_answers_of_web_services_are_read(tmp_path: Path) -> None:
    rows = [
        {"t": ms(t), "o": o, "h": h, "l": low, "c": c, "v": v}
        for t, o, h, low, c, v in zip(moments(BARS), *map(list, columns(BARS)[1:]), strict=True)
    ]
    by_time = {
        f"{t}": {"1. open": o, "2. high": h, "3. low": low, "4. close": c, "5. volume": v}
        for t, (_, o, h, low, c, v) in zip(
            moments(BARS), (map(str, row.values()) for row in rows), strict=True
        )
    }
    contents = (
        json.dumps({"status": "OK", "results": rows, "count": len(rows)}),
        json.dumps({"Meta Data": {"1. Symbol": "X"}, "Time Series": by_time}),
        "\n".join(map(json.dumps, rows)),
    )
    for content in contents:
        report = import_file(save(tmp_path, content), "SAMPLE", "1h")
        assert fingerprint(report.bars) == fingerprint(BARS)


@pytest.mark.parametrize("newest_first", [False, True])
def test_an_open_and_a_close_without_names_that_changed_places_are_refused(
    tmp_path: Path, newest_first: bool
) -> None:
    def lines(row: Row) -> str:
        rows = text_of(row).splitlines()
        return "\n".join(reversed(rows) if newest_first else rows)

    right = lines(lambda t, o, h, low, c, v: f"{t},{o},{h},{low},{c},{v}")
    assert len(import_file(save(tmp_path, right), "X", "1h").bars) == len(BARS)
    for swapped in (
        lines(lambda t, o, h, low, c, v: f"{t},{c},{h},{low},{o},{v}"),
        lines(lambda t, o, h, low, c, v: f"{ms(t)},{c},{o},{h},{low},{v}"),
    ):
        for fix in (False, True):
            with pytest.raises(InvalidData, match="first price looks like the close"):
                import_file(save(tmp_path, swapped), "X", "1h", fix=fix)


def test_an_average_price_without_a_name_is_no_volume(tmp_path: Path) -> None:
    text = text_of(lambda t, o, h, low, c, v: f"{t},{o},{h},{low},{c},{o},{v},7")
    report = import_file(save(tmp_path, text), "SAMPLE", "1h")
    assert fingerprint(report.bars) == fingerprint(BARS)
    assert "ignored columns 6, 8" in report.notes


@pytest.mark.parametrize("mark", [".", ","])
def test_a_stray_mark_in_a_number_is_no_decimal_point(tmp_path: Path, mark: str) -> None:
    lines = EXPORTS["metatrader5"][1].splitlines()
    if mark == ".":
        lines[1:] = [line.replace(".", ",") for line in lines[1:]]
        lines[1:] = [line.replace(",", ".", 2) for line in lines[1:]]
    fields = lines[7].split("\t")
    fields[4] = f"97{mark}8147"
    lines[7] = "\t".join(fields)
    with pytest.raises(InvalidData) as refusal:
        import_file(save(tmp_path, "\n".join(lines)), "SAMPLE", "1h", timezone="UTC")
    assert refusal.value.details["problems"] == {"unparsable_number": {"count": 1, "lines": [8]}}


def test_the_volume_is_one_that_is_not_all_zero_or_none(tmp_path: Path) -> None:
    path = save(tmp_path, EXPORTS["metatrader5"][1])
    report = import_file(path, "SAMPLE", "1h", timezone="UTC")
    assert report.columns["volume"] == ["<TICKVOL>"]
    assert any("'<VOL>', which is 0" in note for note in report.notes)
    bare = text_of(lambda t, o, h, low, c, _: f"{t},{o},{h},{low},{c}", "Date,Open,High,Low,Close")
    report = import_file(save(tmp_path, bare), "SAMPLE", "1h")
    assert not report.bars.volume.any()
    assert report.columns["volume"] == []
    assert any("no column for volume" in note for note in report.notes)


def test_daily_yahoo_takes_the_close_and_reports_null_rows(tmp_path: Path) -> None:
    header = "Date,Open,High,Low,Close,Adj Close,Volume"
    rows = ["2020-01-02,10,11,9,10.5,5.5,100", "2020-01-03,null,null,null,null,null,null"]
    path = save(tmp_path, "\n".join([header, *rows, "2020-01-06,10,11,9,10.5,5.5,100"]))
    with pytest.raises(InvalidData) as refusal:
        import_file(path, "X", "1d")
    assert refusal.value.details["problems"] == {"unparsable_number": {"count": 1, "lines": [3]}}
    report = import_file(path, "X", "1d", fix=True)
    assert (report.format, report.bars.close.tolist()) == ("yahoo", [10.5, 10.5])


def lean_minutes(prices: Sequence[str], count: int = 3) -> str:
    return "".join(f"{34_200_000 + i * 60_000},{','.join(prices)}\n" for i in range(count))


def test_lean_has_its_day_in_a_name_and_shares_in_ten_thousandths(tmp_path: Path) -> None:
    trade = lean_minutes(["1234500", "1235000", "1234000", "1234600", "700"])
    content = zipped({"20131007_spy_minute_trade.csv": trade})
    path = save(tmp_path, content, "20131007_trade.zip")
    assert flags_asked(path, "1m") == ["--timezone"]
    report = import_file(path, "SPY", "1m", timezone="America/New_York")
    assert (report.format, format_us(report.bars.first)) == ("lean", "2013-10-07T13:30:00Z")
    assert report.bars.open[0] == 123.45
    with pytest.raises(InvalidData, match="day"):
        import_file(save(tmp_path, trade, "spy.csv"), "SPY", "1m", timezone="UTC")


def test_lean_quotes_become_their_middle(tmp_path: Path) -> None:
    quote = lean_minutes(["1.25", "1.5", "1.0", "1.25", "0", "1.75", "2.0", "1.5", "1.75", "0"])
    path = save(tmp_path, quote, "20140501_eurusd_minute_quote.csv")
    report = import_file(path, "EURUSD", "1m", timezone="UTC")
    assert [column[0] for column in columns(report.bars)[1:]] == [1.5, 1.75, 1.25, 1.5, 0]
    assert any("bid and ask" in note for note in report.notes)


def frame_of(bars: Bars) -> pa.Table:
    names = ("date", "open", "high", "low", "close", "volume")
    table = pa.table(dict(zip(names, map(pa.array, columns(bars)), strict=True)))
    stamps = table["date"].cast(pa.timestamp("us", tz="UTC")).cast(pa.timestamp("ms", tz="UTC"))
    return table.set_column(0, "date", stamps)


@pytest.mark.parametrize("packing", ["lz4", "zstd", "uncompressed"])
def test_freqtrades_feather_is_read(tmp_path: Path, packing: str) -> None:
    path = tmp_path / "BTC_USDT-1h.feather"
    feather.write_feather(frame_of(BARS), str(path), compression=packing)
    report = import_file(path, "SAMPLE", "1h")
    assert (report.format, fingerprint(report.bars)) == ("freqtrade", fingerprint(BARS))


def test_a_damaged_feather_file_never_crashes(tmp_path: Path) -> None:
    path = tmp_path / "bars.feather"
    feather.write_feather(frame_of(BARS), str(path), compression="lz4")
    content = path.read_bytes()
    random = np.random.default_rng(5)
    for place in random.integers(6, len(content), 200).tolist():
        damaged = bytearray(content)
        damaged[place] ^= int(random.integers(1, 256))
        path.write_bytes(damaged)
        refusal = refusal_of(path)
        assert refusal is None or "\n" not in refusal, place


def refusal_of(path: Path) -> str | None:
    try:
        import_file(path, "SAMPLE", "1h")
    except (InvalidData, Usage) as error:
        return error.message
    return None


def test_rows_in_json_are_read(tmp_path: Path) -> None:
    numbers = list(zip(*(column.tolist() for column in columns(BARS)), strict=True))
    freqtrade = [[t // 1000, *row] for t, *row in numbers]
    binance = [
        [t // 1000, *map(str, row), t // 1000 + 3_599_999, "1", 7, "1", "1", "0"]
        for t, *row in numbers
    ]
    bitfinex = [[t // 1000, o, c, h, low, v] for t, o, h, low, c, v in numbers][::-1]
    objects = [dict(zip(("time", "o", "h", "l", "c", "v"), row, strict=True)) for row in numbers]
    for vendor, rows in (
        ("freqtrade", freqtrade),
        ("binance", binance),
        ("bitfinex", bitfinex),
        ("json", objects),
    ):
        path = save(tmp_path, json.dumps(rows), "rows.json")
        report = import_file(path, "SAMPLE", "1h")
        assert (report.format, fingerprint(report.bars)) == (vendor, fingerprint(BARS))
    freqtrade[7] = freqtrade[7][:4]
    with pytest.raises(InvalidData) as refusal:
        import_file(save(tmp_path, json.dumps(freqtrade)), "SAMPLE", "1h")
    assert refusal.value.details["problems"] == {"ragged": {"count": 1, "lines": [8]}}


def by_words(value: object) -> str:
    """Name a case by its words: the bytes of an archive hold the time of day."""
    return value if isinstance(value, str) else ""


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[[1,2", "JSON is damaged"),
        (b"[" * 100_000, "JSON is damaged"),
        (b'{"a": 1}', "no list of rows"),
        (b"[]", "no list of rows"),
        (b"[1, 2]", "no column for"),
        (b'[{"a": 1}]', "no column for"),
        (b'{"a": {"b": {}}}', "no list of rows"),
        (b'{"a": 1}\n{"b"', "JSON is damaged"),
        (b"Datum;Kurs;Hoch;Tief;Schluss\n2020-01-01;2;3;1;2\n", "its first line reads 'Datum'"),
        (b"2020-01-01,2,2.5,3,1,7\n2020-01-02,2.5,2,3,1,7\n", "which column is the high"),
        (b"ARROW1\0\0junk", "Feather data is damaged"),
        (b"FEA1junkFEA1", "Feather data is damaged"),
        (b"PK\x03\x04junk", "zip data is damaged"),
        (zipped({"a.csv": "x" * 5000})[:-30], "zip data is damaged"),
        (zipped({"a.csv": "x", "b.csv": "y"}), "holds 2 files"),
        (zipped({"a.exe": "x"}), "holds no CSV"),
        (zipped({"xl/workbook.xml": "x"}), "Excel workbook"),
        (zipped({"../../a.csv": "name,age\nbob,7\n"}), "no column for"),
        (b"\xff\xfea\0\x00", "UTF-16"),
        (b"2020-01-01,1,1,1,1,1\n2020-01-02,1,1,1,1,1\n", "which column is the high"),
        (b"2020-01-01,1,2,3,4,5\n2020-01-02,5,4,3,2,1\n", "which column is the high"),
    ],
    ids=by_words,
)
def test_what_is_no_table_of_bars_is_refused_in_one_line(
    tmp_path: Path, content: bytes, said: str
) -> None:
    for fix in (False, True):
        with pytest.raises(InvalidData, match=said) as refusal:
            import_file(save(tmp_path, content, "file"), "X", "1d", fix=fix)
        assert "\n" not in refusal.value.message


def test_what_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ktrdr.data.importing.archives.MAX_BYTES", 100_000)
    text = b"0" * 1_000_000
    for content in (gzip.compress(text), zipped({"a.csv": text})):
        with pytest.raises(InvalidData, match="when unpacked"):
            import_file(save(tmp_path, content), "X", "1d")


def test_a_file_that_is_not_what_it_is_said_to_be_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, EXPORTS["binance"][1])
    with pytest.raises(InvalidData, match="look like yahoo, but like binance"):
        import_file(path, "X", "1h", format="yahoo")
    with pytest.raises(Usage, match="is not a format"):
        import_file(path, "X", "1h", format="metastock")


class Fact(NamedTuple):
    """A file's bars, what must be said, and what comes out."""

    symbol: str
    timeframe: str
    choices: Choices
    vendor: str
    rows: int
    first: str
    last: str


FACTS = {
    "histdata_DAT_ASCII_EURUSD_M1_201703.csv": Fact(
        symbol="EURUSD",
        timeframe="1m",
        choices={"timezone": "America/New_York"},
        vendor="histdata",
        rows=32_660,
        first="2017-03-01T05:00:00Z",
        last="2017-03-31T20:58:00Z",
    ),
    "mt5_export_US30m_H1.csv": Fact(
        symbol="US30",
        timeframe="1h",
        choices={"timezone": "UTC"},
        vendor="metatrader5",
        rows=9_890,
        first="2024-01-01T23:00:00Z",
        last="2025-09-08T22:00:00Z",
    ),
    "yahoo_AAPL_1d.csv": Fact(
        symbol="AAPL",
        timeframe="1d",
        choices={},
        vendor="yahoo",
        rows=3_379,
        first="2004-08-19T00:00:00Z",
        last="2018-01-19T00:00:00Z",
    ),
    "binance_klines_BTCUSDT-1h-2023-03.csv": Fact(
        symbol="BTCUSDT",
        timeframe="1h",
        choices={},
        vendor="binance",
        rows=743,
        first="2023-03-01T00:00:00Z",
        last="2023-03-31T23:00:00Z",
    ),
    "us_mdy_arch_sp500_1d.csv.gz": Fact(
        symbol="SP500",
        timeframe="1d",
        choices={},
        vendor="yahoo",
        rows=5_031,
        first="1999-01-04T00:00:00Z",
        last="2018-12-31T00:00:00Z",
    ),
    "corrupt_first_line_EURUSD_M15.csv.gz": Fact(
        symbol="EURUSD",
        timeframe="15m",
        choices={"fix": True},
        vendor="csv",
        rows=49_999,
        first="2018-10-12T12:15:00Z",
        last="2020-10-15T14:45:00Z",
    ),
    "integer_points_AUDUSDd1.csv": Fact(
        symbol="AUDUSD",
        timeframe="1d",
        choices={"price_scale": 0.00001},
        vendor="csv",
        rows=2_400,
        first="2012-12-04T00:00:00Z",
        last="2022-03-04T00:00:00Z",
    ),
    "backtestingpy_EURUSD_1h.csv": Fact(
        symbol="EURUSD",
        timeframe="1h",
        choices={},
        vendor="backtesting",
        rows=5_000,
        first="2017-04-19T09:00:00Z",
        last="2018-02-07T15:00:00Z",
    ),
}


def import_real(name: str, choices: Choices) -> ImportReport:
    path = REAL / name
    if not path.is_file():
        pytest.skip(f"{path} is not here: real bars are not part of the repository")
    return import_file(path, FACTS[name].symbol, FACTS[name].timeframe, **choices)


@pytest.mark.parametrize("name", FACTS)
def test_real_exports_are_imported_whole(name: str) -> None:
    fact = FACTS[name]
    report = import_real(name, fact.choices)
    assert (report.format, len(report.bars)) == (fact.vendor, fact.rows)
    assert format_us(report.bars.first) == fact.first
    assert format_us(report.bars.last) == fact.last
    assert report.dropped == ({"unparsable_time": 1} if "corrupt" in name else {})


@pytest.mark.parametrize(
    ("name", "flag"),
    [
        ("histdata_DAT_ASCII_EURUSD_M1_201703.csv", "--timezone"),
        ("mt5_export_US30m_H1.csv", "--timezone"),
        ("integer_points_AUDUSDd1.csv", "--price-scale"),
        ("corrupt_first_line_EURUSD_M15.csv.gz", "--fix"),
    ],
)
def test_real_exports_that_leave_something_open_ask_for_it(name: str, flag: str) -> None:
    with pytest.raises((Usage, InvalidData), match=flag):
        import_real(name, {})


def test_the_command_answers_what_it_took_and_asks_with_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KTRDR_HOME", str(tmp_path / "home"))
    path = save(tmp_path, EXPORTS["metatrader5"][1])
    words = ["data", "import", str(path), "--symbol", "SAMPLE", "--timeframe", "1h", "--json"]
    assert run(words) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["code"], error["details"]["flags"]) == ("USAGE", ["--timezone"])
    assert run([*words, "--timezone", "UTC", "--format", "metatrader5"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["format"], answer["rows"], answer["timezone"]) == ("metatrader5", 60, "UTC")
    assert answer["columns"]["timestamp"] == ["<DATE>", "<TIME>"]
    assert any("'<TICKVOL>'" in note for note in answer["notes"])
