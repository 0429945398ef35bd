"""A stored model, ready to use: loaded without pickle, verified file by file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ktrdr.checkpoints.manifest import ModelManifest
from ktrdr.errors import CheckpointCorrupted, KtrdrError
from ktrdr.features.columns import InputColumn
from ktrdr.features.input_schema import InputSchema
from ktrdr.inference.prediction import market_of, predict
from ktrdr.inference.trained_network import TrainedNetwork
from ktrdr.strategy.loading import validate_strategy
from ktrdr.strategy.schema import Strategy
from ktrdr.training.networks import build_model
from ktrdr.training.weights import StateDict, fit_state, load_state, save_state, weights_digest

if TYPE_CHECKING:
    import polars as pl


def model_files(
    strategy: Strategy, input_schema: InputSchema, weights: StateDict
) -> dict[str, bytes]:
    """The files of a stored model: its weights, the effective strategy, how inputs are made."""
    config = strategy.model_dump(mode="json", exclude_none=True)
    return {
        "model.pt": save_state(dict(weights)),
        "strategy.json": json.dumps(config, indent=1, sort_keys=True).encode(),
        "features.json": json.dumps(input_schema.as_json(), indent=1).encode(),
    }


class LoadedModel(TrainedNetwork):
    """A stored model, ready to use on the CPU."""

    def predict(
        self, bars: Any, *, timeframe: str | None = None, symbol: str | None = None
    ) -> pl.DataFrame:
        """Predict at each closed bar that has enough history; returns a polars frame.

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
        return predict(self, market_of(self, bars, timeframe, symbol))


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
        input_schema = _input_schema(manifest, files)
        num_outputs = 1 if strategy.is_regression else len(manifest.class_names)
        module = build_model(strategy.model, input_schema.columns, num_outputs, seed=0)
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
    return LoadedModel(module, strategy, input_schema, names, manifest.version)


def _input_schema(manifest: ModelManifest, files: Mapping[str, bytes]) -> InputSchema:
    """How the model's inputs are made; ValueError when that cannot be read.

    Models of earlier versions have no `features.json`: their inputs are what their names say.
    """
    if "features.json" not in files:
        return InputSchema(tuple(map(InputColumn, manifest.input_names)))
    input_schema = InputSchema.from_json(json.loads(files["features.json"]))
    if [column.name for column in input_schema.columns] != manifest.input_names:
        raise ValueError("the columns of features.json are not the inputs of its manifest")
    return input_schema
