"""Fuzzy sets: an indicator's output and the membership curves over it, in their order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import field_validator, model_validator
from pydantic_core import PydanticCustomError

from ktrdr.strategy.values import Closed, Name, Number


class Membership(Closed):
    """A curve: triangular [a, b, c], trapezoidal [a, b, c, d] or gaussian [mean, sigma]."""

    type: Literal["triangular", "trapezoidal", "gaussian"]
    parameters: tuple[Number, ...]

    @model_validator(mode="before")
    @classmethod
    def _a_list_is_short_for_its_shape(cls, data: Any) -> Any:
        if not isinstance(data, list | tuple):
            return data
        shapes = {3: "triangular", 4: "trapezoidal"}
        if len(data) not in shapes:
            raise PydanticCustomError(
                "membership", "a list must hold 3 numbers (triangular) or 4 (trapezoidal)"
            )
        return {"type": shapes[len(data)], "parameters": data}

    @model_validator(mode="after")
    def _parameters_fit_the_shape(self) -> Self:
        count = {"triangular": 3, "trapezoidal": 4, "gaussian": 2}[self.type]
        if len(self.parameters) != count:
            raise PydanticCustomError(
                "membership",
                "{type} takes {count} parameters",
                {"type": self.type, "count": count},
            )
        if self.type == "gaussian":
            if self.parameters[1] <= 0:
                raise PydanticCustomError("membership", "gaussian needs a sigma above 0")
        elif list(self.parameters) != sorted(self.parameters) or (
            self.parameters[0] == self.parameters[-1]
        ):
            raise PydanticCustomError(
                "membership", "{type} parameters must rise from left to right", {"type": self.type}
            )
        return self


class FuzzySet(Closed):
    """An indicator output and its memberships, in the order they were written.

    Their order is that of the network's inputs, so it is a value of its own: it survives a JSON
    writer that sorts its keys.
    """

    indicator: str
    memberships: dict[Name, Membership]
    order: tuple[str, ...]

    @model_validator(mode="before")
    @classmethod
    def _other_keys_are_memberships(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or set(data) == set(cls.model_fields):
            return data
        memberships = {key: value for key, value in data.items() if key != "indicator"}
        return {"memberships": memberships, "order": [str(key) for key in memberships]} | (
            {"indicator": data["indicator"]} if "indicator" in data else {}
        )

    @field_validator("memberships")
    @classmethod
    def _has_at_least_one(cls, value: dict[str, Membership]) -> dict[str, Membership]:
        if not value:
            raise PydanticCustomError("fuzzy_set", "at least one membership is needed")
        return value

    @model_validator(mode="after")
    def _order_names_each_once(self) -> Self:
        if sorted(self.order) != sorted(self.memberships):
            raise PydanticCustomError("fuzzy_set", "order must name each membership once")
        return self

    @property
    def ordered(self) -> tuple[tuple[str, Membership], ...]:
        """Names and curves in the order of the inputs."""
        return tuple((name, self.memberships[name]) for name in self.order)
