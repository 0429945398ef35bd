"""Models trained within a second on sample bars, stored and loaded again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tiny_training import OPERATION, make_job, make_storage

from ktrdr.checkpoints.manifest import ModelHeader
from ktrdr.checkpoints.model_store import read_model, write_model
from ktrdr.data.bars import Bars
from ktrdr.data.market import Market, gather
from ktrdr.data.sample import sample_bars
from ktrdr.features.dataset import Dataset, build_dataset
from ktrdr.features.input_schema import input_schema_of
from ktrdr.inference.model import LoadedModel, load_model, model_files
from ktrdr.strategy.loading import validate_strategy
from ktrdr.strategy.schema import Strategy
from ktrdr.training.context import LocalContext
from ktrdr.training.trainer import Completed, fit

BARS = sample_bars(rows=3000)

SEQUENCE = {"sequence_length": 6, "hidden_size": 8, "num_layers": 1}
NETWORKS: dict[str, dict[str, Any]] = {
    "mlp": {"type": "mlp", "architecture": {"hidden_layers": [16, 8]}},
    "lstm": {"type": "lstm", "architecture": SEQUENCE},
    "gru": {"type": "gru", "architecture": SEQUENCE},
    "tcn": {"type": "tcn", "architecture": {"sequence_length": 6, "channels": [8, 8]}},
    "neuro_fuzzy": {"type": "neuro_fuzzy", "architecture": {"max_rules": 12}},
}


@dataclass(frozen=True, eq=False)
class Trained:
    """A stored model, and what it was made of."""

    model: LoadedModel
    market: Market
    dataset: Dataset
    completed: Completed

    @property
    def strategy(self) -> Strategy:
        return self.model.strategy


def make_strategy(model: str = "mlp", **changes: Any) -> Strategy:
    """Fuzzy sets of two kinds and a raw input, both fitted; `data` and the sections replace."""
    training = {"epochs": 2, "batch_size": 128, "labels": {"source": "zigzag"}}
    data = {
        "symbols": {"symbol": "SAMPLE"},
        "timeframes": {"timeframe": "1h"},
        "history_required": 60,
    }
    return validate_strategy(
        {
            "name": model,
            "training_data": data | changes.pop("data", {}),
            "indicators": {
                "rsi_14": {"type": "rsi"},
                "roc_5": {"type": "roc", "period": 5},
                "ema_9": {"type": "ema", "period": 9},
            },
            "fuzzy_sets": {
                "momentum": {"indicator": "rsi_14", "low": [0, 20, 50], "high": [50, 80, 100]},
                "change": {"indicator": "roc_5", "auto": 3},
            },
            "nn_inputs": [
                {"fuzzy_set": "momentum"},
                {"fuzzy_set": "change"},
                {"raw_indicator": "ema_9", "normalization": "zscore"},
            ],
            "model": NETWORKS[model],
            "training": training | changes.pop("training", {}),
            **changes,
        },
        model,
    )


def regression(model: str = "mlp", **changes: Any) -> Strategy:
    labels = {"labels": {"source": "forward_return", "horizon": 5}}
    return make_strategy(
        model,
        decisions={"output_format": "regression"},
        training=labels | changes.pop("training", {}),
        **changes,
    )


def market_of(strategy: Strategy, *several: Bars) -> Market:
    """The bars by which a strategy's timeframes are filled, resampled where they must be."""
    by_name = {(bars.symbol, bars.timeframe): bars for bars in several or (BARS,)}
    return gather(
        strategy.symbols,
        strategy.timeframes,
        strategy.base_timeframe,
        lambda symbol, timeframe: by_name.get((symbol, timeframe)),
        lambda symbol: [name for owner, name in by_name if owner == symbol],
    )


def train(root: Path, strategy: Strategy, market: Market | None = None, fold: int = 1) -> Trained:
    """Train, store and load."""
    market = market or market_of(strategy)
    dataset = build_dataset(strategy, market, fold)
    storage = make_storage(root)
    job = make_job(strategy, dataset)
    completed = fit(job, dataset, LocalContext(storage, OPERATION, 1))
    assert isinstance(completed, Completed)
    header = ModelHeader(
        strategy_name=strategy.name,
        version=1,
        operation_id=OPERATION,
        attempt=1,
        weights_digest=completed.weights_digest,
        epochs=completed.epochs,
        best_epoch=completed.best_epoch,
        metrics=completed.metrics,
        input_names=list(dataset.input_names),
        class_names=list(dataset.class_names),
        strategy_fingerprint="a",
        data_fingerprint="b",
        dataset_digest=dataset.digest,
        environment={},
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    write_model(storage, header, model_files(strategy, input_schema_of(dataset), completed.weights))
    model = load_model(*read_model(storage, strategy.name, 1))
    return Trained(model, market, dataset, completed)
