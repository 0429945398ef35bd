"""Triple-barrier labels against a slow, obvious walk along the path, and paths made by hand."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import talib

from ktrdr.data.bars import Bars
from ktrdr.data.sample import sample_bars
from ktrdr.features.labels import make_labels
from ktrdr.features.labels.classes import BUY, HOLD, SELL
from ktrdr.strategy.labels import TripleBarrierLabels


def spec(**keys: Any) -> TripleBarrierLabels:
    return TripleBarrierLabels.model_validate({"source": "triple_barrier", **keys})


def bars_of(rows: list[tuple[float, float, float, float]]) -> Bars:
    prices = [np.array(column) for column in zip(*rows, strict=True)]
    stamps = np.arange(len(rows), dtype=np.int64)
    return Bars("X", "1h", stamps, prices[0], prices[1], prices[2], prices[3], prices[0])


def volatilities(bars: Bars, wanted: TripleBarrierLabels) -> list[float]:
    """Per bar, by the definition, from that bar's past alone."""
    closes = bars.close.tolist()
    if wanted.vol_method == "atr":
        ranges = talib.ATR(bars.high, bars.low, bars.close, wanted.vol_span).tolist()
        return [r / c for r, c in zip(ranges, closes, strict=True)]
    decay, found = 1 - 2 / (wanted.vol_span + 1), []
    returns = [b / a - 1 for a, b in itertools.pairwise(closes)]
    for row in range(len(closes)):
        past = returns[:row]
        if len(past) < wanted.vol_span:
            found.append(math.nan)
            continue
        weights = [decay ** (len(past) - 1 - i) for i in range(len(past))]
        total = sum(weights)
        mean = sum(w * r for w, r in zip(weights, past, strict=True)) / total
        spread = sum(w * (r - mean) ** 2 for w, r in zip(weights, past, strict=True)) / total
        bias = total * total / (total * total - sum(w * w for w in weights))
        found.append(math.sqrt(spread * bias))
    return found


def walk(
    bars: Bars, row: int, volatility: float, wanted: TripleBarrierLabels
) -> tuple[int | None, int]:
    """The label of one bar by the words of the definition and the bar that decides it.

    None: no label yet; the bar is then behind the last one.
    """
    hold, close = wanted.max_holding_period, bars.close[row]
    upper = close * (1 + wanted.pt_multiplier * volatility)
    lower = close * (1 - wanted.sl_multiplier * volatility)
    for at in range(row + 1, min(row + hold + 1, len(bars))):
        above, below = bars.high[at] >= upper, bars.low[at] <= lower
        if above and below:
            change = bars.close[at] - bars.open[at]
            return BUY if change > 0 else SELL if change < 0 else HOLD, at
        if above or below:
            return BUY if above else SELL, at
    if row + hold >= len(bars):
        return None, len(bars)
    change = bars.close[row + hold] / close - 1
    if abs(change) < volatility * math.sqrt(hold) * 0.5:
        return HOLD, row + hold
    return BUY if change > 0 else SELL if change < 0 else HOLD, row + hold


def walk_all(
    bars: Bars, wanted: TripleBarrierLabels, events: set[int] | None = None
) -> dict[int, tuple[int | None, int]]:
    """Label and deciding bar of every bar at which one begins."""
    return {
        row: walk(bars, row, volatility, wanted)
        for row, volatility in enumerate(volatilities(bars, wanted))
        if volatility > 0 and (events is None or row in events)
    }


@pytest.mark.parametrize(
    "wanted",
    [
        spec(),
        spec(vol_method="close"),
        spec(pt_multiplier=0.3, sl_multiplier=0.2, max_holding_period=5, vol_span=10),
        spec(pt_multiplier=8, sl_multiplier=8, max_holding_period=30, vol_span=5),
        spec(pt_multiplier=1, sl_multiplier=500, max_holding_period=1, vol_span=2),
    ],
)
def test_triple_barrier_is_the_walk_along_the_path(wanted: TripleBarrierLabels) -> None:
    bars = sample_bars(rows=400, seed=11)
    labels = make_labels(wanted, bars)
    final = {r: x for r, (x, _) in walk_all(bars, wanted).items() if r + wanted.horizon < 400}
    assert np.flatnonzero(labels.valid).tolist() == list(final)
    assert labels.values[labels.valid].tolist() == list(final.values())
    assert labels.valid.sum() >= 300


@pytest.mark.parametrize("hold", [1, 2, 3, 7, 8, 9, 100])
def test_bars_beyond_one_stretch_are_searched_alike(
    hold: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = sample_bars(rows=500, seed=12)
    wanted = spec(pt_multiplier=3, sl_multiplier=3, max_holding_period=hold, vol_span=5)
    whole = make_labels(wanted, bars)
    monkeypatch.setattr("ktrdr.features.labels.barriers._STRETCH", 16)
    parts = make_labels(wanted, bars)
    assert parts.values.tolist() == whole.values.tolist()
    final = {r: x for r, (x, _) in walk_all(bars, wanted).items() if r + hold < 500}
    assert whole.values[whole.valid].tolist() == list(final.values())


def test_barriers_out_of_all_reach_are_never_met() -> None:
    bars = sample_bars(rows=400, seed=11)
    labels = make_labels(spec(pt_multiplier=1e308, sl_multiplier=1e308), bars)
    changes = bars.close[50:] / bars.close[:-50] - 1
    assert labels.valid.sum() == 300
    assert (labels.values[50:350] == np.where(changes[50:] > 0, BUY, SELL)).sum() > 100
    assert not (labels.values[50:350] == np.where(changes[50:] > 0, SELL, BUY)).any()


def test_all_classes_occur_on_the_walk_so_that_the_comparison_means_something() -> None:
    labels = make_labels(spec(pt_multiplier=8, sl_multiplier=8), sample_bars(rows=400, seed=11))
    assert np.bincount(labels.values[labels.valid], minlength=3).min() > 5


@pytest.mark.parametrize(
    ("future", "expected"),
    [
        ([(10, 13, 10, 12)], BUY),
        ([(10, 10, 7, 8)], SELL),
        ([(10, 10.5, 9.5, 10), (10, 13, 10, 12)], BUY),
        ([(9, 13, 7, 12)], BUY),
        ([(11, 13, 7, 8)], SELL),
        ([(10, 13, 7, 10)], HOLD),
        ([(10, 10.5, 9.5, 10)] * 4, HOLD),
        ([(10, 10.5, 9.5, 10)] * 3 + [(10, 11.5, 10, 11.4)], BUY),
        ([(10, 10.5, 9.5, 10)] * 3 + [(10, 10, 8.6, 8.7)], SELL),
        ([(10, 10.5, 9.5, 10)] * 3 + [(10, 13, 9.5, 9.5)], BUY),
        ([(10, 12, 10, 10)], BUY),
        ([(10, 10, 8, 10)], SELL),
        ([(10, 10.5, 9.5, 10)] * 4 + [(10, 100, 10, 100)], HOLD),
    ],
)
def test_paths_made_by_hand(future: list[tuple[float, float, float, float]], expected: int) -> None:
    """Close 10 and a true range of 1 before: barriers at 12 and 8, expiry after 4 bars at +-1."""
    past = [(10.0, 10.5, 9.5, 10.0)] * 3
    bars = bars_of([*past, *future, *[(10.0, 10.5, 9.5, 10.0)] * 4])
    wanted = spec(pt_multiplier=2, sl_multiplier=2, max_holding_period=4, vol_span=2)
    assert make_labels(wanted, bars).values[2] == expected


def events_by_snippet(closes: list[float], thresholds: list[float]) -> set[int]:
    """Lopez de Prado's snippet 2.4, from the first bar with a threshold on."""
    start = next(i for i, h in enumerate(thresholds) if not math.isnan(h))
    rises, falls, found = 0.0, 0.0, set()
    for place in range(start + 1, len(closes)):
        change = math.log(closes[place]) - math.log(closes[place - 1])
        rises, falls = max(0.0, rises + change), min(0.0, falls + change)
        if falls < -thresholds[place]:
            falls = 0.0
            found.add(place)
        if rises > thresholds[place]:
            rises = 0.0
            found.add(place)
    return found


def events_of(bars: Bars, wanted: TripleBarrierLabels) -> set[int]:
    known = np.array(volatilities(bars, wanted))
    if wanted.cusum_threshold == "auto":
        thresholds = wanted.cusum_multiplier * known
    else:
        thresholds = np.where(np.isnan(known), np.nan, float(wanted.cusum_threshold or 0))
    return events_by_snippet(bars.close.tolist(), thresholds.tolist())


@pytest.mark.parametrize(
    ("wanted", "share"),
    [
        (spec(cusum_threshold=0.004, max_holding_period=10), 0.4),
        (spec(cusum_threshold=0.02, max_holding_period=10), 0.05),
        (spec(cusum_threshold="auto"), 0.3),
        (spec(cusum_threshold="auto", cusum_multiplier=3, vol_method="close"), 0.05),
    ],
)
def test_only_the_events_of_the_cusum_filter_are_samples(
    wanted: TripleBarrierLabels, share: float
) -> None:
    bars = sample_bars(rows=600, seed=13)
    every = make_labels(wanted.model_copy(update={"cusum_threshold": None}), bars)
    labels = make_labels(wanted, bars)
    events = events_of(bars, wanted)
    assert share * every.valid.sum() < labels.valid.sum() < every.valid.sum()
    expected = [row for row in np.flatnonzero(every.valid).tolist() if row in events]
    assert np.flatnonzero(labels.valid).tolist() == expected
    assert labels.values[expected].tolist() == every.values[expected].tolist()


def test_a_threshold_that_is_never_passed_leaves_no_sample() -> None:
    labels = make_labels(spec(cusum_threshold=1, compute_weights=True), sample_bars(rows=300))
    assert not labels.valid.any()
    assert labels.weights is not None
    assert not labels.weights.any()


def uniqueness_by_hand(lives: dict[int, int], count: int) -> dict[int, float]:
    """Mean of 1 / (labels alive) over entry + 1 .. end, bar by bar."""
    alive = [sum(row < at <= end for row, end in lives.items()) for at in range(count)]
    return {
        row: sum(1 / alive[at] for at in range(row + 1, end + 1)) / (end - row)
        for row, end in lives.items()
        if end < count
    }


@pytest.mark.parametrize(
    "wanted",
    [
        spec(compute_weights=True),
        spec(compute_weights=True, pt_multiplier=9, sl_multiplier=9, vol_method="close"),
        spec(compute_weights=True, cusum_threshold=0.01, max_holding_period=20),
    ],
)
def test_a_weight_is_the_average_uniqueness(wanted: TripleBarrierLabels) -> None:
    bars = sample_bars(rows=300, seed=14)
    labels = make_labels(wanted, bars)
    events = None if wanted.cusum_threshold is None else events_of(bars, wanted)
    lives = {row: end for row, (_, end) in walk_all(bars, wanted, events).items()}
    unique = uniqueness_by_hand(lives, len(bars))
    assert labels.weights is not None
    rows = np.flatnonzero(labels.valid)
    assert len(rows) > 10
    assert labels.weights[rows] == pytest.approx([unique[row] for row in rows.tolist()], rel=1e-6)
    assert (labels.weights[rows] > 0).all()
    assert (labels.weights[rows] <= 1).all()
    assert not labels.weights[~labels.valid].any()


def test_labels_that_do_not_overlap_weigh_one() -> None:
    labels = make_labels(spec(compute_weights=True, max_holding_period=1), sample_bars(rows=200))
    assert labels.weights is not None
    assert set(labels.weights[labels.valid].tolist()) == {1.0}


def test_a_weight_is_final_at_the_bar_that_decides_the_label() -> None:
    """Long before the label counts as known: what follows, and begins then, changes nothing."""
    bars = sample_bars(rows=400, seed=15)
    wanted = spec(compute_weights=True)
    labels = make_labels(wanted, bars)
    assert labels.weights is not None
    ends = {row: end for row, (_, end) in walk_all(bars, wanted).items()}
    for edge in (150, 222, 300):
        factor = np.where(np.arange(400) < edge, 1.0, 1.5)
        prices = {name: getattr(bars, name) * factor for name in ("open", "high", "low", "close")}
        again = make_labels(wanted, replace(bars, **prices))
        assert again.weights is not None
        decided = [row for row, end in ends.items() if end < edge]
        assert max(decided) + 50 > edge
        assert again.weights[decided].tolist() == labels.weights[decided].tolist()


def test_without_compute_weights_there_are_none() -> None:
    assert make_labels(spec(), sample_bars(rows=200)).weights is None
