"""The `nn_inputs` section: fuzzy sets and raw indicators at timeframes."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from ktrdr.strategy.field_types import Closed, Timeframe

Normalization = Literal["minmax", "zscore", "robust", "none"]


def _timeframes_tag(value: Any) -> str | None:
    if isinstance(value, str):
        return "<all>" if value == "all" else None
    return "<list>" if isinstance(value, list | tuple) else None


Timeframes = Annotated[
    Annotated[Literal["all"], Tag("<all>")]
    | Annotated[tuple[Timeframe, ...], Field(min_length=1), Tag("<list>")],
    Discriminator(
        _timeframes_tag,
        custom_error_type="timeframes",
        custom_error_message="say all, or list some of the strategy's timeframes",
    ),
]


class NetworkInput(Closed):
    """A fuzzy set, all of its memberships in order, or the value of an indicator's output.

    `normalization` (raw values only; `none` unless given) is fitted on the training rows.
    """

    fuzzy_set: str | None = None
    raw_indicator: str | None = None
    timeframes: Timeframes = "all"
    normalization: Normalization | None = None

    @model_validator(mode="after")
    def _is_one_of_two(self) -> Self:
        if (self.fuzzy_set is None) == (self.raw_indicator is None):
            raise PydanticCustomError(
                "nn_input", "exactly one of fuzzy_set and raw_indicator is needed"
            )
        if self.normalization is not None and self.raw_indicator is None:
            raise PydanticCustomError(
                "nn_input", "normalization is for raw_indicator; a fuzzy set has none: remove it"
            )
        return self

    @property
    def name(self) -> str:
        """What it shows: the id of the set, or the reference to the indicator's output."""
        return str(self.fuzzy_set or self.raw_indicator)
