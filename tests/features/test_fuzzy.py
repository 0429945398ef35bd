"""Membership curves, above all their edges, and what a strategy may say of them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr.errors import InvalidStrategy
from ktrdr.features.memberships import grade, grade_one
from ktrdr.strategy.loading import config, fingerprint, load_strategy, validate_strategy
from ktrdr.strategy.memberships import PARAMETERS, FuzzySet, Membership

STRATEGIES = Path(__file__).parents[2] / "strategies"
INFINITY = float("inf")

numbers = st.floats(-1e6, 1e6)


def curve(shape: Any) -> Membership:
    return Membership.model_validate(shape)


def grades(shape: Any, points: list[float]) -> list[float]:
    """The grades of an array; those of single numbers are the same to the last bits."""
    membership = curve(shape)
    found = [float(value) for value in grade(membership, np.array(points, dtype=np.float64))]
    single = [grade_one(membership, point) for point in points]
    # only exp and pow of the two libraries may differ, by a last bit each
    bits = {"gaussian": 1, "sigmoid": 2, "bell": 3}.get(membership.type, 0)
    for one, other in zip(found, single, strict=True):
        assert one == other or abs(one - other) <= bits * math.ulp(other), (shape, one, other)
    return found


def named(shape: str, *parameters: float) -> dict[str, Any]:
    return {"type": shape, "parameters": list(parameters)}


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ([0, 10, 30], {-1: 0, 0: 0, 5: 0.5, 10: 1, 20: 0.5, 30: 0, 31: 0}),
        ([0, 0, 30], {-0.001: 0, 0: 1, 15: 0.5, 30: 0}),
        ([0, 30, 30], {0: 0, 15: 0.5, 30: 1, 30.001: 0}),
        ([0, 10, 20, 40], {0: 0, 5: 0.5, 10: 1, 15: 1, 20: 1, 30: 0.5, 40: 0, 41: 0}),
        ([0, 0, 20, 40], {-0.001: 0, 0: 1, 20: 1, 30: 0.5}),
        ([0, 10, 40, 40], {5: 0.5, 10: 1, 40: 1, 40.001: 0}),
        ([10, 10, 20, 20], {9.999: 0, 10: 1, 15: 1, 20: 1, 20.001: 0}),
        (named("triangular", -2, -1, 0), {-2: 0, -1.5: 0.5, -1: 1, 0: 0}),
        (named("left_shoulder", 30, 40), {-1e300: 1, 30: 1, 32.5: 0.75, 40: 0, 1e300: 0}),
        (named("right_shoulder", 60, 70), {-1e300: 0, 60: 0, 62.5: 0.25, 70: 1, 1e300: 1}),
        (named("bell", 10, 1, 50), {50: 1, 40: 0.5, 60: 0.5, 70: 0.2, 30: 0.2, 80: 0.1}),
        (named("bell", 10, 0.5, 50), {50: 1, 60: 0.5, 70: 1 / 3, 80: 0.25}),
        (named("sigmoid", 50, 2), {50: 0.5, 51: 1 / (1 + math.exp(-2)), 1e9: 1, -1e9: 0}),
        (named("sigmoid", 50, -2), {50: 0.5, 51: 1 / (1 + math.exp(2)), 1e9: 0, -1e9: 1}),
        (
            named("gaussian", 50, 10),
            {50: 1, 40: math.exp(-0.5), 60: math.exp(-0.5), 70: math.exp(-2), 1e9: 0, 1e300: 0},
        ),
    ],
)
def test_edges_and_slopes(shape: Any, expected: dict[float, float]) -> None:
    assert grades(shape, list(expected)) == pytest.approx(list(expected.values()), abs=1e-15)


@pytest.mark.parametrize(
    ("shape", "below", "above"),
    [
        ([0, 10, 30], 0, 0),
        ([0, 10, 20, 20], 0, 0),
        (named("gaussian", 0, 1e-300), 0, 0),
        (named("bell", 1e-300, 0.01, 0), 0, 0),
        (named("bell", 1, 1e300, 0), 0, 0),
        (named("sigmoid", 0, 1e300), 0, 1),
        (named("sigmoid", -1e300, -1e-3), 1, 0),
        (named("left_shoulder", -1e300, 1e300), 1, 0),
        (named("right_shoulder", 5e-324, 1e-323), 0, 1),
    ],
)
def test_infinities_and_the_largest_numbers_are_graded_without_a_warning(
    shape: Any, below: float, above: float
) -> None:
    largest = 1.7976931348623157e308
    assert grades(shape, [-INFINITY, INFINITY]) == [below, above]
    assert all(0 <= value <= 1 for value in grades(shape, [-largest, largest, 5e-324, -0.0]))


shapes = st.one_of(
    *(
        st.lists(numbers, min_size=count, max_size=count, unique=True).map(
            lambda found, shape=shape: named(shape, *sorted(found))  # type: ignore[misc]
        )
        for shape, count in (
            ("triangular", 3),
            ("trapezoidal", 4),
            ("left_shoulder", 2),
            ("right_shoulder", 2),
        )
    ),
    st.builds(lambda mean, sigma: named("gaussian", mean, sigma), numbers, st.floats(1e-6, 1e6)),
    st.builds(
        lambda width, slope, centre: named("bell", width, slope, centre),
        st.floats(1e-6, 1e6),
        st.floats(1e-3, 20),
        numbers,
    ),
    st.builds(
        lambda centre, slope, sign: named("sigmoid", centre, slope * sign),
        numbers,
        st.floats(1e-6, 1e3),
        st.sampled_from([-1, 1]),
    ),
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(shapes, st.lists(st.floats(allow_nan=False), min_size=1, max_size=20), st.data())
def test_grades_lie_between_zero_and_one_and_no_path_differs(
    shape: Any, points: list[float], draw: st.DataObject
) -> None:
    near = draw.draw(st.lists(st.sampled_from(shape["parameters"]), max_size=5))
    found = grades(shape, points + near)
    assert all(0 <= value <= 1 for value in found)
    if shape["type"] in ("triangular", "trapezoidal"):
        left, right = shape["parameters"][0], shape["parameters"][-1]
        outside = [g for g, p in zip(found, points + near, strict=True) if not left <= p <= right]
        assert not any(outside)


@pytest.mark.parametrize(
    "shape", [named("gaussian", 50, 10), named("bell", 10, 2.3, 50), named("sigmoid", 50, 0.3)]
)
def test_a_grade_does_not_depend_on_what_stands_beside_the_value(shape: Any) -> None:
    """Vector instructions for the bulk and others for the rest would give other last bits."""
    values = np.random.default_rng(3).uniform(0.0, 100.0, 1001)
    whole = grade(curve(shape), values)
    wide = np.zeros((len(values), 3))
    wide[:, 1] = values
    assert (grade(curve(shape), wide[:, 1]) == whole).all()
    for start in range(9):
        assert (grade(curve(shape), values[start:]) == whole[start:]).all()
        assert (grade(curve(shape), values[: start + 1]) == whole[: start + 1]).all()


@pytest.mark.parametrize("shape", PARAMETERS)
def test_nan_stays_nan(shape: str) -> None:
    parameters = {"gaussian": [0, 1], "bell": [1, 2, 0], "sigmoid": [0, 1]}
    given = parameters.get(shape, list(range(len(PARAMETERS[shape]))))
    found = grade(curve(named(shape, *given)), np.array([np.nan, 0.5]))
    assert np.isnan(found[0])
    assert 0 < found[1] < 1
    assert math.isnan(grade_one(curve(named(shape, *given)), math.nan))
    assert np.isnan(grade(curve([0, 0, 1]), np.array([np.nan]))).all()


@pytest.mark.parametrize(
    ("written", "shape"),
    [
        ("Triangular", "triangular"),
        ("triangle", "triangular"),
        ("TRAPEZOID", "trapezoidal"),
        ("gauss", "gaussian"),
        ("generalized_bell", "bell"),
        ("Generalised Bell", "bell"),
        ("gbell", "bell"),
        ("bell-shaped", "bell"),
        ("left-shoulder", "left_shoulder"),
        ("RightShoulder", "right_shoulder"),
        ("sigmoidal", "sigmoid"),
    ],
)
def test_shapes_go_by_the_names_of_other_tools(written: str, shape: str) -> None:
    parameters = {2: [1, 2], 3: [1, 2, 3], 4: [1, 2, 3, 4]}[len(PARAMETERS[shape])]
    assert curve(named(written, *parameters)) == curve(named(shape, *parameters))


@pytest.fixture
def data() -> dict[str, Any]:
    """A shipped strategy as its YAML file has it."""
    content: dict[str, Any] = yaml.safe_load(sorted(STRATEGIES.glob("*.yaml"))[-1].read_text())
    return content


def problems(data: dict[str, Any], fuzzy_set: Any) -> dict[str, str]:
    """What is found wrong with the set `momentum`, by the path below it."""
    data["fuzzy_sets"]["momentum"] = fuzzy_set
    with pytest.raises(InvalidStrategy) as caught:
        validate_strategy(data, "x.yaml")
    found: list[dict[str, str]] = caught.value.details["problems"]
    return {
        problem["path"].removeprefix("fuzzy_sets.momentum").lstrip("."): problem["message"]
        for problem in found
    }


@pytest.mark.parametrize(
    ("shape", "path", "words"),
    [
        ([1, 2], "low", "3 numbers (triangular) or 4"),
        ([3, 2, 1], "low", "[left, peak, right] must rise"),
        ([1, 1, 1], "low", "must rise"),
        ([1, 2, float("nan")], "low.2", "finite"),
        ([1, 2, INFINITY], "low.2", "finite"),
        ([1, 2, 1e301], "low", "1e+300"),
        ([1, 2, True], "low.2", "not true or false"),
        (named("triangular", 1, 2), "low", "takes 3 parameters [left, peak, right], not 2"),
        (named("trapezoidal", 1, 2, 3), "low", "takes 4"),
        (named("gaussian", 1, 0), "low", "a sigma above 0, not 0"),
        (named("bell", 0, 1, 5), "low", "a width above 0, not 0"),
        (named("bell", 1, -2, 5), "low", "a slope above 0, not -2"),
        (named("bell", 1, 2), "low", "[width, slope, centre], not 2"),
        (named("sigmoid", 1, 0), "low", "slope other than 0"),
        (named("left_shoulder", 2, 1), "low", "[top, foot] must rise"),
        (named("right_shoulder", 1, 1), "low", "[foot, top] must rise"),
        (named("bel", 1, 2, 3), "low.type", "'bell'"),
        ({"type": "bell", "parameters": [1, 2, 3], "width": 3}, "low.width", "unknown key"),
        ({"type": 3, "parameters": [1, 2, 3]}, "low.type", "'bell'"),
        (None, "low", "mapping"),
    ],
)
def test_a_wrong_curve_is_refused_at_its_place(
    data: dict[str, Any], shape: Any, path: str, words: str
) -> None:
    found = problems(data, {"indicator": "rsi_14", "low": shape})
    assert found.keys() == {path}
    assert words in found[path]


@pytest.mark.parametrize("wrong", [1, 10, 2.5, True, "3", [0, 1, 2], 10**30])
def test_auto_is_a_whole_number_from_2_to_9(data: dict[str, Any], wrong: Any) -> None:
    assert problems(data, {"indicator": "rsi_14", "auto": wrong}).keys() == {"auto"}


def test_auto_and_memberships_exclude_each_other(data: dict[str, Any]) -> None:
    found = problems(data, {"indicator": "rsi_14", "auto": 3, "low": [0, 1, 2], "odd": [2, 1, 0]})
    assert found.keys() == {"auto", "odd"}
    assert "remove auto" in found["auto"]
    assert problems(data, {"indicator": "rsi_14", "auto": None}).keys() == {""}
    assert problems(data, {"indicator": "rsi_14"}).keys() == {""}
    assert problems(data, {"auto": 3}).keys() == {"indicator"}


@pytest.mark.parametrize(
    ("count", "names"),
    [
        (2, "low high"),
        (3, "low medium high"),
        (4, "level_1 level_2 level_3 level_4"),
        (5, "very_low low medium high very_high"),
        (9, "level_1 level_2 level_3 level_4 level_5 level_6 level_7 level_8 level_9"),
    ],
)
def test_auto_names_its_memberships_from_the_lowest_up(count: int, names: str) -> None:
    fuzzy_set = FuzzySet.model_validate({"indicator": "rsi_14", "auto": count})
    assert fuzzy_set.order == tuple(names.split())
    assert fuzzy_set.memberships == {}


def test_an_auto_set_survives_its_own_dump_and_counts_in_the_fingerprint(
    data: dict[str, Any],
) -> None:
    fingerprints = set()
    for count in (2, 3, 4):
        data["fuzzy_sets"]["momentum"] = {"indicator": "rsi_14", "auto": count}
        strategy = validate_strategy(data, "x.yaml")
        stored = json.loads(json.dumps(config(strategy), sort_keys=True))
        assert validate_strategy(stored, "stored") == strategy
        plain = strategy.model_dump(mode="json", exclude_none=True)
        assert validate_strategy(plain, "plain") == strategy
        fingerprints.add(fingerprint(strategy))
    assert len(fingerprints) == 3


def test_auto_left_what_explicit_sets_dump_as_it_was(data: dict[str, Any]) -> None:
    """Fingerprints of stored strategies are made of these bytes."""
    explicit = FuzzySet.model_validate({"indicator": "rsi_14", "low": [0, 1, 2], "auto": None})
    assert json.dumps(explicit.model_dump(mode="json")) == (
        '{"indicator": "rsi_14", "memberships": {"low": {"type": "triangular", '
        '"parameters": [0.0, 1.0, 2.0]}}, "order": ["low"]}'
    )
    strategy = validate_strategy(data, "x.yaml")
    stored = json.loads(json.dumps(config(strategy), sort_keys=True))
    assert validate_strategy(stored, "stored") == strategy


def test_curves_placed_for_an_auto_set_make_an_explicit_one() -> None:
    auto = FuzzySet.model_validate({"indicator": "rsi_14", "auto": 2})
    curves = [curve(named("left_shoulder", 1, 2)), curve(named("right_shoulder", 1, 2))]
    placed = auto.placed(curves)
    assert placed.ordered == (("low", curves[0]), ("high", curves[1]))
    assert placed.auto is None
    assert FuzzySet.model_validate(json.loads(placed.model_dump_json())) == placed


@pytest.mark.parametrize("path", sorted(STRATEGIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shape_may_stand_in_a_shipped_strategy(path: Path) -> None:
    strategy = load_strategy(path)
    content = config(strategy)
    first = next(iter(content["fuzzy_sets"].values()))
    first.pop("auto", None)
    first["memberships"] = {
        "bell": named("gbell", 10, 2, 50),
        "sigmoid": named("sigmoid", 50, -0.5),
        "low": named("left_shoulder", 20, 30),
        "high": named("right_shoulder", 20, 30),
    }
    first["order"] = ["low", "high", "bell", "sigmoid"]
    changed = validate_strategy(content, "x.yaml")
    assert next(iter(changed.fuzzy_sets.values())).order == ("low", "high", "bell", "sigmoid")
