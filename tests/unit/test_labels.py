"""Labels against a slow, obvious walk along the path, and against paths made by hand."""

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
from ktrdr.errors import InvalidData
from ktrdr.features.labels import (
    BUY,
    CLASS_NAMES,
    HOLD,
    SELL,
    Labels,
    LabelSpec,
    class_names,
    make_labels,
)
from ktrdr.strategy.labels import ForwardReturnLabels, TripleBarrierLabels, ZigzagLabels


def spec(**keys: Any) -> TripleBarrierLabels:
    return TripleBarrierLabels.model_validate({"source": "triple_barrier", **keys})


def zigzag_of(closes: list[float], threshold: float) -> Labels:
    prices = np.array(closes)
    stamps = np.arange(len(closes), dtype=np.int64)
    bars = Bars("X", "1h", stamps, prices, prices, prices, prices, prices)
    return make_labels(ZigzagLabels(zigzag_threshold=threshold), bars)


def bars_of(rows: list[tuple[float, float, float, float]]) -> Bars:
    prices = [np.array(column) for column in zip(*rows, strict=True)]
    stamps = np.arange(len(rows), dtype=np.int64)
    return Bars("X", "1h", stamps, prices[0], prices[1], prices[2], prices[3], prices[0])


def test_the_classes_have_their_numbers() -> None:
    assert (CLASS_NAMES[BUY], CLASS_NAMES[HOLD], CLASS_NAMES[SELL]) == ("BUY", "HOLD", "SELL")
    assert (BUY, HOLD, SELL) == (0, 1, 2)


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


def walk(bars: Bars, row: int, volatility: float, wanted: TripleBarrierLabels) -> int | None:
    """The label of one bar by the words of the definition; None: no label."""
    hold, close = wanted.max_holding_period, bars.close[row]
    if math.isnan(volatility) or row + hold >= len(bars):
        return None
    upper = close * (1 + wanted.pt_multiplier * volatility)
    lower = close * (1 - wanted.sl_multiplier * volatility)
    for at in range(row + 1, row + hold + 1):
        above, below = bars.high[at] >= upper, bars.low[at] <= lower
        if above and below:
            change = bars.close[at] - bars.open[at]
            return BUY if change > 0 else SELL if change < 0 else HOLD
        if above or below:
            return BUY if above else SELL
    change = bars.close[row + hold] / close - 1
    if abs(change) < volatility * math.sqrt(hold) * 0.5:
        return HOLD
    return BUY if change > 0 else SELL if change < 0 else HOLD


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
    walked = [walk(bars, row, v, wanted) for row, v in enumerate(volatilities(bars, wanted))]
    assert labels.valid.tolist() == [label is not None for label in walked]
    assert labels.values[labels.valid].tolist() == [label for label in walked if label is not None]
    assert labels.valid.sum() >= 300


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
        ([(10, 10.5, 9.5, 10)] * 4 + [(10, 100, 10, 100)], HOLD),
    ],
)
def test_paths_made_by_hand(future: list[tuple[float, float, float, float]], expected: int) -> None:
    """Close 10 and a true range of 1 before: barriers at 12 and 8, expiry after 4 bars at +-1."""
    past = [(10.0, 10.5, 9.5, 10.0)] * 3
    bars = bars_of([*past, *future, *[(10.0, 10.5, 9.5, 10.0)] * 4])
    wanted = spec(pt_multiplier=2, sl_multiplier=2, max_holding_period=4, vol_span=2)
    assert make_labels(wanted, bars).values[2] == expected


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


def returns_over(horizon: int) -> ForwardReturnLabels:
    return ForwardReturnLabels(source="forward_return", horizon=horizon)


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


@pytest.mark.parametrize(
    "wanted",
    [spec(max_holding_period=12), spec(vol_method="close"), ZigzagLabels(), returns_over(7)],
)
def test_a_label_depends_on_no_bar_after_the_one_it_is_known_at(
    wanted: LabelSpec,
) -> None:
    bars = sample_bars(rows=600, seed=5)
    labels = make_labels(wanted, bars)
    known = labels.known_at[labels.valid]
    assert (np.diff(known) >= 0).all()
    assert (known >= np.flatnonzero(labels.valid)).all()
    for edge in (250, 333, 480):
        factor = np.where(np.arange(600) < edge, 1.0, 0.3 + edge % 7)
        later = replace(
            bars,
            open=bars.open * factor,
            high=bars.high * factor,
            low=bars.low * factor,
            close=bars.close * factor,
        )
        changed = make_labels(wanted, later)
        safe = labels.valid & (labels.known_at < edge)
        assert safe.sum() > 100
        assert changed.values[safe].tolist() == labels.values[safe].tolist()
