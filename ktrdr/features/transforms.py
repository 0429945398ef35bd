"""From an indicator's values to columns of the matrix: graded, scaled or raw.

What a strategy leaves open (`auto` memberships, scalers) is fitted on the values of the training
rows and on nothing else, and kept with the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ktrdr.data.bars import FloatArray
from ktrdr.errors import InvalidData
from ktrdr.features.columns import InputColumn
from ktrdr.features.fitted_parameters import Scaler, fit_scaler, place_memberships
from ktrdr.features.memberships import grade
from ktrdr.strategy.input_names import InputGroup, input_groups
from ktrdr.strategy.memberships import Membership
from ktrdr.strategy.schema import Strategy


@dataclass(frozen=True)
class Transform:
    """What becomes of one input group's values: a column per name.

    With `memberships` a grade by each of them, or, where it is `crisp`, the value itself, which
    the network will grade. With a `scaler` the scaled value.
    """

    names: tuple[str, ...]
    memberships: tuple[tuple[str, Membership], ...] = ()
    scaler: Scaler | None = None
    crisp: bool = False

    @property
    def columns(self) -> tuple[InputColumn, ...]:
        if self.crisp:
            return (InputColumn(self.names[0], self.memberships),)
        return tuple(InputColumn(name) for name in self.names)

    def apply(self, values: FloatArray) -> Iterator[NDArray[np.float32]]:
        """The columns of these values, in their order.

        Raises InvalidData where float32 cannot hold one.
        """
        if self.scaler is not None:
            yield _narrow(self.scaler.apply(values), self.names[0])
        elif self.crisp:
            yield _narrow(values, self.names[0])
        else:
            for _, membership in self.memberships:
                yield grade(membership, values).astype(np.float32)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON; numbers come back from it to the last bit."""
        return {
            "names": list(self.names),
            "memberships": [
                {"name": name, **curve.model_dump(mode="json")} for name, curve in self.memberships
            ],
            "scaler": None if self.scaler is None else self.scaler.as_json(),
            "crisp": self.crisp,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Transform:
        """What `as_json` gave; raises KeyError, TypeError or ValueError for anything else."""
        curves = [dict(item) for item in data["memberships"]]
        memberships = tuple((c.pop("name"), Membership.model_validate(c)) for c in curves)
        scaler = None if data["scaler"] is None else Scaler.from_json(data["scaler"])
        return cls(tuple(data["names"]), memberships, scaler, bool(data["crisp"]))


def _narrow(values: FloatArray, name: str) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    if not np.isfinite(narrow).all():
        raise InvalidData(
            f"input {name} has values beyond what float32 can hold (up to {np.abs(values).max():g})"
            ": give it another normalization, or check the bars",
            input=name,
        )
    return narrow


def needs_fitting(group: InputGroup) -> bool:
    """Whether something about this group is taken from the training rows."""
    if group.fuzzy_set is not None:
        return group.fuzzy_set.auto is not None
    return group.entry.normalization not in (None, "none")


def fit_transform(group: InputGroup, values: FloatArray | None, crisp: bool) -> Transform:
    """The transform of a group.

    Args:
        values: of the training rows; needed where `needs_fitting`.
        crisp: whether the network grades fuzzy sets itself.

    Raises InvalidData where the values are too few or too much alike.
    """
    if group.fuzzy_set is None:
        kind = group.entry.normalization or "none"
        scaler = fit_scaler(kind, _given(values), f"nn_inputs {group.name}")
        return Transform(group.input_names, scaler=scaler)
    auto = group.fuzzy_set.auto
    if auto is None:
        memberships = group.fuzzy_set.ordered
    else:
        placed = place_memberships(_given(values), auto, f"fuzzy_sets {group.name}")
        memberships = group.fuzzy_set.placed(placed).ordered
    names = (group.name,) if crisp else group.input_names
    return Transform(names, memberships, crisp=crisp)


def unfitted(strategy: Strategy) -> tuple[Transform, ...]:
    """The transforms of a strategy that leaves nothing open; InvalidData where it does."""
    crisp = grades_itself(strategy)
    return tuple(fit_transform(group, None, crisp) for group in input_groups(strategy))


def grades_itself(strategy: Strategy) -> bool:
    """Whether the network takes crisp values and holds the fuzzy sets in itself."""
    return strategy.model.type == "neuro_fuzzy"


def _given(values: FloatArray | None) -> FloatArray:
    return np.empty(0) if values is None else values
