"""Membership curves, and above all their edges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktrdr.features.fuzzy import grade
from ktrdr.strategy.memberships import Membership

numbers = st.floats(-1e6, 1e6)


def grades(shape: Any, points: list[float]) -> list[float]:
    found = grade(Membership.model_validate(shape), np.array(points, dtype=np.float64))
    return [float(value) for value in found]


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
        ({"type": "triangular", "parameters": [-2, -1, 0]}, {-2: 0, -1.5: 0.5, -1: 1, 0: 0}),
    ],
)
def test_edges_and_slopes(shape: Any, expected: dict[float, float]) -> None:
    assert grades(shape, list(expected)) == pytest.approx(list(expected.values()))


def test_a_gaussian_is_one_at_its_mean_and_falls_by_sigma() -> None:
    shape = {"type": "gaussian", "parameters": [50, 10]}
    expected = [1.0, np.exp(-0.5), np.exp(-0.5), np.exp(-2.0), 0.0, 0.0]
    assert grades(shape, [50, 40, 60, 70, 1e9, 1e300]) == pytest.approx(expected)


@given(st.lists(numbers, min_size=4, max_size=4), st.lists(numbers, min_size=1, max_size=50))
def test_grades_stay_between_zero_and_one(corners: list[float], points: list[float]) -> None:
    corners.sort()
    if corners[0] < corners[3]:
        found = grades(corners, points)
        assert all(0 <= value <= 1 for value in found)
        assert all(
            value == 0
            for value, point in zip(found, points, strict=True)
            if not corners[0] <= point <= corners[3]
        )


def test_nan_stays_nan() -> None:
    for shape in ([0, 1, 2], [0, 0, 1], {"type": "gaussian", "parameters": [0, 1]}):
        assert np.isnan(grades(shape, [float("nan")])).all()
