"""The loop: every knob does what it says, and nothing that went wrong looks like success."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import (
    BATCHES,
    EPOCHS,
    OPERATION,
    Bench,
    make_dataset,
    make_job,
    make_storage,
    make_strategy,
    outcome,
)

from ktrdr.checkpoints.adoption import found
from ktrdr.checkpoints.verify import read_checkpoint
from ktrdr.operations.types import CheckpointType, Phase, StopKind
from ktrdr.training.batches import Split, permutation
from ktrdr.training.context import LocalContext
from ktrdr.training.learner import Device, Learner
from ktrdr.training.losses import ClassCriterion, class_weights, make_criterion
from ktrdr.training.split_scores import evaluate
from ktrdr.training.state import NonFiniteLoss
from ktrdr.training.trainer import Completed, Stopped, fit
from ktrdr.training.weights import weights_digest

CPU = torch.device("cpu")
GETS_WORSE: dict[str, Any] = {"epochs": 8, "learning_rate": 0.2, "seed": 13}


def train(context: LocalContext, **training: Any) -> Completed | Stopped:
    dataset = make_dataset()
    return fit(make_job(make_strategy(**training), dataset), dataset, context)


def local(root: Path, **options: Any) -> LocalContext:
    return LocalContext(make_storage(root), OPERATION, 1, **options)


def test_the_model_returned_is_that_of_the_best_epoch(tmp_path: Path) -> None:
    result = train(local(tmp_path), **GETS_WORSE)
    assert isinstance(result, Completed)
    losses = [row.metrics["val_loss"] for row in result.history]
    assert result.best_epoch == 1 + losses.index(min(losses)) < result.epochs == 8

    dataset, strategy = make_dataset(), make_strategy(**GETS_WORSE)
    learner = Learner(strategy, dataset, Device(CPU, 0, lambda: 0.0))
    learner.model.load_state_dict(result.weights)
    split = Split(dataset, dataset.splits.validation, CPU, None)
    train_labels = Split(dataset, dataset.splits.train, CPU, None).labels
    criterion = make_criterion(strategy.training, train_labels, dataset.class_names)
    assert evaluate(learner.model, split, criterion).loss == min(losses)


def test_best_weights_are_no_alias_of_the_live_ones() -> None:
    learner = Learner(make_strategy(), make_dataset(), Device(CPU, 0, lambda: 0.0))
    for batch in learner.remaining_batches():
        learner.step(batch)
    learner.finish_epoch()
    assert learner.best_weights is not None
    before = weights_digest(learner.best_weights)
    for batch in learner.remaining_batches():
        learner.step(batch)
    assert weights_digest(learner.best_weights) == before
    assert weights_digest(learner.model.state_dict()) != before


def test_without_validation_the_last_epoch_is_the_best(tmp_path: Path) -> None:
    dataset = make_dataset()
    splits = dataclasses.replace(dataset.splits, validation=range(0), test=range(0))
    dataset = dataclasses.replace(dataset, splits=splits)
    strategy = make_strategy(data_split={"train": 1.0, "validation": 0.0, "test": 0.0})
    result = Bench(tmp_path, strategy, dataset).complete()
    assert (result.best_epoch, result.metrics) == (EPOCHS, {})
    assert "val_loss" not in result.history[0].metrics


def test_early_stopping_ends_after_its_patience(tmp_path: Path) -> None:
    stopping = {"patience": 2, "min_delta": 0.0}
    result = train(local(tmp_path), early_stopping=stopping, **GETS_WORSE)
    assert isinstance(result, Completed)
    assert result.epochs == result.best_epoch + 2 == len(result.history)


def test_disabled_early_stopping_does_not_stop_but_its_monitor_decides(tmp_path: Path) -> None:
    stopping = {"enabled": False, "patience": 1, "monitor": "val_accuracy"}
    result = train(local(tmp_path), early_stopping=stopping, **GETS_WORSE)
    assert isinstance(result, Completed)
    accuracies = [row.metrics["val_accuracy"] for row in result.history]
    assert result.epochs == 8
    assert result.best_epoch == 1 + accuracies.index(max(accuracies))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (None, [0.1, 0.1, 0.1, 0.1]),
        ({"type": "step", "step_size": 2, "gamma": 0.5}, [0.1, 0.1, 0.05, 0.05]),
        ({"type": "exponential", "gamma": 0.5}, [0.1, 0.05, 0.025, 0.0125]),
        ({"type": "cosine"}, [0.1, 0.0853553, 0.05, 0.0146447]),
    ],
)
def test_the_learning_rate_follows_its_schedule(
    tmp_path: Path, schedule: dict[str, Any] | None, expected: list[float]
) -> None:
    result = train(local(tmp_path), epochs=4, learning_rate=0.1, lr_scheduler=schedule)
    assert isinstance(result, Completed)
    rates = [row.metrics["learning_rate"] for row in result.history]
    assert rates == pytest.approx(expected, rel=1e-5)


def test_the_learning_rate_drops_on_a_plateau(tmp_path: Path) -> None:
    schedule = {"type": "reduce_on_plateau", "factor": 0.5, "patience": 0}
    result = train(local(tmp_path), lr_scheduler=schedule, **GETS_WORSE)
    assert isinstance(result, Completed)
    rates = [row.metrics["learning_rate"] for row in result.history]
    losses = [row.metrics["val_loss"] for row in result.history]
    for epoch in range(1, len(rates)):
        dropped = min(losses[: epoch - 1], default=np.inf) * (1 - 1e-4) <= losses[epoch - 1]
        assert rates[epoch] == rates[epoch - 1] * (0.5 if dropped else 1.0)


@pytest.mark.parametrize(
    "knob",
    [
        {"optimizer": "adamw", "weight_decay": 0.1},
        {"optimizer": "sgd"},
        {"optimizer": "sgd", "momentum": 0.5},
        {"optimizer": "rmsprop"},
        {"optimizer": "rmsprop", "momentum": 0.5},
        {"weight_decay": 0.1},
        {"gradient_clip": 0.01, "optimizer": "sgd"},
        {"loss": "focal"},
        {"loss": "focal", "focal_gamma": 1.0},
        {"seed": 43},
        {"batch_size": 15},
        {"learning_rate": 0.021},
    ],
    ids=str,
)
def test_every_knob_changes_the_model(tmp_path: Path, knob: dict[str, Any]) -> None:
    without = {key: value for key, value in knob.items() if key == "optimizer"}
    if knob.keys() == {"optimizer"}:
        without = {}
    one = train(local(tmp_path / "with"), **knob)
    two = train(local(tmp_path / "without"), **without)
    assert isinstance(one, Completed)
    assert isinstance(two, Completed)
    assert one.weights_digest != two.weights_digest


def test_the_same_training_twice_gives_the_same_bits(tmp_path: Path) -> None:
    one, two = train(local(tmp_path / "1")), train(local(tmp_path / "2"))
    assert isinstance(one, Completed)
    assert isinstance(two, Completed)
    assert outcome(one) == outcome(two)


def test_test_metrics_agree_with_counting_by_hand(tmp_path: Path) -> None:
    dataset, strategy = make_dataset(), make_strategy()
    result = Bench(tmp_path, strategy, dataset).complete()
    learner = Learner(strategy, dataset, Device(CPU, 0, lambda: 0.0))
    learner.model.load_state_dict(result.weights)
    learner.model.eval()
    rows = slice(dataset.splits.test.start, dataset.splits.test.stop)
    with torch.no_grad():
        scores = learner.model(torch.tensor(dataset.inputs[rows])).numpy()
    pairs = list(zip(dataset.labels[rows].tolist(), scores.argmax(axis=1).tolist(), strict=True))

    metrics = result.metrics
    assert metrics["confusion_matrix"] == [
        [pairs.count((true, guess)) for guess in range(3)] for true in range(3)
    ]
    assert metrics["test_accuracy"] == sum(a == b for a, b in pairs) / len(pairs)
    for index, name in enumerate(dataset.class_names):
        hits = pairs.count((index, index))
        guessed = sum(guess == index for _, guess in pairs)
        actual = sum(true == index for true, _ in pairs)
        report = metrics["per_class"][name]
        assert report["support"] == actual
        assert report["precision"] == (hits / guessed if guessed else 0.0)
        assert report["recall"] == (hits / actual if actual else 0.0)
    log_shares = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    weights = class_weights(torch.tensor(dataset.labels[: dataset.splits.train.stop]), 3).numpy()
    labels = dataset.labels[rows]
    losses = -log_shares[np.arange(len(labels)), labels]
    expected = np.average(losses, weights=weights[labels])
    assert metrics["test_loss"] == pytest.approx(expected, rel=1e-5)


def test_rare_classes_weigh_more_within_bounds() -> None:
    weights = class_weights(torch.tensor([0] * 90 + [1] * 9 + [2]), 3)
    assert weights.tolist() == pytest.approx([100 / 270, 100 / 27, 10.0])


def test_focal_loss_with_gamma_zero_is_cross_entropy() -> None:
    torch.manual_seed(0)
    outputs, labels = torch.randn(50, 3), torch.randint(3, (50,))
    weights = class_weights(labels, 3)
    plain, focal, strong = (ClassCriterion(weights, g, ("a", "b", "c")) for g in (None, 0.0, 2.0))
    torch.testing.assert_close(plain.mean(outputs, labels), focal.mean(outputs, labels))
    assert strong.mean(outputs, labels) < plain.mean(outputs, labels)


def test_a_shuffle_depends_on_seed_and_epoch_only() -> None:
    before = torch.get_rng_state()
    order = permutation(42, 3, 1000)
    torch.rand(5)
    assert torch.equal(order, permutation(42, 3, 1000))
    assert sorted(order.tolist()) == list(range(1000))
    assert not torch.equal(order, permutation(42, 4, 1000))
    assert not torch.equal(order, permutation(43, 3, 1000))
    torch.set_rng_state(before)
    permutation(1, 1, 10)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_loss_that_is_no_number_never_completes(tmp_path: Path, poison: float) -> None:
    dataset = make_dataset()
    inputs = dataset.inputs.copy()
    inputs[5, 2] = poison
    context = local(tmp_path)
    bad = dataclasses.replace(dataset, inputs=inputs)
    with pytest.raises(NonFiniteLoss, match="learning_rate"):
        fit(make_job(make_strategy(), bad), bad, context)
    kinds = {new.checkpoint_type for new in found(context.storage, OPERATION, 1)}
    assert kinds == {CheckpointType.INITIAL}


def test_a_state_that_is_no_number_is_not_saved_on_a_stop(tmp_path: Path) -> None:
    dataset = make_dataset()
    inputs = np.full_like(dataset.inputs, np.nan)
    bad = dataclasses.replace(dataset, inputs=inputs)
    context = local(tmp_path, stop_at=2)
    with pytest.raises(NonFiniteLoss, match="batch 2"):
        fit(make_job(make_strategy(), bad), bad, context)
    assert {row.checkpoint_type for row in context.rows} == {CheckpointType.INITIAL}


@pytest.mark.parametrize(
    ("kind", "checkpoint_type"),
    [
        (StopKind.USER, CheckpointType.CANCELLATION),
        (StopKind.SHUTDOWN, CheckpointType.SHUTDOWN),
        (StopKind.DRAIN, CheckpointType.DRAIN),
    ],
)
def test_a_stop_is_saved_at_the_next_batch(
    tmp_path: Path, kind: StopKind, checkpoint_type: CheckpointType
) -> None:
    context = local(tmp_path, stop_at=BATCHES + 2, stop_kind=kind)
    result = train(context)
    assert isinstance(result, Stopped)
    assert (result.kind, result.epoch, result.batch) == (kind, 1, 2)
    assert result.checkpoint is not None
    manifest, _ = read_checkpoint(context.storage.at(result.checkpoint.path))
    assert (manifest.checkpoint_type, manifest.epoch, manifest.batch) == (checkpoint_type, 1, 2)
    assert context.phases == [Phase.TRAINING, Phase.STOPPING]
    progress = context.progress.sample()
    assert (progress.epoch, progress.batch, progress.batches) == (1, 2, BATCHES)
    assert progress.percent == 50.0


@pytest.mark.parametrize("part", ["weights", "optimizer", "loss"])
def test_no_part_of_a_snapshot_may_be_no_number(part: str) -> None:
    learner = Learner(make_strategy(), make_dataset(), Device(CPU, 0, lambda: 0.0))
    learner.step(next(iter(learner.remaining_batches())))
    learner.snapshot(CheckpointType.PERIODIC)
    with torch.no_grad():
        if part == "weights":
            next(learner.model.parameters())[0, 0] = np.inf
        elif part == "optimizer":
            next(iter(learner.optimizer.state.values()))["exp_avg"][0, 0] = np.nan
        else:
            learner.loop.loss_total = np.nan
    with pytest.raises(NonFiniteLoss, match=part):
        learner.snapshot(CheckpointType.PERIODIC)
    assert learner.mid_update
