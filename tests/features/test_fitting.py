"""What is fitted to the training values: memberships by quantiles, and scalers."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr.data.bars import FloatArray
from ktrdr.errors import InvalidData
from ktrdr.features.fitted_parameters import Scaler, fit_scaler, place_memberships
from ktrdr.features.memberships import grade
from ktrdr.strategy.memberships import Membership

KINDS: list[Any] = ["minmax", "zscore", "robust", "none"]


def walk(rows: int) -> FloatArray:
    return np.random.default_rng(11).normal(0.0, 1.0, rows).cumsum() + 50.0


def layouts(values: FloatArray) -> dict[str, FloatArray]:
    """The same values in the same order, each time elsewhere in memory."""
    wide = np.zeros((len(values), 3))
    wide[:, 1] = values
    shifted = np.empty(len(values) * 8 + 1, dtype=np.uint8)[1:].view(np.float64)
    shifted[:] = values
    return {
        "a column": wide[:, 1],
        "backwards": values[::-1].copy()[::-1],
        "Fortran": np.asfortranarray(wide)[:, 1],
        "not aligned": shifted,
        "swapped bytes": values.astype(">f8"),
    }


@pytest.mark.parametrize(
    ("count", "shapes"),
    [
        (2, [("left_shoulder", (25, 75)), ("right_shoulder", (25, 75))]),
        (
            4,
            [
                ("left_shoulder", (12.5, 37.5)),
                ("triangular", (12.5, 37.5, 62.5)),
                ("triangular", (37.5, 62.5, 87.5)),
                ("right_shoulder", (62.5, 87.5)),
            ],
        ),
    ],
)
def test_peaks_are_the_quantiles_of_the_training_values(count: int, shapes: list[Any]) -> None:
    """Of 0 to 100 the linear quantile q is 100 q."""
    found = place_memberships(np.arange(101.0)[::-1], count, "momentum")
    assert [(curve.type, curve.parameters) for curve in found] == shapes


def test_quantiles_interpolate_as_numpys_linear_method() -> None:
    """Computed here by sorting: position q (n - 1), and the straight line between two ranks."""
    values = walk(1237)
    peaks = []
    for share in (np.arange(5) + 0.5) / 5:
        rank, part = divmod(share * (len(values) - 1), 1)
        low, high = np.sort(values)[int(rank) : int(rank) + 2]
        peaks.append(low + part * (high - low))
    found = place_memberships(values, 5, "x")
    assert found[0].parameters == pytest.approx(peaks[:2], rel=1e-14)
    assert found[3].parameters == pytest.approx(peaks[2:], rel=1e-14)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.lists(st.floats(-1e9, 1e9), min_size=30, max_size=60, unique=True),
    st.integers(2, 9),
    st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=30),
)
def test_the_grades_of_any_value_sum_to_one(
    training: list[float], count: int, values: list[float]
) -> None:
    try:
        curves = place_memberships(np.array(training), count, "momentum")
    except InvalidData:
        return  # values that differ by their last bits only
    peaks = [curve.parameters[min(place, 1)] for place, curve in enumerate(curves)]
    points = np.array([*values, *training, *peaks, -np.inf, np.inf])
    total = np.sum([grade(curve, points) for curve in curves], axis=0)
    np.testing.assert_allclose(total, 1.0, rtol=0, atol=1e-12)
    for place, curve in enumerate(curves[:-1]):
        assert grade(curve, np.array(peaks)).tolist()[place] == 1.0


def test_too_few_distinct_quantiles_are_refused_with_numbers() -> None:
    values = np.repeat([10.0, 30.0], [200, 800])
    with pytest.raises(InvalidData) as caught:
        place_memberships(values, 3, "fuzzy set momentum")
    assert caught.value.message == (
        "fuzzy set momentum: auto: 3 needs 3 distinct quantiles, but its 1,000 training values "
        "have 2: 30 stands at 0.5 as well as at 0.833; say a smaller auto, or write the "
        "memberships out"
    )
    assert caught.value.details == {"rows": 1000, "distinct": 2, "needed": 3}
    assert len(place_memberships(np.repeat([10.0, 30.0], [500, 500]), 2, "x")) == 2
    with pytest.raises(InvalidData, match="have 1"):
        place_memberships(np.full(10, 7.0), 2, "x")
    with pytest.raises(InvalidData, match="have 1"):  # rounding noise is no spread
        place_memberships(np.linspace(0.3, 0.3 + 1e-16, 50), 2, "x")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([], "no training values"),
        ([1.0, np.nan, np.inf], "momentum: 2 of its 3 training values"),
        ([1.0, 1e301], "1 of its 2"),
    ],
)
def test_what_cannot_be_fitted_is_refused_by_name(values: list[float], words: str) -> None:
    for kind in ("minmax", "zscore", "robust"):
        with pytest.raises(InvalidData, match=words):
            fit_scaler(kind, np.array(values), "momentum")
    with pytest.raises(InvalidData, match=words):
        place_memberships(np.array(values), 2, "momentum")


@pytest.mark.parametrize(
    ("kind", "centre", "scale"),
    [("minmax", 1, 15), ("zscore", 6, np.sqrt(29.2)), ("robust", 4, 5), ("none", 0, 1)],
)
def test_scalers_of_five_values_by_hand(kind: Any, centre: float, scale: float) -> None:
    """1, 2, 4, 7, 16: mean 6, squares 25 + 16 + 4 + 1 + 100 = 146 -> 29.2; quartiles 2 and 7."""
    values = np.array([7.0, 1.0, 16.0, 2.0, 4.0])
    scaler = fit_scaler(kind, values)
    assert scaler.kind == kind
    assert [scaler.centre, scaler.scale] == pytest.approx([centre, scale], rel=1e-15)
    assert scaler.apply(values).tolist() == pytest.approx(((values - centre) / scale).tolist())


def test_scaled_training_values_have_the_scale_that_they_were_promised() -> None:
    values = walk(5000)
    minmax, zscore, robust = (fit_scaler(kind, values).apply(values) for kind in KINDS[:3])
    assert (minmax.min(), minmax.max()) == (0.0, 1.0)
    assert zscore.mean() == pytest.approx(0, abs=1e-12)
    assert zscore.std() == pytest.approx(1, rel=1e-12)
    assert np.median(robust) == pytest.approx(0, abs=1e-12)
    assert np.subtract(*np.quantile(robust, [0.75, 0.25])) == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS[:3])
@pytest.mark.parametrize("value", [0.1, -7.3e5, 0.0, -0.0, 1e299])
def test_a_constant_input_becomes_zero(kind: Any, value: float) -> None:
    """The mean of many equal numbers may differ from them by a bit: no division by that."""
    scaler = fit_scaler(kind, np.full(999, value))
    assert scaler.scale == 1.0
    assert scaler.apply(np.full(3, value)).tolist() == [0.0, 0.0, 0.0]
    assert scaler.apply(np.array([value + 1.0])).tolist() == [(value + 1.0) - value]


def test_noise_and_a_spread_without_quartiles_get_the_scale_one() -> None:
    noisy = np.array([0.1 + 0.2, 0.3, 0.3, 0.3])
    assert all(fit_scaler(kind, noisy).scale == 1.0 for kind in KINDS)
    rare = np.repeat([0.0, 100.0], [95, 5])  # as candle patterns are
    assert fit_scaler("robust", rare) == Scaler("robust", 0.0, 1.0)
    assert fit_scaler("minmax", rare) == Scaler("minmax", 0.0, 100.0)


@pytest.mark.parametrize("kind", KINDS)
def test_nan_stays_nan_and_nothing_else_becomes_one(kind: Any) -> None:
    scaler = fit_scaler(kind, np.array([1e-300, 2e-300, 3e-300]))
    found = scaler.apply(np.array([np.nan, 1e300, -1e300, np.inf]))
    assert np.isnan(found).tolist() == [True, False, False, False]
    assert found[3] == np.inf


@pytest.mark.parametrize("rows", [10_000, 30_001, 50_003, 70_007, 90_001])
def test_what_is_fitted_is_the_same_for_every_memory_layout(rows: int) -> None:
    """numpy adds up in other portions where it must copy: seen in about half of all means."""
    values = walk(rows)
    for name, other in layouts(values).items():
        for kind in KINDS:
            assert fit_scaler(kind, other) == fit_scaler(kind, values), name
        assert place_memberships(other, 5, "x") == place_memberships(values, 5, "x"), name


def test_both_zeros_are_one_in_what_is_fitted() -> None:
    """Which of them a partition finds first depends on the order of the values."""
    for values in ([-0.0, 0.0, -0.0, 5.0], [0.0, -0.0, 5.0, -0.0], [-0.0, -0.0, -0.0, 5.0]):
        array = np.array(values * 10)
        for kind in KINDS[:3]:
            assert "-0.0" not in json.dumps(fit_scaler(kind, array).as_json())
        curves = place_memberships(np.append(array, [5.0] * 20), 2, "x")
        assert all("-0.0" not in curve.model_dump_json() for curve in curves)


def test_json_gives_back_the_very_same_numbers() -> None:
    values = walk(3001) / 7.0
    for kind in KINDS:
        scaler = fit_scaler(kind, values)
        assert Scaler.from_json(json.loads(json.dumps(scaler.as_json()))) == scaler
    for curve in place_memberships(values, 7, "x"):
        stored = json.loads(json.dumps(curve.model_dump(mode="json"), sort_keys=True))
        assert Membership.model_validate(stored) == curve


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"kind": "zscore", "centre": 1.0},
        {"kind": "zscore", "centre": 1.0, "scale": 0.0},
        {"kind": "zscore", "centre": 1.0, "scale": float("nan")},
        {"kind": "zscor", "centre": 1.0, "scale": 1.0},
        {"kind": "zscore", "centre": None, "scale": 1.0},
    ],
)
def test_damaged_json_is_no_scaler(content: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        Scaler.from_json(content)


def test_a_million_and_a_half_values_are_fitted_in_no_time() -> None:
    values = walk(1_500_000)
    start = time.process_time()
    place_memberships(values, 9, "x")
    for kind in KINDS:
        fit_scaler(kind, values)
    assert time.process_time() - start < 2.0  # about 0.15 s
