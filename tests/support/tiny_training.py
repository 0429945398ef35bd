"""A tiny training that takes milliseconds, on real storage, for tests of the loop."""

from __future__ import annotations

import dataclasses
import hashlib
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from faults import FaultPlan, FaultyContext

from ktrdr.checkpoints.manifest import ModelHeader, Provenance
from ktrdr.checkpoints.model_store import write_model
from ktrdr.features.columns import InputColumn
from ktrdr.features.dataset import Dataset, Splits
from ktrdr.features.input_schema import InputSchema
from ktrdr.features.labels import LabelArray
from ktrdr.inference.model import model_files
from ktrdr.storage.root import Storage
from ktrdr.strategy.loading import validate_strategy
from ktrdr.strategy.memberships import Membership
from ktrdr.strategy.schema import Strategy
from ktrdr.training.context import LocalContext
from ktrdr.training.environment import environment
from ktrdr.training.plan import TrainingJob
from ktrdr.training.resume import TrainingResumeContext, restore_from_checkpoint
from ktrdr.training.trainer import Completed, Stopped, fit

OPERATION = "op_training_20260101_000000_0123abcd"
BATCHES = 4
EPOCHS = 3


MLP: dict[str, Any] = {
    "type": "mlp",
    "architecture": {"hidden_layers": [6, 5], "dropout": 0.3},
}
REGRESSION: dict[str, Any] = {"labels": {"source": "forward_return", "horizon": 5}}

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adam": {"optimizer": "adam", "weight_decay": 0.01},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.01},
    "sgd": {"optimizer": "sgd", "momentum": 0.9},
    "rmsprop": {"optimizer": "rmsprop", "momentum": 0.5},
}
SCHEDULERS: dict[str, dict[str, Any] | None] = {
    "constant": None,
    "step": {"type": "step", "step_size": 1, "gamma": 0.5},
    "exponential": {"type": "exponential", "gamma": 0.7},
    "cosine": {"type": "cosine"},
    "plateau": {"type": "reduce_on_plateau", "factor": 0.3, "patience": 0},
}


def recurrent(kind: str, **architecture: Any) -> dict[str, Any]:
    """The model section of a small recurrent network."""
    shape = {"sequence_length": 4, "hidden_size": 5, "num_layers": 2, "dropout": 0.3}
    return {"type": kind, "architecture": {**shape, **architecture}}


def convolutional(**architecture: Any) -> dict[str, Any]:
    """The model section of a small temporal convolutional network."""
    shape = {"sequence_length": 4, "channels": [5, 6], "kernel_size": 2, "dropout": 0.3}
    return {"type": "tcn", "architecture": {**shape, **architecture}}


def neuro_fuzzy(**architecture: Any) -> dict[str, Any]:
    """The model section of a small rule base."""
    return {"type": "neuro_fuzzy", "architecture": {"max_rules": 12, **architecture}}


def curve(shape: str, *parameters: float) -> Membership:
    return Membership.model_validate({"type": shape, "parameters": parameters})


CURVES = {
    0: (
        ("low", curve("left_shoulder", 0.2, 0.6)),
        ("middle", curve("triangular", 0.2, 0.5, 0.8)),
        ("high", curve("sigmoid", 0.7, 12.0)),
    ),
    1: (("low", curve("gaussian", 0.2, 0.25)), ("high", curve("bell", 0.3, 2.0, 0.8))),
    2: (("low", curve("trapezoidal", 0, 0, 0.3, 0.7)), ("high", curve("right_shoulder", 0.3, 0.7))),
}
"""Every shape of membership, over columns that lie between 0 and 1."""


def make_strategy(model: dict[str, Any] = MLP, **training: Any) -> Strategy:
    """A strategy that classifies, or with labels for it foresees values."""
    regression = training.get("labels", {}).get("source") == "forward_return"
    return validate_strategy(
        {
            "name": "tiny",
            "training_data": {
                "symbols": {"symbol": "SAMPLE"},
                "timeframes": {"timeframe": "1h"},
            },
            "indicators": {"rsi_14": {"type": "rsi"}},
            "fuzzy_sets": {
                "rsi": {"indicator": "rsi_14", "low": [0, 20, 40], "high": [60, 80, 100]}
            },
            "nn_inputs": [{"fuzzy_set": "rsi"}],
            "model": model,
            "decisions": {"output_format": "regression" if regression else "classification"},
            "training": {"epochs": EPOCHS, "batch_size": 16, "learning_rate": 0.02, **training},
        },
        "tiny",
    )


def make_dataset(
    rows: int = 100,
    num_inputs: int = 5,
    seed: int = 3,
    regression: bool = False,
    crisp: bool = False,
) -> Dataset:
    """Rows with something to learn, 4 batches of 16 (the last one short) for 60 training rows.

    Sequences of up to 12 rows make 4 batches, too. `crisp`: the first columns have curves.
    """
    generator = np.random.default_rng(seed)
    inputs = generator.random((rows, num_inputs), dtype=np.float32)
    noise = generator.normal(0.0, 0.1, rows)
    moves = inputs[:, 0] - inputs[:, 1] + noise
    labels: LabelArray = np.digitize(moves, [-0.2, 0.2]).astype(np.int64)
    if regression:
        labels = (0.05 * moves).astype(np.float32)
    for array in (inputs, labels):
        array.flags.writeable = False
    first, second = rows * 60 // 100, rows * 80 // 100
    return Dataset(
        inputs=inputs,
        labels=labels,
        timestamps=np.arange(rows, dtype=np.int64),
        columns=tuple(
            InputColumn(f"x{i}", CURVES.get(i, ()) if crisp else ()) for i in range(num_inputs)
        ),
        class_names=() if regression else ("BUY", "HOLD", "SELL"),
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
        crisp = strategy.model.type == "neuro_fuzzy"
        self.dataset = dataset or make_dataset(regression=strategy.is_regression, crisp=crisp)
        self.attempt = 0
        self.context: FaultyContext

    def run(
        self,
        stop_at: int | None = None,
        resume: TrainingResumeContext | None = None,
        killed_at: int | None = None,
    ) -> Completed | Stopped:
        """One attempt, from the latest checkpoint of earlier ones unless told otherwise."""
        self.attempt += 1
        plan = FaultPlan(killed_at=killed_at)
        self.context = FaultyContext(
            self.storage, OPERATION, plan, attempt=self.attempt, stop_at=stop_at
        )
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


def stored(bench: Bench, **changes: Any) -> ModelHeader:
    """Train, and store the model as version 1."""
    result = bench.complete()
    fields: dict[str, Any] = {
        "strategy_name": "tiny",
        "version": 1,
        "operation_id": OPERATION,
        "attempt": bench.attempt,
        "weights_digest": result.weights_digest,
        "epochs": result.epochs,
        "best_epoch": result.best_epoch,
        "metrics": result.metrics,
        "input_names": list(bench.dataset.input_names),
        "class_names": list(bench.dataset.class_names),
        "strategy_fingerprint": "a",
        "data_fingerprint": "b",
        "dataset_digest": bench.dataset.digest,
        "environment": {},
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    header = ModelHeader(**(fields | changes))
    columns = tuple(
        dataclasses.replace(column, name=name)
        for column, name in zip(bench.dataset.columns, header.input_names, strict=False)
    )
    write_model(
        bench.storage, header, model_files(bench.strategy, InputSchema(columns), result.weights)
    )
    return header


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


def final_state(bench: Bench) -> dict[str, Any]:
    """Everything that the newest checkpoint holds, in comparable form."""
    resume = bench.restored()
    assert resume is not None
    return {
        "model": resume.model_weights,
        "optimizer": resume.optimizer_state,
        "scheduler": resume.scheduler_state,
        "best": resume.best_model_weights,
        "random": resume.random_states,
        "loop": {
            **dataclasses.asdict(resume.loop),
            "seconds": None,
            "history": [
                {**row.metrics, "duration": None, "epoch": row.epoch}
                for row in resume.training_history
            ],
        },
    }


def same(one: Any, two: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(two, torch.Tensor) and one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return bool(one == two)
