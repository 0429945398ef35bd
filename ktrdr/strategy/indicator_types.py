"""Indicator types of the grammar: closed classes, made from the table.

Types with the same parameters, defaults and source share a class: a hundred of them would take
longer to build than most commands run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, Union

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from ktrdr.strategy.field_types import Closed, Number
from ktrdr.strategy.indicators import (
    INDICATORS,
    ChoiceParameter,
    IndicatorGrammar,
    Parameter,
    canonical_type,
)

Parameters = dict[str, int | float | str]


class Indicator(Closed):
    """One indicator; the class of its type, made from the table, adds its parameters as fields.

    A type that is computed from one series has a `source`: a price series by name, or another
    indicator as `id` or `id.output` (that it exists is checked with the strategy's other
    references). Older files say `data_source`; that is read as `source`.
    """

    type: str

    def __repr_name__(self) -> str:
        return "Indicator"

    @property
    def grammar(self) -> IndicatorGrammar:
        return INDICATORS[self.type]

    @property
    def parameters(self) -> Parameters:
        """The parameters by name, defaults filled in."""
        return {p.name: getattr(self, p.name) for p in self.grammar.parameters}

    @property
    def series_source(self) -> str | None:
        """What it is computed from by name; None for indicators over several parts of a bar."""
        return getattr(self, "source", None)

    @field_validator("type", mode="before")
    @classmethod
    def _without_regard_to_case(cls, value: Any) -> Any:
        return canonical_type(value) or value if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _data_source_is_an_older_name(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or "data_source" not in data:
            return data
        if "source" not in cls.model_fields:
            return data
        plain = {key: value for key, value in data.items() if key != "data_source"}
        if plain.setdefault("source", data["data_source"]) != data["data_source"]:
            raise PydanticCustomError("source", "source and data_source differ; keep source")
        return plain

    @model_validator(mode="after")
    def _parameters_fit_each_other(self) -> Self:
        for low, high in self.grammar.below:
            if getattr(self, low) >= getattr(self, high):
                raise _misfit(self, low, high, "smaller than")
        for low, high in self.grammar.not_above:
            if getattr(self, low) > getattr(self, high):
                raise _misfit(self, low, high, "at most")
        return self


def _misfit(indicator: Indicator, low: str, high: str, relation: str) -> PydanticCustomError:
    return PydanticCustomError(
        "parameters",
        "{low} ({low_value}) must be {relation} {high} ({high_value})",
        {
            "low": low,
            "low_value": getattr(indicator, low),
            "relation": relation,
            "high": high,
            "high_value": getattr(indicator, high),
        },
    )


def _classes() -> dict[str, type[Indicator]]:
    """By type; the first type of each class gives it its name."""
    alike: dict[Any, list[str]] = {}
    for grammar in INDICATORS.values():
        alike.setdefault((grammar.parameters, grammar.source), []).append(grammar.type)
    return {name: kind for names in alike.values() for kind in [_class(names)] for name in names}


def _class(names: list[str]) -> type[Indicator]:
    grammar = INDICATORS[names[0]]
    fields: dict[str, Any] = {"type": Literal[tuple(names)]}
    for p in grammar.parameters:
        fields[p.name] = (_values_of(p), p.default)
    if grammar.takes_source:
        fields["source"] = (str, grammar.source)
    return create_model(names[0], __base__=Indicator, **fields)


def _values_of(parameter: Parameter | ChoiceParameter) -> Any:
    if isinstance(parameter, ChoiceParameter):
        return Annotated[Literal[parameter.choices], BeforeValidator(_lower)]
    if parameter.is_integer:
        return Annotated[int, Field(strict=True, ge=parameter.least, le=parameter.most)]
    return Annotated[Number, Field(ge=parameter.least, le=parameter.most)]


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _indicator_tag(data: Any) -> str | None:
    name = data.type if isinstance(data, Indicator) else None
    if isinstance(data, Mapping) and isinstance(data.get("type"), str):
        name = data["type"]
    kind = canonical_type(name) if name else None
    return f"<{INDICATOR_CLASSES[kind].__name__}>" if kind else None


INDICATOR_CLASSES: dict[str, type[Indicator]] = _classes()

if TYPE_CHECKING:
    AnyIndicator = Indicator
else:
    AnyIndicator = Annotated[
        Union[  # noqa: UP007 - the members are made from the table
            tuple(
                Annotated[kind, Tag(f"<{kind.__name__}>")]
                for kind in dict.fromkeys(INDICATOR_CLASSES.values())
            )
        ],
        Discriminator(
            _indicator_tag,
            custom_error_type="indicator_type",
            custom_error_message="unknown or missing indicator type",
        ),
    ]
