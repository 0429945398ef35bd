"""Membership functions: the grade of a value in a fuzzy set, from 0 to 1.

`grade` takes arrays and `grade_one` a single number; `ktrdr.training.memberships` is the same in
torch, with gradients. All give the same grades: those of scalars and arrays differ by the last bit
of an exponential or a power at most.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ktrdr.data.bars import FloatArray
from ktrdr.strategy.memberships import Membership


def grade(membership: Membership, values: FloatArray) -> FloatArray:
    """The membership of each value, float64 in [0, 1]; NaN stays NaN."""
    with np.errstate(over="ignore"):  # what lies beyond all bounds is graded as such
        return _ARRAYS[membership.type](values, *membership.parameters)


def grade_one(membership: Membership, value: float) -> float:
    """The membership of one value, in [0, 1]; NaN stays NaN."""
    if math.isnan(value):
        return math.nan
    return _SCALARS[membership.type](value, *membership.parameters)


def triangular(values: FloatArray, left: float, peak: float, right: float) -> FloatArray:
    """0 up to `left`, 1 at `peak`, 0 from `right` on; a side without width is a step."""
    return trapezoidal(values, left, peak, peak, right)


def trapezoidal(
    values: FloatArray, left: float, top_left: float, top_right: float, right: float
) -> FloatArray:
    """0 up to `left`, 1 from `top_left` to `top_right`, 0 from `right` on; steps as above."""
    grades: FloatArray = np.minimum(
        right_shoulder(values, left, top_left), left_shoulder(values, top_right, right)
    )
    return grades


def left_shoulder(values: FloatArray, top: float, foot: float) -> FloatArray:
    """1 up to `top`, 0 from `foot` on."""
    return _rise(foot - values, foot - top)


def right_shoulder(values: FloatArray, foot: float, top: float) -> FloatArray:
    """0 up to `foot`, 1 from `top` on."""
    return _rise(values - foot, top - foot)


def gaussian(values: FloatArray, mean: float, sigma: float) -> FloatArray:
    """exp(-(x - mean)^2 / (2 sigma^2)): 1 at the mean."""
    distances = (values - mean) / sigma
    grades: FloatArray = np.exp(-0.5 * distances * distances)
    return grades


def bell(values: FloatArray, width: float, slope: float, centre: float) -> FloatArray:
    """1 / (1 + |(x - centre) / width|^(2 slope)): 1 at the centre, 0.5 a width away from it.

    The generalised bell of Jang, "ANFIS", IEEE Trans. SMC 23 (1993), where a, b, c are its names.
    """
    grades: FloatArray = 1.0 / (1.0 + np.power(np.abs((values - centre) / width), 2.0 * slope))
    return grades


def sigmoid(values: FloatArray, centre: float, slope: float) -> FloatArray:
    """1 / (1 + exp(-slope (x - centre))): 0.5 at the centre; a slope below 0 falls."""
    steps = slope * (values - centre)
    tails = np.exp(-np.abs(steps))  # never overflows
    return np.where(steps < 0, tails, 1.0) / (1.0 + tails)


_ARRAYS: dict[str, Callable[..., FloatArray]] = {
    "triangular": triangular,
    "trapezoidal": trapezoidal,
    "gaussian": gaussian,
    "bell": bell,
    "sigmoid": sigmoid,
    "left_shoulder": left_shoulder,
    "right_shoulder": right_shoulder,
}


def _rise(distances: FloatArray, width: float) -> FloatArray:
    """From 0 at distance 0 to 1 at `width`; without a width, 1 from distance 0 on."""
    if width == 0:
        return np.where(np.isnan(distances), np.nan, (distances >= 0).astype(np.float64))
    return np.clip(distances, 0.0, width) / width


def _rise_one(distance: float, width: float) -> float:
    if width == 0:
        return 1.0 if distance >= 0 else 0.0
    return min(max(distance, 0.0), width) / width


def _trapezoidal_one(
    value: float, left: float, top_left: float, top_right: float, right: float
) -> float:
    return min(
        _rise_one(value - left, top_left - left), _rise_one(right - value, right - top_right)
    )


def _gaussian_one(value: float, mean: float, sigma: float) -> float:
    distance = (value - mean) / sigma
    return math.exp(-0.5 * distance * distance)


def _bell_one(value: float, width: float, slope: float, centre: float) -> float:
    try:
        return 1.0 / (1.0 + math.pow(abs((value - centre) / width), 2.0 * slope))
    except OverflowError:
        return 0.0


def _sigmoid_one(value: float, centre: float, slope: float) -> float:
    step = slope * (value - centre)
    tail = math.exp(-abs(step))
    return (tail if step < 0 else 1.0) / (1.0 + tail)


_SCALARS: dict[str, Callable[..., float]] = {
    "triangular": lambda value, left, peak, right: _trapezoidal_one(value, left, peak, peak, right),
    "trapezoidal": _trapezoidal_one,
    "gaussian": _gaussian_one,
    "bell": _bell_one,
    "sigmoid": _sigmoid_one,
    "left_shoulder": lambda value, top, foot: _rise_one(foot - value, foot - top),
    "right_shoulder": lambda value, foot, top: _rise_one(value - foot, top - foot),
}
