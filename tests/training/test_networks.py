"""The temporal convolutional network, and what all networks have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_training import (
    MLP,
    Bench,
    convolutional,
    make_dataset,
    make_strategy,
    neuro_fuzzy,
    outcome,
    recurrent,
)
from torch import nn

from ktrdr.errors import InvalidStrategy
from ktrdr.strategy.loading import validate_strategy
from ktrdr.training.networks import build_model
from ktrdr.training.weights import weights_digest

COLUMNS = make_dataset(crisp=True).columns
ROWS = torch.from_numpy(make_dataset().inputs.copy())
EVERY = {
    "mlp": MLP,
    "lstm": recurrent("lstm"),
    "gru": recurrent("gru"),
    "tcn": convolutional(),
    "neuro_fuzzy": neuro_fuzzy(),
}


def built(model: dict[str, Any], seed: int = 1) -> nn.Module:
    return build_model(make_strategy(model).model, COLUMNS, 3, seed, ROWS)


def shown(length: int, count: int = 6, seed: int = 5) -> torch.Tensor:
    return torch.rand(count, length, 5, generator=torch.Generator().manual_seed(seed))


def convolved(
    steps: NDArray[np.float64], state: dict[str, NDArray[np.float64]], name: str, dilation: int
) -> NDArray[np.float64]:
    """Zeros stand before the first step: every tap is taken by hand."""
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    taps = weight.shape[2]
    found = np.tile(bias, (len(steps), 1))
    for step in range(len(steps)):
        for tap in range(taps):
            source = step - (taps - 1 - tap) * dilation
            if source >= 0:
                found[step] += weight[:, :, tap] @ steps[source]
    return found


def answer_by_hand(network: nn.Module, sequence: torch.Tensor, levels: int) -> NDArray[np.float64]:
    """The formulas of Bai, Kolter and Koltun (2018), figure 1, without weight normalisation."""
    state = {name: value.double().numpy() for name, value in network.state_dict().items()}
    steps = sequence.double().numpy()
    for level in range(levels):
        block = f"blocks.{level}"
        inner = np.maximum(convolved(steps, state, f"{block}.first", 2**level), 0)
        inner = np.maximum(convolved(inner, state, f"{block}.second", 2**level), 0)
        if f"{block}.shortcut.weight" in state:
            steps = convolved(steps, state, f"{block}.shortcut", 1)
        steps = np.maximum(inner + steps, 0)
    answer: NDArray[np.float64] = state["head.weight"] @ steps[-1] + state["head.bias"]
    return answer


@pytest.mark.parametrize(
    ("length", "channels", "kernel_size"),
    [(9, [4], 3), (12, [4, 4], 2), (10, [5, 6, 6], 3), (3, [4, 4, 4], 4), (1, [4, 3], 2)],
)
def test_a_tcn_answers_as_its_formulas_say(
    length: int, channels: list[int], kernel_size: int
) -> None:
    """Also where the sequence is too short for the farthest taps."""
    shape = {"sequence_length": length, "channels": channels, "kernel_size": kernel_size}
    network = built(convolutional(**shape)).eval()
    sequences = shown(length)
    with torch.no_grad():
        answers = network(sequences).numpy()
    for sequence, answer in zip(sequences, answers, strict=True):
        expected = answer_by_hand(network, sequence, len(channels))
        np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-6)


def test_a_tcn_sees_as_far_back_as_documented_and_no_farther() -> None:
    shape = {"sequence_length": 20, "channels": [16, 16], "kernel_size": 3, "dropout": 0}
    network, sequences = built(convolutional(**shape)).eval(), shown(20, count=32)
    field = 1 + 2 * (3 - 1) * (2**2 - 1)
    with torch.no_grad():
        before = network(sequences)
        for step in range(20):
            changed = sequences.clone()
            changed[:, step] += 3.0
            assert torch.equal(network(changed), before) is (step < 20 - field)


def test_a_long_dilation_asks_for_no_long_padding() -> None:
    """14 levels of 64 taps would pad a sequence of 3 with half a million steps."""
    shape = {"sequence_length": 3, "channels": [2] * 14, "kernel_size": 64}
    network = built(convolutional(**shape))
    network(shown(3, count=2000)).sum().backward()


def test_dropout_of_a_tcn_draws_from_torch_and_only_while_training() -> None:
    network, sequences = built(convolutional()), shown(4)
    torch.manual_seed(3)
    first, second = network(sequences), network(sequences)
    torch.manual_seed(3)
    assert torch.equal(network(sequences), first)
    assert not torch.equal(first, second)
    network.eval()
    assert torch.equal(network(sequences), network(sequences))


@pytest.mark.parametrize(
    ("model", "knob"),
    [
        *((convolutional, knob) for knob in ("sequence_length", "channels", "kernel_size")),
        (convolutional, "dropout"),
        *((neuro_fuzzy, knob) for knob in ("max_rules", "order", "train_memberships")),
    ],
)
def test_every_knob_changes_the_model(tmp_path: Path, model: Any, knob: str) -> None:
    other = {
        "sequence_length": 5,
        "channels": [5, 5],
        "kernel_size": 3,
        "dropout": 0.2,
        "max_rules": 11,
        "order": 0,
        "train_memberships": False,
    }
    plain = Bench(tmp_path / "plain", make_strategy(model(), epochs=1)).complete()
    turned = make_strategy(model(**{knob: other[knob]}), epochs=1)
    assert plain.weights_digest != Bench(tmp_path / "turned", turned).complete().weights_digest


@pytest.mark.parametrize("kind", EVERY)
def test_first_weights_depend_on_the_seed_alone(kind: str) -> None:
    before = torch.get_rng_state()
    digests = [weights_digest(built(EVERY[kind], seed).state_dict()) for seed in (1, 1, 2)]
    assert digests[0] == digests[1] != digests[2]
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("kind", ["tcn", "neuro_fuzzy"])
def test_the_same_training_twice_gives_the_same_bits(tmp_path: Path, kind: str) -> None:
    strategy = make_strategy(EVERY[kind])
    dataset = make_dataset(rows=300, crisp=kind == "neuro_fuzzy")
    one, two = (Bench(tmp_path / name, strategy, dataset).complete() for name in "ab")
    assert outcome(one) == outcome(two)


@pytest.mark.parametrize("kind", EVERY)
def test_a_state_fits_a_network_built_without_training_rows(kind: str) -> None:
    """As a stored model's must, and a checkpoint's."""
    model = make_strategy(EVERY[kind]).model
    trained = build_model(model, COLUMNS, 3, 1, ROWS)
    loaded = build_model(model, COLUMNS, 3, 2)
    loaded.load_state_dict(trained.state_dict())
    rows = ROWS[:8] if model.sequence_length is None else shown(model.sequence_length)
    assert torch.equal(loaded.eval()(rows), trained.eval()(rows))


def mistakes(model: dict[str, Any], **parts: Any) -> dict[str, str]:
    data = {**make_strategy().model_dump(mode="json", exclude_none=True), "model": model, **parts}
    with pytest.raises(InvalidStrategy) as caught:
        validate_strategy(data, "x.yaml")
    return {item["path"]: item["message"] for item in caught.value.details["problems"]}


@pytest.mark.parametrize(
    ("model", "path", "said"),
    [
        (neuro_fuzzy(max_rules=1), "model.architecture.max_rules", "equal to 2"),
        (neuro_fuzzy(max_rules=1025), "model.architecture.max_rules", "equal to 1024"),
        (neuro_fuzzy(order=2), "model.architecture.order", "equal to 1"),
        (neuro_fuzzy(order=True), "model.architecture.order", "integer"),
        (neuro_fuzzy(train_memberships="yes"), "model.architecture.train_memberships", "boolean"),
        (neuro_fuzzy(sequence_length=4), "model.architecture.sequence_length", "lstm, gru or tcn"),
        (
            {"type": "mlp", "architecture": {"sequence_length": 4}},
            "model.architecture.sequence_length",
            "remove it, or choose lstm, gru or tcn",
        ),
        (neuro_fuzzy(rules=4), "model.architecture.rules", "did you mean max_rules?"),
        (convolutional(channels=[]), "model.architecture.channels", "at least 1"),
        (convolutional(channels=[4] * 15), "model.architecture.channels", "at most 14"),
        (convolutional(kernel_size=1), "model.architecture.kernel_size", "equal to 2"),
        (convolutional(hidden_size=3), "model.architecture.hidden_size", "unknown key"),
        ({"type": "tcn"}, "model.architecture", "required"),
        ({"type": "cnn"}, "model", "must be mlp, lstm, gru, tcn or neuro_fuzzy"),
    ],
)
def test_mistakes_are_named_with_what_to_change(
    model: dict[str, Any], path: str, said: str
) -> None:
    found = mistakes(model)
    assert found.keys() == {path}
    assert said in found[path]


def test_a_rule_base_without_rules_is_a_mistake_of_the_inputs() -> None:
    single = {"rsi": {"indicator": "rsi_14", "low": [0, 20, 40]}}
    found = mistakes(neuro_fuzzy(), fuzzy_sets=single)
    assert "give one of its fuzzy sets a second membership" in found["nn_inputs"]
    found = mistakes(neuro_fuzzy(), nn_inputs=[{"raw_indicator": "rsi_14"}])
    assert "name one as {fuzzy_set: <id>}" in found["nn_inputs"]
