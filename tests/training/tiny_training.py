"""A tiny training that takes milliseconds, on real storage, for tests of the loop."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ktrdr.checkpoints.manifest import Provenance
from ktrdr.checkpoints.storage import Storage
from ktrdr.features.dataset import Dataset, Splits
from ktrdr.strategy.schema import Strategy
from ktrdr.training.context import LocalContext
from ktrdr.training.environment import environment
from ktrdr.training.resume import TrainingResumeContext, restore_from_checkpoint
from ktrdr.training.trainer import Completed, Stopped, TrainingJob, fit

OPERATION = "op_training_20260101_000000_0123abcd"
BATCHES = 4
EPOCHS = 3


def make_strategy(hidden: tuple[int, ...] = (6, 5), **training: Any) -> Strategy:
    return Strategy.model_validate(
        {
            "name": "tiny",
            "training_data": {
                "symbols": {"symbol": "SAMPLE"},
                "timeframes": {"timeframe": "1h"},
            },
            "indicators": {"rsi_14": {"type": "rsi"}},
            "fuzzy_sets": {"rsi": {"indicator": "rsi_14", "low": [0, 20, 40]}},
            "nn_inputs": [{"fuzzy_set": "rsi"}],
            "model": {
                "type": "mlp",
                "architecture": {"hidden_layers": list(hidden), "dropout": 0.3},
            },
            "training": {"epochs": EPOCHS, "batch_size": 16, "learning_rate": 0.02, **training},
        }
    )


def make_dataset(rows: int = 100, num_inputs: int = 5, seed: int = 3) -> Dataset:
    """Rows with something to learn, 4 batches of 16 (the last one short) for 60 training rows."""
    generator = np.random.default_rng(seed)
    inputs = generator.random((rows, num_inputs), dtype=np.float32)
    noise = generator.normal(0.0, 0.1, rows)
    labels = np.digitize(inputs[:, 0] - inputs[:, 1] + noise, [-0.2, 0.2]).astype(np.int64)
    for array in (inputs, labels):
        array.flags.writeable = False
    first, second = rows * 60 // 100, rows * 80 // 100
    return Dataset(
        inputs=inputs,
        labels=labels,
        timestamps=np.arange(rows, dtype=np.int64),
        input_names=tuple(f"x{i}" for i in range(num_inputs)),
        class_names=("BUY", "HOLD", "SELL"),
        splits=Splits(range(first), range(first, second), range(second, rows)),
        digest=hashlib.sha256(inputs.tobytes() + labels.tobytes()).hexdigest(),
    )


def make_job(strategy: Strategy, dataset: Dataset) -> TrainingJob:
    provenance = Provenance(
        request={"strategy_name": strategy.name},
        strategy_path="strategies/tiny.yaml",
        strategy_fingerprint="s" * 64,
        data_fingerprint="d" * 64,
        dataset_digest=dataset.digest,
        environment=_environment(),
    )
    return TrainingJob(strategy, provenance, device="cpu", threads=1)


@cache
def _environment() -> dict[str, Any]:
    return environment("cpu", workers=1, threads=1)


def make_storage(root: Path) -> Storage:
    storage = Storage(root)
    storage.claim("a-store")
    return storage


class Bench:
    """Runs one operation's attempts against a storage of its own."""

    def __init__(self, root: Path, strategy: Strategy, dataset: Dataset | None = None) -> None:
        self.storage = make_storage(root)
        self.strategy = strategy
        self.dataset = dataset or make_dataset()
        self.attempt = 0
        self.context: LocalContext

    def run(
        self, stop_at: int | None = None, resume: TrainingResumeContext | None = None
    ) -> Completed | Stopped:
        """One attempt, from the latest checkpoint of earlier ones unless told otherwise."""
        self.attempt += 1
        self.context = LocalContext(self.storage, OPERATION, self.attempt, stop_at)
        resume = resume or self.restored()
        return fit(make_job(self.strategy, self.dataset), self.dataset, self.context, resume)

    def complete(self, resume: TrainingResumeContext | None = None) -> Completed:
        result = self.run(resume=resume)
        assert isinstance(result, Completed)
        return result

    def stop(self, stop_at: int) -> Stopped:
        result = self.run(stop_at)
        assert isinstance(result, Stopped)
        return result

    def restored(self) -> TrainingResumeContext | None:
        """What the latest checkpoint of the operation holds."""
        latest = LocalContext(self.storage, OPERATION, max(self.attempt, 1)).latest_checkpoint()
        return restore_from_checkpoint(latest) if latest else None


def outcome(result: Completed) -> dict[str, Any]:
    """What must be equal, bit for bit, however often a training was stopped."""
    return {
        "weights": result.weights_digest,
        "epochs": result.epochs,
        "best_epoch": result.best_epoch,
        "metrics": result.metrics,
        "history": [
            {"epoch": row.epoch, **{k: v for k, v in row.metrics.items() if k != "duration"}}
            for row in result.history
        ],
    }
