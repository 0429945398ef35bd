"""One attempt at a rehearsed training, in a process of its own: begins, or goes on, and ends.

Run as `python -m ktrdr.usecases.verify_resume.attempt FOLDER NUMBER`; gets ready, then waits for an
order, a line of JSON on stdin. It ends at once when its parent does.
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
    board_path,
    open_board,
    read_job,
    write_outcome,
)

_HELD_S = 600.0
_STATE_OF_NO_EPOCH = ("history", "seconds")
"""Of the loop: compared by the metrics of every epoch; a duration, which no two runs share."""


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status; what went wrong is the last line on stderr."""
    folder, number = Path(arguments[0]), int(arguments[1])
    try:
        request, plan = read_job(folder)
        strategy = validate_strategy(plan.config, request.strategy_path)
        dataset = planned_dataset(request, plan, strategy)
        job = planned_job(request, plan, strategy, dataset)
        _warm_up()
        Attempt(folder, number).run(job, dataset, _next_order())
    except (KtrdrError, NonFiniteLoss) as error:
        _complain(str(error))
        return 1
    return 0


class Attempt:
    """What one process does of a training, and what it records of it."""

    def __init__(self, folder: Path, number: int) -> None:
        self._folder = folder
        self._board = open_board(board_path(folder, number))
        self._log = EpochLog(folder, number)
        self._storage = Storage(folder / "storage", CountedFiles(self._board))
        self._number = number

    def run(self, job: TrainingJob, dataset: Dataset, order: AttemptPlan) -> None:
        """Go on from the latest good checkpoint, as every attempt does, to what was ordered."""
        sweep(self._storage, OPERATION_ID, range(1, self._number))
        context = ShownContext(self._storage, OPERATION_ID, self._number, order.stop_at)
        context.board = self._board
        latest = context.latest_checkpoint()
        resume = restore_from_checkpoint(latest) if latest else None
        result = fit(job, dataset, context, resume, self._log_state)
        if order.hold:
            self._hold()
        if isinstance(result, Completed):
            write_outcome(self._folder, outcome(result))

    def _log_state(self, learner: Learner) -> None:
        snapshot = learner.snapshot(CheckpointType.PERIODIC)
        row = learner.loop.history[-1]
        metrics = _lasting(row.metrics)
        self._log.add(row.epoch, {**state_digests(snapshot), "metrics": metrics})

    def _hold(self) -> NoReturn:
        self._board[SharedCounters.HELD] = 1
        time.sleep(_HELD_S)
        raise KtrdrError("was to be killed and was not")


class ShownContext(LocalContext):
    """A local context that shows where the training stands, before every batch."""

    board: memoryview[int]

    @property
    def stop_requested(self) -> StopKind | None:
        self.board[SharedCounters.STEP] = self.progress.step
        return super().stop_requested

    def enter(self, phase: Phase) -> None:
        super().enter(phase)
        self.board[SharedCounters.EPOCHS] = self.progress.epochs
        self.board[SharedCounters.BATCHES] = self.progress.batches
        self.board[SharedCounters.STEP] = self.progress.step

    def warn(self, code: str, message: str) -> None:
        super().warn(code, message)
        _complain(message)


class CountedFiles(Files):
    """File calls that are counted as they begin, for a kill in the middle of them."""

    def __init__(self, board: memoryview[int]) -> None:
        self._board = board

    def make_folder(self, path: Path) -> None:
        self._board[SharedCounters.DISK_CALLS] += 1
        super().make_folder(path)

    def write(self, path: Path, data: bytes) -> None:
        self._board[SharedCounters.DISK_CALLS] += 1
        super().write(path, data)

    def sync_folder(self, path: Path) -> None:
        self._board[SharedCounters.DISK_CALLS] += 1
        super().sync_folder(path)

    def rename(self, source: Path, target: Path) -> None:
        self._board[SharedCounters.DISK_CALLS] += 1
        super().rename(source, target)

    def remove_tree(self, path: Path) -> None:
        self._board[SharedCounters.DISK_CALLS] += 1
        super().remove_tree(path)


def state_digests(snapshot: Snapshot) -> dict[str, str]:
    """A digest of every part of the state that a checkpoint holds."""
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
    """What a training made."""
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
    """The first optimizer of a process takes a second: better while another attempt trains."""
    torch.optim.SGD([torch.zeros(1)])


def _next_order() -> AttemptPlan:
    """Wait for the parent's word; from then on its end is ours."""
    with open(0, "rb", buffering=0, closefd=False) as stdin:
        line = stdin.readline()
    if not line:
        os._exit(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    return AttemptPlan(**json.loads(line))


def _end_with_parent() -> None:
    os.read(0, 1)
    os._exit(1)


def _complain(message: str) -> None:
    sys.stderr.write(f"{' '.join(message.split())}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
