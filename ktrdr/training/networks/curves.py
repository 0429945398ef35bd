"""Membership curves that train: moved from the strategy's own, and curves whatever moves them.

Each parameter of a curve has a move, 0 at first. Moves have no unit: the place of a curve moves by
so many of its own widths, and widths and slopes are multiplied by exp(move). So a learning rate
means the same for a price as for an oscillator, weight decay draws the curves back to what the
strategy says, knots never pass each other, and what has no width stays a step. Moves are bounded
smoothly, to less than 3 in either direction: no optimizer can drive a curve out of the numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ktrdr.strategy.memberships import Membership
from ktrdr.training.memberships import grade

FARTHEST_MOVE = 3.0


class TrainedCurves(nn.Module):
    """Curves over the columns of a matrix: rows [N, F] -> grades float64 [N, number of curves].

    Args:
        curves: each with the index of its column; the grades come in their order.
        trained: whether the moves are parameters; if not they are buffers that stay 0.
    """

    order: Tensor

    def __init__(self, curves: Sequence[tuple[int, Membership]], trained: bool) -> None:
        super().__init__()
        self._shapes = sorted({curve.type for _, curve in curves})
        for shape in self._shapes:
            own = [(place, curve) for place, curve in curves if curve.type == shape]
            start = torch.tensor([curve.parameters for _, curve in own], dtype=torch.float64)
            moves = torch.zeros(start.shape)
            self.register_buffer(f"{shape}_start", start)
            self._register_moves(f"{shape}_moves", moves, trained)
            self._register_index(f"{shape}_columns", [place for place, _ in own])
        by_shape = sorted(range(len(curves)), key=lambda index: curves[index][1].type)
        self._register_index("order", [by_shape.index(index) for index in range(len(curves))])

    def forward(self, rows: Tensor) -> Tensor:
        grades = [
            grade(
                shape,
                rows.index_select(1, getattr(self, f"{shape}_columns")).double(),
                self._moved(shape).unbind(1),
            )
            for shape in self._shapes
        ]
        return torch.cat(grades, dim=1).index_select(1, self.order)

    def before(self) -> list[Membership]:
        """The curves as the strategy says."""
        return self._curves(lambda shape: getattr(self, f"{shape}_start"))

    def after(self) -> list[Membership]:
        """The curves as they are now."""
        return self._curves(self._moved)

    def _moved(self, shape: str) -> Tensor:
        start, moves = getattr(self, f"{shape}_start"), getattr(self, f"{shape}_moves")
        return _MOVED[shape](start, bounded(moves.double(), FARTHEST_MOVE))

    def _curves(self, parameters_of: Callable[[str], Tensor]) -> list[Membership]:
        with torch.no_grad():
            by_shape = [
                Membership(type=shape, parameters=tuple(parameters))
                for shape in self._shapes
                for parameters in parameters_of(shape).cpu().tolist()
            ]
        return [by_shape[index] for index in self.order.tolist()]

    def _register_moves(self, name: str, moves: Tensor, trained: bool) -> None:
        if trained:
            self.register_parameter(name, nn.Parameter(moves))
        else:
            self.register_buffer(name, moves)

    def _register_index(self, name: str, index: list[int]) -> None:
        """A tensor that follows the module to its device, and is no part of its state."""
        self.register_buffer(name, torch.tensor(index), persistent=False)


def bounded(values: Tensor, limit: float) -> Tensor:
    """The values themselves near 0, bent towards -limit and limit farther out."""
    return limit * torch.tanh(values / limit)


def _moved_knots(start: Tensor, moves: Tensor) -> Tensor:
    """The first knot moves by the curve's whole width, the others stand off from it."""
    whole = start[:, -1:] - start[:, :1]
    first = start[:, :1] + whole * moves[:, :1]
    widths = start.diff(dim=1) * torch.exp(moves[:, 1:])
    return torch.cat([first, first + widths.cumsum(dim=1)], dim=1)


def _moved_gaussian(start: Tensor, moves: Tensor) -> Tensor:
    mean, sigma = start.unbind(1)
    return torch.stack([mean + sigma * moves[:, 0], sigma * torch.exp(moves[:, 1])], dim=1)


def _moved_bell(start: Tensor, moves: Tensor) -> Tensor:
    width, slope, centre = start.unbind(1)
    factors = torch.exp(moves)
    moved = [width * factors[:, 0], slope * factors[:, 1], centre + width * moves[:, 2]]
    return torch.stack(moved, dim=1)


def _moved_sigmoid(start: Tensor, moves: Tensor) -> Tensor:
    centre, slope = start.unbind(1)
    width = 1.0 / slope.abs().clamp(min=1e-300)
    return torch.stack([centre + width * moves[:, 0], slope * torch.exp(moves[:, 1])], dim=1)


_MOVED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "triangular": _moved_knots,
    "trapezoidal": _moved_knots,
    "left_shoulder": _moved_knots,
    "right_shoulder": _moved_knots,
    "gaussian": _moved_gaussian,
    "bell": _moved_bell,
    "sigmoid": _moved_sigmoid,
}
