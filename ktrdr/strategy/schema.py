"""The strategy grammar (v3) as closed, frozen types: known keys are obeyed, others are errors."""

from __future__ import annotations

import datetime
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

from ktrdr.strategy.indicators import INDICATORS, IndicatorGrammar, canonical_type
from ktrdr.strategy.training import TRAINING_CLASS_OF_TAG, Training
from ktrdr.strategy.values import (
    Closed,
    Name,
    NonNegative,
    Number,
    Share,
    Symbol,
    Timeframe,
    tag_by,
)


class SingleSymbol(Closed):
    mode: Literal["single"] = "single"
    symbol: Symbol


class SingleTimeframe(Closed):
    mode: Literal["single"] = "single"
    timeframe: Timeframe


class TrainingData(Closed):
    """Which bars to train on, unless the request says otherwise."""

    symbols: SingleSymbol
    timeframes: SingleTimeframe
    history_required: Annotated[int, Field(strict=True, ge=50, le=1_000_000)] = 200
    start_date: datetime.date | None = None
    end_date: datetime.date | None = None

    @model_validator(mode="before")
    @classmethod
    def _date_range_is_another_spelling(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or not isinstance(data.get("date_range"), Mapping):
            return data
        plain = {key: value for key, value in data.items() if key != "date_range"}
        for key, value in data["date_range"].items():
            if key not in ("start", "end"):
                raise PydanticCustomError("date_range", "date_range takes only start and end")
            if plain.setdefault(f"{key}_date", value) != value:
                raise PydanticCustomError("date_range", "date_range and the plain date differ")
        return plain

    @model_validator(mode="after")
    def _starts_before_it_ends(self) -> Self:
        if self.start_date and self.end_date and self.start_date > self.end_date:
            raise PydanticCustomError("date_range", "start_date lies after end_date")
        return self


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


class NetworkInput(Closed):
    """One fuzzy set fed to the network, all of its memberships in order."""

    fuzzy_set: str
    timeframes: Literal["all"] | tuple[Timeframe, ...] = "all"


class MLPArchitecture(Closed):
    hidden_layers: Annotated[
        tuple[Annotated[int, Field(strict=True, ge=1, le=65_536)], ...], Field(max_length=64)
    ] = (64, 32)
    dropout: Annotated[Number, Field(ge=0, lt=1)] = 0.2
    activation: Literal["relu", "tanh", "sigmoid", "leaky_relu", "gelu"] = "relu"


class MLP(Closed):
    """A multi-layer perceptron over one bar; the head's size follows the labels."""

    type: Literal["mlp"]
    architecture: MLPArchitecture = MLPArchitecture()

    @property
    def sequence_length(self) -> int | None:
        """Rows that one answer is made from; None: a single one, without an axis for them."""
        return None


class RecurrentArchitecture(Closed):
    sequence_length: Annotated[int, Field(strict=True, ge=1, le=10_000)]
    hidden_size: Annotated[int, Field(strict=True, ge=1, le=65_536)] = 64
    num_layers: Annotated[int, Field(strict=True, ge=1, le=64)] = 2
    dropout: Annotated[Number, Field(ge=0, lt=1)] = 0.2


class Recurrent(Closed):
    """LSTM or GRU layers over the last `sequence_length` bars."""

    type: Literal["lstm", "gru"]
    architecture: RecurrentArchitecture

    @property
    def sequence_length(self) -> int | None:
        return self.architecture.sequence_length


def _network_tag(data: Any) -> str | None:
    tag = tag_by("type")(data)
    return "<recurrent>" if tag in ("<lstm>", "<gru>") else tag


Network = Annotated[
    Annotated[MLP, Tag("<mlp>")] | Annotated[Recurrent, Tag("<recurrent>")],
    Discriminator(
        _network_tag,
        custom_error_type="model",
        custom_error_message="type must be mlp, lstm or gru",
    ),
]


class CostModel(Closed):
    round_trip_cost: NonNegative = 0.0
    min_edge_multiplier: NonNegative = 1.0


class Decisions(Closed):
    """What the model's outputs mean. All but `output_format` is for a later trading stage: it is
    stored with the model and not used in training."""

    output_format: Literal["classification", "regression"] = "classification"
    confidence_threshold: Share | None = None
    position_awareness: bool | None = None
    filters: dict[str, Any] | None = None
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
    fuzzy_sets: Annotated[dict[Name, FuzzySet], Field(min_length=1, max_length=1000)]
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
    def symbol(self) -> str:
        return self.training_data.symbols.symbol

    @property
    def timeframe(self) -> str:
        return self.training_data.timeframes.timeframe


CLASS_OF_TAG: dict[str, type[Closed]] = {
    **{f"<{name}>": kind for name, kind in INDICATOR_CLASSES.items()},
    **TRAINING_CLASS_OF_TAG,
    "<mlp>": MLP,
    "<recurrent>": Recurrent,
}
