"""The split section: training, validation and test in order of time.

Shares are of the labelled rows of all symbols together, cut at moments that hold for every symbol.
Between two parts of different use a gap is left: as wide as the labels look ahead, and `embargo`
bars more (Lopez de Prado, Advances in Financial Machine Learning, 7.4).
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from ktrdr.strategy.field_types import Closed, Flag, Number, Share, tag_by

Embargo = Annotated[int, Field(strict=True, ge=0, le=1_000_000)]
TrainShare = Annotated[Number, Field(gt=0, le=1)]


class _Shared(Closed):
    """Shares of the rows that must sum to one."""

    train: TrainShare
    validation: Share
    test: Share
    embargo: Embargo = 0

    @model_validator(mode="after")
    def _sums_to_one(self) -> Self:
        if not math.isclose(self.train + self.validation + self.test, 1.0, abs_tol=1e-6):
            raise PydanticCustomError("data_split", "train, validation and test must sum to 1")
        return self


class DataSplit(_Shared):
    """Training first, then validation, then test: one model."""

    mode: Literal["chronological"] = "chronological"
    train: TrainShare = 0.7
    validation: Share = 0.15
    test: Share = 0.15

    @property
    def num_folds(self) -> int:
        return 1


class WalkForward(_Shared):
    """`folds` tests of equal size one after the other, together the last `test` share.

    Fold by fold the rows before its test are trained on: all of them (`anchored`), or the last
    `train` share only. The `validation` share of rows right before the test validates.
    """

    mode: Literal["walk_forward"]
    folds: Annotated[int, Field(strict=True, ge=2, le=100)] = 5
    anchored: Flag = True
    train: TrainShare = 0.5
    validation: Share = 0.1
    test: Annotated[Number, Field(gt=0, lt=1)] = 0.4

    @property
    def num_folds(self) -> int:
        return self.folds


class PurgedKFold(Closed):
    """Every fold in turn is the test; the last `validation` share of the others validates."""

    mode: Literal["purged_kfold"]
    folds: Annotated[int, Field(strict=True, ge=2, le=100)] = 5
    validation: Annotated[Number, Field(ge=0, lt=1)] = 0.15
    embargo: Embargo = 0

    @property
    def num_folds(self) -> int:
        return self.folds


AnySplit = Annotated[
    Annotated[DataSplit, Tag("<chronological>")]
    | Annotated[WalkForward, Tag("<walk_forward>")]
    | Annotated[PurgedKFold, Tag("<purged_kfold>")],
    Discriminator(
        tag_by("mode", "chronological"),
        custom_error_type="data_split",
        custom_error_message="mode must be chronological, walk_forward or purged_kfold",
    ),
]

SPLIT_CLASS_OF_TAG: dict[str, type[Closed]] = {
    "<chronological>": DataSplit,
    "<walk_forward>": WalkForward,
    "<purged_kfold>": PurgedKFold,
}
