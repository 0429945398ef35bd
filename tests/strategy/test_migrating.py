"""Older strategy files as they are met: rewritten into the grammar, each change said."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from ktrdr.cli.main import run
from ktrdr.errors import InvalidStrategy, KtrdrError, StrategyNotFound, Usage
from ktrdr.strategy.loading import parse_strategy
from ktrdr.strategy.migration.migration import Migration, migrate, migrate_text, write_new

SHIPPED = sorted((Path(__file__).parents[2] / "strategies").glob("*.yaml"))

LISTED = """\
# === EXPERIMENT ===
# do not modify

# === IDENTITY ===
name: "listed_v2"
description: "RSI, ADX and MACD"   # what it is
version: "2.0"
hypothesis: Stretched prices
  come back
scope: "universal"

# === BARS ===
training_data:
  symbols:
    mode: "single_symbol"
    list:
      - "EURUSD"  # the only one
  timeframes:
    mode: "single_timeframe"
    list: ["1h"]
    base_timeframe: "1h"
  history_required: 200

# === DEPLOYMENT ===
deployment:
  target_symbols:
    mode: "universal"  # any

indicators:
  # momentum
  - name: "rsi"   # the first
    feature_id: rsi_14
    period: 14
    source: "close"
  - name: "ADX"
    feature_id: adx_14
    period: 14
    source: close
    # trend strength

  - name: macd
    fast_period: 12
    slow_period: 26
    signal_period: 9

fuzzy_sets:
  rsi_14:
    oversold:
      type: "triangular"
      parameters: [0, 30, 40]  # low
    neutral: [35, 50, 65]
  ADX_14:
    weak:
      type: "Triangular"
      parameters: [0, 15, 25]
  DI_Plus_14:
    low: {type: gaussian, mean: 10, sigma: 5}
  macd_12_26_9.hist:
    falling: [-1, -0.5, 0]
  macd:
    rising:
    - 0
    - 0.5
    - 1

model:
  type: "MLP"
  symbol_embedding_dim: 16
  architecture:
    hidden_layers: [64, 32]  # small
    activation: "ReLU"
    output_activation: "softmax"
    dropout: 0.2
  features:
    lookback_periods: 2
  # how to train
  training:
    learning-rate: 0.0010  # slow
    batch_size: 32
    epochs: 100
    optimizer: "Adam"
    early_stopping:
      enabled: true
      patience: 15
    analytics:
      enabled: true

decisions:
  output_format: "classification"
  confidence_threshold: 0.6

training:
  method: "supervised"
  labels:
    source: "zigzag"
    zigzag_threshold: 0.025
    label_lookahead: 20
  data_split:
    train: 0.7
    val: 0.15
    test: 0.15
  date_range:   # both included
    start: "2015-01-01"
    end: "2023-12-31"
# the end
"""

BARRIERS = """\
name: barriers
version: "3.0"
description: >
  Barriers over
  two lines.

training_data:
  symbols: {mode: single, symbol: EURUSD}
  timeframes: {mode: single, timeframe: 1h}
  date_range: {start: "2024-01-01", end: "2025-03-01"}

indicators:
  rsi_14: {type: rsi, period: 14}
  macd_12_26_9: {type: macd, fast: 12, slow: 26, signal: 9}
  level: {type: ema, period: 9, data_source: close}

fuzzy_sets:
  zone:
    indicator: rsi_14
    oversold: [20, 30, 40]
  momentum:
    indicator: macd_12_26_9
    output: histogram
    falling: [-0.0005, -0.0002, 0]

nn_inputs:
  - fuzzy_set: zone
    timeframes: ["1h"]
  - fuzzy_set: momentum
    timeframes: all

model:
  type: lstm
  architecture: {sequence_length: 20, hidden_size: 64}

decisions:
  output_format: classification
  num_classes: 3

training:
  labels:
    source: triple_barrier
    profit_target_atr: 2.0
    stop_loss_atr: 1.5
    max_holding_bars: 24
    atr_period: 14
  loss_function: FocalLoss
  lr: 0.002
  lr_scheduler: true
  early_stopping: true
  validation_split: 0.2
"""

FIRST = """\
name: "a squeeze"
version: 1.0.neuro
data:
  symbols: ["EUR/USD"]
  timeframes: "60m"
  history_required: 150
indicators:
- name: bollinger_band_width
  bollinger_bands_source: "bollinger_bands"
- name: rsi
  params: {length: 5}
- name: ema
  periods: [8, 13]
fuzzy_sets:
  bollinger_band_width:
    tight: [0, 0.002, 0.005]
  rsi:
    low: {shape: trimf, params: [0, 15, 30]}
  ema_8:
    near: {type: gauss, parameters: {center: 1.1, std: 0.1}}
model:
  type: mlp
  hidden_layers: [30, 15]
  input_size: 15
  training:
    epochs: 3
    lr_scheduler: {type: cosine_annealing, T_max: 50}
orchestrator: {max_position_size: 0.5}
risk_management: {risk_per_trade: 0.02}
backtesting: {slippage: 0.0005}
training:
  data_split: [70, 15, 15]
"""

OLDER = {"listed": LISTED, "barriers": BARRIERS, "first": FIRST}


def made(text: str) -> dict[str, Any]:
    """What a text is rewritten to; it must be valid."""
    migration = migrate_text(text, "x.yaml")
    assert migration.problems == ()
    parse_strategy(migration.text, "x.yaml")
    content: dict[str, Any] = yaml.safe_load(migration.text)
    return content


def problems(text: str) -> dict[str, str]:
    return dict(migrate_text(text, "x.yaml").problems)


def changed(old: str, new: str, text: str = BARRIERS) -> str:
    assert old in text
    return text.replace(old, new, 1)


def training(lines: str) -> dict[str, Any]:
    """The training section that the old lines become."""
    content = yaml.safe_load(SHIPPED[-1].read_text())
    content["training"] = yaml.safe_load(lines)
    found: dict[str, Any] = made(yaml.safe_dump(content, sort_keys=False))["training"]
    return found


@pytest.mark.parametrize("name", OLDER)
def test_an_older_file_becomes_a_valid_one_and_stays_it(name: str) -> None:
    once = migrate_text(OLDER[name], "x.yaml")
    assert once.problems == ()
    assert once.changes
    again = migrate_text(once.text, "x.yaml")
    assert (again.text, again.changes, again.problems) == (once.text, (), ())


def test_the_listed_grammar_becomes_the_one_by_id() -> None:
    content = made(LISTED)
    assert content["version"] == "3.0"
    assert content["training_data"] == {
        "symbols": {"mode": "single", "symbol": "EURUSD"},
        "timeframes": {"mode": "single", "timeframe": "1h"},
        "history_required": 200,
        "start_date": "2015-01-01",
        "end_date": "2023-12-31",
    }
    assert content["indicators"] == {
        "rsi_14": {"type": "rsi", "period": 14, "source": "close"},
        "adx_14": {"type": "ADX", "period": 14},
        "macd_12_26_9": {
            "type": "macd",
            "fast_period": 12,
            "slow_period": 26,
            "signal_period": 9,
        },
    }
    read = {name: fuzzy_set["indicator"] for name, fuzzy_set in content["fuzzy_sets"].items()}
    assert read == {
        "rsi_14": "rsi_14",
        "ADX_14": "adx_14",
        "DI_Plus_14": "adx_14.plus_di",
        "macd_12_26_9_hist": "macd_12_26_9.histogram",
        "macd": "macd_12_26_9",
    }
    assert content["fuzzy_sets"]["DI_Plus_14"]["low"] == {
        "type": "gaussian",
        "parameters": [10, 5],
    }
    assert content["nn_inputs"] == [{"fuzzy_set": name, "timeframes": "all"} for name in read]
    assert content["model"] == {
        "type": "mlp",
        "architecture": {"hidden_layers": [64, 32], "activation": "relu", "dropout": 0.2},
    }
    assert content["training"] == {
        "labels": {"source": "zigzag", "zigzag_threshold": 0.025},
        "data_split": {"train": 0.7, "validation": 0.15, "test": 0.15},
        "learning_rate": 0.001,
        "batch_size": 32,
        "epochs": 100,
        "optimizer": "adam",
        "early_stopping": {"enabled": True, "patience": 15},
    }


def test_comments_blank_lines_quotes_and_indentation_stay() -> None:
    lines = migrate_text(LISTED, "x.yaml").text.splitlines()
    comments = [line.strip() for line in LISTED.splitlines() if line.strip().startswith("#")]
    assert [line.strip() for line in lines if line.strip() in comments] == comments
    for line in (
        'description: "RSI, ADX and MACD"   # what it is',
        "# hypothesis: Stretched prices come back",
        '    symbol: "EURUSD"  # the only one',
        '    type: "rsi"   # the first',
        "    # trend strength",
        "      parameters: [0, 30, 40]  # low",
        "    hidden_layers: [64, 32]  # small",
        '  optimizer: "adam"',
        "      - 0.5",
        "  # both included",
        "# the end",
    ):
        assert line in lines
    assert any(
        line.startswith("  learning_rate: 0.0010") and line.endswith("# slow") for line in lines
    )
    assert lines[lines.index("# how to train".rjust(16)) + 1].startswith("  learning_rate")
    assert lines[lines.index("training_data:") - 2 : lines.index("training_data:")] == [
        "",
        "# === BARS ===",
    ]


@pytest.mark.parametrize(
    ("old", "new", "kept"),
    [
        ("oversold: [20, 30, 40]", "oversold: [20, # a\n      30,\n      # b\n      40] # c",
         "    # a\n    # b\n    oversold: [20, 30, 40]  # c\n"),
        ("    indicator: rsi_14", "    indicator:  # a\n      # b\n      rsi_14  # c",
         "    # a\n    # b\n    indicator: rsi_14  # c\n"),
        ("  two lines.\n\n", "  two lines.\n  # text\n\n# c\n\n",
         "  # text\n\n# c\n\ntraining_data:\n"),
        ("name: barriers", "# a\n---\nname: 'barriers'   # b", "# a\nname: 'barriers'   # b\n"),
        ("decisions:\n", "decisions:  # a\n", "decisions:  # a\n"),
        ("  num_classes: 3\n\n", "\n  # a\n  num_classes: 3\n  # b\n\n", "\n  # a\n  # b\n\n"),
    ],
)  # fmt: skip
def test_comments_stay_wherever_they_stand(old: str, new: str, kept: str) -> None:
    assert kept in migrate_text(changed(old, new), "x.yaml").text


def test_names_of_other_grammars_become_ours() -> None:
    content = made(BARRIERS)
    macd = {"type": "macd", "fast_period": 12, "slow_period": 26, "signal_period": 9}
    assert content["indicators"]["macd_12_26_9"] == macd
    assert content["indicators"]["level"] == {"type": "ema", "period": 9, "source": "close"}
    assert content["fuzzy_sets"]["momentum"]["indicator"] == "macd_12_26_9.histogram"
    assert content["decisions"] == {"output_format": "classification"}
    assert content["training"] == {
        "labels": {
            "source": "triple_barrier",
            "pt_multiplier": 2.0,
            "sl_multiplier": 1.5,
            "max_holding_period": 24,
            "vol_span": 14,
        },
        "loss": "focal",
        "learning_rate": 0.002,
        "lr_scheduler": {"type": "reduce_on_plateau"},
        "early_stopping": {"enabled": True},
        "data_split": {"validation": 0.2, "train": 0.8, "test": 0.0},
    }
    assert content["description"] == "Barriers over two lines.\n"


def test_one_period_of_a_squeeze_is_that_of_both_channels() -> None:
    content = yaml.safe_load(SHIPPED[-1].read_text())
    content["indicators"]["tight"] = {"type": "SqueezeIntensity", "period": 30, "std_dev": 2.5}
    found = made(yaml.safe_dump(content, sort_keys=False))["indicators"]["tight"]
    periods = {"bb_period": 30, "kc_period": 30, "bb_multiplier": 2.5}
    assert found == {"type": "SqueezeIntensity", **periods}


def test_the_first_grammar_is_understood_too() -> None:
    content = made(FIRST)
    assert content["name"] == "a_squeeze"
    assert content["training_data"] == {
        "symbols": {"mode": "single", "symbol": "EURUSD"},
        "timeframes": {"mode": "single", "timeframe": "1h"},
        "history_required": 150,
    }
    assert content["indicators"] == {
        "bollinger_band_width": {"type": "bollinger_band_width"},
        "rsi": {"type": "rsi", "period": 5},
        "ema_8": {"type": "ema", "period": 8},
        "ema_13": {"type": "ema", "period": 13},
    }
    assert content["fuzzy_sets"]["rsi"]["low"] == {"type": "triangular", "parameters": [0, 15, 30]}
    near = {"type": "gaussian", "parameters": [1.1, 0.1]}
    assert content["fuzzy_sets"]["ema_8"]["near"] == near
    assert content["model"] == {"type": "mlp", "architecture": {"hidden_layers": [30, 15]}}
    assert content["training"]["lr_scheduler"] == {"type": "cosine"}
    assert content["training"]["data_split"] == {"train": 0.7, "validation": 0.15, "test": 0.15}


@pytest.mark.parametrize(
    ("lines", "key", "value"),
    [
        ("learningRate: 0.1", "learning_rate", 0.1),
        ("Batch Size: 7", "batch_size", 7),
        ("optimizer: RMSprop", "optimizer", "rmsprop"),
        ("optimizer: {type: AdamW, lr: 0.3}", "optimizer", "adamw"),
        ("optimizer: {type: AdamW, lr: 0.3}", "learning_rate", 0.3),
        ("loss: {type: focal, gamma: 3.0}", "focal_gamma", 3.0),
        ("loss: cross-entropy", "loss", "cross_entropy"),
        ("scheduler: StepLR", "lr_scheduler", {"type": "step", "step_size": 30}),
        ("lr_scheduler: {type: ReduceLROnPlateau, mode: min}", "lr_scheduler",
         {"type": "reduce_on_plateau"}),
        ("early_stopping: 5", "early_stopping", {"patience": 5}),
        ("early_stopping_patience: 5", "early_stopping", {"patience": 5}),
        ("early_stopping: {metric: val_acc}", "early_stopping", {"monitor": "val_accuracy"}),
        ("splits: [0.8, 0.2]", "data_split", {"train": 0.8, "validation": 0.2, "test": 0.0}),
        ("data_split: {train: 0.6}", "data_split",
         {"train": 0.6, "validation": 0.2, "test": 0.2}),
        ("split: {training: 80, val: 10, testing: 10}", "data_split",
         {"train": 0.8, "validation": 0.1, "test": 0.1}),
        ("labels: zig_zag", "labels", {"source": "zigzag"}),
        ("labels: {zigzag: {threshold: 0.03}}", "labels",
         {"source": "zigzag", "zigzag_threshold": 0.03}),
        ("labels: {type: triple-barrier, zigzag_threshold: 0.03, pt_mult: 3.0}", "labels",
         {"source": "triple_barrier", "pt_multiplier": 3.0}),
        ("labels: {profit_target_atr: 3.0}", "labels",
         {"pt_multiplier": 3.0, "source": "triple_barrier"}),
    ],
)  # fmt: skip
def test_training_is_rewritten(lines: str, key: str, value: Any) -> None:
    assert training(lines)[key] == value


def test_what_had_no_effect_goes_with_a_line_that_says_so() -> None:
    text = changed("nn_inputs:", "feature_engineering: {lags: 3}\nnn_inputs:")
    text = changed("    oversold:", "    input_transform: {type: price_ratio}\n    oversold:", text)
    removed = {c.path: c for c in migrate_text(text, "x.yaml").changes if c.what == "removed"}
    assert {"feature_engineering", "fuzzy_sets.zone.input_transform"} <= removed.keys()
    change = removed["feature_engineering"]
    assert (change.old, change.new) == ({"lags": 3}, None)
    assert str(change).startswith('feature_engineering: removed, was {"lags": 3}: ')


@pytest.mark.parametrize(
    ("old", "new", "path", "words"),
    [
        ("type: rsi", "type: wavelet", "indicators.rsi_14", "unknown indicator type 'wavelet'"),
        ("type: rsi", "type: zigzag", "indicators.rsi_14", "repaints"),
        ("    indicator: rsi_14\n", "", "fuzzy_sets.zone.indicator", "name the one that it reads"),
        ("source: triple_barrier", "source: tick_bars", "training.labels", "source must be"),
        ("data_source: close", "data_source: GBPUSD", "indicators.level.data_source",
         "no other data is read"),
        ("  lr: 0.002", "  lr: 0.002\n  learning_rate: 0.1", "training.lr", "keep one of them"),
        ("type: lstm", "type: transformer", "model", "type must be"),
        ("sequence_length: 20", "depth: 3", "model.architecture.depth", "unknown key"),
    ],
)  # fmt: skip
def test_what_cannot_be_decided_is_a_problem_with_its_path(
    old: str, new: str, path: str, words: str
) -> None:
    assert words in problems(changed(old, new))[path]


def test_a_set_that_two_indicators_fit_is_not_guessed() -> None:
    text = changed("period: 14}", "period: 14}\n  rsi_7: {type: rsi, period: 7}")
    text = changed("  zone:\n    indicator: rsi_14", "  rsi:", text).replace(
        "set: zone", "set: rsi"
    )
    assert "several fit" in problems(text)["fuzzy_sets.rsi.indicator"]
    assert "rsi_14, rsi_7" in problems(text)["fuzzy_sets.rsi.indicator"]


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("macd_12_26_9", "m.line"),
        ("MACD_12_26", "m.line"),
        ("macd_5_13_5", None),
        ("macd_12_26_9.signal", None),
        ("m.Hist", "m.histogram"),
        ("M.line", "m.line"),
        ("MACD_signal_12_26_9", "m.signal"),
        ("bbwidth_20_2.0", "bollingerbandwidth_20_2"),
        ("BollingerBandWidth", "bollingerbandwidth_20_2"),
        ("bollinger_band_width_20", "bollingerbandwidth_20_2"),
        ("price_to_sma", None),
    ],
)
def test_a_set_is_joined_to_what_its_name_says(name: str, read: str | None) -> None:
    content = yaml.safe_load(FIRST)
    content["indicators"] = [
        {"name": "macd", "feature_id": "m", "fast_period": 12},
        {"name": "bollingerbandwidth", "period": 20, "multiplier": 2.0},
    ]
    content["fuzzy_sets"] = {name: {"low": [0, 1, 2]}}
    migration = migrate_text(yaml.safe_dump(content), "x.yaml")
    (fuzzy_set,) = yaml.safe_load(migration.text)["fuzzy_sets"].values()
    found = fuzzy_set.get("indicator")
    assert found in (read, read.removesuffix(".line")) if read else found is None
    assert migration.valid is (read is not None)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"symbols": ["A", "B/C"]}, {"symbols": {"mode": "multi_symbol", "list": ["A", "BC"]}}),
        ({"timeframes": {"mode": "single", "list": ["M5", "1H"], "base": "5min"}},
         {"timeframes": {
             "mode": "multi_timeframe", "list": ["5m", "1h"], "base_timeframe": "5m"}}),
        ({"timeframe": "5M"}, {"timeframes": {"mode": "single", "timeframe": "5M"}}),
        ({"timeframe": "1440min"}, {"timeframes": {"mode": "single", "timeframe": "1d"}}),
        ({"symbol": "A"}, {"symbols": {"mode": "single", "symbol": "A"}}),
        ({"date_range": ["2020-01-01", "2021-01-01"]},
         {"start_date": "2020-01-01", "end_date": "2021-01-01"}),
        ({"from": "2020-01-01"}, {"start_date": "2020-01-01"}),
    ],
)  # fmt: skip
def test_bars_are_named_as_the_grammar_has_them(old: dict[str, Any], new: dict[str, Any]) -> None:
    migration = migrate_text(yaml.safe_dump({"training_data": old}), "x.yaml")
    assert yaml.safe_load(migration.text)["training_data"] == new


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("x", {"fuzzy_set": "x", "timeframes": "all"}),
        ({"set": "x", "timeframe": "1h"}, {"fuzzy_set": "x", "timeframes": ["1h"]}),
        ({"indicator": "m.hist", "normalize": "Standard", "timeframes": "ALL"},
         {"raw_indicator": "m.histogram", "normalization": "zscore", "timeframes": "all"}),
    ],
)  # fmt: skip
def test_inputs_are_named_as_the_grammar_has_them(old: Any, new: dict[str, Any]) -> None:
    content = {"indicators": {"m": {"type": "macd"}}, "nn_inputs": [old]}
    migration = migrate_text(yaml.safe_dump(content), "x.yaml")
    assert yaml.safe_load(migration.text)["nn_inputs"] == [new]


def test_regression_labels_bring_their_output_format() -> None:
    text = changed("    source: zigzag\n    zigzag_threshold: 0.025", "    source: returns",
                   LISTED.replace('"zigzag"', "zigzag"))  # fmt: skip
    content = made(changed('  output_format: "classification"\n', "", text))
    assert content["training"]["labels"] == {"source": "forward_return"}
    assert content["decisions"]["output_format"] == "regression"


def test_what_an_alias_shares_is_rewritten_in_each_place() -> None:
    shared = "low: &low {type: Triangular, parameters: [0, 30, 40]}\n    oversold:"
    text = changed("oversold:", shared)
    text = changed("    falling:", "    low: *low\n    falling:", text)
    content = made(text)
    low = {"type": "triangular", "parameters": [0, 30, 40]}
    assert content["fuzzy_sets"]["zone"]["low"] == low
    assert content["fuzzy_sets"]["momentum"]["low"] == low


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_a_file_of_today_comes_out_byte_for_byte(path: Path) -> None:
    assert migrate(path) == Migration(path.read_bytes().decode(), (), ())


@pytest.mark.parametrize("end", ["", "\r\n# no newline at the end"])
def test_line_ends_stay(tmp_path: Path, end: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(SHIPPED[0].read_bytes().replace(b"\n", b"\r\n") + end.encode())
    assert migrate(path).text.encode() == path.read_bytes()
    path.write_bytes(LISTED.replace("\n", "\r\n").encode())
    written = migrate(path).text
    assert written.replace("\r\n", "") == migrate_text(LISTED, "").text.replace("\n", "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- a\n- b\n",
        "just words",
        "name: [unclosed",
        "name: a\nname: b\n",
        "a: &a [*a]\n",
        "a: !!python/object:os.system x\n",
        "a: " + "[" * 5000 + "]" * 5000,
        "a: &a [1,1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
        "c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\n"
        "e: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\n",
    ],
    ids=["empty", "list", "text", "broken", "twice", "endless", "tag", "deep", "bomb"],
)
def test_what_is_no_strategy_is_refused(text: str) -> None:
    with pytest.raises(InvalidStrategy):
        migrate_text(text, "x.yaml")


def test_files_that_are_missing_or_too_long_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StrategyNotFound):
        migrate(tmp_path / "none.yaml")
    (tmp_path / "long.yaml").write_text("#" * (1 << 20) + "#")
    with pytest.raises(InvalidStrategy):
        migrate(tmp_path / "long.yaml")


JUNK: list[Any] = [
    None, True, 0, -1, 1e300, "", "x.y", "\u00e9\u2028\n#", [], {}, [[]], {"type": 3}, {1: 2},
    ["a", 1], {"a": {"b": None}}, [None], {"type": ["rsi"]}, {"parameters": "x"}, 10**30,
]  # fmt: skip


def mutated(data: Any, chance: random.Random) -> Any:
    """One value somewhere replaced, removed, renamed or wrapped."""
    data = copy.deepcopy(data)
    part: Any = data
    while True:
        places = list(part) if isinstance(part, dict) else list(range(len(part)))
        place = chance.choice(places)
        inner = part[place]
        if isinstance(inner, dict | list) and inner and chance.random() < 0.75:
            part = inner
            continue
        what = chance.randrange(4)
        if what == 0:
            part[place] = copy.deepcopy(chance.choice(JUNK))
        elif what == 1 and len(part) > 1:
            del part[place]
        elif what == 2 and isinstance(part, dict):
            part[chance.choice([5, "", "type", "name", "a.b", "labels", "list"])] = part.pop(place)
        else:
            part[place] = [inner]
        return data


@pytest.mark.parametrize("seed", range(8))
def test_whatever_a_file_holds_there_is_no_traceback(seed: int) -> None:
    chance = random.Random(seed)
    sources = [*OLDER.values(), *(path.read_text() for path in SHIPPED)]
    for _ in range(8):
        data = yaml.safe_load(chance.choice(sources))
        for _ in range(chance.randint(1, 4)):
            data = mutated(data, chance)
        text = yaml.safe_dump(
            data, sort_keys=False, default_flow_style=chance.choice([None, False])
        )
        try:
            migration = migrate_text(text, "x.yaml")
        except KtrdrError:
            continue
        if migration.valid:
            parse_strategy(migration.text, "x.yaml")
        else:
            assert all(message for _, message in migration.problems)
        json.dumps([vars(c) for c in migration.changes], allow_nan=False)


@pytest.mark.parametrize("seed", range(8))
def test_whatever_its_text_is_there_is_no_traceback(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(8):
        lines = chance.choice([*OLDER.values(), SHIPPED[0].read_text()]).splitlines()
        for _ in range(chance.randint(1, 3)):
            place = chance.randrange(len(lines))
            what = chance.randrange(4)
            if what == 0:
                del lines[place]
            elif what == 1:
                lines[place] += chance.choice(
                    ["  # more", ": x", " *a", " &a", "'", " {", " |", " >"]
                )
            elif what == 2:
                lines.insert(
                    place, chance.choice(["# why", "", "  # in", "---", "?", "- x", "<<: {a: 1}"])
                )
            else:
                lines[place] = " " + lines[place]
        try:
            migration = migrate_text("\n".join(lines), "x.yaml")
        except KtrdrError:
            continue
        assert (not migration.valid) == bool(migration.problems)


def test_a_new_file_is_written_whole_and_never_over_another(tmp_path: Path) -> None:
    path = tmp_path / "new.yaml"
    write_new(path, "a: 1\n")
    assert path.read_text() == "a: 1\n"
    with pytest.raises(Usage, match="exists already"):
        write_new(path, "b: 1\n")
    with pytest.raises(Usage, match="cannot write"):
        write_new(tmp_path / "no" / "new.yaml", "b: 1\n")
    assert [p.name for p in tmp_path.iterdir()] == ["new.yaml"]


def test_the_command_prints_writes_and_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_text(LISTED)
    words = ["strategies", "migrate", str(old)]
    assert run(words) == 0
    printed = capsys.readouterr()
    parse_strategy(printed.out, "stdout")
    assert f"{old}: model.features: removed, was" in printed.err
    assert run([*words, "--out", str(new), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert list(document) == ["path", "out", "valid", "changes", "problems", "text"]
    assert (document["out"], document["valid"], document["problems"]) == (str(new), True, [])
    assert new.read_text() == document["text"] == printed.out
    moved = next(c for c in document["changes"] if c["path"] == "model.training.epochs")
    assert (moved["what"], moved["new"]) == ("moved", "training.epochs")
    assert run([*words, "--out", str(old)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert old.read_text() == LISTED
    assert run(["strategies", "migrate", str(new)]) == 0
    assert capsys.readouterr() == (new.read_text(), f"{new}: nothing to change\n")


def test_an_invalid_result_is_reported_and_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_text(changed("source: triple_barrier", "source: tick_bars"))
    assert run(["strategies", "migrate", str(old), "--out", str(new), "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["code"], error["details"]["valid"]) == ("INVALID_STRATEGY", False)
    assert [p["path"] for p in error["details"]["problems"]] == ["training.labels"]
    assert error["details"]["changes"]
    assert not new.exists()
    assert run(["strategies", "migrate", str(old)]) == 2
    assert capsys.readouterr().out == ""
