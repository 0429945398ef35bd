"""One attempt of a training that is verified, in a process of its own.

Run as `python -m ktrdr.usecases.verify_resume.attempt FOLDER NUMBER`; loads everything, then
waits for its `AttemptPlan`, a line of JSON on stdin. It ends as soon as its parent does.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from ktrdr.checkpoints.retention import sweep
from ktrdr.errors import KtrdrError
from ktrdr.features.dataset import Dataset
from ktrdr.operations.types import CheckpointType, Phase, StopKind
from ktrdr.storage.posix import Files
from ktrdr.storage.root import Storage
from ktrdr.strategy.loading import validate_strategy
from ktrdr.training.context import LocalContext
from ktrdr.training.learner import Learner
from ktrdr.training.plan import TrainingJob, planned_dataset, planned_job
from ktrdr.training.resume import restore_from_checkpoint
from ktrdr.training.state import NonFiniteLoss, Snapshot, plain_random_state
from ktrdr.training.trainer import Completed, fit
from ktrdr.training.weights import weights_digest
from ktrdr.usecases.verify_resume.shared_counters import (
    OPERATION_ID,
    AttemptPlan,
    EpochLog,
    SharedCounters,
    counters_path,
    open_counters,
    read_job,
    write_outcome,
)

_HELD_S = 600.0
_STATE_OF_NO_EPOCH = ("history", "seconds")
"""Of the loop: compared by the metrics of every epoch; a duration, which no two runs share."""


def main(arguments: Sequence[str]) -> int:
    """Return the exit status; the error is the last line on stderr."""
    folder, number = Path(arguments[0]), int(arguments[1])
    try:
        request, plan = read_job(folder)
        strategy = validate_strategy(plan.config, request.strategy_path)
        dataset = planned_dataset(request, plan, strategy)
        job = planned_job(request, plan, strategy, dataset)
        _warm_up()
        Attempt(folder, number).run(job, dataset, _read_plan())
    except (KtrdrError, NonFiniteLoss) as error:
        _print_error(str(error))
        return 1
    return 0


class Attempt:
    """The part of a training that one process does, and the record of it."""

    def __init__(self, folder: Path, number: int) -> None:
        self._folder = folder
        self._counters = open_counters(counters_path(folder, number))
        self._log = EpochLog(folder, number)
        self._storage = Storage(folder / "storage", CountingFiles(self._counters))
        self._number = number

    def run(self, job: TrainingJob, dataset: Dataset, plan: AttemptPlan) -> None:
        """Train from the latest good checkpoint, as every attempt does, to the end of the plan."""
        sweep(self._storage, OPERATION_ID, range(1, self._number))
        context = CountingContext(self._storage, OPERATION_ID, self._number, plan.stop_at)
        context.counters = self._counters
        latest = context.latest_checkpoint()
        resume = restore_from_checkpoint(latest) if latest else None
        result = fit(job, dataset, context, resume, self._log_state)
        if plan.hold:
            self._hold()
        if isinstance(result, Completed):
            write_outcome(self._folder, outcome(result))

    def _log_state(self, learner: Learner) -> None:
        snapshot = learner.snapshot(CheckpointType.PERIODIC)
        row = learner.loop.history[-1]
        metrics = _lasting(row.metrics)
        self._log.add(row.epoch, {**state_digests(snapshot), "metrics": metrics})

    def _hold(self) -> NoReturn:
        self._counters[SharedCounters.HELD] = 1
        time.sleep(_HELD_S)
        raise KtrdrError("was to be killed and was not")


class CountingContext(LocalContext):
    """A local context that counts the batches for the parent process."""

    counters: memoryview[int]

    @property
    def stop_requested(self) -> StopKind | None:
        self.counters[SharedCounters.STEP] = self.progress.step
        return super().stop_requested

    def enter(self, phase: Phase) -> None:
        super().enter(phase)
        self.counters[SharedCounters.EPOCHS] = self.progress.epochs
        self.counters[SharedCounters.BATCHES] = self.progress.batches
        self.counters[SharedCounters.STEP] = self.progress.step

    def warn(self, code: str, message: str) -> None:
        super().warn(code, message)
        _print_error(message)


class CountingFiles(Files):
    """File calls that are counted as they begin, for a kill in the middle of them."""

    def __init__(self, counters: memoryview[int]) -> None:
        self._counters = counters

    def make_folder(self, path: Path) -> None:
        self._counters[SharedCounters.DISK_CALLS] += 1
        super().make_folder(path)

    def write(self, path: Path, data: bytes) -> None:
        self._counters[SharedCounters.DISK_CALLS] += 1
        super().write(path, data)

    def sync_folder(self, path: Path) -> None:
        self._counters[SharedCounters.DISK_CALLS] += 1
        super().sync_folder(path)

    def rename(self, source: Path, target: Path) -> None:
        self._counters[SharedCounters.DISK_CALLS] += 1
        super().rename(source, target)

    def remove_tree(self, path: Path) -> None:
        self._counters[SharedCounters.DISK_CALLS] += 1
        super().remove_tree(path)


def state_digests(snapshot: Snapshot) -> dict[str, str]:
    """Return a digest of each part of the state that a checkpoint holds."""
    loop = dataclasses.asdict(snapshot.loop)
    counters = {name: loop[name] for name in loop if name not in _STATE_OF_NO_EPOCH}
    return {
        "weights": weights_digest(snapshot.model),
        "optimizer": _digest(snapshot.optimizer),
        "scheduler": _digest(snapshot.scheduler),
        "best_weights": _digest(snapshot.best_model),
        "random_state": _digest(plain_random_state(snapshot.random_state)),
        "counters": _digest(counters),
    }


def outcome(result: Completed) -> dict[str, Any]:
    """Return the result of a training, for comparison."""
    return {
        "weights_digest": result.weights_digest,
        "epochs": result.epochs,
        "best_epoch": result.best_epoch,
        "metrics": result.metrics,
        "history": {str(row.epoch): _lasting(row.metrics) for row in result.history},
    }


def _lasting(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if name != "duration"}


def _digest(value: Any) -> str:
    digest = hashlib.sha256()
    _feed(digest, value)
    return digest.hexdigest()


def _feed(digest: hashlib._Hash, value: Any) -> None:
    """Add nested containers of tensors and plain values, mappings in the order of their keys."""
    if isinstance(value, Tensor):
        digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            digest.update(f"{key!r}:".encode())
            _feed(digest, value[key])
    elif isinstance(value, list | tuple):
        digest.update(f"{len(value)}*".encode())
        for item in value:
            _feed(digest, item)
    else:
        digest.update(f"{value!r};".encode())


def _warm_up() -> None:
    """Make a first optimizer, which takes a second, while another attempt trains."""
    torch.optim.SGD([torch.zeros(1)])


def _read_plan() -> AttemptPlan:
    """Read the plan from stdin; from then on end when the parent does."""
    with open(0, "rb", buffering=0, closefd=False) as stdin:
        line = stdin.readline()
    if not line:
        os._exit(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    return AttemptPlan(**json.loads(line))


def _end_with_parent() -> None:
    os.read(0, 1)
    os._exit(1)


def _print_error(message: str) -> None:
    sys.stderr.write(f"{' '.join(message.split())}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
