"""Classes or values, one bar or many: what fits together, what is filled in, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ktrdr.errors import InvalidStrategy
from ktrdr.strategy.loading import config, fingerprint, load_strategy, validate_strategy
from ktrdr.strategy.networks import MLP, Recurrent

PATH = Path(__file__).parents[2] / "strategies" / "sequence_forecaster.yaml"


@pytest.fixture
def data() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(PATH.read_text())
    return content


def problems(data: Any) -> dict[str, str]:
    with pytest.raises(InvalidStrategy) as caught:
        validate_strategy(data, "x.yaml")
    found: list[dict[str, str]] = caught.value.details["problems"]
    return {problem["path"]: problem["message"] for problem in found}


def test_what_only_the_other_format_can_use_is_named_all_at_once(data: dict[str, Any]) -> None:
    data["decisions"]["output_format"] = "classification"
    assert problems(data) == {
        "training.loss": "huber is for regression, but decisions.output_format is classification: "
        "say cross_entropy or focal here, or regression there",
        "training.labels.source": "forward_return is for regression, but decisions.output_format "
        "is classification: say zigzag, triple_barrier, context or regime here, or regression "
        "there",
    }
    data["decisions"]["output_format"] = "regression"
    data["training"]["loss"] = "focal"
    data["training"]["labels"] = {"zigzag_threshold": 0.1}
    data["training"]["early_stopping"]["monitor"] = "val_accuracy"
    data["training"]["epocs"] = 1
    found = problems(data)
    assert found.keys() == {
        "training.loss",
        "training.labels.source",
        "training.early_stopping.monitor",
        "training.epocs",
    }
    assert "say huber or mse" in found["training.loss"]
    assert "say forward_return" in found["training.labels.source"]
    assert "say val_loss" in found["training.early_stopping.monitor"]


def test_a_regression_without_labels_is_told_to_name_them(data: dict[str, Any]) -> None:
    del data["training"]
    assert problems(data).keys() == {"training.labels.source"}


@pytest.mark.parametrize("missing", ["decisions", "output_format"])
def test_classification_is_what_is_meant_unless_said(data: dict[str, Any], missing: str) -> None:
    if missing == "decisions":
        del data["decisions"]
    else:
        data["decisions"] = {"confidence_threshold": 0.5}
    assert problems(data).keys() == {"training.loss", "training.labels.source"}
    del data["training"]["loss"]
    data["training"]["labels"] = {}
    assert validate_strategy(data, "x").training.loss == "cross_entropy"


def test_a_regression_that_names_no_loss_uses_hubers_and_shows_it(data: dict[str, Any]) -> None:
    named = validate_strategy(data, "x")
    del data["training"]["loss"]
    silent = validate_strategy(data, "x")
    assert config(silent)["training"]["loss"] == "huber"
    assert fingerprint(silent) == fingerprint(named)
    assert validate_strategy(config(silent), "again") == silent
    data["training"]["loss"] = "mse"
    assert validate_strategy(data, "x").training.loss == "mse"


def test_the_shipped_forecaster_is_a_regression_over_sequences() -> None:
    strategy = load_strategy(PATH)
    assert strategy.is_regression
    assert isinstance(strategy.model, Recurrent)
    assert strategy.model.sequence_length == 16


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_recurrent_network_has_its_own_knobs_and_defaults(
    data: dict[str, Any], kind: str
) -> None:
    data["model"] = {"type": kind, "architecture": {"sequence_length": 8}}
    architecture = config(validate_strategy(data, "x"))["model"]["architecture"]
    assert architecture == {
        "sequence_length": 8,
        "hidden_size": 64,
        "num_layers": 2,
        "dropout": 0.2,
    }


@pytest.mark.parametrize(
    ("model", "path", "words"),
    [
        ({"type": "gru"}, "model.architecture", "field required"),
        ({"type": "gru", "architecture": {}}, "model.architecture.sequence_length", "required"),
        (
            {"type": "lstm", "architecture": {"sequence_lenght": 3, "sequence_length": 3}},
            "model.architecture.sequence_lenght",
            "did you mean sequence_length?",
        ),
        (
            {"type": "mlp", "architecture": {"sequence_length": 3}},
            "model.architecture.sequence_length",
            "unknown key",
        ),
        (
            {"type": "gru", "architecture": {"sequence_length": 0}},
            "model.architecture.sequence_length",
            "greater",
        ),
        (
            {"type": "gru", "architecture": {"sequence_length": 3}, "training": {"epochs": 3}},
            "model.training",
            "move its keys to training",
        ),
        ({"type": "rnn"}, "model", "mlp, lstm, gru, tcn or neuro_fuzzy"),
        ({}, "model", "mlp, lstm, gru, tcn or neuro_fuzzy"),
        (None, "model", "mlp, lstm, gru, tcn or neuro_fuzzy"),
    ],
)
def test_a_network_that_is_none_is_refused_at_its_place(
    data: dict[str, Any], model: Any, path: str, words: str
) -> None:
    data["model"] = model
    found = problems(data)
    assert found.keys() == {path}
    assert words in found[path]


def test_a_perceptron_may_foresee_values_too(data: dict[str, Any]) -> None:
    data["model"] = {"type": "mlp"}
    strategy = validate_strategy(data, "x")
    assert isinstance(strategy.model, MLP)
    assert strategy.model.sequence_length is None
