"""The training section: optimizer, schedule, early stopping, labels and splits."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from ktrdr.strategy.field_types import (
    Closed,
    Count,
    Flag,
    NonNegative,
    Number,
    Positive,
    Seed,
    tag_by,
)
from ktrdr.strategy.labels import LABEL_CLASS_OF_TAG, Labels, ZigzagLabels
from ktrdr.strategy.splits import SPLIT_CLASS_OF_TAG, AnySplit, DataSplit


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

    enabled: Flag = True
    patience: Count = 10
    min_delta: NonNegative = 0.0
    monitor: Literal["val_loss", "val_accuracy"] = "val_loss"


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
    data_split: AnySplit = DataSplit()
    seed: Seed = 42
    checkpoint: CheckpointTriggers = CheckpointTriggers()
    labels: Labels = ZigzagLabels()

    @property
    def monitor(self) -> str:
        """The metric that decides on the best epoch and on early stopping."""
        return self.early_stopping.monitor if self.early_stopping else "val_loss"

    @property
    def higher_is_better(self) -> bool:
        """Of the monitored metric."""
        return self.monitor == "val_accuracy"

    def improves(self, score: float, reference: float | None, min_delta: float = 0.0) -> bool:
        """Whether a monitored score is better than a reference by more than `min_delta`."""
        if reference is None:
            return True
        return (score - reference if self.higher_is_better else reference - score) > min_delta

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
    **LABEL_CLASS_OF_TAG,
    **SPLIT_CLASS_OF_TAG,
    "<step>": StepSchedule,
    "<exponential>": ExponentialSchedule,
    "<cosine>": CosineSchedule,
    "<reduce_on_plateau>": PlateauSchedule,
}
