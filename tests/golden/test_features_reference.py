"""Features of the shipped strategies against a second, independent implementation.

The reference is plain Python over lists, from the textbooks: Wilder's RSI, ATR and ADX (New
Concepts in Technical Trading Systems, 1978), Appel's MACD, Bollinger's bands. It shares no code
with ktrdr. Where the textbooks leave a start open, it is that of TA-Lib: an average begins as the
simple mean of its first values; MACD's fast average begins where the slow one does; Wilder's sums
of directional movement begin with period - 1 bars.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from ktrdr.data.bars import Bars, fingerprint
from ktrdr.data.market import one_series
from ktrdr.data.sample import sample_bars
from ktrdr.features.dataset import build_dataset
from ktrdr.features.indicators import compute_indicator
from ktrdr.features.pipeline import compute_inputs
from ktrdr.features.transforms import unfitted
from ktrdr.strategy.indicator_types import INDICATOR_CLASSES
from ktrdr.strategy.loading import load_strategy

STRATEGIES = Path(__file__).parents[2] / "strategies"
BARS = sample_bars(rows=2500)
NAN = math.nan

Series = list[float]
Outputs = dict[str, Series]


def ema(values: Series, period: int, start: int | None = None) -> Series:
    """Begins at `start` (period - 1 unless given) as the mean of the `period` values up to it."""
    start = period - 1 if start is None else start
    found = [NAN] * start
    found.append(sum(values[start - period + 1 : start + 1]) / period)
    for value in values[start + 1 :]:
        found.append(found[-1] + (value - found[-1]) * 2 / (period + 1))
    return found


def wilder(values: Series, period: int, start: int) -> Series:
    """Wilder's average: the mean of the `period` values up to `start`, then by 1 / period."""
    found = [NAN] * start
    found.append(sum(values[start - period + 1 : start + 1]) / period)
    for value in values[start + 1 :]:
        found.append((found[-1] * (period - 1) + value) / period)
    return found


def rsi(source: Series, _: Bars, period: int) -> Outputs:
    moves = [0.0] + [b - a for a, b in itertools.pairwise(source)]
    gains = wilder([max(m, 0.0) for m in moves], period, period)
    losses = wilder([max(-m, 0.0) for m in moves], period, period)
    return {"rsi": [100 * g / (g + x) for g, x in zip(gains, losses, strict=True)]}


def roc(source: Series, _: Bars, period: int) -> Outputs:
    changes = [(b / a - 1) * 100 for a, b in zip(source[:-period], source[period:], strict=True)]
    return {"roc": [NAN] * period + changes}


def macd(
    source: Series, _: Bars, fast_period: int, slow_period: int, signal_period: int
) -> Outputs:
    fast, slow = ema(source, fast_period, slow_period - 1), ema(source, slow_period)
    line = [f - s for f, s in zip(fast, slow, strict=True)]
    start = slow_period - 1
    signal = [NAN] * start + ema(line[start:], signal_period)
    line = [NAN if math.isnan(s) else value for value, s in zip(line, signal, strict=True)]
    histogram = [value - s for value, s in zip(line, signal, strict=True)]
    return {"line": line, "signal": signal, "histogram": histogram}


def band_width(source: Series, _: Bars, period: int, multiplier: float) -> Outputs:
    found = [NAN] * (period - 1)
    for end in range(period, len(source) + 1):
        part = source[end - period : end]
        mean = math.fsum(part) / period
        deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in part) / period)
        found.append(2 * multiplier * deviation / mean)
    return {"width": found}


def true_ranges(bars: Bars) -> Series:
    highs, lows, closes = bars.high.tolist(), bars.low.tolist(), bars.close.tolist()
    return [0.0] + [
        max(high, before) - min(low, before)
        for high, low, before in zip(highs[1:], lows[1:], closes[:-1], strict=True)
    ]


def atr(_: Series, bars: Bars, period: int) -> Outputs:
    return {"atr": wilder(true_ranges(bars), period, period)}


def wilder_sum(values: Series, period: int) -> Series:
    """Wilder's running sum: begins with `period` - 1 values, then loses 1 / period a bar."""
    found = [NAN] * (period - 1) + [sum(values[1:period])]
    for value in values[period:]:
        found.append(found[-1] - found[-1] / period + value)
    found[period - 1] = NAN
    return found


def adx(_: Series, bars: Bars, period: int) -> Outputs:
    highs, lows = bars.high.tolist(), bars.low.tolist()
    ups = [0.0] + [b - a for a, b in itertools.pairwise(highs)]
    downs = [0.0] + [a - b for a, b in itertools.pairwise(lows)]
    moves = list(zip(ups, downs, strict=True))
    plus = wilder_sum([up if up > down and up > 0 else 0.0 for up, down in moves], period)
    minus = wilder_sum([down if down > up and down > 0 else 0.0 for up, down in moves], period)
    ranges = wilder_sum(true_ranges(bars), period)
    plus_di = [100 * p / r for p, r in zip(plus, ranges, strict=True)]
    minus_di = [100 * m / r for m, r in zip(minus, ranges, strict=True)]
    spread = [100 * abs(p - m) / (p + m) for p, m in zip(plus_di, minus_di, strict=True)]
    return {
        "adx": wilder(spread, period, 2 * period - 1),
        "plus_di": plus_di,
        "minus_di": minus_di,
    }


REFERENCE: dict[str, Callable[..., Outputs]] = {
    "rsi": rsi,
    "roc": roc,
    "macd": macd,
    "bollingerbandwidth": band_width,
    "atr": atr,
    "adx": adx,
    "ema": lambda source, _, period: {"ema": ema(source, period)},
}


def source_of(bars: Bars, name: str) -> Series:
    if name == "hlc3":
        rows = zip(bars.high.tolist(), bars.low.tolist(), bars.close.tolist(), strict=True)
        return [(high + low + close) / 3 for high, low, close in rows]
    series: Series = getattr(bars, name).tolist()
    return series


def curve(shape: Any, value: float) -> float:
    """A membership as it stands in the YAML, graded by its words."""
    if isinstance(shape, dict) and shape["type"] == "gaussian":
        mean, sigma = shape["parameters"]
        return math.exp(-((value - mean) ** 2) / (2 * sigma**2))
    corners = shape["parameters"] if isinstance(shape, dict) else shape
    left, top_left, top_right, right = (
        corners if len(corners) == 4 else [*corners[:2], *corners[1:]]
    )
    if value < left or value > right:
        return 0.0
    if value < top_left:
        return float((value - left) / (top_left - left))
    if value > top_right:
        return float((right - value) / (right - top_right))
    return 1.0


def reference_inputs(data: dict[str, Any], bars: Bars) -> dict[str, Series]:
    """Every network input of a strategy, by name, for every bar."""
    found: dict[str, Series] = {}
    for item in data["nn_inputs"]:
        fuzzy_set = dict(data["fuzzy_sets"][item["fuzzy_set"]])
        indicator_id, _, output = fuzzy_set.pop("indicator").partition(".")
        keys = dict(data["indicators"][indicator_id])
        compute = REFERENCE[keys.pop("type").lower()]
        outputs = compute(source_of(bars, keys.pop("source", "close")), bars, **keys)
        series = outputs[output] if output else next(iter(outputs.values()))
        for name, shape in fuzzy_set.items():
            grades = [NAN if math.isnan(value) else curve(shape, value) for value in series]
            found[f"{bars.timeframe}_{item['fuzzy_set']}_{name}"] = grades
    return found


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("rsi", {"period": 14}),
        ("rsi", {"period": 3}),
        ("roc", {"period": 10}),
        ("ema", {"period": 20}),
        ("macd", {"fast_period": 12, "slow_period": 26, "signal_period": 9}),
        ("macd", {"fast_period": 3, "slow_period": 10, "signal_period": 16}),
        ("bollingerbandwidth", {"period": 20, "multiplier": 2.0}),
        ("atr", {"period": 14}),
        ("adx", {"period": 14}),
        ("adx", {"period": 5}),
    ],
)
def test_an_indicator_is_what_its_author_wrote(kind: str, parameters: dict[str, Any]) -> None:
    indicator = INDICATOR_CLASSES[kind].model_validate({"type": kind, **parameters})
    expected = REFERENCE[kind](BARS.close.tolist(), BARS, **parameters)
    outputs = compute_indicator(indicator, BARS)
    assert list(outputs) == list(expected)
    for name, series in expected.items():
        np.testing.assert_allclose(outputs[name], series, rtol=1e-8, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("name", ["trend_follower", "mean_reversion"])
def test_the_inputs_of_a_shipped_strategy_are_those_of_the_reference(name: str) -> None:
    path = STRATEGIES / f"{name}.yaml"
    strategy, market = load_strategy(path), one_series(BARS)
    transforms = unfitted(strategy)
    inputs = compute_inputs(strategy, market, BARS.symbol, transforms)
    expected = reference_inputs(yaml.safe_load(path.read_text()), BARS)
    assert [name for transform in transforms for name in transform.names] == list(expected)
    for column, series in enumerate(expected.values()):
        np.testing.assert_allclose(
            inputs.matrix[:, column], series[inputs.first :], rtol=2e-6, atol=1e-6
        )


def test_the_sample_bars_are_the_same_everywhere() -> None:
    """They use only arithmetic that every machine rounds alike."""
    assert fingerprint(sample_bars()) == GOLDEN_SAMPLE


def test_the_training_set_of_the_sample_is_the_recorded_one() -> None:
    """Labels and splits use arithmetic and square roots only: equal on every machine."""
    dataset = build_dataset(
        load_strategy(STRATEGIES / "trend_follower.yaml"), one_series(sample_bars())
    )
    train, validation, test = dataset.splits.train, dataset.splits.validation, dataset.splits.test
    edges = [train.start, train.stop, validation.start, validation.stop, test.start, test.stop]
    counts = [np.bincount(dataset.labels[part]).tolist() for part in (train, validation, test)]
    assert (edges, counts) == (GOLDEN_EDGES, GOLDEN_COUNTS)


GOLDEN_SAMPLE = "a30ed2e2e69b4b42a0b3f67216c86a7c0b43bba8ea9578118ca854cec14ee15f"
GOLDEN_EDGES = [0, 13819, 13819, 16762, 16762, 19728]
GOLDEN_COUNTS: list[list[int]] = [[6111, 309, 7399], [1145, 189, 1609], [1479, 63, 1424]]
