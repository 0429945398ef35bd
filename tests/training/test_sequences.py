"""Recurrent networks: what they are shown, what each knob does, and that a model stored answers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import BATCHES, Bench, make_dataset, make_strategy, outcome, recurrent

from ktrdr.features.dataset import Dataset
from ktrdr.training.batches import ShuffledBatches, Split, permutation, sequences
from ktrdr.training.learner import Device, Learner
from ktrdr.training.networks import build_model
from ktrdr.training.weights import weights_digest

CPU = torch.device("cpu")
LENGTH = 4
COLUMNS = make_dataset().columns


def by_hand(dataset: Dataset, rows: range) -> list[tuple[list[list[float]], float]]:
    """Each sequence of a split with its label, from plain slices."""
    return [
        (dataset.inputs[end - LENGTH + 1 : end + 1].tolist(), dataset.labels[end].item())
        for end in rows
        if end - LENGTH + 1 >= rows.start
    ]


def pairs(batches: Any) -> list[tuple[list[list[float]], float]]:
    return [
        (sequence.tolist(), label.item())
        for inputs, labels, _ in batches
        for sequence, label in zip(inputs, labels, strict=True)
    ]


@pytest.mark.parametrize("part", ["train", "validation", "test"])
@pytest.mark.parametrize("regression", [False, True])
def test_a_split_is_its_own_sequences_with_the_label_of_the_last_row(
    part: str, regression: bool
) -> None:
    dataset = make_dataset(regression=regression)
    rows = getattr(dataset.splits, part)
    split = Split(dataset, rows, CPU, LENGTH)
    expected = by_hand(dataset, rows)
    assert len(split) == len(expected) == len(rows) - LENGTH + 1
    assert pairs([(split.inputs, split.labels, None)]) == expected
    assert split.last_rows.tolist() == [sequence[-1] for sequence, _ in expected]


def test_shuffled_batches_hold_each_sequence_once_in_the_order_of_the_epoch() -> None:
    dataset = make_dataset()
    split = Split(dataset, dataset.splits.train, CPU, LENGTH)
    batches = ShuffledBatches(split, 16, seed=7)
    expected = by_hand(dataset, dataset.splits.train)
    for epoch in (0, 5):
        order = permutation(7, epoch, len(split)).tolist()
        assert pairs(batches.arrange(epoch, 0)) == [expected[place] for place in order]
        assert batches.labels.tolist() == [expected[place][1] for place in order]
        assert pairs(batches.arrange(epoch, 2)) == [expected[place] for place in order[32:]]


def test_sequences_take_no_memory_of_their_own() -> None:
    rows = torch.rand(1000, 7)
    shown = sequences(rows, 50)
    assert shown.shape == (951, 50, 7)
    assert shown.untyped_storage().data_ptr() == rows.untyped_storage().data_ptr()
    assert sequences(rows, 1001).shape == (0, 1001, 7)
    assert sequences(rows, 1000).shape == (1, 1000, 7)


def test_training_sees_nothing_beyond_its_split(tmp_path: Path) -> None:
    """Other rows from the validation split on change no weight while training is all there is."""
    dataset, strategy = make_dataset(), make_strategy(recurrent("gru"))
    inputs = dataset.inputs.copy()
    inputs[dataset.splits.train.stop :] += 1
    other = dataclasses.replace(dataset, inputs=inputs)
    one, two = (Bench(tmp_path / str(i), strategy, d) for i, d in enumerate([dataset, other]))
    last = 3 * BATCHES
    digests = [bench.stop(last).checkpoint for bench in (one, two)]
    assert digests[0] is not None
    assert digests[1] is not None
    assert digests[0].weights_digest == digests[1].weights_digest


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_the_answer_comes_from_the_whole_sequence_and_nothing_else(kind: str) -> None:
    model = make_strategy(recurrent(kind, dropout=0)).model
    network = build_model(model, COLUMNS, 3, seed=1)
    shown = sequences(torch.rand(20, 5), LENGTH)
    together = network(shown)
    for place in (0, 7, 16):
        torch.testing.assert_close(network(shown[place : place + 1])[0], together[place])
    for step in range(LENGTH):
        changed = shown[:1].clone()
        changed[0, step] += 1
        assert not torch.equal(network(changed), network(shown[:1]))


@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_network_without_dropout_is_what_torch_would_stack(kind: str, num_layers: int) -> None:
    model = make_strategy(recurrent(kind, num_layers=num_layers, dropout=0)).model
    network: Any = build_model(model, COLUMNS, 3, seed=1)
    reference = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[kind](5, 5, num_layers)
    weights = {
        name.replace("_l0", f"_l{level}"): tensor
        for level, layer in enumerate(network.layers)
        for name, tensor in layer.state_dict().items()
    }
    reference.load_state_dict(weights)
    shown = torch.rand(9, LENGTH, 5)
    expected = network.head(reference(shown.transpose(0, 1))[0][-1])
    torch.testing.assert_close(network(shown), expected)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_dropout_works_at_every_depth_and_only_while_training(num_layers: int) -> None:
    model = make_strategy(recurrent("gru", num_layers=num_layers)).model
    network, shown = build_model(model, COLUMNS, 3, seed=1), torch.rand(9, LENGTH, 5)
    torch.manual_seed(1)
    assert not torch.equal(network(shown), network(shown))
    network.eval()
    assert torch.equal(network(shown), network(shown))


@pytest.mark.parametrize(
    "knob",
    [
        {"sequence_length": 5},
        {"hidden_size": 6},
        {"num_layers": 1},
        {"dropout": 0.2},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_every_knob_of_a_network_changes_the_model(
    tmp_path: Path, kind: str, knob: dict[str, Any]
) -> None:
    plain = Bench(tmp_path / "plain", make_strategy(recurrent(kind), epochs=1)).complete()
    turned = Bench(tmp_path / "turned", make_strategy(recurrent(kind, **knob), epochs=1)).complete()
    assert plain.weights_digest != turned.weights_digest


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_first_weights_depend_on_the_seed_alone(kind: str) -> None:
    model, before = make_strategy(recurrent(kind)).model, torch.get_rng_state()
    digests = [
        weights_digest(build_model(model, COLUMNS, 3, seed).state_dict()) for seed in (1, 1, 2)
    ]
    assert digests[0] == digests[1] != digests[2]
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_the_same_training_twice_gives_the_same_bits(tmp_path: Path, kind: str) -> None:
    strategy, dataset = make_strategy(recurrent(kind, hidden_size=24)), make_dataset(rows=400)
    one, two = (Bench(tmp_path / name, strategy, dataset).complete() for name in "ab")
    assert outcome(one) == outcome(two)


def test_epoch_figures_are_of_the_sequences(tmp_path: Path) -> None:
    strategy, dataset = make_strategy(recurrent("gru"), epochs=1), make_dataset()
    result = Bench(tmp_path, strategy, dataset).complete()
    learner = Learner(strategy, dataset, Device(CPU, 0, lambda: 0.0))
    learner.model.load_state_dict(result.weights)
    learner.model.eval()
    expected = by_hand(dataset, dataset.splits.validation)
    with torch.no_grad():
        scores = learner.model(torch.tensor([sequence for sequence, _ in expected]))
    hits = [int(a == b) for a, (_, b) in zip(scores.argmax(dim=1).tolist(), expected, strict=True)]
    assert result.history[0].metrics["val_accuracy"] == sum(hits) / len(hits)
