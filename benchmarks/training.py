"""How much of a plain PyTorch loop's speed is left: in the trainer, and in all of `ktrdr train`.

The same data and arithmetic in turn, at batch 32, 256 and 1024: a tight loop as one writes it by
hand, the same loop without any metrics (`bare`, less arithmetic than ours), the trainer alone, and
the command with a durable checkpoint every epoch on its local Ray. Seconds are per epoch, from
epoch to epoch, start-up apart.

    python benchmarks/training.py [--json] [--rounds N]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import yaml

from ktrdr.checkpoints.manifest import Provenance
from ktrdr.client import Client
from ktrdr.data.market import one_series
from ktrdr.data.sample import sample_bars
from ktrdr.features.cache import cached_dataset
from ktrdr.features.dataset import Dataset
from ktrdr.operations.types import CheckpointType, HistoryRow
from ktrdr.settings import Settings, read_settings
from ktrdr.storage.root import Storage
from ktrdr.strategy.loading import load_strategy, with_overrides
from ktrdr.strategy.schema import Strategy
from ktrdr.training.context import LocalContext
from ktrdr.training.environment import environment
from ktrdr.training.learner import Device, Learner
from ktrdr.training.losses import class_weights
from ktrdr.training.networks import build_model
from ktrdr.training.plan import TrainingJob
from ktrdr.training.trainer import fit

ROWS = 420_000
EPOCHS = {32: 3, 256: 4, 1024: 6}
SHIPPED = Path(__file__).parents[1] / "strategies" / "trend_follower.yaml"
KTRDR = Path(sys.executable).with_name("ktrdr")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--rounds", type=int, default=3, help="times that each way is measured")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        document = measure(Path(folder), options.rounds)
    print(json.dumps(document, indent=1) if options.json else table(document))


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    settings = read_settings({}, home=folder / "home")
    with Client(settings) as client:
        client.bars.write(sample_bars(rows=ROWS))
        bars = client.bars.read("SAMPLE", "1h")
    seconds: dict[str, dict[str, list[float]]] = {
        "loop": {},
        "bare": {},
        "trainer": {},
        "whole": {},
    }
    startup: list[float] = []
    for batch_size, epochs in EPOCHS.items():
        path = write_strategy(folder, batch_size, epochs)
        strategy = load_strategy(path)
        dataset = cached_dataset(settings.storage, strategy, one_series(bars))
        size = str(batch_size)
        for ways in seconds.values():
            ways[size] = []
        for turn in range(rounds):
            seconds["loop"][size].append(tight_loop(strategy, dataset))
            seconds["bare"][size].append(tight_loop(strategy, dataset, metrics=False))
            seconds["trainer"][size].append(trainer_alone(strategy, dataset, folder, turn))
            whole, started = whole_path(settings, path)
            seconds["whole"][size].append(whole)
            startup.append(started)
    return {
        "machine": {"cpus": os.cpu_count(), "processor": platform.processor() or "unknown"},
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "rows": len(dataset.splits.train),
        "seconds_per_epoch": median_of(seconds),
        "ratios": {
            "trainer_vs_loop": ratios(seconds["loop"], seconds["trainer"]),
            "whole_vs_loop": ratios(seconds["loop"], seconds["whole"]),
            "trainer_vs_bare": ratios(seconds["bare"], seconds["trainer"]),
            "whole_vs_bare": ratios(seconds["bare"], seconds["whole"]),
        },
        "startup_s": round(statistics.median(startup), 3),
        "checkpoint": checkpoint_cost(dataset),
    }


def write_strategy(folder: Path, batch_size: int, epochs: int) -> Path:
    content = yaml.safe_load(SHIPPED.read_text())
    content["training"] |= {"batch_size": batch_size, "epochs": epochs}
    content["training"]["checkpoint"] = {"every_epochs": 1, "every_seconds": 3600}
    content["training"].pop("early_stopping")
    content["training"].pop("lr_scheduler")
    path = folder / f"batch-{batch_size}.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def tight_loop(strategy: Strategy, dataset: Dataset, metrics: bool = True) -> float:
    """What one writes by hand: tensors in memory, one gather per epoch, slices as batches.

    Without `metrics` it neither sums the training loss nor counts the hits.
    """
    train, validation = dataset.splits.train, dataset.splits.validation
    inputs = torch.from_numpy(np.array(dataset.inputs[train.start : train.stop]))
    labels = torch.from_numpy(np.array(dataset.labels[train.start : train.stop]))
    val_inputs = torch.from_numpy(np.array(dataset.inputs[validation.start : validation.stop]))
    val_labels = torch.from_numpy(np.array(dataset.labels[validation.start : validation.stop]))
    weights = class_weights(labels, len(dataset.class_names))
    torch.manual_seed(strategy.training.seed)
    model = build_model(strategy.model, dataset.columns, len(weights), strategy.training.seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=strategy.training.learning_rate, fused=True)
    size, ends = strategy.training.batch_size, []
    for _ in range(strategy.training.epochs):
        order = torch.randperm(len(labels))
        shuffled, targets = inputs[order], labels[order]
        total, correct = torch.zeros(()), torch.zeros((), dtype=torch.int64)
        model.train()
        for first in range(0, len(labels), size):
            batch, target = shuffled[first : first + size], targets[first : first + size]
            optimizer.zero_grad()
            outputs = model(batch)
            loss = F.cross_entropy(outputs, target, weights)
            torch.autograd.backward(loss)
            optimizer.step()
            if metrics:
                total += loss.detach() * len(target)
                correct += (outputs.argmax(dim=1) == target).sum()
        model.eval()
        with torch.no_grad():
            outputs = model(val_inputs)
            val_loss = F.cross_entropy(outputs, val_labels, weights)
            hits = (outputs.argmax(dim=1) == val_labels).sum()
        _ = total.item(), correct.item(), val_loss.item(), hits.item()
        ends.append(time.perf_counter())
    return per_epoch(ends)


class _Timed(LocalContext):
    """Notes when each epoch ended."""

    def epoch_finished(self, row: HistoryRow) -> None:
        super().epoch_finished(row)
        self.ends.append(time.perf_counter())

    ends: list[float]


def trainer_alone(strategy: Strategy, dataset: Dataset, folder: Path, turn: int) -> float:
    """`fit` on a local context, with its initial checkpoint and no other."""
    storage = Storage(folder / f"trainer-{strategy.training.batch_size}-{turn}")
    storage.claim("b" * 32)
    context = _Timed(storage, "op_training_20260101_000000_00000000", 1)
    context.ends = []
    fit(job_of(strategy, dataset), dataset, context)
    return per_epoch(context.ends)


def job_of(strategy: Strategy, dataset: Dataset) -> TrainingJob:
    rare = {"every_epochs": 1_000_000, "every_seconds": 86_400.0}
    training = strategy.training.model_copy(
        update={"checkpoint": strategy.training.checkpoint.model_copy(update=rare)}
    )
    provenance = Provenance(
        request={},
        strategy_path=str(SHIPPED),
        strategy_fingerprint="",
        data_fingerprint="",
        dataset_digest=dataset.digest,
        environment=environment("cpu", 1, 1),
    )
    return TrainingJob(strategy.model_copy(update={"training": training}), provenance, "cpu", 1)


def whole_path(settings: Settings, strategy: Path) -> tuple[float, float]:
    """Seconds per epoch of `ktrdr train`, from commit to commit, and until its first batch."""
    environ = os.environ | settings.environment()
    began = time.time()
    done = subprocess.run(
        [KTRDR, "train", str(strategy), "--json"],
        env=environ, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    record = json.loads(done.stdout)
    assert record.get("status") == "completed", done.stdout + done.stderr
    with Client(settings) as client:
        events = client.operation(record["operation_id"]).events()
    commits = [e for e in events if e["event"] == "checkpoint_committed"]
    times = [datetime.fromisoformat(e["at"]).timestamp() for e in commits]
    kinds = [e["details"]["checkpoint_type"] for e in commits]
    assert kinds == ["initial"] + ["periodic"] * record["request"]["epochs"], kinds
    return per_epoch(times[1:]), times[0] - began


def checkpoint_cost(dataset: Dataset) -> dict[str, float]:
    """Milliseconds that a checkpoint takes of the training thread, with some 200 KB of state."""
    strategy = with_overrides(load_strategy(SHIPPED), {})
    wide = strategy.model.architecture.model_copy(update={"hidden_layers": (144, 96)})
    strategy = strategy.model_copy(
        update={"model": strategy.model.model_copy(update={"architecture": wide})}
    )
    learner = Learner(strategy, dataset, Device(torch.device("cpu"), 0, time.monotonic))
    for batch in itertools.islice(learner.remaining_batches(), 64):
        learner.step(batch)
    taken = []
    for _ in range(50):
        began = time.perf_counter()
        snapshot = learner.snapshot(CheckpointType.PERIODIC)
        taken.append(1000 * (time.perf_counter() - began))
    with contextlib.closing(io.BytesIO()) as buffer:
        torch.save([snapshot.model, snapshot.optimizer], buffer)
        size = buffer.tell()
    return {
        "training_thread_ms_p50": round(statistics.median(taken), 3),
        "training_thread_ms_max": round(max(taken), 3),
        "state_bytes": size,
    }


def per_epoch(ends: list[float]) -> float:
    return (ends[-1] - ends[0]) / (len(ends) - 1)


def median_of(seconds: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, float]]:
    return {
        way: {size: round(statistics.median(values), 4) for size, values in sizes.items()}
        for way, sizes in seconds.items()
    }


def ratios(loop: dict[str, list[float]], other: dict[str, list[float]]) -> dict[str, float]:
    """Speed against the loop of the same turn, the median over the turns."""
    return {
        size: round(
            statistics.median(a / b for a, b in zip(loop[size], other[size], strict=True)), 3
        )
        for size in loop
    }


def table(document: dict[str, Any]) -> str:
    lines = [
        f"{'batch':>8} {'loop s':>9} {'trainer s':>10} {'whole s':>9}  trainer  whole  (vs bare)"
    ]
    for size, loop in document["seconds_per_epoch"]["loop"].items():
        per, ratio = document["seconds_per_epoch"], document["ratios"]
        lines.append(
            f"{size:>8} {loop:9.3f} {per['trainer'][size]:10.3f} {per['whole'][size]:9.3f}"
            f"  {ratio['trainer_vs_loop'][size]:7.3f}  {ratio['whole_vs_loop'][size]:5.3f}"
            f"  ({ratio['trainer_vs_bare'][size]:.3f}, {ratio['whole_vs_bare'][size]:.3f})"
        )
    lines.append(f"start-up {document['startup_s']} s; checkpoint {document['checkpoint']}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
