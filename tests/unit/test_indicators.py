"""Indicators know only the past, and exactly from which bar on they have a value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ktrdr.data.bars import Bars
from ktrdr.data.sample import sample_bars
from ktrdr.features.indicators import DOORS, compute_indicator, lookback, source_series
from ktrdr.strategy.indicator_types import INDICATOR_CLASSES, Indicator
from ktrdr.strategy.indicators import INDICATORS

ALL_TYPES = sorted(INDICATORS)
BARS = sample_bars(rows=400)


def make(kind: str, **parameters: Any) -> Indicator:
    return INDICATOR_CLASSES[kind].model_validate({"type": kind, **parameters})


def random_indicators(kind: str, count: int = 12) -> list[Indicator]:
    """The defaults, and random parameters that the grammar allows."""
    random = np.random.default_rng(sum(kind.encode()))
    found = [make(kind)]
    for _ in range(count):
        drawn: dict[str, int | float] = {}
        for parameter in INDICATORS[kind].parameters:
            if parameter.is_integer:
                drawn[parameter.name] = int(random.integers(int(parameter.least), 45))
            else:
                drawn[parameter.name] = float(random.uniform(0.5, 4))
        found.append(make(kind, **drawn))
    smallest = {p.name: p.least for p in INDICATORS[kind].parameters}
    return [*found, make(kind, **smallest)]


def values(indicator: Indicator, bars: Bars) -> np.ndarray[Any, np.dtype[np.float64]]:
    """All outputs, one row each."""
    return np.stack(list(compute_indicator(indicator, bars).values()))


def test_what_the_grammar_names_can_be_computed_and_nothing_else() -> None:
    assert set(DOORS) == set(INDICATORS)


@pytest.mark.parametrize("kind", ALL_TYPES)
def test_outputs_are_those_of_the_grammar_in_its_order(kind: str) -> None:
    outputs = compute_indicator(make(kind), BARS)
    assert tuple(outputs) == INDICATORS[kind].outputs
    assert all(array.dtype == np.float64 and len(array) == 400 for array in outputs.values())


@pytest.mark.parametrize("kind", ALL_TYPES)
def test_the_first_value_stands_exactly_at_the_lookback(kind: str) -> None:
    for indicator in random_indicators(kind):
        finite = np.isfinite(values(indicator, BARS)).all(axis=0)
        assert int(finite.argmax()) == lookback(indicator), indicator
        assert finite[lookback(indicator) :].all(), indicator


@pytest.mark.parametrize("kind", ALL_TYPES)
def test_cutting_off_the_future_changes_no_bit(kind: str) -> None:
    for indicator in random_indicators(kind, 4):
        whole = values(indicator, BARS)
        for stop in (lookback(indicator) + 1, 151, 287, 399):
            cut = values(indicator, BARS.rows(0, stop))
            assert cut.tobytes() == np.ascontiguousarray(whole[:, :stop]).tobytes(), indicator


@pytest.mark.parametrize("kind", [kind for kind in ALL_TYPES if INDICATORS[kind].takes_source])
def test_the_source_decides_on_the_series(kind: str) -> None:
    results = set()
    sources = ("open", "high", "low", "close", "hl2", "hlc3", "ohlc4", "volume")
    for source in sources:
        results.add(values(make(kind, source=source), BARS).tobytes())
    assert len(results) == len(sources)
    assert values(make(kind, source="close"), BARS).tobytes() in results


def test_sources_are_the_prices_they_name() -> None:
    row = Bars("X", "1h", np.array([0]), *(np.array([v]) for v in (4.0, 8.0, 2.0, 6.0, 9.0)))
    expected = {"open": 4, "high": 8, "low": 2, "close": 6, "volume": 9, "hl2": 5, "ohlc4": 5}
    assert {name: source_series(row, name)[0] for name in expected} == expected
    assert source_series(row, "hlc3")[0] == pytest.approx(16 / 3)


@pytest.mark.parametrize("kind", ALL_TYPES)
def test_a_market_that_stands_still_gives_numbers(kind: str) -> None:
    still = np.full(200, 1.25)
    stamps = np.arange(200, dtype=np.int64)
    flat = Bars("X", "1h", stamps, still, still, still, still, np.zeros(200))
    sources = ("close", "volume") if INDICATORS[kind].takes_source else (None,)
    for source in sources:
        indicator = make(kind, **({"source": source} if source else {}))
        assert np.isfinite(values(indicator, flat)[:, lookback(indicator) :]).all(), source
