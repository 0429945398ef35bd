"""A stored model, ready to use: loaded without pickle, verified file by file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ktrdr.checkpoints.manifest import ModelManifest
from ktrdr.errors import CheckpointCorrupted, KtrdrError
from ktrdr.features.columns import InputColumn
from ktrdr.features.input_schema import Recipe
from ktrdr.strategy.loading import validate_strategy
from ktrdr.strategy.schema import Strategy
from ktrdr.training.batch_invariant import one_thread, predictions
from ktrdr.training.batches import sequences
from ktrdr.training.networks import build_model
from ktrdr.training.weights import StateDict, fit_state, load_state, save_state, weights_digest

if TYPE_CHECKING:
    import polars as pl


def model_files(strategy: Strategy, recipe: Recipe, weights: StateDict) -> dict[str, bytes]:
    """The files of a stored model: its weights, the effective strategy, how inputs are made."""
    config = strategy.model_dump(mode="json", exclude_none=True)
    return {
        "model.pt": save_state(dict(weights)),
        "strategy.json": json.dumps(config, indent=1, sort_keys=True).encode(),
        "features.json": json.dumps(recipe.as_json(), indent=1).encode(),
    }


@dataclass(frozen=True)
class LoadedModel:
    """A stored model, ready to use on the CPU."""

    module: nn.Module
    strategy: Strategy
    recipe: Recipe
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
        return self.recipe.columns

    @property
    def input_names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def outputs(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """The network's raw outputs, [N, classes] or [N, 1], for inputs [N, len(input_names)].

        A model with a `sequence_length` takes consecutive rows, and predicts from the first row on
        that has enough rows before it: N - sequence_length + 1 predictions.
        """
        return self._answers(self.module, inputs)

    def probabilities(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """The probability of each class, [N, classes], for inputs as `outputs` takes them; a
        regression has none."""
        return self._answers(lambda shown: torch.softmax(self.module(shown), dim=1), inputs)

    def predict(
        self, bars: Any, *, timeframe: str | None = None, symbol: str | None = None
    ) -> pl.DataFrame:
        """What the model says at each closed bar that has enough history: a polars frame.

        Its first column is `timestamp`, the bar's open time (UTC). Then comes for each class its
        probability, under the class's name, or, for a regression, `value`. A row depends on the
        bars up to its own, and on nothing else.

        Args:
            bars: `Bars`, or a polars or pandas frame with timestamp, open, high, low, close and
                volume; for a model of several timeframes a mapping from timeframe to one of these.
            timeframe: of the bars, where a model of a single timeframe is to be tried on another.
            symbol: what messages call the bars.

        Raises InvalidData for bars that cannot be used, or too few.
        """
        from ktrdr.inference.prediction import market_of, predict

        return predict(self, market_of(self, bars, timeframe, symbol))

    def _answers(
        self, network: Callable[[Tensor], Tensor], inputs: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        rows, length = torch.from_numpy(np.array(inputs)), self.strategy.model.sequence_length
        shown = rows if length is None else sequences(rows, length)
        with one_thread():
            result: NDArray[np.float32] = predictions(network, shown).numpy()
        return result


def load_model(manifest: ModelManifest, files: Mapping[str, bytes]) -> LoadedModel:
    """Rebuild a model from what `checkpoints.models.read_model` verified.

    Raises CheckpointCorrupted when the weights are not those of its strategy and manifest.
    """
    origin = f"{manifest.strategy_name}@v{manifest.version}"
    missing = [name for name in ("model.pt", "strategy.json") if name not in files]
    if missing:
        raise CheckpointCorrupted(f"{origin} lacks {missing[0]}: restore it from a backup")
    try:
        strategy = validate_strategy(json.loads(files["strategy.json"]), f"{origin} strategy.json")
        recipe = _recipe(manifest, files)
        num_outputs = 1 if strategy.is_regression else len(manifest.class_names)
        module = build_model(strategy.model, recipe.columns, num_outputs, seed=0)
    except (ValueError, KtrdrError) as error:
        raise CheckpointCorrupted(
            f"{origin}: what it was made of cannot be read: {error}"
        ) from None
    state = load_state(files["model.pt"], f"{origin} model.pt")
    fit_state(module, state, f"{origin} model.pt")
    if weights_digest(module.state_dict()) != manifest.weights_digest:
        raise CheckpointCorrupted(f"{origin}: its weights are not those of its manifest")
    module.eval()
    names = tuple(manifest.class_names)
    return LoadedModel(module, strategy, recipe, names, manifest.version)


def _recipe(manifest: ModelManifest, files: Mapping[str, bytes]) -> Recipe:
    """How the model's inputs are made; ValueError when that cannot be read.

    Models of earlier versions have no `features.json`: their inputs are what their names say.
    """
    if "features.json" not in files:
        return Recipe(tuple(map(InputColumn, manifest.input_names)))
    recipe = Recipe.from_json(json.loads(files["features.json"]))
    if [column.name for column in recipe.columns] != manifest.input_names:
        raise ValueError("the columns of features.json are not the inputs of its manifest")
    return recipe
