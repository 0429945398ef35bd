"""Importing bars: every unusable row is named by its line, and nothing is invented or lost."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ktrdr.data.bars import Bars, columns, fingerprint, format_us
from ktrdr.data.importing.importer import import_file
from ktrdr.data.sample import sample_bars
from ktrdr.errors import InvalidData, Usage

REAL = Path(__file__).parents[2] / ".." / "shared" / "data"
HEADER = "timestamp,open,high,low,close,volume"


def to_csv(bars: Bars, header: str = HEADER) -> str:
    rows = zip(*(column.tolist() for column in columns(bars)), strict=True)
    lines = [f"{format_us(t)},{o},{h},{low},{c},{v}" for t, o, h, low, c, v in rows]
    return "\n".join([header, *lines]) + "\n"


def write(tmp_path: Path, text: str, name: str = "bars.csv") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def hours(*stamps: str) -> str:
    """A CSV of one good row per time given."""
    return "\n".join([HEADER, *(f"{stamp},10,11,9,10.5,100" for stamp in stamps)]) + "\n"


def with_line(bars: Bars, number: int, line: str) -> str:
    """The CSV of these bars with one line (the header is line 1) replaced."""
    lines = to_csv(bars).splitlines()
    lines[number - 1] = line
    return "\n".join(lines) + "\n"


def opens(bars: Bars) -> list[str]:
    return [format_us(int(t)) for t in bars.timestamps]


def test_a_clean_csv_becomes_exactly_its_bars(tmp_path: Path) -> None:
    bars = sample_bars(rows=300)
    report = import_file(write(tmp_path, to_csv(bars)), "SAMPLE", "1h")
    assert fingerprint(report.bars) == fingerprint(bars)
    assert (report.dropped, report.moved, report.notes) == ({}, 0, ())


def test_gzip_parquet_crlf_bom_blank_lines_and_quotes_make_no_difference(tmp_path: Path) -> None:
    bars = sample_bars(rows=50)
    text = to_csv(bars)
    lines = text.splitlines()
    quoted = "\n".join(",".join(f'"{field}"' for field in line.split(",")) for line in lines)
    variants: dict[str, bytes] = {
        "bars.csv.gz": gzip.compress(text.encode()),
        "crlf.csv": text.replace("\n", "\r\n").encode(),
        "bom.csv": b"\xef\xbb\xbf" + text.encode(),
        "blank.csv": (lines[0] + "\n\n" + "\n\n".join(lines[1:]) + "\n\n\n").encode(),
        "quoted.csv": quoted.encode(),
        "spaced.csv": text.replace(",", " , ").encode(),
        "no_newline_at_the_end.csv": text.rstrip("\n").encode(),
    }
    for name, content in variants.items():
        (tmp_path / name).write_bytes(content)
        got = import_file(tmp_path / name, "SAMPLE", "1h").bars
        assert fingerprint(got) == fingerprint(bars), name
    names = HEADER.split(",")
    frame = pl.DataFrame(dict(zip(names, columns(bars), strict=True)))
    frame = frame.with_columns(pl.col("timestamp").cast(pl.Datetime("us", "UTC")))
    for unit in ("ms", "us", "ns"):
        stamped = frame.with_columns(pl.col("timestamp").dt.cast_time_unit(unit))
        stamped.write_parquet(tmp_path / "bars.parquet")
        got = import_file(tmp_path / "bars.parquet", "SAMPLE", "1h").bars
        assert fingerprint(got) == fingerprint(bars), unit


@pytest.mark.parametrize(
    "header",
    [
        "Date,Open,High,Low,Close,Volume",
        "open_time,o,h,l,c,v",
        "DATETIME,OPEN,HIGH,LOW,CLOSE,VOL",
        "time, open , high, low, close, tick_volume",
        "Open Time,Open,High,Low,Close,Volume",
    ],
)
def test_common_names_of_columns_are_understood_and_told(tmp_path: Path, header: str) -> None:
    bars = sample_bars(rows=20)
    report = import_file(write(tmp_path, to_csv(bars, header)), "SAMPLE", "1h")
    assert fingerprint(report.bars) == fingerprint(bars)
    assert report.notes[0].startswith("took timestamp from")


def test_other_columns_are_ignored_and_told(tmp_path: Path) -> None:
    lines = to_csv(sample_bars(rows=20)).splitlines()
    text = "\n".join([f"id,{lines[0]},adj", *(f"7,{line},x" for line in lines[1:])])
    report = import_file(write(tmp_path, text), "SAMPLE", "1h")
    assert fingerprint(report.bars) == fingerprint(sample_bars(rows=20))
    assert report.notes == ("ignored columns 'id', 'adj'",)


@pytest.mark.parametrize(
    "stamps",
    [
        ("2020-01-01T00:00:00Z", "2020-01-01T01:00:00Z"),
        ("2020-01-01 00:00:00", "2020-01-01 01:00:00"),
        ("2020-01-01 00:00", "2020-01-01 01:00"),
        ("2020-01-01T00:00:00.000Z", "2020-01-01T01:00:00.000Z"),
        ("2020-01-01T02:00:00+02:00", "2020-01-01T03:00:00+02:00"),
        ("2019-12-31 19:00:00-0500", "2019-12-31 20:00:00-0500"),
        ("1577836800", "1577840400"),
        ("1577836800000", "1577840400000"),
        ("1577836800000000", "1577840400000000"),
        ("1577836800000000000", "1577840400000000000"),
        ("1577836800.0", "1577840400.0"),
        ("1577836800", "1577840400000"),
        ("2020-01-01T00:00:00Z", "1577840400"),
    ],
)
def test_times_are_read_as_they_are_written(tmp_path: Path, stamps: tuple[str, str]) -> None:
    bars = import_file(write(tmp_path, hours(*stamps)), "X", "1h").bars
    assert opens(bars) == ["2020-01-01T00:00:00Z", "2020-01-01T01:00:00Z"]


def test_dates_alone_are_their_midnight(tmp_path: Path) -> None:
    for days in (("2020-01-01", "2020-01-02"), ("20200101", "20200102")):
        bars = import_file(write(tmp_path, hours(*days)), "X", "1d").bars
        assert opens(bars) == ["2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z"]


def test_times_without_an_offset_are_in_the_zone_given(tmp_path: Path) -> None:
    path = write(tmp_path, hours("2020-07-01 00:00:00", "2020-07-01 01:00:00"))
    bars = import_file(path, "X", "1h", timezone="America/New_York").bars
    assert opens(bars) == ["2020-07-01T04:00:00Z", "2020-07-01T05:00:00Z"]


def test_a_zone_does_not_move_times_with_an_offset(tmp_path: Path) -> None:
    path = write(tmp_path, hours("2020-07-01T00:00:00Z", "1593565200"))
    bars = import_file(path, "X", "1h", timezone="America/New_York").bars
    assert opens(bars) == ["2020-07-01T00:00:00Z", "2020-07-01T01:00:00Z"]


def test_local_times_that_a_clock_change_skips_or_repeats_are_reported(tmp_path: Path) -> None:
    spring = hours("2020-03-29 01:00:00", "2020-03-29 02:00:00", "2020-03-29 03:00:00")
    autumn = hours(
        *("2020-10-25 01:00:00", "2020-10-25 02:00:00", "2020-10-25 02:00:00"),
        *("2020-10-25 03:00:00", "2020-10-25 04:00:00"),
    )
    for text, kind, lines in (
        (spring, "nonexistent_time", [3]),
        (autumn, "ambiguous_time", [3, 4]),
    ):
        path = write(tmp_path, text)
        with pytest.raises(InvalidData) as refusal:
            import_file(path, "X", "1h", timezone="Europe/Berlin")
        assert refusal.value.details["problems"] == {kind: {"count": len(lines), "lines": lines}}
        fixed = import_file(path, "X", "1h", timezone="Europe/Berlin", fix=True)
        assert fixed.dropped == {kind: len(lines)}


def test_daily_bars_of_a_local_clock_pass_over_its_changes(tmp_path: Path) -> None:
    days = [f"2020-03-{day:02d}" for day in range(1, 32)]
    bars = import_file(write(tmp_path, hours(*days)), "X", "1d", timezone="America/New_York").bars
    assert opens(bars)[0] == "2020-03-01T05:00:00Z"
    assert opens(bars)[-1] == "2020-03-31T04:00:00Z"


BAD_LINES = {
    "ragged": "2020-01-01T08:00:00Z,10,11,9,10",
    "unparsable_time": "yesterday,10,11,9,10,5",
    "unparsable_number": "2020-01-01T08:00:00Z,10,eleven,9,10,5",
    "not_finite": "2020-01-01T08:00:00Z,10,inf,9,10,5",
    "price_not_positive": "2020-01-01T08:00:00Z,10,11,0,10,5",
    "negative_volume": "2020-01-01T08:00:00Z,10,11,9,10,-5",
    "impossible": "2020-01-01T08:00:00Z,10,9.5,9,10,5",
    "duplicate": "2020-01-01T07:00:00Z,10,11,9,10,5",
    "unsorted": "2019-12-31T08:00:00Z,10,11,9,10,5",
}


@pytest.mark.parametrize("kind", BAD_LINES)
def test_each_kind_of_bad_row_is_refused_with_its_line_and_dropped_by_fix(
    tmp_path: Path, kind: str
) -> None:
    path = write(tmp_path, with_line(sample_bars(rows=50), 10, BAD_LINES[kind]))
    with pytest.raises(InvalidData) as refusal:
        import_file(path, "SAMPLE", "1h")
    assert refusal.value.details["problems"] == {kind: {"count": 1, "lines": [10]}}
    assert "line 10" in refusal.value.message
    assert "--fix" in refusal.value.message
    fixed = import_file(path, "SAMPLE", "1h", fix=True)
    if kind == "unsorted":
        assert (len(fixed.bars), fixed.dropped, fixed.moved) == (50, {}, 1)
    else:
        assert (len(fixed.bars), fixed.dropped, fixed.moved) == (49, {kind: 1}, 0)
    assert (np.diff(fixed.bars.timestamps) > 0).all()


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("2020-01-01T08:00:00Z,10,11,9,10,5,6", "ragged"),
        ("2020-01-01T08:00:00Z,1,234,1,235,9,1,234,5", "ragged"),
        ("2020-01-01T08:00:00Z,10,11,9,10,", "unparsable_number"),
        ("2020-01-01T08:00:00Z,10,11,9,nan,5", "not_finite"),
        ("2020-01-01T08:00:00Z,10,11,10.5,10,5", "impossible"),
        ("2020-01-01T08:00:00Z,-10,-9,-11,-10,5", "price_not_positive"),
        ("2020-02-30T08:00:00Z,10,11,9,10,5", "unparsable_time"),
        ("8,10,11,9,10,5", "unparsable_time"),
        (",10,11,9,10,5", "unparsable_time"),
        ("0001-01-01T08:00:00Z,10,11,9,10,5", "unparsable_time"),
    ],
)
def test_more_ways_to_be_bad(tmp_path: Path, line: str, kind: str) -> None:
    path = write(tmp_path, with_line(sample_bars(rows=50), 10, line))
    with pytest.raises(InvalidData) as refusal:
        import_file(path, "SAMPLE", "1h")
    assert refusal.value.details["problems"] == {kind: {"count": 1, "lines": [10]}}


def test_all_troubles_are_told_at_once_with_counts_and_first_lines(tmp_path: Path) -> None:
    lines = to_csv(sample_bars(rows=100)).splitlines()
    for number in range(20, 40):
        lines[number - 1] = "?,1,1,1,1,1"
    lines[59] = lines[58]
    lines.insert(5, "")  # a blank line counts as a line, not as a row
    path = write(tmp_path, "\n".join(lines))
    with pytest.raises(InvalidData) as refusal:
        import_file(path, "SAMPLE", "1h")
    problems = refusal.value.details["problems"]
    assert problems["unparsable_time"] == {"count": 20, "lines": list(range(21, 31))}
    assert problems["duplicate"] == {"count": 1, "lines": [61]}
    assert "21 of 100 rows" in refusal.value.message
    assert "\n" not in refusal.value.message


def test_of_a_repeated_time_fix_keeps_the_first_row(tmp_path: Path) -> None:
    lines = hours("2020-01-01T00:00:00Z", "2020-01-01T01:00:00Z", "2020-01-01T02:00:00Z")
    path = write(tmp_path, lines + "2020-01-01T01:00:00Z,20,21,19,20,7\n")
    bars = import_file(path, "X", "1h", fix=True).bars
    assert bars.open.tolist() == [10, 10, 10]


def test_fix_does_not_make_bars_out_of_what_is_mostly_junk(tmp_path: Path) -> None:
    good = hours("2020-01-01T00:00:00Z", "2020-01-01T01:00:00Z")
    path = write(tmp_path, good + "junk,100,100,100,100,100\n" * 3)
    with pytest.raises(InvalidData, match="no file of OHLCV"):
        import_file(path, "X", "1h", fix=True)


def by_words(value: object) -> str:
    """Name a case by its words: the bytes of an archive hold the time of day."""
    return value if isinstance(value, str) else ""


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"\n \n", "empty"),
        (b"timestamp,open,high,low,close,volume\n", "no rows"),
        (b"timestamp,open,high,low,close,volume", "no rows"),
        (b"name,age\nbob,7\n", "no column for timestamp, open, high, low, close, volume"),
        (b"2020-01-01,1,1,1,1,1\n", "first line must name"),
        (b"timestamp,open,high,low\n2020-01-01,1,1,1\n", "no column for close"),
        (b"date,time,open,high,low,close,volume\n", "no rows"),
        (b"time,open,open,high,low,close,volume\n1,1,1,1,1,1,1\n", "two columns are named"),
        (bytes(range(256)) * 10, "neither text nor Parquet"),
        (b"\xff\xffa\n", "UTF-8"),
        (b"\x1f\x8bjunk", "gzip data is damaged"),
        (gzip.compress(b"timestamp,open\n" * 1000)[:-20], "gzip data is damaged"),
        (b"PAR1junkPAR1", "Parquet data is damaged"),
        (b"PK\x03\x04\x00\x00", "zip data is damaged"),
        (b'timestamp,open,high,low,close,volume\n"' + b"x" * 200_000, "is not CSV"),
    ],
    ids=by_words,
)
def test_what_is_no_file_of_bars_is_refused_in_one_line(
    tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    for fix in (False, True):
        with pytest.raises(InvalidData, match=said) as refusal:
            import_file(path, "X", "1h", fix=fix)
        assert "\n" not in refusal.value.message


def test_a_parquet_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    columns_of_lists = {name: [[1.0]] * 3 for name in HEADER.split(",")}
    pl.DataFrame(columns_of_lists).write_parquet(path)
    with pytest.raises(InvalidData, match="no file of OHLCV"):
        import_file(path, "X", "1h")
    pl.DataFrame({"a": [1]}).write_parquet(path)
    with pytest.raises(InvalidData, match="no column for"):
        import_file(path, "X", "1h")


def test_a_damaged_parquet_file_never_crashes(tmp_path: Path) -> None:
    """Polars panics on many of these; none may come out as anything but a refusal."""
    bars = sample_bars(rows=30)
    names = HEADER.split(",")
    table = pa.table(dict(zip(names, columns(bars), strict=True)))
    stamps = table["timestamp"].cast(pa.timestamp("us", tz="America/New_York"))
    path = tmp_path / "bars.parquet"
    pq.write_table(table.set_column(0, "timestamp", stamps), path, write_page_checksum=True)
    content = path.read_bytes()
    random = np.random.default_rng(3)
    for place in random.integers(4, len(content), 600).tolist():
        damaged = bytearray(content)
        damaged[place] ^= int(random.integers(1, 256))
        path.write_bytes(damaged)
        refusal = refusal_of(path)
        assert refusal is None or "\n" not in refusal, place


def refusal_of(path: Path) -> str | None:
    try:
        import_file(path, "SAMPLE", "1h")
    except InvalidData as error:
        return error.message
    return None


def test_missing_files_and_folders_are_a_usage_error(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.csv", tmp_path, Path("x" * 10_000), Path("a\0b")):
        with pytest.raises(Usage) as refusal:
            import_file(path, "X", "1h")
        assert len(refusal.value.message) < 300


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "x" * 1000])
def test_an_unknown_time_zone_is_a_usage_error(tmp_path: Path, zone: str) -> None:
    path = write(tmp_path, hours("2020-01-01T00:00:00Z"))
    with pytest.raises(Usage, match="time zone"):
        import_file(path, "X", "1h", timezone=zone)


def test_rows_of_another_timeframe_are_refused_with_the_spacing_seen(tmp_path: Path) -> None:
    path = write(tmp_path, to_csv(sample_bars(timeframe="1h", rows=50)))
    for fix in (False, True):
        with pytest.raises(InvalidData, match="no two rows are 5m apart; the usual spacing is 1h"):
            import_file(path, "X", "5m", fix=fix)
        with pytest.raises(InvalidData, match=r"closer together than 4h.*usual spacing is 1h"):
            import_file(path, "X", "4h", fix=fix)


def test_rows_off_the_grid_are_refused(tmp_path: Path) -> None:
    stray = hours("2020-01-01T00:00:00Z", "2020-01-01T01:00:00Z", "2020-01-01T02:30:00Z")
    with pytest.raises(InvalidData, match=r"not on the grid of 1h \(line 4\)"):
        import_file(write(tmp_path, stray), "X", "1h")
    closing = hours("2020-01-01T00:59:59Z", "2020-01-01T01:59:59Z")
    with pytest.raises(InvalidData, match="not on the grid of 1h"):
        import_file(write(tmp_path, closing), "X", "1h")


def test_a_session_that_opens_at_half_past_is_a_grid(tmp_path: Path) -> None:
    path = write(tmp_path, hours("2020-01-02T14:30:00Z", "2020-01-02T15:30:00Z"))
    assert len(import_file(path, "X", "1h").bars) == 2


@pytest.mark.parametrize(
    ("name", "rows", "first", "last"),
    [
        ("EURUSD_5m.csv.gz", 75_519, "2019-10-11T18:05:00Z", "2020-10-15T14:50:00Z"),
        ("AAPL_1d.csv.gz", 5_849, "1998-01-02T00:00:00Z", "2021-03-31T00:00:00Z"),
        ("SPY_1h.csv.gz", 40_832, "1998-01-02T14:00:00Z", "2021-03-31T19:00:00Z"),
        ("BTCUSDT_5m.csv.gz", 121_738, "2022-08-01T00:00:00Z", "2023-09-27T18:05:00Z"),
    ],
)
def test_real_files_are_imported_whole(name: str, rows: int, first: str, last: str) -> None:
    path = REAL / name
    if not path.is_file():
        pytest.skip(f"{path} is not here: real bars are not part of the repository")
    symbol, timeframe = name.split(".")[0].split("_")
    report = import_file(path, symbol, timeframe)
    assert (len(report.bars), report.dropped) == (rows, {})
    assert (format_us(report.bars.first), format_us(report.bars.last)) == (first, last)
