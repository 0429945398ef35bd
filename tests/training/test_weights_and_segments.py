"""Samples that count differently, stretches that belong apart, and predictions row by row."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import (
    BATCHES,
    EPOCHS,
    MLP,
    REGRESSION,
    Bench,
    convolutional,
    make_dataset,
    make_strategy,
    neuro_fuzzy,
    outcome,
    recurrent,
)
from torch import Tensor

from ktrdr.features.dataset import Dataset, Segment, dataset_digest
from ktrdr.training.batch_invariant import BATCH_ROWS, predictions
from ktrdr.training.batches import ShuffledBatches, Split
from ktrdr.training.losses import ClassCriterion, ValueCriterion
from ktrdr.training.networks import build_model
from ktrdr.training.split_scores import evaluate

CPU = torch.device("cpu")
LENGTH = 4
MODELS: dict[str, dict[str, Any]] = {
    "mlp": MLP,
    "lstm": recurrent("lstm"),
    "gru": recurrent("gru"),
    "tcn": convolutional(),
    "neuro_fuzzy": neuro_fuzzy(),
}


def several(crisp: bool = False, regression: bool = False) -> Dataset:
    """Two symbols, the second one's training cut in two, and samples that count differently.

    Every fourth row is no sample at all.
    """
    plain = make_dataset(rows=130, crisp=crisp, regression=regression)
    random = np.random.default_rng(11)
    weights = random.uniform(0.1, 1.0, 130).astype(np.float32)
    weights[::4] = 0
    cuts = {"ONE": [(0, 33), (78, 92), (104, 119)], "TWO": [(33, 61), (61, 78), (92, 104)]}
    cuts["TWO"].append((119, 130))
    segments = [Segment(symbol, *cut) for symbol, found in cuts.items() for cut in found]
    segments.sort(key=lambda part: part.start)
    return with_digest(plain, weights=weights, segments=tuple(segments))


def with_digest(dataset: Dataset, **changes: Any) -> Dataset:
    made = dataclasses.replace(dataset, **changes)
    digest = dataset_digest(made.inputs, made.labels, made.splits, made.segments, made.weights)
    return dataclasses.replace(made, digest=digest)


# Losses by hand -----------------------------------------------------------------------------------

OUTPUTS = [[2.0, 0.5, -1.0], [0.0, 1.0, 0.0], [-1.0, 0.3, 0.2]]
LABELS, OF_CLASS, WEIGHTS = [0, 2, 1], [0.5, 2.0, 1.5], [0.25, 1.0, 0.5]


def shares(outputs: list[float]) -> list[float]:
    total = sum(math.exp(value) for value in outputs)
    return [math.exp(value) / total for value in outputs]


@pytest.mark.parametrize("gamma", [None, 2.0])
def test_the_loss_of_classes_counts_each_sample_by_its_weight(gamma: float | None) -> None:
    criterion = ClassCriterion(torch.tensor(OF_CLASS), gamma, ("a", "b", "c"))
    losses, weights = [], []
    for outputs, label, weight in zip(OUTPUTS, LABELS, WEIGHTS, strict=True):
        share = shares(outputs)[label]
        losses.append(-math.log(share) * (1 - share) ** (gamma or 0))
        weights.append(weight * OF_CLASS[label])
    total = sum(weight * loss for weight, loss in zip(weights, losses, strict=True))
    check_loss(criterion, torch.tensor(OUTPUTS), torch.tensor(LABELS), total, sum(weights))


@pytest.mark.parametrize("delta", [None, 0.5])
def test_the_loss_of_values_counts_each_sample_by_its_weight(delta: float | None) -> None:
    outputs, labels = [0.1, -1.0, 2.0], [0.3, 0.5, 1.9]
    losses = []
    for output, label in zip(outputs, labels, strict=True):
        error = abs(output - label)
        if delta is None:
            losses.append(error**2)
        else:
            losses.append(error**2 / 2 if error <= delta else delta * (error - delta / 2))
    total = sum(weight * loss for weight, loss in zip(WEIGHTS, losses, strict=True))
    answers_made = torch.tensor(outputs)[:, None]
    check_loss(ValueCriterion(delta), answers_made, torch.tensor(labels), total, sum(WEIGHTS))


def check_loss(
    criterion: Any, outputs: Tensor, labels: Tensor, total: float, weight: float
) -> None:
    weights = torch.tensor(WEIGHTS)
    found = criterion.total(outputs, labels, weights)
    assert [value.item() for value in found] == pytest.approx([total, weight], rel=1e-5)
    mean = criterion.mean(outputs, labels, weights).item()
    assert mean == pytest.approx(total / weight, rel=1e-5)
    ones = torch.ones(3)
    assert criterion.mean(outputs, labels, ones).item() == pytest.approx(
        criterion.mean(outputs, labels).item(), rel=1e-6
    )


def test_a_split_is_judged_by_the_weights_of_its_samples() -> None:
    dataset = several()
    strategy = make_strategy()
    split = Split(dataset, dataset.splits.validation, CPU, None)
    model = build_model(strategy.model, dataset.columns, 3, 1, split.last_rows)
    criterion = ClassCriterion(torch.tensor([1.0, 2.0, 0.5]), None, dataset.class_names)
    found = evaluate(model, split, criterion)
    assert split.weights is not None
    total = weight = 0.0
    model.eval()
    for row in range(len(split)):
        label = int(split.labels[row])
        share = shares(model(split.inputs[row : row + 1])[0].tolist())[label]
        counts = float(split.weights[row]) * [1.0, 2.0, 0.5][label]
        total, weight = total - counts * math.log(share), weight + counts
    assert found.loss == pytest.approx(total / weight, rel=1e-4)
    hits = (found.predictions == split.labels).sum().item()
    assert found.hit_rate == hits / len(split)


# Which rows are trained on ------------------------------------------------------------------------


@pytest.mark.parametrize("length", [None, LENGTH])
def test_rows_that_do_not_count_are_no_samples(length: int | None) -> None:
    dataset = several()
    for rows in vars(dataset.splits).values():
        split = Split(dataset, rows, CPU, length)
        expected = [
            row
            for part in dataset.segments
            for row in range(part.start + (length or 1) - 1, part.stop)
            if row in rows and row % 4
        ]
        assert dataset.samples(rows, length).tolist() == expected
        assert split.labels.tolist() == dataset.labels[expected].tolist()
        assert split.last_rows.tolist() == dataset.inputs[expected].tolist()
        assert split.weights is not None
        assert dataset.weights is not None
        assert split.weights.tolist() == dataset.weights[expected].tolist()
        batches = list(ShuffledBatches(split, 7, seed=1).arrange(0, 0))
        trained = [tuple(row) for batch in batches for row in last_of(batch.inputs)]
        assert sorted(trained) == sorted(tuple(row) for row in dataset.inputs[expected].tolist())


def last_of(inputs: Tensor) -> list[list[float]]:
    rows: list[list[float]] = (inputs if inputs.dim() == 2 else inputs[:, -1]).tolist()
    return rows


@pytest.mark.parametrize("kind", ["mlp", "gru"])
def test_a_row_of_weight_zero_changes_nothing_by_what_it_was_to_foresee(
    tmp_path: Path, kind: str
) -> None:
    dataset = several()
    labels = dataset.labels.copy()
    labels[::4] = (labels[::4] + 1) % 3
    inputs = dataset.inputs.copy()
    if kind == "mlp":
        inputs[::4] = 7.0
    other = with_digest(dataset, labels=labels, inputs=inputs)
    strategy = make_strategy(MODELS[kind])
    one = Bench(tmp_path / "one", strategy, dataset).complete()
    two = Bench(tmp_path / "two", strategy, other).complete()
    assert outcome(one) == outcome(two)
    assert dataset.weights is not None
    doubled = with_digest(dataset, weights=np.sqrt(dataset.weights))
    three = Bench(tmp_path / "three", strategy, doubled).complete()
    assert three.weights_digest != one.weights_digest  # weights that count do change something


# Resume and predictions ---------------------------------------------------------------------


@pytest.mark.parametrize("regression", [False, True], ids=["classes", "values"])
@pytest.mark.parametrize("kind", MODELS)
def test_weights_and_segments_survive_any_stop(tmp_path: Path, kind: str, regression: bool) -> None:
    training = REGRESSION if regression else {"loss": "focal"}
    strategy = make_strategy(MODELS[kind], **training)
    dataset = several(kind == "neuro_fuzzy", regression)
    straight = Bench(tmp_path / "straight", strategy, dataset)
    expected = outcome(straight.complete())
    batches = straight.context.progress.sample().batches
    assert batches
    bench = Bench(tmp_path / "stopped", strategy, dataset)
    for step in (1, batches + 1, EPOCHS * batches):
        bench.stop(step)
    assert outcome(bench.complete()) == expected


@pytest.mark.parametrize("kind", MODELS)
def test_an_answer_is_the_same_bits_whatever_stands_beside_the_row(kind: str) -> None:
    dataset = make_dataset(rows=2 * BATCH_ROWS + 80, crisp=kind == "neuro_fuzzy")
    strategy = make_strategy(MODELS[kind])
    length = strategy.model.sequence_length
    rows = range(len(dataset.inputs))
    split = Split(dataclasses.replace(dataset, weights=None), rows, CPU, length)
    model = build_model(strategy.model, dataset.columns, 3, 5, split.last_rows)
    model.eval()
    whole = predictions(model, split.inputs)
    count = len(split.inputs)
    assert len(whole) == count > 2 * BATCH_ROWS
    for start, stop in ((0, 1), (1, 2), (5, 38), (1000, 1050), (17, count), (count - 1, count)):
        part = predictions(model, split.inputs[start:stop])
        assert torch.equal(part, whole[start:stop]), (start, stop)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(3))
    assert torch.equal(predictions(model, split.inputs, order), whole[order])
    few = order[:100]
    assert torch.equal(predictions(model, split.inputs, few), whole[few])
    assert predictions(model, split.inputs[:0]).shape == (0, 3)


def test_batches_of_a_training_with_weights_are_as_many_as_its_samples() -> None:
    split = Split(several(), several().splits.train, CPU, None)
    assert len(ShuffledBatches(split, 16, 1)) == BATCHES == math.ceil(len(split) / 16)
