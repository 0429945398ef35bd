"""How rows are divided between training, validation and test."""

from __future__ import annotations

import math
from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from ktrdr.strategy.values import Closed, Number, Share


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
