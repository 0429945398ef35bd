"""Network inputs: named, ordered, complete from the first row on, and blind to the future."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markets import market_of

from ktrdr.data.bars import Bars
from ktrdr.data.market import gather, one_series
from ktrdr.data.resampling import resample
from ktrdr.data.sample import sample_bars
from ktrdr.errors import InvalidData
from ktrdr.features.cache import dataset_key
from ktrdr.features.dataset import build_dataset
from ktrdr.features.indicators import IndicatorOutputs
from ktrdr.features.memberships import grade
from ktrdr.features.pipeline import Inputs, compute_inputs, compute_series, fill_matrix
from ktrdr.features.transforms import unfitted
from ktrdr.strategy.input_names import input_groups
from ktrdr.strategy.loading import config, load_strategy, validate_strategy
from ktrdr.strategy.schema import Strategy

SHIPPED = sorted((Path(__file__).parents[2] / "strategies").glob("*.yaml"))
BARS = sample_bars(rows=900)
MARKET = one_series(BARS)


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


def inputs_of(strategy: Strategy, bars: Bars = BARS) -> Inputs:
    return compute_inputs(strategy, one_series(bars), bars.symbol, unfitted(strategy))


def names_of(strategy: Strategy) -> tuple[str, ...]:
    return tuple(name for group in input_groups(strategy) for name in group.input_names)


def test_columns_follow_the_inputs_and_then_the_memberships() -> None:
    inputs = inputs_of(make_strategy())
    expected = ("1h_level_high", "1h_level_low", "1h_strength_weak", "1h_strength_strong")
    assert names_of(make_strategy()) == expected
    assert inputs.matrix.shape == (850, 4)
    assert inputs.matrix.dtype == np.float32
    assert inputs.matrix.flags.c_contiguous


def test_a_strategy_that_went_through_sorted_json_gives_the_same_columns() -> None:
    strategy = make_strategy()
    again = validate_strategy(json.loads(json.dumps(config(strategy), sort_keys=True)), "again")
    there, here = inputs_of(strategy), inputs_of(again)
    assert names_of(strategy) == names_of(again)
    assert there.matrix.tobytes() == here.matrix.tobytes()
    assert dataset_key(strategy, MARKET.fingerprint) == dataset_key(again, MARKET.fingerprint)


def test_each_column_is_its_membership_of_its_indicator() -> None:
    strategy = make_strategy()
    inputs = inputs_of(strategy)
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
        expected = grade(membership, series[inputs.first :]).astype(np.float32)
        assert inputs.matrix[:, column].tolist() == expected.tolist()


def test_history_required_is_enforced() -> None:
    for history in (50, 321):
        training_data = {
            "symbols": {"symbol": "SAMPLE"},
            "timeframes": {"timeframe": "1h"},
            "history_required": history,
        }
        inputs = inputs_of(make_strategy(training_data=training_data))
        assert (inputs.first, len(inputs.matrix)) == (history, 900 - history)


def test_a_longer_warm_up_goes_before_history_required() -> None:
    strategy = make_strategy(indicators={"r": {"type": "rsi"}, "a": {"type": "adx", "period": 60}})
    assert inputs_of(strategy).first == 60  # of plus_di; adx itself takes 119


def test_an_indicator_that_feeds_no_input_costs_no_warm_up() -> None:
    more = {"r": {"type": "rsi"}, "a": {"type": "adx"}, "long": {"type": "ema", "period": 500}}
    assert inputs_of(make_strategy(indicators=more)).first == 50


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_cutting_off_the_future_changes_no_bit_of_any_input(path: Path) -> None:
    strategy = load_strategy(path)
    transforms = build_dataset(strategy, market_of(strategy, sample_bars())).transforms
    whole = compute_inputs(strategy, market_of(strategy, BARS), BARS.symbol, transforms)
    for stop in (whole.first + 1, 500, 733, 899):
        market = market_of(strategy, BARS.rows(0, stop))
        cut = compute_inputs(strategy, market, BARS.symbol, transforms)
        assert cut.first == whole.first
        assert cut.matrix.tobytes() == whole.matrix[: stop - whole.first].tobytes()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_inputs_have_no_gaps_and_grades_lie_between_zero_and_one(path: Path) -> None:
    strategy = load_strategy(path)
    dataset = build_dataset(strategy, market_of(strategy, sample_bars()))
    assert np.isfinite(dataset.inputs).all()
    graded = [
        transform.scaler is None and not transform.crisp
        for transform in dataset.transforms
        for _ in transform.columns
    ]
    assert dataset.inputs[:, graded].min(initial=1) >= 0
    assert dataset.inputs[:, graded].max(initial=0) <= 1


def test_too_few_bars_are_refused_with_the_numbers() -> None:
    for rows in (0, 1, 50):
        with pytest.raises(InvalidData, match=f"{rows} bars of SAMPLE 1h are too few.* 50 bars"):
            inputs_of(make_strategy(), BARS.rows(0, rows))
    assert len(inputs_of(make_strategy(), BARS.rows(0, 51)).matrix) == 1


def test_prices_that_overflow_are_refused_and_not_passed_on() -> None:
    bars = sample_bars(rows=300)
    bars.close[100:], bars.high[100:] = 1e300, 1e300
    indicators = {"r": {"type": "roc"}, "a": {"type": "bollingerbandwidth"}}
    sets = {"level": {"indicator": "a", "high": [0, 1, 2]}}
    strategy = make_strategy(
        indicators=indicators, fuzzy_sets=sets, nn_inputs=[{"fuzzy_set": "level"}]
    )
    with pytest.raises(InvalidData, match="indicator a has no finite value"):
        inputs_of(strategy, bars)


def test_rows_are_the_same_whichever_are_asked_for_together() -> None:
    strategy = make_strategy(
        training_data={
            "symbols": {"symbol": "SAMPLE"},
            "timeframes": {"list": ["1h", "1d"], "mode": "multi_timeframe", "resample": True},
            "history_required": 50,
        },
    )
    bars = sample_bars(rows=20_000)
    by_name = {"1h": bars, "1d": resample(bars, "1d")}
    market = gather(("SAMPLE",), ("1h", "1d"), "1h", lambda _, timeframe: by_name[timeframe])
    transforms = unfitted(strategy)
    whole = compute_inputs(strategy, market, "SAMPLE", transforms)
    series = compute_series(strategy, market, "SAMPLE")
    every = np.arange(whole.first, len(bars))
    random = np.random.default_rng(5)
    some = [every[:1], every[-1:], every[::37], np.sort(random.choice(every, 9_000, False))]
    for rows in some:
        matrix = np.full((len(rows), whole.matrix.shape[1]), np.nan, np.float32)
        fill_matrix(matrix, series, rows, transforms)
        assert matrix.tobytes() == whole.matrix[rows - whole.first].tobytes()
    one_by_one = [
        grade(curve, series.shown(group, every)).astype(np.float32)
        for group, transform in enumerate(transforms)
        for _, curve in transform.memberships
    ]
    assert np.column_stack(one_by_one).tobytes() == whole.matrix.tobytes()
