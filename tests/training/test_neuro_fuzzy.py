"""The rule base: its formulas, which rules it has, that its curves stay curves, and that it learns
rules that a person can read."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_training import (
    CURVES,
    MLP,
    REGRESSION,
    Bench,
    curve,
    make_dataset,
    make_strategy,
    neuro_fuzzy,
    stored,
)

from ktrdr.checkpoints.model_store import read_model
from ktrdr.errors import CheckpointCorrupted, InvalidStrategy, Usage
from ktrdr.features.columns import InputColumn
from ktrdr.features.dataset import Dataset, Splits
from ktrdr.features.memberships import grade
from ktrdr.inference.model import LoadedModel, load_model
from ktrdr.inference.rules import inputs_of, read_inputs, read_rules, rules_of
from ktrdr.strategy.memberships import Membership
from ktrdr.training.networks import build_model
from ktrdr.training.networks.combinations import strongest_combinations
from ktrdr.training.networks.curves import TrainedCurves
from ktrdr.training.networks.neuro_fuzzy import LEAST_GRADE, NeuroFuzzyNetwork
from ktrdr.training.weights import weights_digest

DATASET = make_dataset(rows=400, crisp=True)
COLUMNS = DATASET.columns
ROWS = torch.from_numpy(DATASET.inputs.copy())
CLASSES = DATASET.class_names
ALL_CURVES = [(i, member) for i, column in enumerate(COLUMNS) for _, member in column.memberships]


def built(rows: torch.Tensor | None = ROWS, num_outputs: int = 3, **shape: Any) -> Any:
    model = make_strategy(neuro_fuzzy(**shape)).model
    return build_model(model, COLUMNS, num_outputs, 1, rows)


def shaken(network: Any, seed: int = 4, by: float = 1.0) -> Any:
    """The network with other parameters, as training might leave it."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator)
    return network


def answers_by_hand(network: Any, row: NDArray[np.float64], num_outputs: int) -> list[float]:
    """ANFIS for one row in plain arithmetic: grades, products, shares, linear conclusions."""
    state = {name: value.double().tolist() for name, value in network.state_dict().items()}
    members = iter(network.curves.after())
    grades = [
        [max(grade(next(members), row[i : i + 1]).item(), LEAST_GRADE) for _ in column.memberships]
        for i, column in enumerate(COLUMNS)
        if column.memberships
    ]
    firing = [
        math.exp(5 * math.tanh(log_weight / 5))
        * math.prod(own[int(member)] for own, member in zip(grades, rule, strict=True))
        for rule, log_weight in zip(state["rules"], state["log_weights"], strict=True)
    ]
    standard = (row - np.array(state["mean"])) / np.array(state["scale"])
    answers = []
    for output in range(num_outputs):
        total = 0.0
        for rule, strength in enumerate(firing):
            conclusion = state["constants"][rule][output]
            if "slopes" in state:
                distance = standard - np.array(state["centres"][rule])
                conclusion += float(np.dot(state["slopes"][rule][output], distance))
            total += strength * conclusion
        answers.append(total / sum(firing))
    return answers


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize(("max_rules", "num_outputs"), [(64, 3), (7, 1)])
def test_it_answers_as_its_formulas_say(order: int, max_rules: int, num_outputs: int) -> None:
    network = shaken(built(order=order, max_rules=max_rules, num_outputs=num_outputs))
    with torch.no_grad():
        answers = network(ROWS[:20])
    assert answers.shape == (20, num_outputs)
    for row, answer in zip(ROWS[:20].double().numpy(), answers.tolist(), strict=True):
        expected = answers_by_hand(network, row, num_outputs)
        np.testing.assert_allclose(answer, expected, rtol=2e-3, atol=2e-4)


def test_its_curves_begin_as_the_strategys() -> None:
    network, values = built(), ROWS.double().numpy()
    assert network.curves.before() == [member for _, member in ALL_CURVES]
    for (place, member), after in zip(ALL_CURVES, network.curves.after(), strict=True):
        np.testing.assert_allclose(after.parameters, member.parameters, rtol=1e-14, atol=1e-15)
        assert after.type == member.type
        assert place < 3
    expected = np.column_stack([grade(member, values[:, place]) for place, member in ALL_CURVES])
    with torch.no_grad():
        np.testing.assert_allclose(network.curves(ROWS).numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("order", [0, 1])
def test_gradients_are_those_of_differences(order: int) -> None:
    network = shaken(built(order=order, max_rules=5, num_outputs=2), by=0.3).double()
    names, parameters = zip(*network.named_parameters(), strict=True)
    rows = ROWS[:4].double()

    def answers(*values: torch.Tensor) -> Any:
        given = dict(zip(names, values, strict=True))
        return torch.func.functional_call(network, given, (rows,))

    assert torch.autograd.gradcheck(answers, parameters, eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("far", [1e3, -1e3, 1e30, -3e38])
def test_outside_every_membership_the_shares_are_equal_and_gradients_finite(far: float) -> None:
    columns = [
        InputColumn(
            "x", (("low", curve("triangular", 0, 1, 2)), ("high", curve("gaussian", 2, 1)))
        ),
        InputColumn("y", (("low", curve("trapezoidal", 0, 0, 1, 1)), ("high", CURVES[1][1][1]))),
    ]
    model = make_strategy(neuro_fuzzy()).model
    network: Any = build_model(model, columns, 3, 1, torch.rand(50, 2))
    rows = torch.tensor([[far, far], [0.5, far], [far, 0.5]])
    shares = network.shares(rows)
    torch.testing.assert_close(shares[0], torch.full((4,), 0.25), rtol=1e-3, atol=0)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(3))
    torch.autograd.backward(network(rows).square().sum())
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop])
def test_curves_stay_curves_whatever_the_optimizer_does(optimizer: Any) -> None:
    """Reading them validates them: rising knots, widths above 0."""
    torch.manual_seed(2)
    network = built()
    steps = optimizer(network.parameters(), lr=50.0)
    rows, labels = ROWS[:64], torch.from_numpy(DATASET.labels[:64].copy())
    for _ in range(40):
        steps.zero_grad()
        torch.autograd.backward(torch.nn.functional.cross_entropy(network(rows), labels))
        steps.step()
    moved = zip(network.curves.before(), network.curves.after(), strict=True)
    assert sum(before != after for before, after in moved) >= 5
    with torch.no_grad():
        grades = network.curves(ROWS)
    assert torch.isfinite(grades).all()
    assert grades.min() >= 0
    assert grades.max() <= 1


@pytest.mark.parametrize("move", [0.0, 0.7, -0.7, 30.0, -30.0, 1e30, -1e30])
def test_a_step_stays_a_step_and_order_is_kept_under_any_move(move: float) -> None:
    steps = [
        curve("trapezoidal", 0, 0, 15, 25),
        curve("triangular", 5, 5, 9),
        curve("triangular", 100_000, 100_000.5, 100_001),
        curve("sigmoid", 3, -2),
    ]
    curves = TrainedCurves([(0, member) for member in steps], trained=True)
    with torch.no_grad():
        for parameter in curves.parameters():
            parameter.add_(move)
    box, edge, fine, falling = (member.parameters for member in curves.after())
    assert box[0] == box[1] < box[2] < box[3]
    assert edge[0] == edge[1] < edge[2]
    assert fine[0] < fine[1] < fine[2]
    assert falling[1] < 0


def test_a_learning_rate_means_the_same_in_any_unit() -> None:
    """The same curves over values ten thousand times larger move by as many of their widths."""
    moved = []
    for scale in (1.0, 10_000.0):
        members = [
            Membership(type=m.type, parameters=tuple(p * scale for p in m.parameters))
            for _, m in ALL_CURVES
            if m.type not in ("bell", "sigmoid")  # their slopes have another unit
        ]
        curves = TrainedCurves([(0, member) for member in members], trained=True)
        optimizer = torch.optim.SGD(curves.parameters(), lr=0.1)
        torch.autograd.backward(curves(ROWS * scale).mean())
        optimizer.step()
        moved.append([np.array(member.parameters) / scale for member in curves.after()])
    for one, two in zip(*moved, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-4)


def test_curves_that_are_not_trained_stay(tmp_path: Path) -> None:
    strategy = make_strategy(neuro_fuzzy(train_memberships=False))
    network = built(train_memberships=False)
    network.load_state_dict(Bench(tmp_path, strategy).complete().weights)
    assert network.curves.after() == network.curves.before()
    assert built(train_memberships=True).state_dict().keys() == network.state_dict().keys()


def fired(grades: Sequence[NDArray[np.float64]], count: int) -> list[list[int]]:
    """All combinations, their firing summed, the largest ones; of equals the first."""
    every = itertools.product(*(range(own.shape[1]) for own in grades))
    total = {
        combination: np.prod(
            [own[:, member] for own, member in zip(grades, combination, strict=True)], axis=0
        ).sum()
        for combination in every
    }
    return sorted(map(list, sorted(total, key=lambda c: -total[c])[:count]))


@pytest.mark.parametrize("count", [2, 7, 30, 72])
def test_the_rules_are_the_combinations_that_fire_most(count: int) -> None:
    random = np.random.default_rng(6)
    grades = [random.random((50, size)) ** 3 for size in (3, 2, 4, 3)]
    assert strongest_combinations(grades, count).tolist() == fired(grades, count)


def test_of_rules_that_fire_alike_the_first_are_taken() -> None:
    grades = [np.array([[0.0, 1.0, 0.0]]), np.array([[0.0, 0.0]]), np.array([[1.0, 1.0]])]
    assert strongest_combinations(grades, 3).tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 0]]
    silent = [np.zeros((3, 8)), np.zeros((3, 9))]
    assert strongest_combinations(silent, 11).tolist() == [
        *([0, member] for member in range(9)),
        [1, 0],
        [1, 1],
    ]


def test_a_product_that_nobody_could_write_down_is_searched_quickly() -> None:
    """3^40 rules; where the inputs go together, the three combinations that occur are found."""
    random = np.random.default_rng(6)
    level = random.integers(0, 3, 500)
    own = np.where(np.arange(3) == level[:, None], 0.9, 0.05)
    found = strongest_combinations([own] * 40, 8).tolist()
    assert all([member] * 40 in found for member in range(3))
    assert len(found) == 8


def test_a_network_has_the_whole_product_or_the_strongest_rules() -> None:
    whole, part = built(max_rules=12), built(max_rules=5)
    assert whole.rules.tolist() == [
        list(c) for c in itertools.product(range(3), range(2), range(2))
    ]
    with torch.no_grad():
        grades = whole.curves(ROWS).numpy()
    assert part.rules.tolist() == fired(np.split(grades, [3, 5], axis=1), 5)
    assert built(max_rules=5).rules.equal(part.rules)


def test_support_and_centres_are_means_over_the_training_rows() -> None:
    network = built()
    with torch.no_grad():
        shares = network.shares(ROWS).double()
    standard = (ROWS.double() - ROWS.double().mean(dim=0)) / ROWS.double().std(dim=0, correction=0)
    torch.testing.assert_close(network.support, shares.mean(dim=0).float())
    centres = (shares.T @ standard) / shares.sum(dim=0).unsqueeze(1)
    torch.testing.assert_close(network.centres, centres.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "columns",
    [
        [InputColumn("a"), InputColumn("b")],
        [InputColumn("a", (("low", curve("gaussian", 0, 1)),)), InputColumn("b")],
    ],
    ids=["no curves", "one rule"],
)
def test_without_two_rules_there_is_no_rule_base(columns: list[InputColumn]) -> None:
    with pytest.raises(InvalidStrategy, match="at least two rules"):
        build_model(make_strategy(neuro_fuzzy()).model, columns, 3, 1)


LEVELS = {
    "low": curve("left_shoulder", 0.3, 0.5),
    "middle": curve("triangular", 0.3, 0.5, 0.7),
    "high": curve("right_shoulder", 0.5, 0.7),
}
PLANTED = {
    ("low", "weak"): "BUY",
    ("low", "strong"): "SELL",
    ("middle", "weak"): "HOLD",
    ("middle", "strong"): "BUY",
    ("high", "weak"): "SELL",
    ("high", "strong"): "HOLD",
}


def planted(rows: int = 900) -> Dataset:
    """Rows of two inputs whose class a table of six rules gives."""
    random = np.random.default_rng(8)
    inputs = random.random((rows, 2), dtype=np.float32)
    level = np.array(["low", "middle", "high"])[np.digitize(inputs[:, 0], [0.4, 0.6])]
    trend = np.where(inputs[:, 1] < 0.5, "weak", "strong")
    classes = [PLANTED[pair] for pair in zip(level.tolist(), trend.tolist(), strict=True)]
    strengths = (
        ("weak", curve("sigmoid", 0.5, -12)),
        ("strong", curve("sigmoid", 0.5, 12)),
    )
    return dataclasses.replace(
        DATASET,
        inputs=inputs,
        labels=np.array([CLASSES.index(name) for name in classes], dtype=np.int64),
        timestamps=np.arange(rows),
        columns=(
            InputColumn("1h_momentum", tuple(LEVELS.items())),
            InputColumn("1h_trend", strengths),
        ),
        splits=Splits(range(500), range(500, 700), range(700, 900)),
    )


def trained(root: Path, dataset: Dataset, **shape: Any) -> LoadedModel:
    strategy = make_strategy(neuro_fuzzy(**shape), epochs=25, batch_size=32, learning_rate=0.03)
    bench = Bench(root, strategy, dataset)
    stored(bench)
    return load_model(*read_model(bench.storage, "tiny", 1))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return trained(tmp_path_factory.mktemp("planted"), planted(), order=0)


def test_a_planted_rule_base_is_found_again(model: LoadedModel) -> None:
    dataset = planted()
    test = slice(dataset.splits.test.start, dataset.splits.test.stop)
    guesses = model.outputs(dataset.inputs[test]).argmax(axis=1)
    assert (guesses == dataset.labels[test]).mean() > 0.93  # chance is a third
    found = {
        (dict(rule.conditions)["1h_momentum"], dict(rule.conditions)["1h_trend"]): rule.conclusion
        for rule in rules_of(model)
    }
    assert found == PLANTED


def test_training_moves_curves_to_where_the_classes_part(tmp_path: Path) -> None:
    """Sets placed beside the truth: only trained memberships can follow."""
    dataset = planted()
    shift = np.array([0.25, 0.0], dtype=np.float32)
    shifted = dataclasses.replace(dataset, inputs=dataset.inputs + shift)
    test = slice(dataset.splits.test.start, dataset.splits.test.stop)
    shares = [
        (
            trained(tmp_path / str(moving), shifted, order=0, train_memberships=moving)
            .outputs(shifted.inputs[test])
            .argmax(axis=1)
            == shifted.labels[test]
        ).mean()
        for moving in (True, False)
    ]
    assert shares[0] > shares[1] + 0.1


def test_rules_read_as_sentences_the_weightiest_first(model: LoadedModel) -> None:
    rules = rules_of(model)
    assert [rule.weight for rule in rules] == sorted((r.weight for r in rules), reverse=True)
    assert all(rule.weight > 0 for rule in rules)
    assert sum(rule.support for rule in rules) == pytest.approx(1)
    texts = [rule.text for rule in rules]
    assert "IF 1h_momentum IS low AND 1h_trend IS weak THEN BUY" in texts
    for rule in rules:
        contributions = dict(rule.contributions)
        assert list(contributions) == list(CLASSES)
        assert contributions[rule.conclusion] == max(contributions.values())
        assert rule.strongest == ()
        assert json.loads(json.dumps(rule.as_json()))["text"] == rule.text


def test_of_equal_weights_the_rule_with_more_support_comes_first() -> None:
    rules = read_rules(built(), COLUMNS, CLASSES)
    assert {rule.weight for rule in rules} == {1.0}
    assert [r.support for r in rules] == sorted((r.support for r in rules), reverse=True)


def test_linear_conclusions_name_the_inputs_that_change_them_most() -> None:
    network = built()
    with torch.no_grad():
        network.constants[2] = torch.tensor([0.0, 0.0, 4.0])
        network.slopes[2, 2] = torch.tensor([0.1, -3.0, 0.0, 2.0, 0.5])
        network.log_weights[2] = 0.5
    rule = read_rules(network, COLUMNS, CLASSES)[0]
    assert (rule.number, rule.conclusion) == (3, "SELL")
    assert rule.weight == pytest.approx(math.exp(5 * math.tanh(0.1)))
    assert rule.text == "IF x0 IS low AND x1 IS high AND x2 IS low THEN SELL"
    assert rule.strongest == (("x1", -3.0), ("x3", 2.0), ("x4", 0.5))


def test_a_regression_concludes_values() -> None:
    network = built(num_outputs=1, order=0)
    with torch.no_grad():
        network.constants[0] = 0.0125
        network.log_weights[0] = 1.0
    rule = read_rules(network, COLUMNS, ())[0]
    assert rule.text == "IF x0 IS low AND x1 IS low AND x2 IS low THEN +0.0125"
    assert [name for name, _ in rule.contributions] == ["value"]


def test_curves_are_read_before_and_after(model: LoadedModel) -> None:
    momentum, trend = inputs_of(model)
    assert (momentum.name, trend.name) == ("1h_momentum", "1h_trend")
    assert {moved.name: moved.before for moved in momentum.curves} == LEVELS
    assert all(moved.before != moved.after for moved in momentum.curves)
    untrained = read_inputs(built(), COLUMNS)
    assert [[moved.name for moved in own.curves] for own in untrained] == [
        [name for name, _ in CURVES[i]] for i in range(3)
    ]


@pytest.mark.parametrize("more", [{}, REGRESSION], ids=["classes", "values"])
def test_a_stored_rule_base_answers_as_the_trained_one(
    tmp_path: Path, more: dict[str, Any]
) -> None:
    bench = Bench(tmp_path, make_strategy(neuro_fuzzy(), **more))
    header = stored(bench)
    loaded = load_model(*read_model(bench.storage, "tiny", 1))
    assert loaded.columns == bench.dataset.columns
    assert weights_digest(loaded.module.state_dict()) == header.weights_digest
    again = build_model(bench.strategy.model, loaded.columns, 1 if more else 3, seed=9)
    assert isinstance(again, NeuroFuzzyNetwork)
    again.load_state_dict(bench.complete().weights)
    with torch.no_grad():
        expected = again(torch.from_numpy(bench.dataset.inputs.copy())).numpy()
    answers = loaded.outputs(bench.dataset.inputs)
    np.testing.assert_allclose(answers, expected, rtol=1e-5, atol=1e-6)
    assert np.array_equal(
        load_model(*read_model(bench.storage, "tiny", 1)).outputs(bench.dataset.inputs), answers
    )
    assert loaded.input_names == tuple(header.input_names)


def test_a_model_stored_before_columns_were_loads_by_its_names(tmp_path: Path) -> None:
    bench = Bench(tmp_path, make_strategy(MLP))
    stored(bench)
    manifest, files = read_model(bench.storage, "tiny", 1)
    old = {name: data for name, data in files.items() if name != "features.json"}
    loaded = load_model(manifest, old)
    assert loaded.columns == bench.dataset.columns
    expected = load_model(manifest, files).outputs(bench.dataset.inputs)
    assert np.array_equal(loaded.outputs(bench.dataset.inputs), expected)


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{",
        '{"columns": 3}',
        '{"columns": [{"name": "x0"}]}',
        '{"columns": [{"name": "other", "memberships": []}]}',
        '{"columns": [{"name": "x0", "memberships": [{"name": "low", "type": "round"}]}]}',
        '{"columns": [{"name": "x0", "memberships": [3]}]}',
    ],
)
def test_columns_that_make_no_sense_are_refused(tmp_path: Path, content: str) -> None:
    bench = Bench(tmp_path, make_strategy(neuro_fuzzy()))
    stored(bench)
    manifest, files = read_model(bench.storage, "tiny", 1)
    with pytest.raises(CheckpointCorrupted, match=r"tiny@v1.*features|tiny@v1.*read"):
        load_model(manifest, {**files, "features.json": content.encode()})


def test_columns_of_another_model_are_refused(tmp_path: Path) -> None:
    bench = Bench(tmp_path, make_strategy(neuro_fuzzy()))
    stored(bench)
    manifest, files = read_model(bench.storage, "tiny", 1)
    features = json.loads(files["features.json"])
    features["columns"][3]["name"] = "other"
    with pytest.raises(CheckpointCorrupted, match="not the inputs of its manifest"):
        load_model(manifest, {**files, "features.json": json.dumps(features).encode()})


def test_other_types_have_no_rules(tmp_path: Path) -> None:
    bench = Bench(tmp_path, make_strategy(MLP))
    stored(bench)
    loaded = load_model(*read_model(bench.storage, "tiny", 1))
    for read in (rules_of, inputs_of):
        with pytest.raises(Usage, match=r"tiny is of type mlp.*neuro_fuzzy"):
            read(loaded)
