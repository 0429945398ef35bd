"""Fuzzy sets: an indicator's output and the membership curves over it, in their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from ktrdr.strategy.field_types import Closed, Name, Number

Shape = Literal[
    "triangular", "trapezoidal", "gaussian", "bell", "sigmoid", "left_shoulder", "right_shoulder"
]

# What the parameters of each shape are, in their order. The formulas: `ktrdr.features.fuzzy`.
PARAMETERS: dict[str, tuple[str, ...]] = {
    "triangular": ("left", "peak", "right"),
    "trapezoidal": ("left", "top_left", "top_right", "right"),
    "gaussian": ("mean", "sigma"),
    "bell": ("width", "slope", "centre"),
    "sigmoid": ("centre", "slope"),
    "left_shoulder": ("top", "foot"),
    "right_shoulder": ("foot", "top"),
}

_SHAPE_OF_A_LIST = {3: "triangular", 4: "trapezoidal"}
_POSITIVE = {"gaussian": ("sigma",), "bell": ("width", "slope")}
LARGEST = 1e300  # beyond, a difference of two parameters could leave the finite numbers
_AUTO_NAMES = {
    2: ("low", "high"),
    3: ("low", "medium", "high"),
    5: ("very_low", "low", "medium", "high", "very_high"),
}

# As other tools write them; compared without case, spaces, hyphens and underscores.
_ALIASES: dict[str, str] = {
    **{shape.replace("_", ""): shape for shape in PARAMETERS},
    **dict.fromkeys(("triangle", "tri", "trimf"), "triangular"),
    **dict.fromkeys(("trapezoid", "trapeze", "trap", "trapmf"), "trapezoidal"),
    **dict.fromkeys(("gauss", "gaussmf"), "gaussian"),
    **dict.fromkeys(
        ("generalizedbell", "generalisedbell", "gbell", "gbellmf", "bellshaped"), "bell"
    ),
    **dict.fromkeys(("sigmoidal", "sigmf", "logistic"), "sigmoid"),
    **dict.fromkeys(("shoulderleft",), "left_shoulder"),
    **dict.fromkeys(("shoulderright",), "right_shoulder"),
}


def auto_names(count: int) -> tuple[str, ...]:
    """The names of the memberships that `auto: count` places, from the lowest up."""
    return _AUTO_NAMES.get(count) or tuple(f"level_{i}" for i in range(1, count + 1))


class Membership(Closed):
    """A curve: its shape, and the shape's parameters as `PARAMETERS` names them."""

    type: Shape
    parameters: tuple[Number, ...]

    @model_validator(mode="before")
    @classmethod
    def _a_list_is_short_for_its_shape(cls, data: Any) -> Any:
        if not isinstance(data, list | tuple):
            return data
        if len(data) not in _SHAPE_OF_A_LIST:
            raise PydanticCustomError(
                "membership", "a list must hold 3 numbers (triangular) or 4 (trapezoidal)"
            )
        return {"type": _SHAPE_OF_A_LIST[len(data)], "parameters": data}

    @field_validator("type", mode="before")
    @classmethod
    def _by_any_of_its_names(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        plain = value.strip().lower().translate(str.maketrans("", "", " -_"))
        return _ALIASES.get(plain, value)

    @model_validator(mode="after")
    def _parameters_fit_the_shape(self) -> Self:
        mistake = _mistake(self.type, self.parameters)
        if mistake:
            raise PydanticCustomError("membership", "{mistake}", {"mistake": mistake})
        return self


class FuzzySet(Closed):
    """An indicator output and its memberships, in the order they were written.

    Their order is that of the network's inputs, so it is a value of its own: it survives a JSON
    writer that sorts its keys. A set with `auto` has names, but no curves until they are placed by
    the training values.
    """

    indicator: str
    memberships: dict[Name, Membership] = Field(default={})
    order: tuple[str, ...] = ()
    auto: Annotated[int, Field(strict=True, ge=2, le=9)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _other_keys_are_memberships(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or {"memberships", "order"} <= set(data) <= _FIELDS:
            return data
        plain = {key: data[key] for key in ("indicator", "auto") if key in data}
        curves = {key: value for key, value in data.items() if key not in plain}
        if curves or plain.get("auto") is None:
            return plain | {"memberships": curves, "order": [str(key) for key in curves]}
        usable = isinstance(plain["auto"], int) and 2 <= plain["auto"] <= 9
        return plain | {"order": auto_names(plain["auto"]) if usable else ()}

    @field_validator("memberships")
    @classmethod
    def _has_at_least_one(cls, value: dict[str, Membership]) -> dict[str, Membership]:
        """Not called where only `auto` is given."""
        if not value:
            raise PydanticCustomError(
                "fuzzy_set", "at least one membership is needed, or auto: 2 to 9"
            )
        return value

    @field_validator("auto")
    @classmethod
    def _stands_alone(cls, value: int | None, info: ValidationInfo) -> int | None:
        # memberships that were given and are wrong are missing here
        if value is not None and info.data.get("memberships", True):
            raise PydanticCustomError(
                "fuzzy_set",
                "auto places the memberships itself: remove auto, or the memberships beside it",
            )
        return value

    @model_validator(mode="after")
    def _order_names_each_once(self) -> Self:
        names = auto_names(self.auto) if self.auto else tuple(self.memberships)
        if sorted(self.order) != sorted(names) or (self.auto and self.order != names):
            raise PydanticCustomError("fuzzy_set", "order must name each membership once")
        return self

    @model_serializer(mode="wrap")
    def _without_what_auto_implies(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = dump(self)
        unsaid = ("auto",) if self.auto is None else ("memberships", "order")
        return {key: value for key, value in content.items() if key not in unsaid}

    @property
    def ordered(self) -> tuple[tuple[str, Membership], ...]:
        """Names and curves in the order of the inputs; a set with `auto` must be placed first."""
        return tuple((name, self.memberships[name]) for name in self.order)

    def placed(self, curves: Sequence[Membership]) -> FuzzySet:
        """This set with the curves of its names, in their order, written out."""
        return FuzzySet(
            indicator=self.indicator,
            memberships=dict(zip(self.order, curves, strict=True)),
            order=self.order,
        )


_FIELDS = set(FuzzySet.model_fields)


def _mistake(shape: str, parameters: Sequence[float]) -> str | None:
    """What is wrong with finite parameters, and what to change."""
    names = PARAMETERS[shape]
    listed = f"[{', '.join(names)}]"
    if len(parameters) != len(names):
        return f"{shape} takes {len(names)} parameters {listed}, not {len(parameters)}"
    if max(map(abs, parameters)) > LARGEST:
        return f"{shape} parameters must lie between -{LARGEST:g} and {LARGEST:g}"
    if shape in ("gaussian", "bell", "sigmoid"):
        return _slope_mistake(shape, dict(zip(names, parameters, strict=True)))
    if list(parameters) != sorted(parameters) or parameters[0] == parameters[-1]:
        return f"{shape} parameters {listed} must rise from left to right"
    return None


def _slope_mistake(shape: str, given: Mapping[str, float]) -> str | None:
    for name in _POSITIVE.get(shape, ()):
        if given[name] <= 0:
            return f"{shape} needs a {name} above 0, not {given[name]:g}"
    if shape == "sigmoid" and given["slope"] == 0:
        return "sigmoid needs a slope other than 0: above 0 it rises, below 0 it falls"
    return None
