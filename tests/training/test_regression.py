"""Networks that foresee values: their losses and figures by hand, their knobs, their models."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import MLP, REGRESSION, Bench, make_dataset, make_strategy, recurrent, stored

from ktrdr.checkpoints.model_store import read_model
from ktrdr.inference.model import load_model
from ktrdr.training.learner import Device, Learner
from ktrdr.training.losses import ValueCriterion, make_criterion
from ktrdr.training.prediction_report import value_report
from ktrdr.training.state import NonFiniteLoss
from ktrdr.training.trainer import Completed

CPU = torch.device("cpu")


def train(root: Path, model: dict[str, Any] = MLP, **training: Any) -> Completed:
    return Bench(root, make_strategy(model, **REGRESSION, **training)).complete()


@pytest.mark.parametrize("loss", ["huber", "mse"])
def test_the_losses_are_those_of_their_formulas(loss: str) -> None:
    strategy = make_strategy(**REGRESSION, loss=loss, huber_delta=0.5)
    criterion = make_criterion(strategy.training, torch.zeros(0), ())
    outputs, labels = torch.tensor([[0.3], [2.0], [-1.0]]), torch.tensor([0.1, 0.0, -1.25])
    errors = [0.2, 2.0, 0.25]
    each = [e * e for e in errors]
    if loss == "huber":
        each = [e * e / 2 if e <= 0.5 else 0.5 * (e - 0.25) for e in errors]
    assert criterion.mean(outputs, labels).item() == pytest.approx(sum(each) / 3)
    total, weight = criterion.total(outputs, labels)
    assert total.item() == pytest.approx(sum(each))
    assert weight.item() == 3


def test_a_regression_that_names_no_loss_trains_with_hubers(tmp_path: Path) -> None:
    silent, named = train(tmp_path / "a"), train(tmp_path / "b", loss="huber")
    assert silent.weights_digest == named.weights_digest


@pytest.mark.parametrize("model", [MLP, recurrent("gru")], ids=["mlp", "gru"])
def test_figures_agree_with_counting_by_hand(tmp_path: Path, model: dict[str, Any]) -> None:
    dataset, strategy = make_dataset(regression=True), make_strategy(model, **REGRESSION)
    bench = Bench(tmp_path, strategy, dataset)
    result = bench.complete()
    learner = Learner(strategy, dataset, Device(CPU, 0, lambda: 0.0))
    learner.model.load_state_dict(result.weights)
    learner.model.eval()
    rows, length = dataset.splits.test, strategy.model.sequence_length
    ends = list(rows)[(length or 1) - 1 :]
    shown = [
        dataset.inputs[end] if length is None else dataset.inputs[end - length + 1 : end + 1]
        for end in ends
    ]
    with torch.no_grad():
        values = learner.model(torch.tensor(np.array(shown)))[:, 0].tolist()
    labels = dataset.labels[ends].tolist()

    mean = sum(labels) / len(labels)
    errors = [value - label for value, label in zip(values, labels, strict=True)]
    signs = [(v > 0) == (x > 0) for v, x in zip(values, labels, strict=True)]
    explained = 1 - sum(e * e for e in errors) / sum((label - mean) ** 2 for label in labels)
    huber = [e * e / 2 if abs(e) <= 0.01 else 0.01 * (abs(e) - 0.005) for e in errors]
    metrics = result.metrics
    assert metrics["test_mae"] == pytest.approx(sum(map(abs, errors)) / len(errors), rel=1e-6)
    assert metrics["test_r2"] == pytest.approx(explained, rel=1e-5)
    assert metrics["test_sign_agreement"] == sum(signs) / len(signs)
    assert metrics["test_loss"] == pytest.approx(sum(huber) / len(huber), rel=1e-5)
    best = result.history[result.best_epoch - 1].metrics
    assert metrics["val_loss"] == best["val_loss"]
    assert metrics["val_sign_agreement"] == best["val_sign_agreement"]


def test_history_speaks_of_signs_and_not_of_classes(tmp_path: Path) -> None:
    result = train(tmp_path, epochs=1)
    assert set(result.history[0].metrics) == {
        "train_loss",
        "train_sign_agreement",
        "val_loss",
        "val_sign_agreement",
        "learning_rate",
        "duration",
    }
    assert result.metrics.keys() & {"per_class", "test_accuracy", "confusion_matrix"} == set()


def test_training_learns_what_there_is_to_learn(tmp_path: Path) -> None:
    result = train(tmp_path, {"type": "mlp", "architecture": {"dropout": 0}}, epochs=60)
    assert result.metrics["test_r2"] > 0.8
    assert result.metrics["test_sign_agreement"] > 0.8


@pytest.mark.parametrize("knob", [{"loss": "mse"}, {"huber_delta": 0.02}], ids=str)
def test_every_knob_of_the_losses_changes_the_model(tmp_path: Path, knob: dict[str, Any]) -> None:
    assert train(tmp_path / "a").weights_digest != train(tmp_path / "b", **knob).weights_digest


def test_signs_agree_where_both_are_equal() -> None:
    outputs = torch.tensor([0.1, -0.1, 0.0, 0.1, 0.1, -0.1])
    labels = torch.tensor([2.0, -3.0, 0.0, 0.0, -1.0, 1.0])
    hits = ValueCriterion(None).hits(outputs, labels)
    assert hits.tolist() == [True, True, True, False, False, False]


def test_the_share_explained_is_bounded_above_and_open_below() -> None:
    labels = torch.tensor([1.0, 2.0, 3.0])
    assert value_report(labels, labels) == {"test_mae": 0.0, "test_r2": 1.0}
    assert value_report(torch.full((3,), 2.0), labels)["test_r2"] == 0.0
    assert value_report(torch.zeros(3), labels)["test_r2"] == 1 - 14 / 2
    assert value_report(labels, torch.full((3,), 0.1))["test_r2"] is None


@pytest.mark.parametrize("model", [MLP, recurrent("lstm", num_layers=1)], ids=["mlp", "lstm"])
def test_a_stored_model_answers_with_values(tmp_path: Path, model: dict[str, Any]) -> None:
    bench = Bench(tmp_path, make_strategy(model, **REGRESSION))
    header = stored(bench)
    loaded = load_model(*read_model(bench.storage, "tiny", 1))
    rows = bench.dataset.splits.test
    values = loaded.outputs(bench.dataset.inputs[rows.start : rows.stop])[:, 0]
    labels = bench.dataset.labels[rows.stop - len(values) : rows.stop]

    assert loaded.class_names == ()
    assert len(values) == len(rows) - (loaded.strategy.model.sequence_length or 1) + 1
    errors = np.abs(values.astype(np.float64) - labels)
    assert errors.mean() == pytest.approx(header.metrics["test_mae"], rel=1e-6)


def test_a_model_of_sequences_answers_from_the_first_whole_one_on(tmp_path: Path) -> None:
    bench = Bench(tmp_path, make_strategy(recurrent("gru")))
    header = stored(bench)
    loaded = load_model(*read_model(bench.storage, "tiny", 1))
    rows = bench.dataset.splits.test
    answers = loaded.outputs(bench.dataset.inputs[rows.start : rows.stop]).argmax(axis=1)
    labels = bench.dataset.labels[rows.start + 3 : rows.stop].tolist()
    assert (answers == labels).mean() == header.metrics["test_accuracy"]


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_loss_that_is_no_number_never_completes(tmp_path: Path, poison: float) -> None:
    dataset = make_dataset(regression=True)
    labels = dataset.labels.copy()
    labels[5] = poison
    bad = dataclasses.replace(dataset, labels=labels)
    with pytest.raises(NonFiniteLoss):
        Bench(tmp_path, make_strategy(**REGRESSION, loss="mse"), bad).complete()


def test_a_test_split_that_never_moves_still_completes(tmp_path: Path) -> None:
    dataset = make_dataset(regression=True)
    labels = dataset.labels.copy()
    labels[dataset.splits.test.start :] = 0.0
    still = dataclasses.replace(dataset, labels=labels)
    result = Bench(tmp_path, make_strategy(**REGRESSION), still).complete()
    assert result.metrics["test_r2"] is None
    assert math.isfinite(result.metrics["test_mae"])
