"""The strategy grammar (v3) as closed, frozen types: known keys are obeyed, others are errors."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, Union

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from ktrdr.strategy.indicators import INDICATORS, IndicatorGrammar, canonical_type

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
SYMBOL_PATTERN = r"^[A-Za-z0-9^][A-Za-z0-9._=^-]{0,31}$"
TIMEFRAME_PATTERN = r"^[1-9][0-9]{0,3}[mhdw]$"


def _no_boolean(value: Any) -> Any:
    """YAML's `true` is no number, though Python would count it as 1."""
    if isinstance(value, bool):
        raise PydanticCustomError("number_type", "a number is expected, not true or false")
    return value


def _no_dots(value: str) -> str:
    if ".." in value:
        raise PydanticCustomError("symbol", "a symbol must not contain '..'")
    return value


Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Symbol = Annotated[str, Field(pattern=SYMBOL_PATTERN), AfterValidator(_no_dots)]
Timeframe = Annotated[str, Field(pattern=TIMEFRAME_PATTERN)]
Count = Annotated[int, Field(strict=True, ge=1, le=1_000_000_000)]
Number = Annotated[float, BeforeValidator(_no_boolean)]
Share = Annotated[Number, Field(ge=0, le=1)]
Positive = Annotated[Number, Field(gt=0)]
NonNegative = Annotated[Number, Field(ge=0)]
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**32)]  # numpy's seeds are 32 bits wide


class Closed(BaseModel):
    """Frozen, with no room for unknown keys, and no NaN or infinity in any number."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, str_max_length=4096)


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
    """A multi-layer perceptron; the head's size follows the labels."""

    type: Literal["mlp"]
    architecture: MLPArchitecture = MLPArchitecture()


class CostModel(Closed):
    round_trip_cost: NonNegative = 0.0
    min_edge_multiplier: NonNegative = 1.0


class Decisions(Closed):
    """What the model's outputs mean. All but `output_format` is for a later trading stage: it is
    stored with the model and not used in training."""

    output_format: Literal["classification"] = "classification"
    confidence_threshold: Share | None = None
    position_awareness: bool | None = None
    filters: dict[str, Any] | None = None
    cost_model: CostModel | None = None


class ZigzagLabels(Closed):
    source: Literal["zigzag"] = "zigzag"
    zigzag_threshold: Annotated[Number, Field(gt=0, lt=1)] = 0.02


class TripleBarrierLabels(Closed):
    source: Literal["triple_barrier"]
    pt_multiplier: Positive = 2.0
    sl_multiplier: Positive = 1.5
    max_holding_period: Annotated[int, Field(strict=True, ge=1, le=100_000)] = 50
    vol_span: Annotated[int, Field(strict=True, ge=2, le=100_000)] = 50
    vol_method: Literal["atr", "close"] = "atr"


# Tags are written <so>, to be told from the user's own keys in the path of an error.
def _tag_by(key: str, default: str | None = None) -> Callable[[Any], str | None]:
    def tag(data: Any) -> str | None:
        value = data.get(key, default) if isinstance(data, Mapping) else getattr(data, key, None)
        return f"<{value}>" if isinstance(value, str) else None

    return tag


Labels = Annotated[
    Annotated[ZigzagLabels, Tag("<zigzag>")]
    | Annotated[TripleBarrierLabels, Tag("<triple_barrier>")],
    Discriminator(
        _tag_by("source", "zigzag"),
        custom_error_type="labels",
        custom_error_message="source must be zigzag or triple_barrier",
    ),
]


class StepSchedule(Closed):
    type: Literal["step"]
    step_size: Count
    gamma: Annotated[Number, Field(gt=0, le=1)] = 0.1


class ExponentialSchedule(Closed):
    type: Literal["exponential"]
    gamma: Annotated[Number, Field(gt=0, le=1)]


class CosineSchedule(Closed):
    """Cosine annealing to zero over all the epochs."""

    type: Literal["cosine"]


class PlateauSchedule(Closed):
    type: Literal["reduce_on_plateau"]
    factor: Annotated[Number, Field(gt=0, lt=1)] = 0.1
    patience: Annotated[int, Field(strict=True, ge=0)] = 10


Schedule = Annotated[
    Annotated[StepSchedule, Tag("<step>")]
    | Annotated[ExponentialSchedule, Tag("<exponential>")]
    | Annotated[CosineSchedule, Tag("<cosine>")]
    | Annotated[PlateauSchedule, Tag("<reduce_on_plateau>")],
    Discriminator(
        _tag_by("type"),
        custom_error_type="lr_scheduler",
        custom_error_message="type must be step, exponential, cosine or reduce_on_plateau",
    ),
]


class EarlyStopping(Closed):
    """`monitor` also decides which epoch is the best one, whether stopping is enabled or not."""

    enabled: bool = True
    patience: Count = 10
    min_delta: NonNegative = 0.0
    monitor: Literal["val_loss", "val_accuracy"] = "val_loss"


class DataSplit(Closed):
    """Shares of the rows, in order of time."""

    train: Annotated[Number, Field(gt=0, le=1)] = 0.7
    validation: Share = 0.15
    test: Share = 0.15

    @model_validator(mode="after")
    def _sums_to_one(self) -> Self:
        if not math.isclose(self.train + self.validation + self.test, 1.0, abs_tol=1e-6):
            raise PydanticCustomError("data_split", "train, validation and test must sum to 1")
        return self


class CheckpointTriggers(Closed):
    every_epochs: Count = 10
    every_seconds: Positive = 300.0


class Training(Closed):
    """How to train; every knob is obeyed."""

    epochs: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] = 100
    batch_size: Annotated[int, Field(strict=True, ge=1, le=10_000_000)] = 32
    learning_rate: Positive = 1e-3
    optimizer: Literal["adam", "adamw", "sgd", "rmsprop"] = "adam"
    weight_decay: NonNegative = 0.0
    momentum: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    gradient_clip: Positive | None = None
    loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    focal_gamma: NonNegative = 2.0
    lr_scheduler: Schedule | None = None
    early_stopping: EarlyStopping | None = None
    data_split: DataSplit = DataSplit()
    seed: Seed = 42
    checkpoint: CheckpointTriggers = CheckpointTriggers()
    labels: Labels = ZigzagLabels()

    @property
    def monitor(self) -> str:
        """The metric that decides on the best epoch and on early stopping."""
        return self.early_stopping.monitor if self.early_stopping else "val_loss"

    @model_validator(mode="after")
    def _momentum_is_for_those_that_have_it(self) -> Self:
        if self.momentum and self.optimizer not in ("sgd", "rmsprop"):
            raise PydanticCustomError(
                "momentum",
                "momentum is for sgd and rmsprop; {optimizer} has its own: remove it",
                {"optimizer": self.optimizer},
            )
        return self

    @model_validator(mode="after")
    def _watchers_have_something_to_watch(self) -> Self:
        stops = self.early_stopping is not None and self.early_stopping.enabled
        if self.data_split.validation == 0 and (
            stops or isinstance(self.lr_scheduler, PlateauSchedule)
        ):
            raise PydanticCustomError(
                "validation",
                "early_stopping and reduce_on_plateau need data_split.validation above 0",
            )
        return self


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
    model: MLP
    decisions: Decisions = Decisions()
    training: Training = Training()

    @property
    def symbol(self) -> str:
        return self.training_data.symbols.symbol

    @property
    def timeframe(self) -> str:
        return self.training_data.timeframes.timeframe


CLASS_OF_TAG: dict[str, type[Closed]] = {
    **{f"<{name}>": kind for name, kind in INDICATOR_CLASSES.items()},
    "<zigzag>": ZigzagLabels,
    "<triple_barrier>": TripleBarrierLabels,
    "<step>": StepSchedule,
    "<exponential>": ExponentialSchedule,
    "<cosine>": CosineSchedule,
    "<reduce_on_plateau>": PlateauSchedule,
}
