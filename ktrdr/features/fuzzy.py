"""Membership functions: how much a value belongs to a fuzzy set, from 0 to 1."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ktrdr.data.bars import FloatArray
from ktrdr.strategy.memberships import Membership


def grade(membership: Membership, values: FloatArray) -> FloatArray:
    """The membership of each value, float64 in [0, 1]; NaN stays NaN."""
    return _SHAPES[membership.type](values, *membership.parameters)


def triangular(values: FloatArray, left: float, peak: float, right: float) -> FloatArray:
    """0 up to `left`, 1 at `peak`, 0 from `right` on; a side without width is a step."""
    return trapezoidal(values, left, peak, peak, right)


def trapezoidal(
    values: FloatArray, left: float, top_left: float, top_right: float, right: float
) -> FloatArray:
    """0 up to `left`, 1 from `top_left` to `top_right`, 0 from `right` on; steps as above."""
    grades: FloatArray = np.minimum(
        _rise(values - left, top_left - left), _rise(right - values, right - top_right)
    )
    return grades


def gaussian(values: FloatArray, mean: float, sigma: float) -> FloatArray:
    """exp(-(x - mean)^2 / (2 sigma^2)): 1 at the mean."""
    with np.errstate(over="ignore"):  # a value beyond all bounds away is graded 0, as it should be
        distances = (values - mean) / sigma
        grades: FloatArray = np.exp(-0.5 * distances * distances)
    return grades


_SHAPES: dict[str, Callable[..., FloatArray]] = {
    "triangular": triangular,
    "trapezoidal": trapezoidal,
    "gaussian": gaussian,
}


def _rise(distances: FloatArray, width: float) -> FloatArray:
    """From 0 at distance 0 to 1 at `width`; without a width, 1 from distance 0 on."""
    if width == 0:
        return np.where(np.isnan(distances), np.nan, (distances >= 0).astype(np.float64))
    return np.clip(distances, 0.0, width) / width
