"""Files by which attempts report to the parent process; they outlive a SIGKILL.

A training is a folder: `job.json` says what to train, every attempt n has `<n>.counters` (its
position), `<n>.epochs` (a line per finished epoch) and `<n>.errors`, and the one that completes
the training writes `outcome.json`. Its checkpoints are in `storage`.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from ktrdr.files import replacement
from ktrdr.operations.types import Plan, Request

OPERATION_ID = "op_training_20000101_000000_00000000"
"""Of every training that is verified: no store knows it, its storage is temporary."""

_JOB = "job.json"
_OUTCOME = "outcome.json"


class SharedCounters(IntEnum):
    """Indices of the counters: the child process writes them, its parent reads them."""

    STEP = 0
    """Batches done since the beginning."""
    BATCHES = 1
    """Per epoch; 0 until the data are there."""
    EPOCHS = 2
    DISK_CALLS = 3
    """Calls that change the storage, begun so far."""
    HELD = 4
    """1 once the training is over and waits to be killed."""


def open_counters(path: Path) -> memoryview[int]:
    """Map a file of counters into this process; it is made when absent."""
    size = 8 * len(SharedCounters)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.ftruncate(descriptor, size)
        return memoryview(mmap.mmap(descriptor, size)).cast("q")
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class AttemptPlan:
    """How one attempt is to end; without a stop and a hold at the end of the training."""

    stop_at: int | None = None
    """PlannedStop once that many batches are done since the beginning."""
    hold: bool = False
    """Keep a finished training for the kill that it waits for: write no outcome, wait."""


@dataclass(frozen=True)
class EpochRecord:
    """The state after an epoch: digests and metrics by name. Equal states have equal parts."""

    attempt: int
    epoch: int
    parts: Mapping[str, Any]


@dataclass(frozen=True)
class TrainingRecord:
    """All that the attempts of a training recorded, in their order."""

    epochs: tuple[EpochRecord, ...]
    outcome: Mapping[str, Any]


class EpochLog:
    """Appends a line per epoch; one write each, so that a kill loses at most the last line.

    An attempt that loses it lost the epoch as well: a checkpoint of it would come later.
    """

    def __init__(self, folder: Path, attempt: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._file = os.open(_epochs_path(folder, attempt), flags, 0o600)

    def add(self, epoch: int, parts: Mapping[str, Any]) -> None:
        line = json.dumps({"epoch": epoch, "parts": dict(parts)}, allow_nan=False)
        os.write(self._file, f"{line}\n".encode())


def write_job(folder: Path, request: Request, plan: Plan) -> None:
    job = {"request": asdict(request), "plan": asdict(plan)}
    (folder / _JOB).write_text(json.dumps(job), encoding="utf-8")


def read_job(folder: Path) -> tuple[Request, Plan]:
    job = json.loads((folder / _JOB).read_text(encoding="utf-8"))
    several = {name: tuple(job["request"][name]) for name in ("symbols", "timeframes")}
    return Request(**job["request"] | several), Plan(**job["plan"])


def write_outcome(folder: Path, outcome: Mapping[str, Any]) -> None:
    with replacement(folder / _OUTCOME) as file:
        file.write(json.dumps(outcome, allow_nan=False).encode())


def has_outcome(folder: Path) -> bool:
    return (folder / _OUTCOME).exists()


def read_training(folder: Path, attempts: int) -> TrainingRecord:
    """Read the records of so many attempts; the last of them wrote the outcome."""
    return TrainingRecord(
        epochs=tuple(r for n in range(1, attempts + 1) for r in _read_epochs(folder, n)),
        outcome=json.loads((folder / _OUTCOME).read_text(encoding="utf-8")),
    )


def _read_epochs(folder: Path, attempt: int) -> list[EpochRecord]:
    path = _epochs_path(folder, attempt)
    if not path.exists():
        return []
    whole = path.read_bytes().split(b"\n")[:-1]  # what follows the last newline was cut off
    return [EpochRecord(attempt, **json.loads(line)) for line in whole]


def _epochs_path(folder: Path, attempt: int) -> Path:
    return folder / f"{attempt}.epochs"


def counters_path(folder: Path, attempt: int) -> Path:
    return folder / f"{attempt}.counters"


def errors_path(folder: Path, attempt: int) -> Path:
    return folder / f"{attempt}.errors"
