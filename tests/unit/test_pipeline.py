"""Network inputs: named, ordered, complete from the first row on, and blind to the future."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ktrdr.data.sample import sample_bars
from ktrdr.errors import InvalidData
from ktrdr.features.cache import dataset_key
from ktrdr.features.fuzzy import grade
from ktrdr.features.indicators import IndicatorOutputs
from ktrdr.features.pipeline import compute_inputs, input_names
from ktrdr.strategy.loading import config, load_strategy, validate_strategy
from ktrdr.strategy.schema import Strategy

SHIPPED = sorted((Path(__file__).parents[2] / "strategies").glob("*.yaml"))
BARS = sample_bars(rows=900)


def make_strategy(**parts: Any) -> Strategy:
    data: dict[str, Any] = {
        "name": "test",
        "training_data": {
            "symbols": {"symbol": "SAMPLE"},
            "timeframes": {"timeframe": "1h"},
            "history_required": 50,
        },
        "indicators": {"r": {"type": "rsi"}, "a": {"type": "adx", "period": 10}},
        "fuzzy_sets": {
            "strength": {"indicator": "a.plus_di", "weak": [0, 0, 20], "strong": [10, 30, 50, 60]},
            "level": {"indicator": "r", "high": [50, 70, 100], "low": [0, 30, 50]},
            "unused": {"indicator": "r", "x": [0, 1, 2]},
        },
        "nn_inputs": [{"fuzzy_set": "level"}, {"fuzzy_set": "strength"}],
        "model": {"type": "mlp"},
    }
    return validate_strategy(data | parts, "test")


def test_columns_follow_the_inputs_and_then_the_memberships() -> None:
    inputs = compute_inputs(make_strategy(), BARS)
    expected = ("1h_level_high", "1h_level_low", "1h_strength_weak", "1h_strength_strong")
    assert inputs.names == expected == input_names(make_strategy(), "1h")
    assert inputs.matrix.dtype == np.float32
    assert inputs.matrix.flags.c_contiguous


def test_a_strategy_that_went_through_sorted_json_gives_the_same_columns() -> None:
    strategy = make_strategy()
    again = validate_strategy(json.loads(json.dumps(config(strategy), sort_keys=True)), "again")
    there, here = compute_inputs(strategy, BARS), compute_inputs(again, BARS)
    assert there.names == here.names
    assert there.matrix.tobytes() == here.matrix.tobytes()
    assert dataset_key(strategy, BARS) == dataset_key(again, BARS)


def test_each_column_is_its_membership_of_its_indicator() -> None:
    strategy = make_strategy()
    inputs = compute_inputs(strategy, BARS)
    outputs = IndicatorOutputs(strategy.indicators, BARS)
    rsi, plus_di = outputs.series("r"), outputs.series("a.plus_di")
    for column, (series, set_id, name) in enumerate(
        [
            (rsi, "level", "high"),
            (rsi, "level", "low"),
            (plus_di, "strength", "weak"),
            (plus_di, "strength", "strong"),
        ]
    ):
        membership = strategy.fuzzy_sets[set_id].memberships[name]
        expected = grade(membership, series[inputs.warm_up :]).astype(np.float32)
        assert inputs.matrix[:, column].tolist() == expected.tolist()


def test_history_required_is_enforced() -> None:
    for history in (50, 321):
        training_data = {
            "symbols": {"symbol": "SAMPLE"},
            "timeframes": {"timeframe": "1h"},
            "history_required": history,
        }
        inputs = compute_inputs(make_strategy(training_data=training_data), BARS)
        assert (inputs.warm_up, len(inputs.matrix)) == (history, 900 - history)


def test_a_longer_warm_up_goes_before_history_required() -> None:
    strategy = make_strategy(indicators={"r": {"type": "rsi"}, "a": {"type": "adx", "period": 60}})
    assert compute_inputs(strategy, BARS).warm_up == 60


def test_an_indicator_that_feeds_no_input_costs_no_warm_up() -> None:
    more = {"r": {"type": "rsi"}, "a": {"type": "adx"}, "long": {"type": "ema", "period": 500}}
    assert compute_inputs(make_strategy(indicators=more), BARS).warm_up == 50


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_cutting_off_the_future_changes_no_bit_of_any_input(path: Path) -> None:
    strategy = load_strategy(path)
    whole = compute_inputs(strategy, BARS)
    for stop in (whole.warm_up + 1, 400, 733, 899):
        cut = compute_inputs(strategy, BARS.rows(0, stop))
        assert cut.warm_up == whole.warm_up
        assert cut.matrix.tobytes() == whole.matrix[: stop - whole.warm_up].tobytes()


def test_inputs_lie_between_zero_and_one_without_gaps() -> None:
    for path in SHIPPED:
        matrix = compute_inputs(load_strategy(path), BARS).matrix
        assert matrix.min() >= 0
        assert matrix.max() <= 1


def test_too_few_bars_are_refused_with_the_numbers() -> None:
    for rows in (0, 1, 50):
        with pytest.raises(InvalidData, match=f"{rows} bars of SAMPLE 1h are too few.* 50 bars"):
            compute_inputs(make_strategy(), BARS.rows(0, rows))
    assert len(compute_inputs(make_strategy(), BARS.rows(0, 51)).matrix) == 1


def test_prices_that_overflow_are_refused_and_not_passed_on() -> None:
    bars = sample_bars(rows=300)
    bars.close[100:], bars.high[100:] = 1e300, 1e300
    indicators = {"r": {"type": "roc"}, "a": {"type": "bollingerbandwidth"}}
    sets = {"level": {"indicator": "a", "high": [0, 1, 2]}}
    strategy = make_strategy(
        indicators=indicators, fuzzy_sets=sets, nn_inputs=[{"fuzzy_set": "level"}]
    )
    with pytest.raises(InvalidData, match="indicator a has no finite value"):
        compute_inputs(strategy, bars)
