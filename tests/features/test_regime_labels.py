"""Regimes against a slow reading of their definition, and against markets made by hand."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import talib

from ktrdr.data.bars import Bars
from ktrdr.data.sample import sample_bars
from ktrdr.features.labels import Labels, make_labels
from ktrdr.features.labels.classes import RANGING, TREND_DOWN, TREND_UP, VOLATILE
from ktrdr.features.labels.swings import find_pivots
from ktrdr.strategy.labels import RegimeLabels

Pivot = tuple[int, int, bool]  # place, the bar that makes it known, whether it is a low


def spec(**keys: Any) -> RegimeLabels:
    return RegimeLabels.model_validate({"source": "regime", **keys})


def pivots_by_hand(closes: list[float], distances: list[float]) -> list[Pivot]:
    """Looking for each pivot anew, from the one before."""
    found: list[Pivot] = []
    start = sum(distance != distance for distance in distances)
    place, known, was_low = start, start, None
    while True:
        for at in range(known + 1, len(closes)):
            part = closes[place : at + 1]
            top, low = place + part.index(max(part)), place + part.index(min(part))
            if was_low is not True and closes[low] < closes[at] >= closes[low] + distances[low]:
                found.append((low, at, True))
                break
            if was_low is not False and closes[top] > closes[at] <= closes[top] - distances[top]:
                found.append((top, at, False))
                break
        else:
            return found
        place, known, was_low = found[-1]


def trend_by_hand(
    begin: Pivot, end: Pivot, micro: list[Pivot], closes: list[float], tolerance: float
) -> int:
    """The class of the segment between two macro pivots."""
    inside = [p for p in micro if begin[0] <= p[0] <= end[0] and p[1] <= end[1]]
    if len(inside) < 4:
        return RANGING
    prices = [closes[p[0]] for p in inside if p[2] == begin[2]]
    steps = [b - a if begin[2] else a - b for a, b in itertools.pairwise(prices)]
    if sum(step > 0 for step in steps) / len(steps) < tolerance:
        return RANGING
    return TREND_UP if begin[2] else TREND_DOWN


def regimes_by_hand(bars: Bars, wanted: RegimeLabels) -> dict[int, tuple[int, int]]:
    """Of every bar that has one: its class, and the bar that makes it known."""
    closes = bars.close.tolist()
    ranges = talib.ATR(bars.high, bars.low, bars.close, wanted.atr_period)
    macro = pivots_by_hand(closes, (wanted.macro_atr_mult * ranges).tolist())
    micro = pivots_by_hand(closes, (wanted.micro_atr_mult * ranges).tolist())
    found = {}
    for begin, end in itertools.pairwise(macro):
        trend = trend_by_hand(begin, end, micro, closes, wanted.progression_tolerance)
        for row in range(max(begin[0], wanted.vol_lookback), end[0]):
            if row + wanted.atr_period >= len(closes):
                continue
            ahead = np.diff(np.log(closes[row : row + wanted.atr_period + 1])).std(ddof=1)
            back = np.diff(np.log(closes[row - wanted.vol_lookback : row + 1])).std(ddof=1)
            volatile = back > 0 and ahead > wanted.vol_crisis_threshold * back
            known = max(end[1], row + wanted.atr_period)
            found[row] = (VOLATILE if volatile else trend, known)
    return found


def market(closes: Any, reach: Any) -> Bars:
    closes = np.asarray(closes, dtype=float)
    stamps = np.arange(len(closes), dtype=np.int64)
    return Bars("X", "1h", stamps, closes, closes + reach, closes - reach, closes, closes)


@pytest.mark.parametrize("seed", [2, 5])
@pytest.mark.parametrize(
    "wanted",
    [
        spec(),
        spec(atr_period=5, vol_lookback=40, vol_crisis_threshold=1.5),
        spec(macro_atr_mult=6, micro_atr_mult=0.3, progression_tolerance=0.8, vol_lookback=2),
        spec(macro_atr_mult=1.1, micro_atr_mult=1, atr_period=2, vol_lookback=7),
        spec(atr_period=60, vol_lookback=31, progression_tolerance=1, vol_crisis_threshold=1.2),
        spec(progression_tolerance=0),
    ],
)
def test_a_regime_is_what_its_definition_says(wanted: RegimeLabels, seed: int) -> None:
    bars = sample_bars(rows=1200, seed=seed)
    labels, expected = make_labels(wanted, bars), regimes_by_hand(bars, wanted)
    rows = np.flatnonzero(labels.valid)
    assert rows.tolist() == list(expected)
    assert labels.values[rows].tolist() == [label for label, _ in expected.values()]
    assert labels.known_at[rows].tolist() == [known for _, known in expected.values()]


def uneven_market(seed: int) -> Bars:
    """Still at first; then steps and ranges that change size from bar to bar."""
    random = np.random.Generator(np.random.PCG64(seed))
    steps = 0.004 * random.standard_normal(800) * random.exponential(1.0, 800) ** 2
    steps[:60] = 0
    closes = 100 * np.cumprod(1 + steps.clip(-0.2, 0.2))
    reach = np.where(np.arange(800) < 60, 0.0, random.exponential(1.0, 800) ** 3)
    return market(closes, reach.clip(0, 20))


@pytest.mark.parametrize("seed", [1, 73, 190])
@pytest.mark.parametrize(("atr_period", "macro"), [(2, 2.0), (14, 1.2)])
def test_a_regime_is_that_in_a_market_of_changing_size(
    seed: int, atr_period: int, macro: float
) -> None:
    """Here a small swing may become known after the large one around it."""
    wanted = spec(
        macro_atr_mult=macro, atr_period=atr_period, vol_lookback=30, progression_tolerance=0.8
    )
    bars = uneven_market(seed)
    labels, expected = make_labels(wanted, bars), regimes_by_hand(bars, wanted)
    rows = np.flatnonzero(labels.valid)
    assert rows.tolist() == list(expected)
    assert labels.values[rows].tolist() == [label for label, _ in expected.values()]
    assert labels.known_at[rows].tolist() == [known for _, known in expected.values()]


def test_a_still_market_makes_no_pivot_known() -> None:
    still = np.full(50, 3.5)
    for pivots in (find_pivots(still), find_pivots(still, distances=np.zeros(50))):
        assert len(pivots.indices) == len(pivots.known) == len(pivots.rising) == 0


def test_all_regimes_occur_so_that_the_comparison_means_something() -> None:
    wanted = spec(atr_period=5, vol_lookback=40, vol_crisis_threshold=1.5)
    labels = make_labels(wanted, sample_bars(rows=1200, seed=5))
    assert np.bincount(labels.values[labels.valid], minlength=4).min() > 40


def share_of(labels: Labels, regime: int) -> float:
    return float((labels.values[labels.valid] == regime).mean())


@pytest.mark.parametrize(("slope", "regime"), [(0.4, TREND_UP), (-0.4, TREND_DOWN)])
def test_waves_on_a_slope_are_a_trend(slope: float, regime: int) -> None:
    """A way there and back, so that the trend has an end that is known."""
    place = np.arange(400)
    way = np.where(place < 300, place, 600 - place) * slope
    labels = make_labels(spec(vol_lookback=20), market(300 + way + 3 * np.sin(place / 3), 0.5))
    assert share_of(labels, regime) > 0.9


def test_waves_that_lead_nowhere_are_a_range() -> None:
    place = np.arange(400)
    closes = 300 + 20 * np.sin(place / 20) + 0.1 * np.sin(place)
    labels = make_labels(spec(vol_crisis_threshold=50), market(closes, 2.0))
    assert labels.valid.sum() > 200
    assert share_of(labels, RANGING) == 1.0


def test_a_crisis_is_volatile_before_it_begins_and_whatever_the_trend() -> None:
    random = np.random.Generator(np.random.PCG64(1))
    sizes = np.where((np.arange(600) >= 300) & (np.arange(600) < 330), 0.03, 0.003)
    closes = 100 * np.cumprod(1 + sizes * random.standard_normal(600))
    labels = make_labels(spec(), market(closes, 0.3))
    volatile = np.flatnonzero(labels.valid & (labels.values == VOLATILE))
    assert set(range(290, 312)) <= set(volatile.tolist())
    assert volatile.min() > 280
    assert volatile.max() < 330


def test_a_first_move_after_a_still_market_is_no_crisis() -> None:
    """There is nothing to measure it by."""
    place = np.arange(400)
    closes = np.where(place < 200, 100.0, 100 + 5 * np.sin((place - 199) / 4))
    labels = make_labels(spec(vol_lookback=50), market(closes, 0.5))
    assert not (labels.values[:200] == VOLATILE).any()
