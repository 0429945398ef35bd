"""Labels against slow, obvious definitions, and what all sources promise."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from ktrdr.data.bars import Bars
from ktrdr.data.sample import sample_bars
from ktrdr.errors import InvalidData, InvalidStrategy
from ktrdr.features.labels import Labels, LabelSpec, class_names, make_labels
from ktrdr.features.labels.classes import BUY, HOLD, SELL
from ktrdr.strategy import labels as strategy_labels
from ktrdr.strategy.labels import ZigzagLabels
from ktrdr.strategy.loading import config, load_strategy, validate_strategy


def spec(source: str, **keys: Any) -> LabelSpec:
    checked: LabelSpec = TypeAdapter(strategy_labels.Labels).validate_python(
        {"source": source, **keys}
    )
    return checked


def zigzag_of(closes: list[float], threshold: float) -> Labels:
    prices = np.array(closes)
    stamps = np.arange(len(closes), dtype=np.int64)
    bars = Bars("X", "1h", stamps, prices, prices, prices, prices, prices)
    return make_labels(ZigzagLabels(zigzag_threshold=threshold), bars)


def test_the_classes_have_their_numbers() -> None:
    assert class_names(spec("zigzag")) == ("BUY", "HOLD", "SELL")
    assert class_names(spec("triple_barrier")) == ("BUY", "HOLD", "SELL")
    assert class_names(spec("context")) == ("BULLISH", "BEARISH", "NEUTRAL")
    assert class_names(spec("regime")) == ("TREND_UP", "TREND_DOWN", "RANGING", "VOLATILE")
    assert (BUY, HOLD, SELL) == (0, 1, 2)


def zigzag_by_hand(closes: list[float], threshold: float) -> list[tuple[int, int]]:
    """(pivot, bar that made it known), looking for each pivot anew from the one before."""
    found: list[tuple[int, int]] = []
    start, rising = 0, None
    while True:
        for at in range(start + 1, len(closes)):
            part = closes[start : at + 1]
            top, foot = max(part), min(part)
            if rising is not False and closes[at] <= top * (1 - threshold):
                found.append((start + part.index(top), at))
                rising = False
                break
            if rising is not True and closes[at] >= foot * (1 + threshold):
                found.append((start + part.index(foot), at))
                rising = True
                break
        else:
            return found
        start = found[-1][0]


@pytest.mark.parametrize("threshold", [0.005, 0.02, 0.06])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_zigzag_is_the_slow_search_for_pivots(threshold: float, seed: int) -> None:
    closes = sample_bars(rows=1500, seed=seed).close.tolist()
    labels, pivots = zigzag_of(closes, threshold), zigzag_by_hand(closes, threshold)
    assert len(pivots) > 5
    assert np.flatnonzero(labels.valid).tolist() == list(range(pivots[0][0], pivots[-1][0] + 1))
    for (pivot, known), (following, known_later) in itertools.pairwise(pivots):
        between = slice(pivot + 1, following)
        expected = BUY if closes[following] > closes[pivot] else SELL
        assert labels.values[pivot] == HOLD
        assert labels.known_at[pivot] == known
        assert set(labels.values[between].tolist()) <= {expected}
        assert set(labels.known_at[between].tolist()) <= {known_later}


def test_a_zigzag_made_by_hand() -> None:
    closes = [100, 99, 95, 97, 103, 110, 108, 112, 104, 101, 100, 105, 108.0]
    labels = zigzag_of(closes, 0.05)
    # 100 -> 95 is known as a fall at bar 2, so that bar 0 is the first pivot.
    assert labels.valid.tolist() == [True] * 11 + [False] * 2
    expected = [HOLD, SELL, HOLD, BUY, BUY, BUY, BUY, HOLD, SELL, SELL, HOLD]
    assert labels.values[:11].tolist() == expected
    assert labels.known_at[:11].tolist() == [2, 4, 4, 8, 8, 8, 8, 8, 11, 11, 11]


def test_a_market_without_a_swing_has_no_label() -> None:
    assert not zigzag_of([100.0] * 50, 0.02).valid.any()
    assert not zigzag_of([100 + i % 2 for i in range(50)], 0.02).valid.any()


def returns_over(horizon: int) -> LabelSpec:
    return spec("forward_return", horizon=horizon)


@pytest.mark.parametrize("horizon", [1, 20, 99])
def test_a_forward_return_is_the_change_of_the_close(horizon: int) -> None:
    bars = sample_bars(rows=100, seed=4)
    labels = make_labels(returns_over(horizon), bars)
    closes = bars.close.tolist()
    expected = [closes[row + horizon] / closes[row] - 1 for row in range(100 - horizon)]
    assert labels.values.dtype == np.float32
    assert labels.values[labels.valid].tolist() == [float(np.float32(x)) for x in expected]
    assert np.flatnonzero(labels.valid).tolist() == list(range(100 - horizon))
    assert (labels.known_at - np.arange(100) == horizon).all()
    assert class_names(returns_over(horizon)) == ()


@pytest.mark.parametrize("rows", [0, 1, 20])
def test_a_forward_return_beyond_the_last_bar_is_no_label(rows: int) -> None:
    labels = make_labels(returns_over(20), sample_bars(rows=20).rows(0, rows))
    assert len(labels.values) == rows
    assert not labels.valid.any()


def test_a_return_that_float32_cannot_hold_is_refused_with_its_row() -> None:
    bars = sample_bars(rows=50)
    bars.close[30] = bars.high[30] = 1e300
    with pytest.raises(InvalidData, match=r"SAMPLE 1h changes too much .* of row 25"):
        make_labels(returns_over(5), bars)


@pytest.mark.parametrize("keys", [{}, {"bullish_threshold": 0.01}, {"horizon": 1}])
def test_a_context_is_the_class_of_the_change_of_the_close(keys: dict[str, float]) -> None:
    bars = sample_bars(rows=400, seed=4)
    labels = make_labels(spec("context", **keys), bars)
    horizon, bullish = int(keys.get("horizon", 5)), keys.get("bullish_threshold", 0.005)
    expected = []
    for before, after in zip(bars.close, bars.close[horizon:], strict=False):
        change = after / before - 1
        expected.append(0 if change >= bullish else 1 if change <= -0.005 else 2)
    assert labels.values[labels.valid].tolist() == expected
    assert np.bincount(expected, minlength=3).min() > 20
    assert np.flatnonzero(labels.valid).tolist() == list(range(400 - horizon))


def test_a_change_of_exactly_the_threshold_is_bullish_or_bearish() -> None:
    closes = np.array([100.0, 150.0, 75.0, 100.0])
    bars = Bars("X", "1h", np.arange(4), closes, closes, closes, closes, closes)
    wanted = spec("context", horizon=1, bullish_threshold=0.5, bearish_threshold=-0.5)
    assert make_labels(wanted, bars).values[:3].tolist() == [0, 1, 2]


EVERY_SOURCE = [
    spec("zigzag"),
    spec("zigzag", zigzag_threshold=0.005),
    spec("triple_barrier", max_holding_period=12),
    spec("triple_barrier", vol_method="close", compute_weights=True),
    spec("triple_barrier", compute_weights=True, cusum_threshold=0.01, max_holding_period=30),
    spec("triple_barrier", compute_weights=True, cusum_threshold="auto", cusum_multiplier=2),
    spec("forward_return", horizon=7),
    spec("context"),
    spec("regime", vol_lookback=30),
    spec("regime", macro_atr_mult=6, micro_atr_mult=0.3, atr_period=40, vol_lookback=20),
]


def weights_of(labels: Labels, rows: Any) -> list[float]:
    return [] if labels.weights is None else labels.weights[rows].tolist()


def with_another_future(bars: Bars, edge: int) -> Bars:
    """From `edge` on, everything is different; the bars before are the same."""
    factor = np.where(np.arange(len(bars)) < edge, 1.0, 0.3 + edge % 7)
    factor *= np.where(np.arange(len(bars)) < edge, 1.0, 1 + np.arange(len(bars)) % 3 / 50)
    prices = ("open", "high", "low", "close")
    return replace(bars, **{name: getattr(bars, name) * factor for name in prices})


@pytest.mark.parametrize("wanted", EVERY_SOURCE)
def test_no_label_or_weight_depends_on_a_bar_after_the_one_it_is_known_at(
    wanted: LabelSpec,
) -> None:
    bars = sample_bars(rows=700, seed=5)
    labels = make_labels(wanted, bars)
    for edge in (250, 333, 480, 600):
        safe = labels.valid & (labels.known_at < edge)
        assert safe.sum() > 10
        for changed in (bars.rows(0, edge), with_another_future(bars, edge)):
            again = make_labels(wanted, changed)
            rows = np.flatnonzero(safe)
            assert again.valid[rows].all()
            assert again.values[rows].tolist() == labels.values[rows].tolist()
            assert again.known_at[rows].tolist() == labels.known_at[rows].tolist()
            assert weights_of(again, rows) == weights_of(labels, rows)


@pytest.mark.parametrize("wanted", EVERY_SOURCE)
def test_the_bar_that_a_label_is_known_at_makes_it_valid(wanted: LabelSpec) -> None:
    bars = sample_bars(rows=700, seed=5)
    labels = make_labels(wanted, bars)
    rows = np.flatnonzero(labels.valid)
    for row in rows[:: max(1, len(rows) // 40)]:
        known = int(labels.known_at[row])
        assert not make_labels(wanted, bars.rows(0, known)).valid[row:].any()
        assert make_labels(wanted, bars.rows(0, known + 1)).valid[row]


@pytest.mark.parametrize("wanted", EVERY_SOURCE)
def test_later_bars_are_known_later_and_none_looks_further_than_its_horizon(
    wanted: LabelSpec,
) -> None:
    labels = make_labels(wanted, sample_bars(rows=700, seed=6))
    rows = np.flatnonzero(labels.valid)
    known = labels.known_at[rows]
    assert len(rows) > 20
    assert (np.diff(known) >= 0).all()
    assert (known > rows).all()
    assert wanted.horizon is None or (known - rows <= wanted.horizon).all()


@pytest.mark.parametrize("wanted", EVERY_SOURCE)
@pytest.mark.parametrize("rows", [*range(6), 13, 14, 15, 20, 40, 50, 51])
def test_too_few_bars_have_no_label(wanted: LabelSpec, rows: int) -> None:
    labels = make_labels(wanted, sample_bars(rows=60).rows(0, rows))
    assert len(labels.values) == len(labels.valid) == len(labels.known_at) == rows
    assert labels.weights is None or len(labels.weights) == rows
    assert (labels.known_at[labels.valid] < rows).all()


@pytest.mark.parametrize("wanted", EVERY_SOURCE)
def test_a_market_that_never_moves_has_no_swing_no_barrier_and_no_change(
    wanted: LabelSpec,
) -> None:
    prices = np.full(400, 7.25)
    bars = Bars("X", "1h", np.arange(400), prices, prices, prices, prices, prices)
    labels = make_labels(wanted, bars)
    if wanted.source in ("forward_return", "context"):
        still = 0.0 if wanted.source == "forward_return" else 2
        assert set(labels.values[labels.valid].tolist()) == {still}
        assert labels.valid.sum() == 400 - (wanted.horizon or 0)
    else:
        assert not labels.valid.any()


@pytest.mark.parametrize("wanted", EVERY_SOURCE)
def test_wild_prices_give_no_warning(wanted: LabelSpec) -> None:
    bars = sample_bars(rows=400, seed=9)
    factor = np.where(np.arange(400) % 50 == 20, 1e290, 1.0)
    if wanted.source != "forward_return":
        bars = replace(bars, close=bars.close * factor, high=bars.high * factor)
    labels = make_labels(wanted, bars)
    assert (labels.known_at[labels.valid] < 400).all()


@pytest.mark.parametrize(
    ("source", "keys", "told"),
    [
        ("context", {"bullish_threshold": -0.01}, "-0.01 must be above bearish_threshold -0.005"),
        ("context", {"bullish_threshold": 0.1, "bearish_threshold": 0.1}, "raise the one"),
        ("context", {"horizon": 0}, "greater than or equal to 1"),
        ("regime", {"macro_atr_mult": 1}, "macro_atr_mult 1.0 must be above micro_atr_mult 1.0"),
        ("regime", {"progression_tolerance": 1.1}, "less than or equal to 1"),
        ("regime", {"vol_lookback": 1}, "greater than or equal to 2"),
        ("triple_barrier", {"cusum_threshold": 0}, "a log return above 0 and at most 1, or auto"),
        ("triple_barrier", {"cusum_threshold": True}, "or auto for cusum_multiplier times"),
        ("triple_barrier", {"cusum_threshold": "1%"}, "or auto for cusum_multiplier times"),
        ("triple_barrier", {"cusum_threshold": float("nan")}, "a log return above 0"),
        ("triple_barrier", {"cusum_threshold": [1]}, "a log return above 0"),
        ("triple_barrier", {"cusum_multiplier": 2}, "is for cusum_threshold: auto; say that, or"),
        ("triple_barrier", {"compute_weights": "much"}, "valid boolean"),
        ("regimes", {}, "zigzag, triple_barrier, forward_return, context or regime"),
    ],
)
def test_a_wrong_range_is_refused_with_what_to_change(
    source: str, keys: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        spec(source, **keys)
    assert len(refused.value.errors()) == 1
    assert told in refused.value.errors()[0]["msg"]


def test_checked_labels_are_read_back_as_they_were_said() -> None:
    for wanted in EVERY_SOURCE:
        assert spec(**wanted.model_dump(mode="json", exclude_none=True)) == wanted


MIGRATES = "(ktrdr strategies migrate does it)"


def test_every_wrong_label_key_is_named_at_its_place() -> None:
    data = config(load_strategy(Path(__file__).parents[2] / "strategies" / "trend_follower.yaml"))
    data["training"]["labels"] = {
        "source": "triple_barrier",
        "cusum_threshold": -1,
        "cusum_multipler": 1,
        "max_holding_bars": 3,
        "atr_period": 14,
    }
    with pytest.raises(InvalidStrategy) as refused:
        validate_strategy(data, "x.yaml")
    problems = refused.value.details["problems"]
    assert {p["path"]: p["message"].partition("; ")[2] for p in problems} == {
        "training.labels.cusum_threshold": "",
        "training.labels.cusum_multipler": "did you mean cusum_multiplier?",
        "training.labels.max_holding_bars": f"say max_holding_period {MIGRATES}",
        "training.labels.atr_period": f"say vol_span {MIGRATES}",
    }
    data["training"]["labels"] = {"source": "regime", "atr_period": 20}
    validate_strategy(data, "x.yaml")
