"""The training section of a strategy: how to train, on which labels, and when to stop."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from ktrdr.strategy.values import Closed, Count, NonNegative, Number, Positive, Seed, Share, tag_by


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


class ForwardReturnLabels(Closed):
    """The change of the close over `horizon` bars, as a fraction: for regression."""

    source: Literal["forward_return"]
    horizon: Annotated[int, Field(strict=True, ge=1, le=100_000)] = 20


Labels = Annotated[
    Annotated[ZigzagLabels, Tag("<zigzag>")]
    | Annotated[TripleBarrierLabels, Tag("<triple_barrier>")]
    | Annotated[ForwardReturnLabels, Tag("<forward_return>")],
    Discriminator(
        tag_by("source", "zigzag"),
        custom_error_type="labels",
        custom_error_message="source must be zigzag, triple_barrier or forward_return",
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
        tag_by("type"),
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
    loss: Annotated[
        Literal["cross_entropy", "focal", "huber", "mse"],
        Field(json_schema_extra={"default": "cross_entropy; for regression huber"}),
    ] = "cross_entropy"
    focal_gamma: NonNegative = 2.0
    huber_delta: Positive = 0.01
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


TRAINING_CLASS_OF_TAG: dict[str, type[Closed]] = {
    "<zigzag>": ZigzagLabels,
    "<triple_barrier>": TripleBarrierLabels,
    "<forward_return>": ForwardReturnLabels,
    "<step>": StepSchedule,
    "<exponential>": ExponentialSchedule,
    "<cosine>": CosineSchedule,
    "<reduce_on_plateau>": PlateauSchedule,
}
