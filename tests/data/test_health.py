"""Planted defects are found, each as what it is; clean bars of every kind of market are good."""

from __future__ import annotations

import functools
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ktrdr.data.bars import Bars, IntArray, columns, format_us, timeframe_us
from ktrdr.data.health.report import VERDICTS, Health, examine
from ktrdr.data.importing.importer import import_file
from ktrdr.data.resampling import resample
from ktrdr.errors import InvalidData

REAL_BARS = Path(__file__).parents[2] / ".." / "shared" / "data"
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
MONDAY_US = 1_546_819_200_000_000  # 2019-01-07 00:00 UTC
COUNTED = ("gaps", "outliers", "bad_ticks", "stale", "zero_volume", "splits")

needs_real_bars = pytest.mark.skipif(
    not REAL_BARS.is_dir(), reason="the real market bars of ../shared/data are not here"
)


def grid(timeframe: str, weeks: int) -> IntArray:
    step = timeframe_us(timeframe)
    return MONDAY_US + np.arange(weeks * 7 * DAY_US // step) * step


def at(moment: str) -> int:
    return int(np.datetime64(moment, "us").astype(np.int64))


def local(stamps: IntArray, zone: str) -> tuple[IntArray, IntArray]:
    """Day of the week (Monday 0) and minute of the day by a zone's clock."""
    times = pl.Series(stamps).cast(pl.Datetime("us", "UTC")).dt.convert_time_zone(zone)
    minutes = times.dt.hour().cast(pl.Int64) * 60 + times.dt.minute().cast(pl.Int64)
    return times.dt.weekday().cast(pl.Int64).to_numpy() - 1, minutes.to_numpy()


def with_prices(stamps: IntArray, timeframe: str, seed: int = 3) -> Bars:
    """A random walk at these open times, with volume."""
    draw = np.random.default_rng(seed)
    rows = len(stamps)
    close = 100 * np.exp(np.cumsum(draw.normal(size=rows) * 0.001))
    open_ = np.concatenate([[100.0], close[:-1]])
    reach = close * draw.uniform(0.0002, 0.001, size=(2, rows))
    high, low = np.maximum(open_, close) + reach[0], np.minimum(open_, close) - reach[1]
    volume = draw.integers(500, 1500, size=rows).astype(float)
    return Bars("X", timeframe, stamps, open_, high, low, close, volume)


@functools.cache
def crypto(timeframe: str, weeks: int = 60) -> Bars:
    """Never closes."""
    return with_prices(grid(timeframe, weeks), timeframe)


@functools.cache
def forex(timeframe: str, weeks: int = 60, zone: str = "America/New_York") -> Bars:
    """From Sunday 17:00 to Friday 17:00 by the zone's clock."""
    stamps = grid(timeframe, weeks)
    day, minute = local(stamps, zone)
    week = day * 1440 + minute
    return with_prices(
        stamps[(week < 4 * 1440 + 17 * 60) | (week >= 6 * 1440 + 17 * 60)], timeframe
    )


@functools.cache
def stock(timeframe: str, weeks: int = 60, zone: str = "America/New_York") -> Bars:
    """Monday to Friday, 9:30 to 16:00, with holidays and half days; daily bars at 00:00 UTC."""
    stamps = grid(timeframe, weeks)
    if timeframe == "1d":
        kept = (stamps - MONDAY_US) // DAY_US % 7 < 5
    else:
        day, minute = local(stamps, zone)
        kept = (day < 5) & (minute >= 570) & (minute < 960)
        kept &= ~((stamps >= at("2019-07-03T17:00")) & (stamps < at("2019-07-04")))
    for holiday in ("2019-01-21", "2019-04-19", "2019-07-04", "2019-11-28", "2019-12-25"):
        kept &= stamps // DAY_US != at(holiday) // DAY_US
    return with_prices(stamps[kept], timeframe)


MARKETS = {
    "crypto 5m": lambda: crypto("5m", 20),
    "crypto 1h": lambda: crypto("1h"),
    "crypto 1d": lambda: crypto("1d"),
    "crypto 1w": lambda: crypto("1w"),
    "forex 15m": lambda: forex("15m"),
    "forex 1h": lambda: forex("1h"),
    "forex 4h": lambda: resample(forex("1h"), "4h"),
    "forex 1d": lambda: resample(forex("1h"), "1d"),
    "stock 15m": lambda: stock("15m"),
    "stock 30m": lambda: stock("30m"),
    "stock 1d": lambda: stock("1d"),
}


def without(bars: Bars, start: str, end: str) -> Bars:
    """The bars without those that open in [start, end)."""
    kept = (bars.timestamps < at(start)) | (bars.timestamps >= at(end))
    return pick(bars, kept)


def pick(bars: Bars, rows: Any) -> Bars:
    stamps, *prices = columns(bars)
    return Bars(bars.symbol, bars.timeframe, stamps[rows], *(column[rows] for column in prices))


def scaled(bars: Bars, factor: Any) -> Bars:
    return replace(
        bars,
        open=bars.open * factor,
        high=bars.high * factor,
        low=bars.low * factor,
        close=bars.close * factor,
    )


def counts(health: Health) -> dict[str, int]:
    """How many defects were found, those of which there are any."""
    found = {name: health.findings[name]["count"] for name in COUNTED}
    found["shifts"] = len(health.findings["clock"]["shifts"])
    return {name: count for name, count in found.items() if count}


@pytest.mark.parametrize("market", MARKETS)
def test_clean_bars_are_good(market: str) -> None:
    health = examine(MARKETS[market]())
    assert (health.verdict, health.reasons, counts(health)) == ("good", (), {})


@pytest.mark.parametrize(
    ("market", "start", "end", "missing"),
    [
        ("crypto 5m", "2019-03-05T10:00", "2019-03-05T10:05", 1),
        ("crypto 1h", "2019-05-04T03:00", "2019-05-06T07:00", 52),
        ("crypto 1d", "2019-05-04", "2019-05-05", 1),
        ("forex 15m", "2019-06-05T10:15", "2019-06-05T12:00", 7),
        ("forex 1h", "2019-06-05T10:00", "2019-06-06T03:00", 17),
        ("stock 15m", "2019-06-05T15:00", "2019-06-05T16:00", 4),
        ("stock 15m", "2019-12-03T15:00", "2019-12-03T16:00", 4),
        ("stock 1d", "2019-06-04", "2019-06-07", 3),
    ],
)
def test_an_outage_is_a_gap(market: str, start: str, end: str, missing: int) -> None:
    health = examine(without(MARKETS[market](), start, end))
    gap = {"start": format_us(at(start)), "end": format_us(at(end)), "missing": missing}
    assert counts(health) == {"gaps": 1}
    assert health.findings["gaps"]["largest"] == [gap]
    assert health.findings["gaps"]["missing"] == missing


def test_an_outage_over_a_weekend_counts_only_bars_that_usually_exist() -> None:
    health = examine(without(forex("1h"), "2019-06-07T12:00", "2019-06-10T09:00"))
    # Friday 12:00 to 21:00 and Sunday 21:00 to Monday 09:00 UTC.
    assert health.findings["gaps"]["largest"][0]["missing"] == 9 + 12


def test_holidays_and_half_days_are_closures_not_gaps() -> None:
    assert examine(stock("15m")).findings["gaps"]["closures"] == 5  # July 3 and 4 are one
    assert examine(stock("1d")).findings["gaps"]["closures"] == 5
    christmas = without(forex("1h", 60), "2019-12-24T19:00", "2019-12-26T00:00")
    assert counts(examine(christmas)) == {}
    early_friday = without(forex("1h", 60), "2019-06-07T18:00", "2019-06-09T18:00")
    assert examine(early_friday).findings["gaps"]["closures"] == 1


def test_sessions_lost_all_the_time_are_gaps_not_holidays() -> None:
    bars = stock("1d")
    health = examine(pick(bars, np.arange(len(bars)) % 7 != 2))
    assert health.verdict == "bad"


def test_a_feed_that_leaves_out_minutes_without_a_trade_has_gaps_only_where_it_failed() -> None:
    bars = crypto("1m", 8)
    traded = np.random.default_rng(5).uniform(size=len(bars)) > 0.03
    health = examine(without(pick(bars, traded), "2019-02-05T10:00", "2019-02-05T12:00"))
    assert counts(health) == {"gaps": 1}
    assert health.findings["gaps"]["missing"] in range(118, 130)


def test_bars_missing_everywhere_are_said() -> None:
    bars = crypto("5m", 20)
    traded = np.random.default_rng(5).uniform(size=len(bars)) > 0.3
    health = examine(pick(bars, traded))
    assert (health.verdict, counts(health)) == ("usable", {})
    assert "30." in health.reasons[0]
    assert "here and there" in health.reasons[0]


def test_many_missing_bars_make_a_verdict() -> None:
    bars = crypto("1h")
    assert examine(without(bars, "2019-03-01", "2019-03-03")).verdict == "usable"
    assert examine(without(bars, "2019-03-01", "2019-05-01")).verdict == "bad"


@pytest.mark.parametrize("market", ["crypto 5m", "forex 1h", "stock 15m", "stock 1d"])
def test_a_jump_is_an_outlier(market: str) -> None:
    bars = MARKETS[market]()
    place = len(bars) // 2 + 3
    health = examine(scaled(bars, np.where(np.arange(len(bars)) >= place, 1.3, 1.0)))
    (outlier,) = health.findings["outliers"]["largest"]
    assert counts(health) == {"outliers": 1}
    assert (outlier["at"], outlier["kind"]) == (format_us(int(bars.timestamps[place])), "move")
    assert 150 < outlier["deviations"] < 450
    assert health.verdict == "good"


def test_a_wild_range_is_an_outlier() -> None:
    bars = crypto("1h")
    high = bars.high.copy()
    high[500] *= 1.3
    health = examine(replace(bars, high=high))
    assert counts(health) == {"outliers": 1}
    assert health.findings["outliers"]["largest"][0]["kind"] == "range"


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.1, 10.0])
@pytest.mark.parametrize("market", ["crypto 5m", "forex 1h", "stock 1d"])
def test_a_spike_that_returns_at_once_is_a_bad_tick(market: str, factor: float) -> None:
    bars = MARKETS[market]()
    place = len(bars) // 2 + 3
    health = examine(scaled(bars, np.where(np.arange(len(bars)) == place, factor, 1.0)))
    assert counts(health) == {"bad_ticks": 1}
    (tick,) = health.findings["bad_ticks"]["largest"]
    assert tick["at"] == format_us(int(bars.timestamps[place]))
    assert tick["close"] == pytest.approx(factor * tick["before"], rel=0.02)
    assert health.verdict == "usable"


def test_a_wrong_price_of_two_bars_is_two_outliers_and_no_split() -> None:
    bars = stock("15m")
    day = int(np.flatnonzero(bars.timestamps >= at("2019-08-12"))[0])
    wrong = (np.arange(len(bars)) >= day) & (np.arange(len(bars)) < day + 2)
    assert counts(examine(scaled(bars, np.where(wrong, 0.5, 1.0)))) == {"outliers": 2}


def test_many_bad_ticks_are_bad() -> None:
    bars = crypto("1h")
    assert examine(scaled(bars, np.where(np.arange(len(bars)) % 500 == 9, 1.2, 1))).verdict == "bad"


@pytest.mark.parametrize("flat", [True, False], ids=["flat at the close", "the same row"])
def test_a_standstill_is_a_stale_run(flat: bool) -> None:
    bars = crypto("1h")
    names = ("open", "high", "low", "close")
    prices: dict[str, Any] = {name: getattr(bars, name).copy() for name in names}
    for name in names:
        prices[name][1001:1013] = bars.close[1000] if flat else prices[name][1000]
    health = examine(replace(bars, **prices))
    run = {
        "start": format_us(int(bars.timestamps[1001])),
        "end": format_us(int(bars.timestamps[1013])),
        "bars": 12,
    }
    assert counts(health) == {"stale": 1}
    assert health.findings["stale"]["largest"] == [run]
    assert health.verdict == "usable"


def test_quiet_minutes_are_usual_where_they_are_many() -> None:
    bars = crypto("1m", 8)
    still = np.random.default_rng(5).uniform(size=len(bars)) < 0.2
    last = np.maximum.accumulate(np.where(still, 0, np.arange(len(bars))))
    close = bars.close[last]
    price: dict[str, Any] = {
        name: np.where(still, close, getattr(bars, name)) for name in ("open", "high", "low")
    }
    quiet = replace(bars, close=close, **price)
    assert counts(examine(quiet)) == {}
    for name in ("open", "high", "low", "close"):
        getattr(quiet, name)[5000:5060] = close[4999]
    assert counts(examine(quiet)) == {"stale": 1}


def test_zero_volume_is_said_with_its_share_and_runs() -> None:
    bars = forex("1h")
    volume = bars.volume.copy()
    volume[700:720] = 0
    health = examine(replace(bars, volume=volume))
    assert counts(health) == {"zero_volume": 1}
    found = health.findings["zero_volume"]
    assert (found["bars"], found["share"]) == (20, 20 / len(bars))
    volume[: len(bars) // 5] = 0
    assert examine(replace(bars, volume=volume)).verdict == "usable"


def test_a_feed_without_volume_is_no_fault() -> None:
    bars = forex("1h")
    health = examine(replace(bars, volume=np.zeros(len(bars))))
    assert (health.verdict, counts(health)) == ("good", {})
    assert health.findings["zero_volume"]["has_volume"] is False


@pytest.mark.parametrize(
    ("zone", "name"),
    [("America/New_York", "New York"), ("Europe/London", "London"), ("UTC", "UTC")],
)
def test_the_clock_of_the_sessions_is_told(zone: str, name: str) -> None:
    assert examine(forex("1h", 60, zone)).findings["clock"]["follows"] == name
    assert examine(stock("30m", 60, zone)).findings["clock"]["follows"] == name


def test_a_market_elsewhere_with_clock_changes_of_its_own_has_no_shifts() -> None:
    health = examine(stock("30m", 120, "Australia/Sydney"))
    assert health.findings["clock"]["follows"] == "Sydney"
    assert counts(health).keys() <= {"gaps"}  # the holidays are those of another calendar day


@pytest.mark.parametrize("market", ["crypto 1h", "forex 4h"])
def test_a_clock_that_bars_do_not_show_is_not_guessed(market: str) -> None:
    assert examine(MARKETS[market]()).findings["clock"]["follows"] is None
    short = examine(forex("1h", 8)).findings["clock"]
    assert short["follows"] is None
    assert "no clock change" in short["why"]


@pytest.mark.parametrize("hours", [-1, 1, 3, 7])
@pytest.mark.parametrize("market", ["forex 1h", "forex 15m", "stock 15m"])
def test_sessions_that_shift_by_whole_hours_are_found(market: str, hours: int) -> None:
    bars = MARKETS[market]()
    sunday = at("2019-08-11T12:00")
    stamps = bars.timestamps + np.where(bars.timestamps >= sunday, hours * HOUR_US, 0)
    health = examine(replace(bars, timestamps=stamps))
    first = int(stamps[np.searchsorted(bars.timestamps, sunday)])
    shift = {"at": format_us(first), "hours": hours, "on_dst_date": False}
    assert counts(health) == {"shifts": 1}
    assert health.findings["clock"]["shifts"] == [shift]
    assert health.findings["clock"]["follows"] == "New York"
    assert health.verdict == "bad"


def test_longer_sessions_are_no_shift_of_the_clock() -> None:
    stamps = grid("30m", 60)
    day, minute = local(stamps, "America/New_York")
    start = np.where(stamps >= at("2019-08-11"), 450, 570)
    bars = with_prices(stamps[(day < 5) & (minute >= start) & (minute < 960)], "30m")
    assert examine(bars).findings["clock"]["shifts"] == []


@pytest.mark.parametrize("change", ["2019-04-01", "2019-08-11", "2019-12-01"])
def test_hours_of_trade_that_change_are_no_gaps(change: str) -> None:
    stamps = grid("30m", 60)
    day, minute = local(stamps, "America/New_York")
    start = np.where(stamps >= at(change), 450, 570)
    bars = with_prices(stamps[(day < 5) & (minute >= start) & (minute < 960)], "30m")
    # Exact to a season: at most half of one is judged by the hours of the other half.
    gaps = examine(bars).findings["gaps"]
    assert gaps["missing"] + gaps["scattered"] <= 6 * 5 * 4


@pytest.mark.parametrize(
    ("name", "ratio"),
    [("2:1", 1 / 2), ("3:1", 1 / 3), ("3:2", 2 / 3), ("7:1", 1 / 7), ("1:10", 10)],
)
@pytest.mark.parametrize("market", ["stock 15m", "stock 1d"])
def test_an_unadjusted_split_is_found(market: str, name: str, ratio: float) -> None:
    bars = MARKETS[market]()
    day = at("2019-08-12")
    after = bars.timestamps >= day
    split = scaled(bars, np.where(after, ratio, 1.0))
    health = examine(replace(split, volume=bars.volume * np.where(after, 1 / ratio, 1.0)))
    (found,) = health.findings["splits"]["largest"]
    assert counts(health) == {"splits": 1}
    assert found["split"] == name
    assert found["at"][:10] == "2019-08-12"
    assert found["price_ratio"] == pytest.approx(ratio, rel=0.02)
    assert found["volume_ratio"] == pytest.approx(1 / ratio, rel=0.3)
    assert health.verdict == "bad"


@pytest.mark.parametrize("rows", [0, 1])
def test_fewer_than_two_bars_are_refused(rows: int) -> None:
    with pytest.raises(InvalidData, match=f"X 1h: {rows} bars are too few to examine"):
        examine(crypto("1h").rows(0, rows))


@pytest.mark.parametrize("market", MARKETS)
def test_any_two_bars_and_more_get_a_report_of_the_same_shape(market: str) -> None:
    bars = MARKETS[market]()
    keys = shape(examine(bars).document())
    for rows in (2, 3, 5, 17, 30, 31, 40):
        document = examine(bars.rows(0, rows)).document()
        assert shape(document) == keys
        assert document["rows"] == rows
        json.dumps(document, allow_nan=False)


def shape(document: dict[str, Any]) -> list[Any]:
    return [list(document), *(list(finding) for finding in document["findings"].values())]


def test_a_few_weeks_are_too_few_to_know_gaps() -> None:
    health = examine(forex("1h").rows(0, 200))
    assert health.verdict == "usable"
    assert "gaps are unknown" in health.reasons[0]
    assert health.findings["gaps"]["count"] is None


def test_prices_that_never_move_are_bad_not_an_error() -> None:
    bars = crypto("1h")
    one = np.ones(len(bars))
    health = examine(replace(bars, open=one, high=one, low=one, close=one, volume=0 * one))
    assert health.verdict == "bad"
    assert counts(health) == {"stale": 1}


@pytest.mark.parametrize("seed", range(3))
def test_rubbish_gets_a_report_too(seed: int) -> None:
    draw = np.random.default_rng(seed)
    stamps = np.unique(draw.integers(-(10**15), 10**15, size=3000))
    prices = np.exp(draw.normal(scale=5, size=len(stamps)))
    bars = Bars("X", "5m", stamps, prices, prices * 2, prices / 2, prices, prices)
    document = examine(bars).document()
    assert document["verdict"] == "bad"
    json.dumps(document, allow_nan=False)
    assert document == examine(bars).document()


def test_the_same_bars_give_the_same_report() -> None:
    bars = without(forex("15m"), "2019-06-05T10:15", "2019-06-05T12:00")
    copied = pick(bars, np.arange(len(bars)))
    assert json.dumps(examine(bars).document()) == json.dumps(examine(copied).document())


def test_a_million_bars_take_a_second_or_two() -> None:
    bars = crypto("1m", 100)
    assert len(bars) > 1_000_000
    started = time.perf_counter()
    assert examine(bars).verdict == "good"
    assert time.perf_counter() - started < 5


def real(name: str) -> Health:
    symbol, timeframe = name.split("_")
    return examine(import_file(REAL_BARS / f"{name}.csv.gz", symbol, timeframe).bars)


@needs_real_bars
def test_a_real_outage_is_found_as_what_it_is() -> None:
    """On 2023-03-24 the exchange stood still for 70 minutes and was then silent for 80."""
    findings = real("BTCUSDT_5m").findings
    still = {"start": "2023-03-24T11:30:00Z", "end": "2023-03-24T12:40:00Z", "bars": 14}
    assert findings["stale"]["largest"] == [still]
    assert findings["zero_volume"]["largest"] == [still]
    assert findings["gaps"]["largest"] == [
        {"start": "2023-03-24T12:40:00Z", "end": "2023-03-24T14:00:00Z", "missing": 16}
    ]


@needs_real_bars
@pytest.mark.parametrize("name", ["AAPL_1d", "SPY_1d", "SPY_1h"])
def test_adjusted_stocks_have_no_splits_and_their_known_closures(name: str) -> None:
    health = real(name)
    assert health.verdict == "good"
    assert health.findings["splits"]["count"] == 0
    assert health.findings["gaps"]["largest"][0]["end"][:10] == "2001-09-17"


@needs_real_bars
def test_the_splits_of_a_real_stock_are_found_once_their_adjustment_is_undone() -> None:
    bars = import_file(REAL_BARS / "AAPL_1d.csv.gz", "AAPL", "1d").bars
    splits = {"2000-06-21": 2, "2005-02-28": 2, "2014-06-09": 7, "2020-08-31": 4}
    factor = np.ones(len(bars))
    for day, times in splits.items():
        factor[bars.timestamps < at(day)] *= times
    health = examine(replace(scaled(bars, factor), volume=bars.volume / factor))
    found = [(split["at"][:10], split["split"]) for split in health.findings["splits"]["largest"]]
    assert found == [(day, f"{times}:1") for day, times in splits.items()]


@needs_real_bars
@pytest.mark.parametrize(
    ("name", "clock"),
    [("EURUSD_1h", "New York"), ("AAPL_15m", "New York"), ("GBPUSD_1h", "London")],
)
def test_real_sessions_follow_a_clock(name: str, clock: str) -> None:
    health = real(name)
    assert (health.verdict, health.findings["clock"]["follows"]) == ("good", clock)
    assert health.findings["clock"]["shifts"] == []


def test_the_verdicts_are_in_order() -> None:
    assert VERDICTS == ("good", "usable", "bad")
