"""Bars, the words that name them, and the store that replaces them whole or not at all."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ktrdr.data.bars import (
    Bars,
    check_symbol,
    check_timeframe,
    fingerprint,
    format_us,
    parse_date_range,
    timeframe_us,
)
from ktrdr.data.sample import sample_bars
from ktrdr.data.store import BarStore
from ktrdr.errors import DataNotFound, InvalidData, StorageUnavailable, Usage

DAY_US = 86_400_000_000


def make_bars(rows: int = 500, symbol: str = "SAMPLE") -> Bars:
    return sample_bars(symbol, "1h", rows=rows)


def same(left: Bars, right: Bars) -> bool:
    return fingerprint(left) == fingerprint(right)


@pytest.mark.parametrize("symbol", ["EURUSD", "^GSPC", "BRK.B", "EURUSD=X", "a" * 32, "0"])
def test_symbols_of_the_pattern_are_taken(symbol: str) -> None:
    assert check_symbol(symbol) == symbol


@pytest.mark.parametrize(
    "symbol", ["", "..", "a..b", "../x", "a/b", "a b", "-x", ".x", "a\n", "a" * 33, "x" * 10_000]
)
def test_other_symbols_are_refused_with_a_short_message(symbol: str) -> None:
    with pytest.raises(Usage) as refusal:
        check_symbol(symbol)
    assert len(refusal.value.message) < 250
    assert "\n" not in refusal.value.message


def test_a_slash_in_a_symbol_gets_a_proposal() -> None:
    with pytest.raises(Usage, match="write BTCUSDT"):
        check_symbol("BTC/USDT")


def test_timeframes_have_their_length() -> None:
    minutes = {"1m": 1, "3m": 3, "5m": 5, "15m": 15, "30m": 30, "1h": 60, "2h": 120, "4h": 240}
    minutes |= {"6h": 360, "8h": 480, "12h": 720, "1d": 1440, "1w": 10_080}
    for timeframe, length in minutes.items():
        assert timeframe_us(check_timeframe(timeframe)) == length * 60_000_000


@pytest.mark.parametrize("timeframe", ["", "5", "m", "0m", "05m", "5M", "5 m", "1y", "9" * 10_000])
def test_other_timeframes_are_refused(timeframe: str) -> None:
    with pytest.raises(Usage) as refusal:
        check_timeframe(timeframe)
    assert len(refusal.value.message) < 250


def test_a_timeframe_has_one_spelling() -> None:
    for odd, usual in {"60m": "1h", "24h": "1d", "7d": "1w", "1440m": "1d"}.items():
        with pytest.raises(Usage, match=f"write {usual}"):
            check_timeframe(odd)


def test_a_date_range_covers_both_days_whole() -> None:
    start, end = parse_date_range("2020-01-01", dt.date(2020, 1, 2))
    assert start is not None
    assert end is not None
    assert format_us(start) == "2020-01-01T00:00:00Z"
    assert end == start + 2 * DAY_US - 1
    assert parse_date_range(None, None) == (None, None)


@pytest.mark.parametrize(
    ("start", "end"), [("2020-13-01", None), ("20200101", None), (None, "x"), ("2020-1-1", None)]
)
def test_what_is_no_date_is_refused(start: str | None, end: str | None) -> None:
    with pytest.raises(Usage, match="YYYY-MM-DD"):
        parse_date_range(start, end)


def test_an_end_before_its_start_is_refused() -> None:
    with pytest.raises(Usage, match="before"):
        parse_date_range("2020-02-01", "2020-01-31")


def test_between_includes_both_ends() -> None:
    bars = make_bars(10)
    part = bars.between(int(bars.timestamps[2]), int(bars.timestamps[5]))
    assert part.timestamps.tolist() == bars.timestamps[2:6].tolist()
    assert part.close.tolist() == bars.close[2:6].tolist()
    assert len(bars.between(bars.last + 1, None)) == 0
    assert len(bars.between(bars.last, bars.first)) == 0
    assert same(bars.between(None, None), bars)


def test_appended_bars_do_not_change_the_fingerprint_of_a_range_but_revised_ones_do() -> None:
    longer = make_bars(500)
    shorter = longer.rows(0, 400)
    assert fingerprint(longer.between(None, shorter.last)) == fingerprint(shorter)
    for column in ("open", "high", "low", "close", "volume", "timestamps"):
        revised = longer.rows(0, 400)
        values = getattr(revised, column).copy()
        values[200] += 1
        object.__setattr__(revised, column, values)
        assert fingerprint(revised) != fingerprint(shorter), column
    assert fingerprint(sample_bars("OTHER", "1h", rows=500)) != fingerprint(longer)


def test_sample_bars_are_possible_and_always_the_same() -> None:
    bars = sample_bars()
    assert (bars.high >= np.maximum(bars.open, bars.close)).all()
    assert (bars.low <= np.minimum(bars.open, bars.close)).all()
    assert bars.low.min() > 0
    assert same(bars, sample_bars())
    assert not same(bars, sample_bars(seed=8))


def test_stored_bars_come_back_bit_for_bit(tmp_path: Path) -> None:
    store, bars = BarStore(tmp_path), make_bars()
    assert store.write(bars) == (None, (bars.first, bars.last))
    assert same(store.read("SAMPLE", "1h"), bars)
    assert (tmp_path / "bars" / "SAMPLE" / "1h.parquet").is_file()


def test_writing_replaces_and_says_the_old_range_and_the_new(tmp_path: Path) -> None:
    store, bars = BarStore(tmp_path), make_bars()
    store.write(bars.rows(0, 100))
    old, new = store.write(bars.rows(50, 400))
    assert old == (bars.timestamps[0], bars.timestamps[99])
    assert new == (bars.timestamps[50], bars.timestamps[399])
    assert len(store.read("SAMPLE", "1h")) == 350


def test_summaries_say_what_is_stored(tmp_path: Path) -> None:
    store, bars = BarStore(tmp_path), make_bars()
    assert store.summaries() == []
    store.write(bars, "synthetic")
    store.write(make_bars(70, "ABC"), "imported", "abc.csv.gz")
    abc, sample = store.summaries()
    assert (abc.symbol, abc.timeframe, abc.rows) == ("ABC", "1h", 70)
    assert (abc.source, abc.imported_from) == ("imported", "abc.csv.gz")
    assert (sample.source, sample.first, sample.last) == ("synthetic", bars.first, bars.last)
    assert store.summary("SAMPLE", "1h") == sample


def test_missing_bars_are_an_error_that_names_what_there_is(tmp_path: Path) -> None:
    store = BarStore(tmp_path)
    with pytest.raises(DataNotFound, match=r"none are stored yet.*ktrdr data import"):
        store.read("EURUSD", "5m")
    store.write(make_bars())
    with pytest.raises(DataNotFound, match=r"stored are SAMPLE 1h.*--symbol EURUSD --timeframe 5m"):
        store.read("EURUSD", "5m")


def test_a_write_that_fails_leaves_the_old_bars_and_no_rubbish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, bars = BarStore(tmp_path), make_bars()
    store.write(bars)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageUnavailable, match="No space left"):
        store.write(bars.rows(0, 10))
    assert same(store.read("SAMPLE", "1h"), bars)
    assert os.listdir(tmp_path / "bars" / "SAMPLE") == ["1h.parquet"]


def test_any_damaged_byte_of_the_rows_is_noticed(tmp_path: Path) -> None:
    store, bars = BarStore(tmp_path), make_bars()
    store.write(bars)
    path = tmp_path / "bars" / "SAMPLE" / "1h.parquet"
    good = path.read_bytes()
    for place in range(4, len(good), len(good) // 25):
        path.write_bytes(good[:place] + bytes([good[place] ^ 0xFF]) + good[place + 1 :])
        refusal = refusal_of(store)
        assert refusal is None or f"{path} is no usable bars file" in refusal, place
        assert refusal is not None or same(store.read("SAMPLE", "1h"), bars), place


def refusal_of(store: BarStore) -> str | None:
    try:
        store.read("SAMPLE", "1h")
    except InvalidData as error:
        return error.message
    return None


@pytest.mark.parametrize("content", [b"", b"PAR1", b"junk" * 100])
def test_a_file_that_is_no_parquet_is_reported_and_can_be_replaced(
    tmp_path: Path, content: bytes
) -> None:
    store, bars = BarStore(tmp_path), make_bars()
    store.write(bars)
    (tmp_path / "bars" / "SAMPLE" / "1h.parquet").write_bytes(content)
    with pytest.raises(InvalidData, match="remove it and import"):
        store.read("SAMPLE", "1h")
    assert store.summaries()[0].problem is not None
    assert store.write(bars) == (None, (bars.first, bars.last))
    assert same(store.read("SAMPLE", "1h"), bars)


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("close", float("nan"), "no numbers"),
        ("low", -1.0, "not above zero"),
        ("high", 0.1, "impossible"),
        ("volume", -1.0, "below zero"),
    ],
)
def test_rows_that_another_program_wrote_are_checked(
    tmp_path: Path, column: str, value: float, said: str
) -> None:
    store = BarStore(tmp_path)
    store.write(make_bars())
    path = tmp_path / "bars" / "SAMPLE" / "1h.parquet"
    table = pq.read_table(path, partitioning=None)
    values = table[column].to_numpy().copy()
    values[7] = value
    pq.write_table(table.set_column(table.schema.get_field_index(column), column, [values]), path)
    with pytest.raises(InvalidData, match=said):
        store.read("SAMPLE", "1h")


def test_no_path_leads_out_of_the_root(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "bars").mkdir(parents=True)
    outside.mkdir()
    (root / "bars" / "EVIL").symlink_to(outside)
    store = BarStore(root)
    with pytest.raises(Usage, match="leads out"):
        store.write(make_bars(symbol="EVIL"))
    for symbol in ("../outside", "..", "/etc"):
        with pytest.raises(Usage):
            store.read(symbol, "1h")
    assert list(outside.iterdir()) == []
