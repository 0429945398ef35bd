"""Membership functions in torch, differentiable in the values and in their own parameters.

The grades are those of `ktrdr.features.fuzzy`. Gradients are finite everywhere: where a curve has
no derivative (a step, a cusp) or one beyond all bounds, it is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

# Distances beyond so many widths have no gradient: there the grade is flat, within any precision.
_FAR_RAMP = 2.0
_FAR_GAUSSIAN = 40.0  # exp(-800) is 0 in float64
_FAR_BELL = 1e12
_NEAR_BELL = 1e-6  # a bell with a slope below 0.5 has a cusp at its centre


def grade(shape: str, values: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """The membership of each value, in [0, 1] and of the values' type; NaN stays NaN.

    Args:
        shape: a name of `ktrdr.strategy.memberships.PARAMETERS`.
        values: of any shape, float32 or float64.
        parameters: the shape's parameters in their order, broadcast against the values. The caller
            keeps them in order and widths from falling below 0; a ramp without width is a step.
    """
    return _SHAPES[shape](values, *parameters)


def _triangular(values: Tensor, left: Tensor, peak: Tensor, right: Tensor) -> Tensor:
    return _trapezoidal(values, left, peak, peak, right)


def _trapezoidal(
    values: Tensor, left: Tensor, top_left: Tensor, top_right: Tensor, right: Tensor
) -> Tensor:
    return torch.minimum(
        _right_shoulder(values, left, top_left), _left_shoulder(values, top_right, right)
    )


def _left_shoulder(values: Tensor, top: Tensor, foot: Tensor) -> Tensor:
    return _rise(foot - values, foot - top)


def _right_shoulder(values: Tensor, foot: Tensor, top: Tensor) -> Tensor:
    return _rise(values - foot, top - foot)


def _gaussian(values: Tensor, mean: Tensor, sigma: Tensor) -> Tensor:
    distances = _ratio(values - mean, sigma, _FAR_GAUSSIAN)
    return torch.exp(-0.5 * distances * distances)


def _bell(values: Tensor, width: Tensor, slope: Tensor, centre: Tensor) -> Tensor:
    """By logarithms: 1 / (1 + r^(2 slope)) = sigmoid(-2 slope log r)."""
    ratios = _ratio(torch.abs(values - centre), width, _FAR_BELL)
    limits = torch.finfo(ratios.dtype)
    known = ratios.detach()
    far = known > limits.max
    flat = far | (known < _NEAR_BELL) | (slope.detach() > limits.max**0.5)
    fixed = torch.log(known.clamp(limits.tiny, limits.max))
    moving = torch.log(torch.where(flat, 1.0, ratios))
    grades = torch.sigmoid(-slope * (2.0 * torch.where(flat, fixed, moving)))
    grades = torch.where(known == 0, 1.0, grades)
    return torch.where(far, 0.0, grades)


def _sigmoid(values: Tensor, centre: Tensor, slope: Tensor) -> Tensor:
    limits = torch.finfo(values.dtype)
    return torch.sigmoid(slope * (values - centre).clamp(limits.min, limits.max))


_SHAPES: dict[str, Callable[..., Tensor]] = {
    "triangular": _triangular,
    "trapezoidal": _trapezoidal,
    "gaussian": _gaussian,
    "bell": _bell,
    "sigmoid": _sigmoid,
    "left_shoulder": _left_shoulder,
    "right_shoulder": _right_shoulder,
}


def _rise(distances: Tensor, width: Tensor) -> Tensor:
    """From 0 at distance 0 to 1 at `width`; without a width, 1 from distance 0 on."""
    ramp = _ratio(distances, width, _FAR_RAMP).clamp(0.0, 1.0)
    known = distances.detach()
    step = torch.where(torch.isnan(known), known, (known >= 0).to(known.dtype))
    return torch.where(width > 0, ramp, step)


def _ratio(distances: Tensor, width: Tensor, far: float) -> Tensor:
    """distances / width, with gradients up to `far` widths; 0 / 0 is 0.

    Beyond, and for widths whose inverse square is not finite, it is a constant: no gradient can
    overflow, and none becomes NaN by multiplying 0 with infinity.
    """
    least = torch.finfo(distances.dtype).tiny ** 0.5
    moving = (width > least) & (torch.abs(distances) <= far * width)
    fixed = torch.where(distances.detach() == 0, 0.0, distances.detach() / width.detach())
    ratios = torch.where(moving, distances, 0.0) / torch.where(moving, width, 1.0)
    return torch.where(moving, ratios, fixed)
