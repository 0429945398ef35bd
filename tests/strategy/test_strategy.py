"""What a strategy file may say, and how every mistake in it is named."""

from __future__ import annotations

import copy
import datetime
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr.errors import InvalidStrategy, StrategyNotFound
from ktrdr.strategy.differences import differences
from ktrdr.strategy.indicators import INDICATORS
from ktrdr.strategy.loading import (
    config,
    fingerprint,
    load_strategy,
    parse_strategy,
    validate_strategy,
    with_overrides,
)
from ktrdr.strategy.warnings import notes

SHIPPED = sorted((Path(__file__).parents[2] / "strategies").glob("*.yaml"))
SHIPPED_BY_NAME = {path.stem: path for path in SHIPPED}


@pytest.fixture
def data() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(SHIPPED[-1].read_text())
    return content


def problems(data: Any) -> dict[str, str]:
    with pytest.raises(InvalidStrategy) as caught:
        validate_strategy(data, "x.yaml")
    found: list[dict[str, str]] = caught.value.details["problems"]
    return {problem["path"]: problem["message"] for problem in found}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_every_shipped_strategy_loads_and_survives_its_own_dump(path: Path) -> None:
    strategy = load_strategy(path)
    assert strategy.name == path.stem
    assert validate_strategy(json.loads(json.dumps(config(strategy))), "again") == strategy


def test_an_indicator_is_printed_as_what_it_is(data: dict[str, Any]) -> None:
    data["indicators"] |= {"roc_10": {"type": "ROC", "period": 10}, "rsi_14": {"type": "rsi"}}
    indicators = validate_strategy(data, "x.yaml").indicators
    assert repr(indicators["rsi_14"]) == "Indicator(type='rsi', period=14, source='close')"
    assert repr(indicators["adx_14"]) == "Indicator(type='adx', period=14)"
    assert repr(indicators["roc_10"]) == "Indicator(type='roc', period=10, source='close')"
    assert str(indicators["adx_14"]) == "type='adx' period=14"


def test_all_mistakes_come_at_once_with_path_and_nearest_name(data: dict[str, Any]) -> None:
    data["name"] = "../evil"
    data["indicators"]["rsi_14"] = {"type": "rsi", "perod": 14}
    data["indicators"]["macd_12_26_9"] = {"type": "MACD", "fast": 12}
    data["fuzzy_sets"]["change"]["indicator"] = "roc10"
    data["fuzzy_sets"]["direction_up"]["indicator"] = "adx_14.plusdi"
    data["fuzzy_sets"]["trend"]["weak"] = [1, 2]
    data["nn_inputs"][0]["fuzzy_set"] = "momentun"
    data["training"]["epocs"] = 3
    data["training"]["labels"]["profit_target_atr"] = 2
    data["model"]["training"] = {"epochs": 3}
    found = problems(data)
    assert found.keys() == {
        "name",
        "indicators.rsi_14.perod",
        "indicators.macd_12_26_9.fast",
        "fuzzy_sets.change.indicator",
        "fuzzy_sets.direction_up.indicator",
        "fuzzy_sets.trend.weak",
        "nn_inputs.0.fuzzy_set",
        "training.epocs",
        "training.labels.profit_target_atr",
        "model.training",
    }
    assert "did you mean period?" in found["indicators.rsi_14.perod"]
    assert "fast_period" in found["indicators.macd_12_26_9.fast"]
    assert "did you mean roc_10?" in found["fuzzy_sets.change.indicator"]
    assert "did you mean plus_di?" in found["fuzzy_sets.direction_up.indicator"]
    assert "did you mean momentum?" in found["nn_inputs.0.fuzzy_set"]
    assert "did you mean epochs?" in found["training.epocs"]
    assert "pt_multiplier" in found["training.labels.profit_target_atr"]
    assert "move its keys to training" in found["model.training"]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("training.epochs", True),
        ("training.epochs", 0),
        ("training.epochs", "many"),
        ("training.learning_rate", float("nan")),
        ("training.learning_rate", float("inf")),
        ("training.learning_rate", True),
        ("training.batch_size", 2.5),
        ("training.seed", 2**32),
        ("training.seed", -1),
        ("training.optimizer", "adem"),
        ("training.momentum", 0.9),  # adam has its own
        ("training.data_split.train", 0.9),
        ("training.lr_scheduler", {"type": "stepp"}),
        ("training.lr_scheduler", {"type": "step"}),
        ("training.labels", {"source": "zigzak"}),
        ("training_data.history_required", 49),
        ("training_data.symbols.symbol", "BTC/USDT"),
        ("training_data.symbols.symbol", "a..b"),
        ("training_data.symbols.symbol", "x" * 10_000),
        ("training_data.timeframes.timeframe", "5 m"),
        ("training_data.start_date", "2020-02-30"),
        ("version", "2.0"),
        ("version", True),
        ("indicators.rsi_14", {"type": "zigzag"}),
        ("indicators.rsi_14", {"type": "atr", "source": "close"}),
        ("indicators.rsi_14", {}),
        ("indicators.rsi_14", None),
        ("fuzzy_sets.momentum.neutral", [70, 50, 30]),
        ("fuzzy_sets.momentum.neutral", {"type": "gaussian", "parameters": [50, 0]}),
        ("fuzzy_sets.momentum", {"indicator": "rsi_14"}),
        ("nn_inputs", []),
        ("nn_inputs.0.timeframes", ["4h"]),
        ("model.type", "lstn"),
        ("model.architecture.dropout", 1.0),
        ("decisions.output_format", "regresion"),
        ("decisions", {"filters": {"spread": [float("nan")]}}),
        ("decisions", {"filters": {"sessions": {"london", "new_york"}}}),
        ("decisions", {"filters": {"key": b"\xff"}}),
    ],
)
def test_a_wrong_value_is_refused_at_its_place(
    data: dict[str, Any], place: str, value: Any
) -> None:
    part: Any = data
    *steps, last = place.split(".")
    for step in steps:
        part = part[int(step) if isinstance(part, list) else step]
    part[int(last) if isinstance(part, list) else last] = value
    found = problems(data)
    assert any(path.startswith(".".join(steps)) for path in found), found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "just text",
        "[1, 2]",
        "a: [",
        "a: 1\na: 2",
        "a: &a [*a]",
        "\x00",
        "a: !!python/object/apply:os.system [id]",
        "[" * 5000,
        "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)),
    ],
)
def test_what_is_no_strategy_text_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InvalidStrategy) as caught:
        parse_strategy(text, "x.yaml")
    assert "\n" not in caught.value.message
    assert caught.value.message.startswith("x.yaml: ")


def test_a_missing_file_and_a_folder_are_no_strategies(tmp_path: Path) -> None:
    with pytest.raises(StrategyNotFound):
        load_strategy(tmp_path / "none.yaml")
    with pytest.raises(InvalidStrategy):
        load_strategy(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9")
    with pytest.raises(InvalidStrategy):
        load_strategy(tmp_path / "latin.yaml")


def test_messages_keep_what_the_user_wrote(data: dict[str, Any]) -> None:
    data["training_data"]["symbols"] = {"mode": "multi_symbol", "list": ["EURUSD", "EURUSD"]}
    data["indicators"]["rsi_14"] = "rsi"
    found = problems(data)
    assert found["training_data.symbols.list"] == "the list names EURUSD twice"
    assert found["indicators.rsi_14"] == "a mapping is expected, such as {type: rsi}"


def test_raw_indicators_need_no_fuzzy_set(data: dict[str, Any]) -> None:
    del data["fuzzy_sets"]
    data["nn_inputs"] = [{"raw_indicator": "rsi_14", "normalization": "zscore"}]
    assert validate_strategy(data, "x").fuzzy_sets == {}
    data["nn_inputs"].append({"fuzzy_set": "momentum"})
    assert problems(data)["nn_inputs.1.fuzzy_set"].startswith("no fuzzy set 'momentum'")


def test_a_symbol_that_is_none_is_proposed_as_one(data: dict[str, Any]) -> None:
    data["training_data"]["symbols"] = {"symbol": "BTC/USDT"}
    assert problems(data)["training_data.symbols.symbol"].endswith("write BTCUSDT")


def test_a_threshold_may_be_written_as_yaml_takes_for_a_text(data: dict[str, Any]) -> None:
    labels = data["training"]["labels"] = {"source": "triple_barrier", "cusum_threshold": 0.001}
    number = fingerprint(validate_strategy(data, "x"))
    labels["cusum_threshold"] = yaml.safe_load("1e-3")
    assert isinstance(labels["cusum_threshold"], str)
    assert fingerprint(validate_strategy(data, "x")) == number
    labels["cusum_threshold"] = "nan"
    assert "training.labels.cusum_threshold" in problems(data)


def test_a_message_is_short_whatever_stands_there(data: dict[str, Any]) -> None:
    data["training_data"]["timeframes"] = {"timeframe": "x" * 100_000}
    for entry in data["nn_inputs"]:
        entry["timeframes"] = ["1h"]
    assert all(len(message) < 200 for message in problems(data).values())


def test_filters_are_kept_as_plain_values(data: dict[str, Any]) -> None:
    filters = {"not_before": datetime.date(2020, 1, 31), "hours": [8, 16.5], "on": True, "x": None}
    data.setdefault("decisions", {})["filters"] = filters
    kept = config(validate_strategy(data, "x"))["decisions"]["filters"]
    assert kept == {**filters, "not_before": "2020-01-31"}


def test_what_changes_no_training_is_named() -> None:
    content = yaml.safe_load(SHIPPED_BY_NAME["several_timeframes"].read_text())
    assert notes(validate_strategy(content, "x")) == []
    content["training_data"]["timeframes"]["list"].append("1w")
    content["indicators"] |= {"a": {"type": "rsi", "source": "b"}, "b": {"type": "sma"}}
    content["indicators"]["rsi_14"]["source"] = "c"  # which momentum is made of, at one remove
    content["indicators"]["c"] = {"type": "macd"}
    content["fuzzy_sets"]["spare"] = {"indicator": "a", "auto": 2}
    for entry in content["nn_inputs"]:
        entry["timeframes"] = ["1h", "4h", "1d"]
    content["decisions"] = {"confidence_threshold": 0.6}
    content["training"] |= {"focal_gamma": 3.0, "huber_delta": 0.01}
    assert notes(validate_strategy(content, "x")) == [
        "training_data.timeframes: no input shows 1w",
        "indicators.a: no input needs it",
        "indicators.b: no input needs it",
        "fuzzy_sets.spare: not among nn_inputs",
        "decisions.confidence_threshold: stored with the model, not used in training",
        "training.focal_gamma: only for loss focal, not used with cross_entropy",
    ]


def test_other_spellings_mean_the_same(data: dict[str, Any]) -> None:
    plain = validate_strategy(data, "x")
    spelled = copy.deepcopy(data)
    spelled["version"] = 3.0
    spelled["indicators"]["rsi_14"]["type"] = "RelativeStrengthIndex"
    spelled["fuzzy_sets"]["momentum"]["neutral"] = {
        "type": "triangular",
        "parameters": [30, 50, 70],
    }
    assert fingerprint(validate_strategy(spelled, "x")) == fingerprint(plain)
    spelled["training_data"]["date_range"] = {"start": "2020-01-01", "end": "2020-12-31"}
    data["training_data"] |= {"start_date": "2020-01-01", "end_date": "2020-12-31"}
    assert fingerprint(validate_strategy(spelled, "x")) == fingerprint(validate_strategy(data, "x"))


def test_the_fingerprint_covers_all_that_has_an_effect_and_no_description(
    data: dict[str, Any],
) -> None:
    before = validate_strategy(data, "x")
    data["description"] = "other words"
    assert fingerprint(validate_strategy(data, "x")) == fingerprint(before)
    data["training"]["learning_rate"] = 0.5
    data["fuzzy_sets"]["momentum"]["neutral"] = [31, 50, 70]
    after = validate_strategy(data, "x")
    assert fingerprint(after) != fingerprint(before)
    assert [found.key for found in differences(config(before), config(after))] == [
        "fuzzy_sets.momentum.memberships.neutral.parameters",
        "training.learning_rate",
    ]


def test_the_order_of_inputs_counts(data: dict[str, Any]) -> None:
    before = fingerprint(validate_strategy(data, "x"))
    data["nn_inputs"].reverse()
    assert fingerprint(validate_strategy(data, "x")) != before


def test_the_order_of_memberships_counts(data: dict[str, Any]) -> None:
    before = fingerprint(validate_strategy(data, "x"))
    momentum = data["fuzzy_sets"]["momentum"]
    momentum["oversold"] = momentum.pop("oversold")
    assert fingerprint(validate_strategy(data, "x")) != before


def test_a_request_overrides_what_the_strategy_says(data: dict[str, Any]) -> None:
    changed = with_overrides(
        validate_strategy(data, "x"),
        {
            "symbols": ["EURUSD"],
            "timeframes": ["5m"],
            "epochs": 3,
            "seed": 7,
            "end_date": "2020-01-31",
        },
    )
    assert (changed.symbols, changed.timeframes) == (("EURUSD",), ("5m",))
    assert (changed.training.epochs, changed.training.seed) == (3, 7)
    assert str(changed.training_data.end_date) == "2020-01-31"


def test_fewer_timeframes_leave_each_input_once(data: dict[str, Any]) -> None:
    data["training_data"]["timeframes"] = {"mode": "multi_timeframe", "list": ["1h", "4h", "1d"]}
    data["nn_inputs"] = [
        {"fuzzy_set": "momentum", "timeframes": ["1h"]},
        {"fuzzy_set": "momentum", "timeframes": ["4h"]},
        {"raw_indicator": "roc_10", "timeframes": ["1d"]},
    ]
    strategy = validate_strategy(data, "x")

    def inputs(*timeframes: str) -> list[tuple[str, Any]]:
        changed = with_overrides(strategy, {"timeframes": timeframes})
        return [(item.name, item.timeframes) for item in changed.nn_inputs]

    assert inputs("1h") == [("momentum", ("1h",)), ("roc_10", "all")]
    assert inputs("4h", "1d") == [("momentum", ("4h",)), ("roc_10", ("1d",))]
    assert inputs("15m", "1w") == [("momentum", "all"), ("roc_10", "all")]


@pytest.mark.parametrize("kind", INDICATORS)
def test_every_indicator_of_the_table_loads_with_its_defaults(
    data: dict[str, Any], kind: str
) -> None:
    data["indicators"]["extra"] = {"type": kind.upper()}
    indicator = validate_strategy(data, "x").indicators["extra"]
    assert indicator.parameters == {p.name: p.default for p in INDICATORS[kind].parameters}


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(draw=st.data())
def test_any_part_replaced_by_junk_is_refused_or_read_never_a_crash(draw: st.DataObject) -> None:
    content: Any = yaml.safe_load(SHIPPED[0].read_text())
    part = content
    while True:
        key = draw.draw(
            st.sampled_from(sorted(part) if isinstance(part, dict) else range(len(part)))
        )
        if not isinstance(part[key], dict | list) or not part[key] or draw.draw(st.booleans()):
            part[key] = draw.draw(junk)
            break
        part = part[key]
    try:
        strategy = validate_strategy(content, "x.yaml")
    except InvalidStrategy:
        return
    assert validate_strategy(config(strategy), "again") == strategy
