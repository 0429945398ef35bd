"""Timeframes joined by when their bars close, against a slow and obvious reference."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ktrdr.data.bars import Bars, IntArray, fingerprint, timeframe_us
from ktrdr.data.market import Market, gather
from ktrdr.data.resampling import resample
from ktrdr.data.sample import sample_bars
from ktrdr.errors import DataNotFound, InvalidData
from ktrdr.features.asof_join import last_closed
from ktrdr.features.cache import dataset_key
from ktrdr.features.dataset import build_dataset
from ktrdr.features.pipeline import compute_inputs
from ktrdr.features.transforms import unfitted
from ktrdr.strategy.loading import validate_strategy
from ktrdr.strategy.schema import Strategy

REAL = Path(__file__).parents[2] / ".." / "shared" / "data"
DAY_US = 86_400 * 1_000_000
FIRST_US = 1_577_664_000 * 1_000_000  # a Monday, 2019-12-30
LENGTHS = ("5m", "1h", "4h", "1d", "1w")


def reference(bars: Bars, base: Bars) -> list[int]:
    """For each base bar look at every other bar, and keep the last that has closed by then."""
    length, base_length = timeframe_us(bars.timeframe), timeframe_us(base.timeframe)
    opens, found = bars.timestamps.tolist(), []
    for open_us in base.timestamps.tolist():
        last = -1
        for place, other in enumerate(opens):
            if other + length <= open_us + base_length:
                last = place
        found.append(last)
    return found


def gappy(timeframe: str, seed: int, days: int = 21) -> Bars:
    """Bars of some weeks, of which a third is missing, some in stretches."""
    random = np.random.default_rng(seed)
    step = timeframe_us(timeframe)
    stamps = FIRST_US + np.arange(0, days * DAY_US, step, dtype=np.int64)
    kept = random.random(len(stamps)) < 0.75
    for _ in range(3):
        hole = random.integers(len(stamps))
        kept[hole : hole + random.integers(len(stamps) // 8 + 1)] = False
    kept[random.integers(len(stamps))] = True
    return at(timeframe, stamps[kept])


def at(timeframe: str, stamps: IntArray) -> Bars:
    return replace(sample_bars(timeframe=timeframe, rows=len(stamps)), timestamps=stamps)


def thinned(bars: Bars, most: int) -> Bars:
    """A stretch of at most so many bars from the middle."""
    start = max(0, (len(bars) - most) // 2)
    return bars.rows(start, start + most)


@pytest.mark.parametrize(("base", "other"), list(product(LENGTHS, LENGTHS)))
def test_joins_equal_the_slow_reference_on_bars_with_gaps(base: str, other: str) -> None:
    for seed in range(3):
        rows, joined = thinned(gappy(base, seed), 250), thinned(gappy(other, seed + 10), 250)
        assert last_closed(joined, rows).tolist() == reference(joined, rows)


def test_bars_that_open_off_the_grid_are_known_from_their_own_close_on() -> None:
    hour = timeframe_us("1h")
    days = at("1d", FIRST_US + DAY_US * np.arange(4) - 2 * hour)  # from 22:00 to 22:00
    hours = at("1h", FIRST_US + hour * np.arange(72))
    indices = last_closed(days, hours)
    assert indices.tolist() == reference(days, hours)
    assert [int(np.searchsorted(indices, n)) for n in (0, 1, 2)] == [21, 45, 69]  # closes at 22:00


def test_nothing_is_known_before_the_first_close_and_the_last_bar_stands() -> None:
    day, hours = at("1d", np.array([FIRST_US])), sample_bars(rows=60)
    hours = replace(hours, timestamps=FIRST_US + timeframe_us("1h") * np.arange(60))
    assert last_closed(day, hours).tolist() == [-1] * 23 + [0] * 37


def strategy(
    timeframes: tuple[str, ...] = ("1h", "4h", "1d"), base: str = "1h", history: int = 50
) -> Strategy:
    """A moving value at every timeframe, raw and graded."""
    return validate_strategy(
        {
            "name": "joined",
            "training_data": {
                "symbols": {"symbol": "SAMPLE"},
                "timeframes": {
                    "mode": "multi_timeframe",
                    "list": list(timeframes),
                    "base_timeframe": base,
                    "resample": True,
                },
                "history_required": history,
            },
            "indicators": {"r": {"type": "roc", "period": 1}, "s": {"type": "rsi", "period": 3}},
            "fuzzy_sets": {"level": {"indicator": "s", "low": [0, 30, 60], "high": [40, 70, 100]}},
            "nn_inputs": [{"raw_indicator": "r"}, {"fuzzy_set": "level"}],
            "model": {"type": "mlp"},
            "training": {"labels": {"source": "zigzag", "zigzag_threshold": 0.01}},
        },
        "test",
    )


def stored(*all_bars: Bars) -> dict[tuple[str, str], Bars]:
    return {(bars.symbol, bars.timeframe): bars for bars in all_bars}


def market_of(of: Strategy, bars: dict[tuple[str, str], Bars], resampled: bool = True) -> Market:
    def names(symbol: str) -> list[str]:
        return [timeframe for name, timeframe in bars if name == symbol]

    return gather(
        of.symbols,
        of.timeframes,
        of.base_timeframe,
        lambda symbol, timeframe: bars.get((symbol, timeframe)),
        names if resampled else None,
    )


@pytest.mark.parametrize(("base", "first"), [("1h", 95), ("4h", 50), ("1d", 50)])
def test_every_row_shows_the_change_of_the_last_closed_bar(base: str, first: int) -> None:
    hours = sample_bars(rows=3000)
    of = strategy(base=base)
    market = market_of(of, stored(hours))
    inputs = compute_inputs(of, market, "SAMPLE", unfitted(of))
    assert inputs.first == first
    assert inputs.base.timeframe == base
    for column, timeframe in enumerate(("1h", "4h", "1d")):
        bars = market.series["SAMPLE", timeframe]
        length = timeframe_us(timeframe)
        for row in range(0, len(inputs.matrix), 37):
            bar = inputs.base.timestamps[inputs.first + row]
            closed = bars.timestamps + length <= bar + timeframe_us(base)
            before, last = bars.close[closed][-2:]
            expected = np.float32((last / before - 1) * 100)
            assert inputs.matrix[row, column] == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_resampling_equals_importing_the_resampled_bars() -> None:
    hours, of = sample_bars(rows=3000), strategy()
    made = market_of(of, stored(hours))
    imported = market_of(of, stored(hours, resample(hours, "4h"), resample(hours, "1d")), False)
    one, two = build_dataset(of, made), build_dataset(of, imported)
    assert one.digest == two.digest
    assert one.inputs.tobytes() == two.inputs.tobytes()
    assert [str(span)[:10] for span in made.spans] == ["SAMPLE 1h "]
    assert len(imported.spans) == 3
    # it knows what it was made from
    assert dataset_key(of, made.fingerprint) != dataset_key(of, imported.fingerprint)


def test_missing_timeframes_are_made_from_the_longest_that_divides_them() -> None:
    quarters = sample_bars(timeframe="15m", rows=9000)
    other = resample(sample_bars(rows=3000, seed=9), "4h")
    of = strategy(("15m", "1h", "1d"), "15m")
    market = market_of(of, stored(quarters, other, sample_bars(timeframe="7h", rows=300)))
    assert fingerprint(market.series["SAMPLE", "1h"]) == fingerprint(resample(quarters, "1h"))
    assert fingerprint(market.series["SAMPLE", "1d"]) == fingerprint(resample(other, "1d"))
    assert [span.timeframe for span in market.spans] == ["15m", "4h"]


def test_what_is_missing_is_named_all_at_once() -> None:
    with pytest.raises(DataNotFound, match=r"no bars of SAMPLE 1h, SAMPLE 4h, nor a lower") as one:
        market_of(strategy(), stored(sample_bars(timeframe="1d", rows=300)))
    assert len(one.value.details["missing"]) == 2
    with pytest.raises(DataNotFound, match=r"no bars of SAMPLE 4h, SAMPLE 1d; import them"):
        market_of(strategy(), stored(sample_bars(rows=300)), resampled=False)
    with pytest.raises(InvalidData, match=r"the 20 bars of SAMPLE 1h fill no whole 1d bar"):
        market_of(strategy(), stored(sample_bars(rows=20)))


@pytest.mark.parametrize("resampled", [True, False])
def test_a_bucket_that_has_not_closed_is_never_seen(resampled: bool) -> None:
    of, count = strategy(), 1200
    for close in (50 * 24 + 1, 50 * 24 + 11, 50 * 24 + 23):  # hours; within a day and four hours
        count = close
        hours = sample_bars(rows=count)
        higher = [] if resampled else [whole(hours, "4h"), whole(hours, "1d")]
        other = changed_from(hours, count - count % 4, count - 1)
        others = [] if resampled else [whole(other, "4h"), whole(other, "1d")]
        one = inputs_of(of, stored(hours, *higher))
        two = inputs_of(of, stored(other, *others))
        # the last hour itself is the same, and all that had closed before
        assert one[-1, 1:3].tolist() == two[-1, 1:3].tolist()
        assert one[: -(count % 4)].tobytes() == two[: -(count % 4)].tobytes()


def inputs_of(of: Strategy, bars: dict[tuple[str, str], Bars]) -> np.ndarray:
    return compute_inputs(of, market_of(of, bars), "SAMPLE", unfitted(of)).matrix


def whole(bars: Bars, timeframe: str) -> Bars:
    """All buckets, the one that is still open too, as a feed shows it."""
    length = timeframe_us(timeframe)
    opens = bars.timestamps // length * length
    stamps = np.unique(opens)
    parts = [bars.rows(*np.searchsorted(opens, [stamp, stamp + 1]).tolist()) for stamp in stamps]
    return Bars(
        bars.symbol,
        timeframe,
        stamps,
        np.array([part.open[0] for part in parts]),
        np.array([part.high.max() for part in parts]),
        np.array([part.low.min() for part in parts]),
        np.array([part.close[-1] for part in parts]),
        np.array([part.volume.sum() for part in parts]),
    )


def changed_from(bars: Bars, start: int, stop: int) -> Bars:
    """The same with wild bars in [start, stop)."""
    close, high = bars.close.copy(), bars.high.copy()
    close[start:stop] *= 1.5
    high[start:stop] *= 2
    return replace(bars, close=close, high=high)


def test_a_base_without_inputs_of_its_own_still_needs_its_history() -> None:
    content = strategy().model_dump(mode="json", exclude_none=True)
    content["nn_inputs"] = [{"fuzzy_set": "level", "timeframes": ["4h"]}]
    of = validate_strategy(content, "test")
    with pytest.raises(InvalidData, match=r"^48 bars of SAMPLE 1h are too few.* 50 bars"):
        inputs_of(of, stored(sample_bars(rows=48)))
    assert len(inputs_of(of, stored(sample_bars(rows=51)))) == 1


def test_a_timeframe_with_too_few_closed_bars_is_named_with_their_number() -> None:
    content = strategy().model_dump(mode="json", exclude_none=True)
    content["indicators"]["s"]["period"] = 40
    of = validate_strategy(content, "test")
    with pytest.raises(InvalidData, match=r"^20 bars of SAMPLE 1d are too few.*40 bars") as caught:
        inputs_of(of, stored(sample_bars(rows=20 * 24)))
    assert (caught.value.details["bars"], caught.value.details["needed"]) == (20, 41)
    late = sample_bars(timeframe="1d", rows=90)
    hours = stored(sample_bars(rows=20 * 24), late)
    with pytest.raises(InvalidData, match=r"^20 bars of SAMPLE 1d that close by the last 1h bar"):
        inputs_of(of, hours)


def test_a_higher_timeframe_that_ended_long_ago_is_refused_with_the_rows_it_leaves() -> None:
    hours, days = sample_bars(rows=2400), sample_bars(timeframe="1d", rows=60)
    of = strategy(("1h", "1d"))
    with pytest.raises(
        InvalidData,
        match=r"SAMPLE 1d ends at 2020-03-01T00:00:00Z, long before SAMPLE 1h at "
        r"2020-04-10T00:00:00Z: 912 of 2,400 rows",
    ):
        build_dataset(of, market_of(of, stored(hours, days)))
    build_dataset(of, market_of(of, stored(hours.rows(0, 60 * 24 + 48), days)))


@pytest.mark.skipif(not REAL.exists(), reason="the real bars of ../shared/data are not here")
def test_joins_of_real_bars_equal_the_reference() -> None:
    files = {name: real(name) for name in ("5m", "15m", "1h", "4h", "1d")}
    moment = files["5m"].timestamps[40_000]
    for base, other in product(("5m", "1h", "1d"), files):
        rows = files[base].between(int(moment), int(moment) + 8 * DAY_US)
        joined = files[other].between(int(moment) - 5 * DAY_US, int(moment) + 8 * DAY_US)
        assert len(rows) > 4
        assert last_closed(thinned(joined, 400), rows).tolist() == reference(
            thinned(joined, 400), rows
        )


@pytest.mark.skipif(not REAL.exists(), reason="the real bars of ../shared/data are not here")
def test_the_real_hours_resampled_give_the_inputs_of_the_real_files() -> None:
    of = strategy(("1h", "4h", "1d"))
    hours = real("1h")
    start, end = int(hours.timestamps[20_000]) // (7 * DAY_US) * 7 * DAY_US, hours.last
    files = {name: real(name).between(start, end) for name in ("1h", "4h", "1d")}
    imported = market_of(of, stored(*files.values()), resampled=False)
    made = market_of(of, stored(files["1h"]))
    one = compute_inputs(of, imported, "SAMPLE", unfitted(of))
    two = compute_inputs(of, made, "SAMPLE", unfitted(of))
    behind = max(one.first, two.first)
    assert len(one.base) - behind > 20_000
    mine, theirs = one.matrix[behind - one.first :], two.matrix[behind - two.first :]
    np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)


def real(timeframe: str) -> Bars:
    table = pl.read_csv(REAL / f"EURUSD_{timeframe}.csv.gz", try_parse_dates=True)
    stamps = table["timestamp"].dt.replace_time_zone(None).dt.epoch("us").to_numpy()
    prices = [table[name].cast(pl.Float64).to_numpy() for name in table.columns[1:6]]
    return Bars("SAMPLE", timeframe, stamps, *prices)
