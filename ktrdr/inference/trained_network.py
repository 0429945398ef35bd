"""A trained network with all that its inputs are made by: from input rows to predictions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ktrdr.features.columns import InputColumn
from ktrdr.features.input_schema import InputSchema
from ktrdr.strategy.schema import Strategy
from ktrdr.training.batch_invariant import one_thread, predictions
from ktrdr.training.batches import sequences


@dataclass(frozen=True)
class TrainedNetwork:
    """A network on the CPU, ready to predict."""

    module: nn.Module
    strategy: Strategy
    input_schema: InputSchema
    """How its inputs are made."""
    class_names: tuple[str, ...]
    """Empty for a regression."""
    version: int | None = None
    """Of the strategy's models; None for one that was not stored."""

    @property
    def name(self) -> str:
        """As `ktrdr models` takes it."""
        version = "" if self.version is None else f"@v{self.version}"
        return f"{self.strategy.name}{version}"

    @property
    def columns(self) -> tuple[InputColumn, ...]:
        """What the rows of its inputs hold, in their order."""
        return self.input_schema.columns

    @property
    def input_names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def outputs(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """The network's raw outputs, [N, classes] or [N, 1], for inputs [N, len(input_names)].

        A model with a `sequence_length` takes consecutive rows, and predicts from the first row on
        that has enough rows before it: N - sequence_length + 1 predictions.
        """
        return self._predictions(self.module, inputs)

    def probabilities(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """The probability of each class, [N, classes], for inputs as `outputs` takes them; a
        regression has none."""
        return self._predictions(lambda shown: torch.softmax(self.module(shown), dim=1), inputs)

    def _predictions(
        self, network: Callable[[Tensor], Tensor], inputs: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        rows, length = torch.from_numpy(np.array(inputs)), self.strategy.model.sequence_length
        shown = rows if length is None else sequences(rows, length)
        with one_thread():
            result: NDArray[np.float32] = predictions(network, shown).numpy()
        return result
