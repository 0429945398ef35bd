"""The strategy grammar (v3) as closed, frozen types: unknown keys are errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator
from pydantic_core import PydanticCustomError

from ktrdr.strategy.field_types import (
    Closed,
    Day,
    Flag,
    Name,
    NonNegative,
    Plain,
    Share,
    Symbol,
    Timeframe,
    tag_by,
    timeframe_seconds,
)
from ktrdr.strategy.indicator_types import INDICATOR_CLASSES, AnyIndicator
from ktrdr.strategy.inputs import NetworkInput
from ktrdr.strategy.memberships import FuzzySet
from ktrdr.strategy.networks import NETWORK_CLASS_OF_TAG, Network
from ktrdr.strategy.training import TRAINING_CLASS_OF_TAG, Training


class SingleSymbol(Closed):
    mode: Literal["single"] = "single"
    symbol: Symbol

    @property
    def names(self) -> tuple[str, ...]:
        return (self.symbol,)


class SeveralSymbols(Closed):
    mode: Literal["multi_symbol"]
    list: Annotated[tuple[Symbol, ...], Field(min_length=1, max_length=1000)]

    @field_validator("list")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _distinct(value)

    @property
    def names(self) -> tuple[str, ...]:
        return self.list


Resample = Annotated[Flag, Field(description="make what is not stored from a lower timeframe")]


class SingleTimeframe(Closed):
    mode: Literal["single"] = "single"
    timeframe: Timeframe
    resample: Resample = False

    @property
    def names(self) -> tuple[str, ...]:
        return (self.timeframe,)

    @property
    def base(self) -> str:
        return self.timeframe


class SeveralTimeframes(Closed):
    """The network predicts at every bar of the base timeframe, the shortest unless given."""

    mode: Literal["multi_timeframe"]
    list: Annotated[tuple[Timeframe, ...], Field(min_length=1, max_length=100)]
    base_timeframe: Timeframe | None = None
    resample: Resample = False

    @field_validator("list")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _distinct(value)

    @model_validator(mode="after")
    def _base_is_listed(self) -> Self:
        if self.base_timeframe is not None and self.base_timeframe not in self.list:
            raise PydanticCustomError(
                "base_timeframe",
                "base_timeframe {base} is not in the list",
                {"base": self.base_timeframe},
            )
        return self

    @property
    def names(self) -> tuple[str, ...]:
        return self.list

    @property
    def base(self) -> str:
        return self.base_timeframe or min(self.list, key=timeframe_seconds)


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise PydanticCustomError("list", "the list names {name} twice", {"name": twice})
    return names


def _timeframes_tag(data: Any) -> str | None:
    tag = tag_by("mode", "single")(data)
    return "<single_timeframe>" if tag == "<single>" else tag


AnySymbols = Annotated[
    Annotated[SingleSymbol, Tag("<single>")] | Annotated[SeveralSymbols, Tag("<multi_symbol>")],
    Discriminator(
        tag_by("mode", "single"),
        custom_error_type="mode",
        custom_error_message="mode must be single (with symbol) or multi_symbol (with list)",
    ),
]
AnyTimeframes = Annotated[
    Annotated[SingleTimeframe, Tag("<single_timeframe>")]
    | Annotated[SeveralTimeframes, Tag("<multi_timeframe>")],
    Discriminator(
        _timeframes_tag,
        custom_error_type="mode",
        custom_error_message="mode must be single (with timeframe) or multi_timeframe (with list)",
    ),
]


class TrainingData(Closed):
    """Which bars to train on, unless the request says otherwise."""

    symbols: AnySymbols
    timeframes: AnyTimeframes
    history_required: Annotated[int, Field(strict=True, ge=50, le=1_000_000)] = 200
    start_date: Day | None = None
    end_date: Day | None = None

    @model_validator(mode="before")
    @classmethod
    def _date_range_is_another_spelling(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or not isinstance(data.get("date_range"), Mapping):
            return data
        plain = {key: value for key, value in data.items() if key != "date_range"}
        unknown = {key: v for key, v in data["date_range"].items() if key not in ("start", "end")}
        if unknown:
            plain["date_range"] = unknown  # to be reported beside all other mistakes
        for key in data["date_range"].keys() - unknown.keys():
            value = data["date_range"][key]
            if str(plain.setdefault(f"{key}_date", value)) != str(value):
                raise PydanticCustomError("date_range", "date_range and the plain date differ")
        return plain

    @model_validator(mode="after")
    def _starts_before_it_ends(self) -> Self:
        if self.start_date and self.end_date and self.start_date > self.end_date:
            raise PydanticCustomError("date_range", "start_date lies after end_date")
        return self


class CostModel(Closed):
    round_trip_cost: NonNegative = 0.0
    min_edge_multiplier: NonNegative = 1.0


class Decisions(Closed):
    """What the model's outputs mean. All but `output_format` is for a later trading stage: it is
    stored with the model and not used in training."""

    output_format: Literal["classification", "regression"] = "classification"
    confidence_threshold: Share | None = None
    position_awareness: Flag | None = None
    filters: Plain | None = None
    cost_model: CostModel | None = None


def _version_text(value: Any) -> Any:
    return "3.0" if not isinstance(value, bool) and value == 3.0 else value


class Strategy(Closed):
    """A whole strategy: indicators -> fuzzy sets -> network inputs -> model -> training."""

    name: Name
    description: str | None = None
    version: Annotated[Literal["3.0"], BeforeValidator(_version_text)] = "3.0"
    scope: str | None = None
    training_data: TrainingData
    indicators: Annotated[dict[Name, AnyIndicator], Field(min_length=1, max_length=1000)]
    fuzzy_sets: dict[Name, FuzzySet] = Field(default={}, max_length=1000)
    nn_inputs: Annotated[tuple[NetworkInput, ...], Field(min_length=1, max_length=1000)]
    model: Network
    decisions: Decisions = Decisions()
    training: Training = Training()

    @model_validator(mode="before")
    @classmethod
    def _loss_follows_the_output_format(cls, data: Any) -> Any:
        """Fill in huber for a regression that names no loss, so that it stands in every dump."""
        if not isinstance(data, Mapping) or not isinstance(data.get("decisions"), Mapping):
            return data
        section = data.get("training", {})
        named = not isinstance(section, Mapping) or "loss" in section
        if named or data["decisions"].get("output_format") != "regression":
            return data
        return {**data, "training": {**section, "loss": "huber"}}

    @property
    def is_regression(self) -> bool:
        return self.decisions.output_format == "regression"

    @property
    def symbols(self) -> tuple[str, ...]:
        return self.training_data.symbols.names

    @property
    def timeframes(self) -> tuple[str, ...]:
        return self.training_data.timeframes.names

    @property
    def base_timeframe(self) -> str:
        """The one whose bars are the rows."""
        return self.training_data.timeframes.base


CLASS_OF_TAG: dict[str, type[Closed]] = {
    **{f"<{name}>": kind for name, kind in INDICATOR_CLASSES.items()},
    **TRAINING_CLASS_OF_TAG,
    "<single>": SingleSymbol,
    "<multi_symbol>": SeveralSymbols,
    "<single_timeframe>": SingleTimeframe,
    "<multi_timeframe>": SeveralTimeframes,
    **NETWORK_CLASS_OF_TAG,
}
