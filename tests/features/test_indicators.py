"""Indicators know only the past, and exactly from which bar on they have a value."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from ktrdr.data.bars import Bars, FloatArray
from ktrdr.data.sample import sample_bars
from ktrdr.features.indicators import IndicatorOutputs, source_series, warm_up
from ktrdr.features.indicators.outputs import DEFINITIONS
from ktrdr.features.indicators.rolling import gap_and_deviation, rolling_rank, rolling_sum
from ktrdr.strategy.candle_patterns import CANDLE_PATTERNS
from ktrdr.strategy.indicator_types import INDICATOR_CLASSES, Indicator
from ktrdr.strategy.indicators import INDICATORS, PRICE_SERIES, ChoiceParameter, IndicatorGrammar

ALL_TYPES = sorted(INDICATORS)
WITH_SOURCE = [kind for kind in ALL_TYPES if INDICATORS[kind].takes_source]
BARS = sample_bars(rows=400)
HOUR_US = 3_600_000_000


def make(kind: str, **parameters: Any) -> Indicator:
    return INDICATOR_CLASSES[kind].model_validate({"type": kind, **parameters})


def random_indicators(kind: str, count: int = 8) -> list[Indicator]:
    """The defaults, the smallest parameters, and random ones that the grammar allows."""
    grammar = INDICATORS[kind]
    random = np.random.default_rng(sum(kind.encode()))
    drawn = [make(kind, **draw(grammar, random)) for _ in range(count if grammar.parameters else 0)]
    return [make(kind), make(kind, **smallest(grammar)), *drawn]


def draw(grammar: IndicatorGrammar, random: np.random.Generator) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for parameter in grammar.parameters:
        if isinstance(parameter, ChoiceParameter):
            found[parameter.name] = str(random.choice(parameter.choices))
        elif parameter.is_integer:
            found[parameter.name] = int(random.integers(int(parameter.least), 45))
        else:
            found[parameter.name] = float(random.uniform(0.01, 4))
    return in_order(grammar, found)


def smallest(grammar: IndicatorGrammar) -> dict[str, Any]:
    found = {p.name: p.least for p in grammar.parameters if not isinstance(p, ChoiceParameter)}
    return in_order(grammar, found)


def in_order(grammar: IndicatorGrammar, found: dict[str, Any]) -> dict[str, Any]:
    """The same parameters, raised where another one must be smaller."""
    for low, high in grammar.below:
        found[high] = max(found[high], found[low] + 1)
    for low, high in grammar.not_above:
        found[high] = max(found[high], found[low])
    return found


def all_outputs(indicator: Indicator, bars: Bars) -> dict[str, FloatArray]:
    outputs = IndicatorOutputs({"x": indicator}, bars)
    return {name: outputs.series(f"x.{name}") for name in indicator.grammar.outputs}


def bars_of(closes: Any, volumes: Any = None, reach: float = 0.0) -> Bars:
    close = np.asarray(closes, dtype=np.float64)
    volume = np.zeros(len(close)) if volumes is None else np.asarray(volumes, dtype=np.float64)
    stamps = HOUR_US * np.arange(len(close), dtype=np.int64)
    return Bars("X", "1h", stamps, close, close + reach, close - reach, close, volume)


def test_what_the_grammar_names_can_be_computed_and_nothing_else() -> None:
    assert set(DEFINITIONS) == set(INDICATORS)
    assert len(CANDLE_PATTERNS) == 61


def test_no_two_types_share_a_name() -> None:
    names = [name for g in INDICATORS.values() for name in (g.type, *g.aliases)]
    plain = [name.replace("_", "") for name in names]
    assert len(set(plain)) == len(plain)


@pytest.mark.parametrize("kind", ALL_TYPES)
def test_the_first_value_of_each_output_stands_exactly_at_its_warm_up(kind: str) -> None:
    for indicator in random_indicators(kind):
        for name, series in all_outputs(indicator, BARS).items():
            assert series.dtype == np.float64
            assert len(series) == len(BARS)
            first = warm_up({"x": indicator}, f"x.{name}")
            assert np.isnan(series[:first]).all(), (indicator, name)
            assert np.isfinite(series[first:]).all(), (indicator, name)


@pytest.mark.parametrize("kind", ALL_TYPES)
def test_cutting_off_the_future_changes_no_bit(kind: str) -> None:
    for indicator in random_indicators(kind, 2):
        whole = all_outputs(indicator, BARS)
        first = max(warm_up({"x": indicator}, f"x.{name}") for name in whole)
        for stop in {0, 1, 2, first, first + 1, 151, 287, 399}:
            for name, series in all_outputs(indicator, BARS.rows(0, stop)).items():
                assert series.tobytes() == whole[name][:stop].tobytes(), (indicator, name, stop)


@pytest.mark.parametrize("kind", WITH_SOURCE)
def test_the_source_decides_on_the_series(kind: str) -> None:
    results = set()
    for source in PRICE_SERIES:
        outputs = all_outputs(make(kind, source=source), BARS).values()
        results.add(b"".join(series.tobytes() for series in outputs))
    assert len(results) == len(PRICE_SERIES)


@pytest.mark.parametrize("kind", WITH_SOURCE)
def test_an_indicator_of_an_indicator_is_that_of_its_series(kind: str) -> None:
    """The chain equals the second indicator over bars whose close is the first one's output."""
    chain = {"first": make("macd", fast_period=3, slow_period=7), "x": make(kind)}
    chain["x"] = make(kind, source="first.signal")
    inner = IndicatorOutputs(chain, BARS).series("first.signal")
    start = warm_up(chain, "first.signal")
    assert start == 14
    part = BARS.rows(start, len(BARS))
    closes = inner[start:].copy()
    own = Bars("X", "1h", part.timestamps, part.open, part.high, part.low, closes, part.volume)
    alone = {"x": make(kind, source="close")}
    for name in INDICATORS[kind].outputs:
        found = IndicatorOutputs(chain, BARS).series(f"x.{name}")
        expected = IndicatorOutputs(alone, own).series(f"x.{name}")
        assert np.isnan(found[:start]).all()
        assert found[start:].tobytes() == expected.tobytes()
        assert warm_up(chain, f"x.{name}") == start + warm_up(alone, f"x.{name}")


def test_a_long_chain_adds_up_its_warm_ups_and_knows_no_future() -> None:
    chain = {"last": make("zscore", period=5, source="middle")}
    chain["middle"] = make("ema", period=4, source="bands.upper")
    chain["bands"] = make("bollingerbands", period=6, source="rsi")
    chain["rsi"] = make("rsi", period=3, source="hlc3")
    assert warm_up(chain, "last") == 3 + 5 + 3 + 4
    whole = IndicatorOutputs(chain, BARS).series("last")
    assert np.isnan(whole[:15]).all()
    assert np.isfinite(whole[15:]).all()
    for stop in (1, 3, 9, 15, 16, 200):
        cut = IndicatorOutputs(chain, BARS.rows(0, stop)).series("last")
        assert cut.tobytes() == whole[:stop].tobytes()


def test_a_thousand_indicators_in_a_row_are_no_trouble() -> None:
    chain = {f"i{k}": make("momentum", period=1, source=f"i{k - 1}") for k in range(1, 1000)}
    chain["i0"] = make("momentum", period=1)
    assert warm_up(chain, "i999") == 1000
    assert np.isnan(IndicatorOutputs(chain, BARS).series("i999")).all()


def test_an_indicator_is_computed_once_and_the_bare_id_is_its_first_output() -> None:
    outputs = IndicatorOutputs({"m": make("macd")}, BARS)
    assert outputs.series("m") is outputs.series("m.line")
    assert outputs.series("m.signal") is outputs.series("m.signal")


def test_sources_are_the_prices_they_name() -> None:
    row = Bars("X", "1h", np.array([0]), *(np.array([v]) for v in (4.0, 8.0, 2.0, 6.0, 9.0)))
    expected = {"open": 4, "high": 8, "low": 2, "close": 6, "volume": 9, "hl2": 5, "ohlc4": 5}
    assert {name: source_series(row, name)[0] for name in expected} == expected
    assert source_series(row, "hlc3")[0] == pytest.approx(16 / 3)


# A market that stands still, or trades nothing

STILL = bars_of(np.full(250, 1.25))
NEUTRAL = {
    "percent_b": 0.5,
    "zscore": 0,
    "percentile": 50,
    "bollingerbandwidth": 0,
    "squeezeintensity": 0,
    "rvi": 0,
    "fishertransform": 0,
    "cmf": 0,
    "volumeratio": 1,
    "vwap": 1.25,
    "distancefromma": 0,
    "log_return": 0,
    "realised_volatility": 0,
    "rsi": 0,
    "stochastic": 0,
    "stochrsi": 0,
    "williamsr": 0,
    "cci": 0,
    "mfi": 0,
    "cmo": 0,
    "ultosc": 0,
    "aroon": 100,
    "adx": 0,
    "atr": 0,
    "linreg_slope": 0,
    "linreg_angle": 0,
    "obv": 0,
    "adline": 0,
    "adosc": 0,
}


@pytest.mark.parametrize("kind", ALL_TYPES)
def test_a_market_that_stands_still_gives_numbers(kind: str) -> None:
    for source in ("close", "volume") if INDICATORS[kind].takes_source else (None,):
        indicator = make(kind, **({"source": source} if source else {}))
        for name, series in all_outputs(indicator, STILL).items():
            first = warm_up({"x": indicator}, f"x.{name}")
            assert np.isfinite(series[first:]).all(), (source, name)


@pytest.mark.parametrize(("kind", "expected"), NEUTRAL.items())
def test_what_has_no_range_has_the_value_that_is_written_down(kind: str, expected: float) -> None:
    value = next(iter(all_outputs(make(kind), STILL).values()))[-1]
    assert value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kind", ALL_TYPES)
def test_a_market_that_falls_still_and_wakes_up_gives_numbers(kind: str) -> None:
    """Running sums must not leave anything of the busy time before."""
    random = np.random.default_rng(3)
    closes = 100 * np.exp(np.cumsum(random.normal(0, 0.01, 900)))
    closes[300:600] = closes[300]
    volumes = random.random(900) * 1e4
    volumes[300:600] = 0
    bars = bars_of(closes, volumes)
    bars.high[:300] += random.random(300)
    bars.low[:300] -= random.random(300)
    for indicator in random_indicators(kind, 2):
        for name, series in all_outputs(indicator, bars).items():
            first = warm_up({"x": indicator}, f"x.{name}")
            assert np.isfinite(series[first:]).all(), (indicator, name)


def test_nothing_is_left_of_a_busy_window_in_a_quiet_one() -> None:
    values = np.concatenate([np.random.default_rng(1).random(5000) * 1e6, np.full(50, 3.1)])
    zeros = np.concatenate([values[:5000], np.zeros(50)])
    gap, deviation = gap_and_deviation(values, 20)
    assert (deviation[5019:] == 0).all()
    assert (gap[5019:] == 0).all()
    assert (rolling_sum(zeros, 20)[5019:] == 0).all()


def test_the_rounding_of_a_series_is_no_move_of_it() -> None:
    """RSI of a market that fell still is one value, give or take its last bit."""
    random = np.random.default_rng(9)
    closes = 3e4 * np.exp(np.cumsum(random.normal(0, 0.01, 600)))
    closes[200:] = closes[200]
    bars = bars_of(closes)
    assert (all_outputs(make("stochrsi"), bars)["k"][230:] == 0).all()
    of_rsi = {"rsi": make("rsi"), "z": make("zscore", source="rsi")}
    assert (IndicatorOutputs(of_rsi, bars).series("z")[240:] == 0).all()


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [
        ("rsi", 0, 100),
        ("stochastic", 0, 100),
        ("stochrsi", 0, 100),
        ("mfi", 0, 100),
        ("ultosc", 0, 100),
        ("adx", 0, 100),
        ("williamsr", -100, 0),
        ("cmo", -100, 100),
        ("percentile", 0, 100),
        ("cmf", -1, 1),
        ("rvi", -1, 1),
        ("squeezeintensity", 0, 0.5),
    ],
)
def test_what_has_bounds_stays_within_them_to_the_last_bit(
    kind: str, low: float, high: float
) -> None:
    random = np.random.default_rng(5)
    closes = 100 + np.cumsum(random.choice([-1.0, 0.0, 0.0, 1.0], 5000)) * 0.1
    bars = bars_of(closes, random.random(5000) * (random.random(5000) < 0.5), reach=0.0)
    for period in (2, 3, 14):
        periods = {"period": period} if "period" in make(kind).parameters else {}
        for series in all_outputs(make(kind, **periods), bars).values():
            assert np.nanmin(series) >= low
            assert np.nanmax(series) <= high


# By hand


def test_a_rank_counts_equal_values_half() -> None:
    ranks = rolling_rank(np.array([1.0, 2.0, 3.0, 3.0, 0.0, 2.0]), 3)
    assert ranks[2:].tolist() == [100, 75, 0, 50]


def test_the_clock_goes_round_in_utc() -> None:
    monday = 4 * 24  # hours from 1970-01-01 to the first Monday
    hours = np.array([0, 6, monday, monday + 24 * 2 + 12], dtype=np.int64)
    prices = (np.ones(4) for _ in range(5))
    bars = Bars("X", "1h", hours * HOUR_US, *prices)
    hour = all_outputs(make("hour_of_day"), bars)
    assert hour["sin"] == pytest.approx([0, 1, 0, 0], abs=1e-12)
    assert hour["cos"] == pytest.approx([1, 0, 1, -1], abs=1e-12)
    day = all_outputs(make("day_of_week"), bars)
    assert day["sin"] == pytest.approx([math.sin(2 * math.pi * d / 7) for d in (3, 3, 0, 2)])
    half_past = Bars("X", "1m", np.array([HOUR_US // 2]), *(np.ones(1) for _ in range(5)))
    assert all_outputs(make("hour_of_day"), half_past)["sin"][0] == pytest.approx(
        math.sin(2 * math.pi / 48)
    )


def test_a_span_of_the_cloud_is_the_one_of_displacement_bars_before() -> None:
    bars = bars_of(np.arange(1.0, 121.0))
    outputs = all_outputs(make("ichimoku"), bars)
    assert outputs["tenkan"][-1] == (112 + 120) / 2
    assert outputs["kijun"][-1] == (95 + 120) / 2
    assert outputs["senkou_a"][-1] == ((112 + 120) / 2 + (95 + 120) / 2) / 2 - 26
    assert outputs["senkou_b"][-1] == (69 + 120) / 2 - 26


# Candles: quiet bars of body 1 and range 2 around 100, and then what is drawn

Candle = tuple[float, float, float, float]
QUIET: list[Candle] = [(100, 101.5, 99.5, 101), (101, 101.5, 99.5, 100)] * 10


def pattern(kind: str, drawn: list[Candle], **parameters: float) -> float:
    opens, highs, lows, closes = np.array([*QUIET, *drawn], dtype=np.float64).T.copy()
    stamps = HOUR_US * np.arange(len(opens), dtype=np.int64)
    bars = Bars("X", "1h", stamps, opens, highs, lows, closes, np.ones(len(opens)))
    return float(all_outputs(make(kind, **parameters), bars)["pattern"][-1])


STAR: list[Candle] = [(100, 100.2, 95.8, 96), (95, 95.6, 94.6, 95.4), (96, 99.2, 95.9, 99)]


@pytest.mark.parametrize(
    ("kind", "drawn", "expected"),
    [
        ("cdlengulfing", [(100, 100.2, 98.8, 99), (98.5, 101.7, 98.3, 101.5)], 100),
        ("cdlengulfing", [(99, 100.2, 98.8, 100), (101.5, 101.7, 98, 98.5)], -100),
        ("cdlengulfing", [(99, 100.2, 98.8, 100), (99.2, 100, 99, 99.8)], 0),
        ("cdldoji", [(100, 101, 99, 100)], 100),
        ("cdldoji", [(100, 101, 99, 100.9)], 0),
        ("cdlmarubozu", [(96, 104, 96, 104)], 100),
        ("cdlmarubozu", [(104, 104, 96, 96)], -100),
        ("cdlmorningstar", STAR, 100),
    ],
)
def test_a_drawn_pattern_is_seen(kind: str, drawn: list[Candle], expected: float) -> None:
    assert pattern(kind, drawn) == expected


def test_penetration_asks_for_how_deep_the_last_candle_reaches() -> None:
    """The star's last close, 99, lies three quarters up the first body, from 96 to 100."""
    assert pattern("cdlmorningstar", STAR, penetration=0.7) == 100
    assert pattern("cdlmorningstar", STAR, penetration=0.8) == 0
