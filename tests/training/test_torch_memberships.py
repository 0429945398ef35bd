"""Memberships in torch: the grades of the arrays, and gradients that are always finite."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ktrdr.features.memberships import grade as array_grade
from ktrdr.strategy.memberships import PARAMETERS, Membership
from ktrdr.training.memberships import grade

CURVES = [
    ("triangular", (0.0, 10.0, 30.0)),
    ("triangular", (0.0, 0.0, 30.0)),
    ("triangular", (0.0, 30.0, 30.0)),
    ("trapezoidal", (0.0, 10.0, 20.0, 40.0)),
    ("trapezoidal", (10.0, 10.0, 20.0, 20.0)),
    ("gaussian", (50.0, 10.0)),
    ("gaussian", (0.0, 1e-9)),
    ("bell", (10.0, 2.0, 50.0)),
    ("bell", (10.0, 0.05, 50.0)),  # a cusp at the centre
    ("bell", (1e-6, 40.0, 0.0)),
    ("sigmoid", (50.0, 0.3)),
    ("sigmoid", (50.0, -1e6)),
    ("left_shoulder", (30.0, 40.0)),
    ("right_shoulder", (30.0, 40.0)),
]
INFINITY = float("inf")


def points(parameters: tuple[float, ...], largest: float) -> np.ndarray:
    """Every kink, both of its neighbours, the middle of everything, and what lies far outside."""
    kinks = np.array([*parameters, 0.0, 50.0])  # a bell around 0 has its width among them
    spread = np.random.default_rng(5).normal(20.0, 30.0, 500)
    far = [-INFINITY, -largest, -1e20, 1e20, largest, INFINITY]
    found: np.ndarray = np.concatenate(
        [kinks, np.nextafter(kinks, INFINITY), np.nextafter(kinks, -INFINITY), spread, far]
    )
    return found


def tensors(parameters: tuple[float, ...], dtype: torch.dtype) -> list[Tensor]:
    return [torch.tensor(value, dtype=dtype, requires_grad=True) for value in parameters]


@pytest.mark.parametrize(("shape", "parameters"), CURVES)
def test_the_grades_are_those_of_the_arrays(shape: str, parameters: tuple[float, ...]) -> None:
    values = points(parameters, 1.7e308)
    expected = array_grade(Membership(type=shape, parameters=parameters), values)
    found = grade(shape, torch.from_numpy(values), tensors(parameters, torch.float64))
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", PARAMETERS)
def test_random_curves_of_any_size_agree_and_keep_their_gradients_finite(shape: str) -> None:
    random = np.random.default_rng(7)
    for _ in range(100):
        drawn = random.choice([-1, 1], 24) * 10.0 ** random.uniform(-30, 30, 24)
        count = len(PARAMETERS[shape])
        parameters = tuple(np.sort(drawn[:count]).tolist())
        if shape in ("gaussian", "bell"):
            parameters = tuple(np.abs(drawn[:count]).tolist())
        values = torch.from_numpy(drawn).requires_grad_()
        given = tensors(parameters, torch.float64)
        found = grade(shape, values, given)
        expected = array_grade(Membership(type=shape, parameters=parameters), drawn)
        np.testing.assert_allclose(found.detach().numpy(), expected, rtol=0, atol=1e-12)
        for gradient in torch.autograd.grad(found.sum(), [values, *given]):
            assert torch.isfinite(gradient).all()


@pytest.mark.parametrize(("shape", "parameters"), CURVES)
def test_float32_gives_the_same_edges(shape: str, parameters: tuple[float, ...]) -> None:
    """Compared at values and parameters that float32 holds exactly."""
    narrow = tuple(float(np.float32(value)) for value in parameters)
    values = points(narrow, 3e38).astype(np.float32)
    exact = values.astype(np.float64)
    expected = array_grade(Membership(type=shape, parameters=narrow), exact)
    found = grade(shape, torch.from_numpy(values), tensors(narrow, torch.float32))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=0, atol=1e-5)
    kinks = torch.tensor(narrow)
    if shape in ("triangular", "trapezoidal", "left_shoulder", "right_shoulder"):
        on_kinks = array_grade(Membership(type=shape, parameters=narrow), kinks.double().numpy())
        assert grade(shape, kinks, tensors(narrow, torch.float32)).tolist() == on_kinks.tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("shape", "parameters"),
    [
        *CURVES,
        ("triangular", (5.0, 5.0, 5.0)),
        ("trapezoidal", (5.0, 5.0, 5.0, 5.0)),
        ("left_shoulder", (5.0, 5.0)),
        ("right_shoulder", (0.0, 1e-38)),
        ("gaussian", (5.0, 0.0)),
        ("gaussian", (0.0, 1e-38)),
        ("bell", (0.0, 1.0, 5.0)),
        ("bell", (1e-38, 1e-3, 5.0)),
        ("bell", (1.0, 0.0, 5.0)),
        ("bell", (1.0, 1e30, 5.0)),
        ("bell", (2.0**-50, 1e30, 0.0)),
        ("sigmoid", (5.0, 0.0)),
        ("sigmoid", (5.0, 1e30)),
    ],
)
def test_gradients_are_finite_everywhere(
    shape: str, parameters: tuple[float, ...], dtype: torch.dtype
) -> None:
    """At kinks and cusps, without width, far outside: one NaN would end a training."""
    largest = torch.finfo(dtype).max
    values = torch.tensor(points(parameters, largest), dtype=dtype, requires_grad=True)
    given = tensors(parameters, dtype)
    found = grade(shape, values, given)
    assert ((found >= 0) & (found <= 1)).all()
    for gradient in torch.autograd.grad(found.sum(), [values, *given]):
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("shape", "parameters"),
    [curve for curve in CURVES if curve[1] not in ((0.0, 1e-9), (1e-6, 40.0, 0.0), (50.0, -1e6))],
)
def test_gradients_are_those_of_finite_differences(
    shape: str, parameters: tuple[float, ...]
) -> None:
    """Between the kinks, in the values and in every parameter."""
    values = torch.tensor([3.7, 7.3, 13.1, 17.9, 23.3, 33.7, 37.1, 47.3, 61.9], dtype=torch.float64)
    values.requires_grad_()
    distinct = [value + 0.01 * place for place, value in enumerate(parameters)]
    assert torch.autograd.gradcheck(
        lambda x, *given: grade(shape, x, given), (values, *tensors((*distinct,), torch.float64))
    )


def test_parameters_of_many_curves_broadcast_and_get_their_own_gradients() -> None:
    values = torch.tensor([[1.0], [2.0], [5.0]])
    centres = torch.tensor([1.0, 4.0], requires_grad=True)
    widths = torch.tensor([1.0, 2.0], requires_grad=True)
    found = grade("gaussian", values, [centres, widths])
    assert found.shape == (3, 2)
    whole = torch.autograd.grad(found.sum(), [centres, widths])
    for column in range(2):
        own = tensors((centres.tolist()[column], widths.tolist()[column]), torch.float32)
        single = torch.autograd.grad(grade("gaussian", values[:, 0], own).sum(), own)
        for many, one in zip(whole, single, strict=True):
            torch.testing.assert_close(many[column], one)


@pytest.mark.parametrize(("shape", "parameters"), CURVES)
def test_nan_stays_nan_and_leaves_the_other_rows_alone(
    shape: str, parameters: tuple[float, ...]
) -> None:
    values = torch.tensor([float("nan"), 15.0], dtype=torch.float64)
    found = grade(shape, values, tensors(parameters, torch.float64))
    assert torch.isnan(found[0])
    assert torch.isfinite(found[1])
