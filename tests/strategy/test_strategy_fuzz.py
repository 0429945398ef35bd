"""A mistake anywhere in a strategy is reported where it is: none is silently accepted, none is a
traceback."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ktrdr.errors import InvalidStrategy
from ktrdr.strategy.loading import config, parse_strategy, validate_strategy

SHIPPED = sorted((Path(__file__).parents[2] / "strategies").glob("*.yaml"))
Place = tuple[str | int, ...]

EVERYTHING = """
name: everything
description: All that a strategy can say
version: "3.0"
scope: universal
training_data:
  symbols: {mode: multi_symbol, list: [EURUSD, GBPUSD]}
  timeframes: {mode: multi_timeframe, list: [1h, 4h, 1d], base_timeframe: 1h, resample: true}
  history_required: 100
  start_date: 2015-01-01
  end_date: 2020-12-31
indicators:
  rsi_14: {type: rsi, period: 14, source: hlc3}
  macd: {type: macd, fast_period: 12, slow_period: 26, signal_period: 9}
  bands: {type: bbands, period: 20, multiplier: 2.5}
  smooth: {type: ema, period: 5, source: macd.histogram}
  far: {type: distancefromma, period: 20, ma_type: ema}
  sar: {type: parabolicsar, initial_af: 0.02, step_af: 0.02, max_af: 0.2}
fuzzy_sets:
  momentum: {indicator: rsi_14, low: [0, 20, 40], high: [60, 70, 80, 100]}
  trend:
    indicator: macd.histogram
    down: {type: gaussian, parameters: [-1, 0.5]}
    up: {type: sigmoid, parameters: [0.5, 3]}
    steep: {type: bell, parameters: [1, 2, 3]}
    left: {type: left_shoulder, parameters: [-2, -1]}
    right: {type: right_shoulder, parameters: [1, 2]}
  placed: {indicator: smooth, auto: 3}
nn_inputs:
  - {fuzzy_set: momentum, timeframes: all}
  - {fuzzy_set: trend, timeframes: [1h, 1d]}
  - {fuzzy_set: placed, timeframes: [4h]}
  - {raw_indicator: bands.upper, timeframes: [1h], normalization: zscore}
model:
  type: mlp
  architecture: {hidden_layers: [32, 16], dropout: 0.1, activation: tanh}
decisions:
  output_format: classification
  confidence_threshold: 0.6
  position_awareness: true
  filters: {min_volume: 5}
  cost_model: {round_trip_cost: 0.001, min_edge_multiplier: 1.5}
training:
  epochs: 20
  batch_size: 128
  learning_rate: 0.002
  optimizer: sgd
  weight_decay: 0.01
  momentum: 0.9
  gradient_clip: 1.0
  loss: focal
  focal_gamma: 2.0
  huber_delta: 0.1
  lr_scheduler: {type: reduce_on_plateau, factor: 0.5, patience: 3}
  early_stopping: {enabled: true, patience: 5, min_delta: 0.001, monitor: val_accuracy}
  data_split: {mode: walk_forward, folds: 3, anchored: false, train: 0.5, validation: 0.1,
    test: 0.4, embargo: 5}
  seed: 7
  checkpoint: {every_epochs: 5, every_seconds: 60}
  labels: {source: triple_barrier, pt_multiplier: 2, sl_multiplier: 1.5, max_holding_period: 20,
    vol_span: 30, vol_method: close, compute_weights: true, cusum_threshold: auto,
    cusum_multiplier: 0.7}
"""

OTHERWISE: dict[str, dict[str, Any]] = {
    "lstm": {"model": {"type": "lstm", "architecture": {"sequence_length": 8, "hidden_size": 4,
                                                        "num_layers": 1, "dropout": 0.1}}},
    "gru": {"model": {"type": "gru", "architecture": {"sequence_length": 8}}},
    "tcn": {"model": {"type": "tcn", "architecture": {"sequence_length": 8, "channels": [4, 4],
                                                      "kernel_size": 2, "dropout": 0.1}}},
    "neuro_fuzzy": {"model": {"type": "neuro_fuzzy", "architecture": {
        "max_rules": 16, "order": 0, "train_memberships": False}}},
    "step": {"training.lr_scheduler": {"type": "step", "step_size": 3, "gamma": 0.5}},
    "exponential": {"training.lr_scheduler": {"type": "exponential", "gamma": 0.5}},
    "cosine": {"training.lr_scheduler": {"type": "cosine"}},
    "chronological": {"training.data_split": {"mode": "chronological", "train": 0.7,
                                              "validation": 0.2, "test": 0.1, "embargo": 3}},
    "purged_kfold": {"training.data_split": {"mode": "purged_kfold", "folds": 4,
                                             "validation": 0.1, "embargo": 3}},
    "zigzag": {"training.labels": {"source": "zigzag", "zigzag_threshold": 0.01}},
    "context": {"training.labels": {"source": "context", "horizon": 3, "bullish_threshold": 0.01,
                                    "bearish_threshold": -0.01}},
    "regime": {"training.labels": {
        "source": "regime", "macro_atr_mult": 4, "micro_atr_mult": 2, "atr_period": 10,
        "vol_lookback": 50, "vol_crisis_threshold": 2, "progression_tolerance": 0.4}},
    "single": {"training_data.symbols": {"mode": "single", "symbol": "EURUSD"}},
    "dates": {"training_data.date_range": {"start": "2015-01-01", "end": "2020-12-31"}},
}  # fmt: skip
# Below these the keys are the author's own, or anything at all.
OWN_KEYS = [("indicators",), ("fuzzy_sets",), ("decisions", "filters")]
ANY_NUMBER = ("parameters", "bearish_threshold", "low", "high")


def everything(**changes: Any) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(EVERYTHING)
    for path, value in changes.items():
        *steps, key = path.split(".")
        at(data, tuple(steps))[key] = copy.deepcopy(value)
    return data


def at(data: Any, place: Place) -> Any:
    for step in place:
        data = data[step]
    return data


def places(data: Any, above: Place = ()) -> Iterator[Place]:
    """Every key and every entry, those that hold others first."""
    steps = data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()
    for step in steps:
        yield (*above, step)
        yield from places(data[step], (*above, step))


def is_own(place: Place) -> bool:
    """Whether the author chooses the keys here."""
    return place in OWN_KEYS or (len(place) == 2 and place[0] == "fuzzy_sets")


def wrong_types(value: Any) -> list[Any]:
    """Values of another type, that nobody could mean."""
    mapping, text = {"no": "such"}, "no such thing"
    match value:
        case bool():
            return [mapping, text, [], 7, "true", 1, None]
        case int() | float():
            return [mapping, text, [], True, float("nan"), float("inf"), "", [value]]
        case str():
            return [mapping, text + "!", [], True, 7.25, float("nan")]
        case list():
            return [mapping, text, True, 7, [mapping], [None]]
        case dict():
            return [text, [], True, 7, [value]]
    return [mapping, text, [], True, 7]  # a date


def refused(data: Any, planted: str) -> None:
    """Assert that a mistake is reported at its place, or at what holds it."""
    error = mistakes_of(data)
    assert error is not None, f"silently accepted: {planted}"
    found = [problem["path"] for problem in error.details["problems"]]
    assert any(of_one_branch(path, planted) for path in found), (planted, found)
    assert "\n" not in error.message


def mistakes_of(data: Any) -> InvalidStrategy | None:
    try:
        validate_strategy(data, "x.yaml")
    except InvalidStrategy as error:
        return error
    return None


def of_one_branch(one: str, two: str) -> bool:
    return one == two or one.startswith(f"{two}.") or (bool(one) and two.startswith(f"{one}."))


def dotted(place: Place) -> str:
    return ".".join(map(str, place))


def planted(data: dict[str, Any], below: str) -> Iterator[tuple[str, Any]]:
    """One mistake at a time: its place, and the strategy that holds it."""
    for place in places(data):
        in_section = f"{dotted(place)}.".startswith(f"{below}.")
        if not in_section or place[:-1] == ("decisions", "filters"):
            continue
        value = at(data, place)
        for wrong in wrong_types(value):
            if not means_something(place, value, wrong):
                yield dotted(place), changed(data, place, wrong)
        if isinstance(value, int | float) and not isinstance(value, bool) and is_bounded(place):
            yield dotted(place), changed(data, place, -(10**13))
        if isinstance(place[-1], str) and not is_own(place[:-1]):
            near = (*place[:-1], place[-1] + "x")
            yield dotted(near), changed(data, near, value)


def is_bounded(place: Place) -> bool:
    return not any(step in ANY_NUMBER for step in place)


def means_something(place: Place, value: Any, wrong: Any) -> bool:
    """A free text may say anything; null is the same as leaving an optional key out."""
    is_text = isinstance(wrong, str) and place in (("description",), ("scope",))
    return is_text or (wrong is None and value is not None)


def changed(data: dict[str, Any], place: Place, value: Any) -> dict[str, Any]:
    again = copy.deepcopy(data)
    at(again, place[:-1])[place[-1]] = copy.deepcopy(value)
    return again


def test_the_strategy_that_says_everything_is_valid_in_all_its_variants() -> None:
    for changes in ({}, *OTHERWISE.values()):
        data = everything(**changes)
        if "training_data.date_range" in changes:
            del data["training_data"]["start_date"], data["training_data"]["end_date"]
        strategy = validate_strategy(data, "x")
        assert validate_strategy(json.loads(json.dumps(config(strategy))), "again") == strategy


@pytest.mark.parametrize("section", yaml.safe_load(EVERYTHING))
def test_a_mistake_at_any_key_is_reported_at_its_place(section: str) -> None:
    count = 0
    for path, data in planted(everything(), section):
        refused(data, path)
        count += 1
    assert count > 4


@pytest.mark.parametrize("variant", OTHERWISE)
def test_a_mistake_at_any_key_of_a_variant_is_reported_at_its_place(variant: str) -> None:
    [below] = OTHERWISE[variant]
    data = everything(**OTHERWISE[variant])
    if variant == "dates":
        del data["training_data"]["start_date"], data["training_data"]["end_date"]
    for path, broken in planted(data, below):
        # the dates of date_range are known by the names of the plain ones
        refused(broken, path if variant != "dates" else "training_data")


MISTAKES: list[tuple[str, Any]] = [
    ("name", "../up"),
    ("training_data.symbols.list", ["EURUSD", "EURUSD"]),
    ("training_data.timeframes.base_timeframe", "2h"),
    ("training_data.start_date", 20150101),
    ("indicators.rsi_14.period", 0),
    ("indicators.smooth.source", "macd.histgram"),
    ("indicators.far.ma_type", "hull"),
    ("fuzzy_sets.momentum.low", [40, 20, 0]),
    ("fuzzy_sets.trend.indicator", "mcd"),
    ("fuzzy_sets.placed.auto", 1),
    ("nn_inputs.0.fuzzy_set", "momentm"),
    ("nn_inputs.1.timeframes", ["1h", "1w"]),
    ("nn_inputs.3.raw_indicator", "bands.uper"),
    ("model.architecture.hidden_layers", [0]),
    ("decisions.cost_model.round_trip_cost", -1),
    ("training.loss", "huber"),
    ("training.early_stopping.enabled", "yes"),
    ("training.data_split.folds", 1),
    ("training.labels.vol_method", "range"),
    ("training.checkpoint.every_seconds", 0),
]


def test_all_mistakes_come_in_one_report() -> None:
    data = everything(**{path: None for path, _ in MISTAKES if "nn_inputs" not in path})
    for path, value in MISTAKES:
        steps: Place = tuple(int(s) if s.isdigit() else s for s in path.split("."))
        data = changed(data, steps, value)
    with pytest.raises(InvalidStrategy) as caught:
        validate_strategy(data, "x.yaml")
    found = [problem["path"] for problem in caught.value.details["problems"]]
    assert [p for p, _ in MISTAKES if not any(of_one_branch(q, p) for q in found)] == []
    assert f"{len(found)} mistakes" in caught.value.message


@pytest.mark.parametrize("path", [*SHIPPED, None], ids=lambda p: p.stem if p else "everything")
def test_random_changes_never_end_in_anything_but_a_report(path: Path | None) -> None:
    original = yaml.safe_load(path.read_text() if path else EVERYTHING)
    source, accepted = random.Random(5), 0
    for _ in range(400):
        data = copy.deepcopy(original)
        for _ in range(source.randint(1, 3)):
            mutate(data, source)
        try:
            strategy = validate_strategy(data, "x.yaml")
        except InvalidStrategy as error:
            check_report(error)
            continue
        accepted += 1
        assert validate_strategy(config(strategy), "again") == strategy
    assert accepted < 200


@pytest.mark.parametrize("path", [*SHIPPED, None], ids=lambda p: p.stem if p else "everything")
def test_random_changes_of_the_text_never_end_in_anything_but_a_report(path: Path | None) -> None:
    lines = (path.read_text() if path else EVERYTHING).splitlines()
    source = random.Random(6)
    for _ in range(30):
        text = list(lines)
        place = source.randrange(len(text))
        match source.randrange(4):
            case 0:
                text.insert(place, text[source.randrange(len(text))])
            case 1:
                del text[place]
            case 2:
                text[place] = text[place][: source.randrange(len(text[place]) + 1)]
            case 3:
                cut = source.randrange(len(text[place]) + 1)
                text[place] = (
                    text[place][:cut]
                    + source.choice("{}[]:,&*!|>'\"%@`\t\0 #-?")
                    + text[place][cut:]
                )
        try:
            parse_strategy("\n".join(text), "x.yaml")
        except InvalidStrategy as error:
            check_report(error)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_a_key_that_stands_twice_is_refused_with_its_line(path: Path) -> None:
    lines = path.read_text().splitlines()
    for place, line in enumerate(lines):
        key = line.split(":")[0]
        if not line.startswith(" ") and line.partition(":")[2].strip() and key.isidentifier():
            twice = "\n".join([*lines[: place + 1], line, *lines[place + 1 :]])
            with pytest.raises(InvalidStrategy, match=rf"line {place + 2},.*{key} appears twice"):
                parse_strategy(twice, "x.yaml")


def check_report(error: InvalidStrategy) -> None:
    assert "\n" not in error.message
    assert error.message.startswith("x.yaml: ")
    assert error.details["problems"]
    for problem in error.details["problems"]:
        assert problem["message"]
        # a file that is no YAML has lines, or no places at all
        assert problem["path"] or "YAML" in problem["message"] or "mapping" in problem["message"]
        assert not any(word in problem["path"] for word in ("[", "<", "("))


JUNK: list[Any] = [
    None, True, 0, -1, 1.5, float("nan"), float("inf"), 10**30, "", "x", "all", "1h", "rsi_14",
    "a.b", "../x", "x" * 5000, [], [1, 2, 3], [[]], {}, {"type": "rsi"}, {"mode": []}, {1: 2},
    {"type": {}}, {"x": float("nan")}, b"x", (1, 2), {1, 2},
]  # fmt: skip


def mutate(data: Any, source: random.Random) -> None:
    """Replace, remove, rename, repeat or move one part at random."""
    found = list(places(data))
    if not found:
        return
    place = source.choice(found)
    holder, key = at(data, place[:-1]), place[-1]
    match source.randrange(5):
        case 0:
            holder[key] = copy.deepcopy(source.choice(JUNK))
        case 1:
            del holder[key]
        case 2 if isinstance(holder, dict):
            near = f"{key}"[:-1] + source.choice(["", "s", "_", "\n", " "])
            holder[near] = holder.pop(key)
        case 3 if isinstance(holder, list):
            holder.append(copy.deepcopy(holder[int(key)]))
        case _:
            holder[key] = copy.deepcopy(at(data, source.choice(found)))
