"""An indicator as a strategy names it: one closed class for each type of the table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import Discriminator, Field, Tag, create_model, field_validator

from ktrdr.strategy.indicators import INDICATORS, IndicatorGrammar, canonical_type
from ktrdr.strategy.values import Closed, Number

PriceSource = Literal["open", "high", "low", "close", "hl2", "hlc3", "ohlc4", "volume"]


class Indicator(Closed):
    """One indicator; each type's own class, made from the table, adds its parameters as fields."""

    type: str

    @property
    def grammar(self) -> IndicatorGrammar:
        return INDICATORS[self.type]

    @property
    def parameters(self) -> dict[str, int | float]:
        """The parameters by name, defaults filled in."""
        return {p.name: getattr(self, p.name) for p in self.grammar.parameters}

    @property
    def price_source(self) -> str:
        """The series it is computed from; indicators over high, low and close have none."""
        return str(getattr(self, "source", "close"))

    @field_validator("type", mode="before")
    @classmethod
    def _without_regard_to_case(cls, value: Any) -> Any:
        return canonical_type(value) or value if isinstance(value, str) else value


def _indicator_class(grammar: IndicatorGrammar) -> type[Indicator]:
    fields: dict[str, Any] = {"type": Literal[grammar.type]}
    for p in grammar.parameters:
        if p.is_integer:
            number: Any = Annotated[int, Field(strict=True, ge=p.least, le=100_000)]
        else:
            number = Annotated[Number, Field(ge=p.least, le=1e6)]
        fields[p.name] = (number, p.default)
    if grammar.takes_source:
        fields["source"] = (PriceSource, "close")
    return create_model(grammar.type, __base__=Indicator, **fields)


def _indicator_tag(data: Any) -> str | None:
    name = data.type if isinstance(data, Indicator) else None
    if isinstance(data, Mapping) and isinstance(data.get("type"), str):
        name = data["type"]
    kind = canonical_type(name) if name else None
    return f"<{kind}>" if kind else None


INDICATOR_CLASSES: dict[str, type[Indicator]] = {
    name: _indicator_class(grammar) for name, grammar in INDICATORS.items()
}

if TYPE_CHECKING:
    AnyIndicator = Indicator
else:
    AnyIndicator = Annotated[
        Union[  # noqa: UP007 - the members are made from the table
            tuple(Annotated[kind, Tag(f"<{name}>")] for name, kind in INDICATOR_CLASSES.items())
        ],
        Discriminator(
            _indicator_tag,
            custom_error_type="indicator_type",
            custom_error_message="unknown or missing indicator type",
        ),
    ]
