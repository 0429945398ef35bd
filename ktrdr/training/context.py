"""The interface between the training loop and its surroundings, and a local context."""

from __future__ import annotations

import dataclasses
import time
from datetime import UTC, datetime
from typing import Any, Protocol

from ktrdr.checkpoints.adoption import listed
from ktrdr.checkpoints.layout import operation_folder
from ktrdr.checkpoints.retention import remove_doomed
from ktrdr.checkpoints.verify import VerifiedCheckpoint, open_latest_good
from ktrdr.errors import Unreachable
from ktrdr.operations.restart_policy import superseded
from ktrdr.operations.types import (
    Checkpoint,
    HistoryRow,
    NewCheckpoint,
    Phase,
    Progress,
    StopKind,
    TrainingWarning,
)
from ktrdr.storage.root import Storage


class LiveProgress:
    """Where the loop stands: the training thread writes plain attributes, anyone samples them."""

    __slots__ = ("batches", "epochs", "metrics", "step")

    def __init__(self) -> None:
        self.step = 0
        """Batches done since the beginning; one number, so that no reader sees half of it."""
        self.epochs = 0
        self.batches = 0
        """Batches per epoch; 0 until the data are there."""
        self.metrics: dict[str, Any] | None = None
        """Of the last finished epoch, and of the running one: `running_loss` (mean over its batches
        so far), `batches_per_s`; once an epoch has ended `best_epoch`, `best_score` (None without
        a validation split) and `monitor`. Replaced, never changed."""

    def sample(self) -> Progress:
        step, batches, epochs = self.step, self.batches, self.epochs
        if not batches:
            return Progress(0, epochs, 0, None, 0.0, self.metrics)
        epoch, batch = divmod(step, batches)
        percent = 100.0 * step / (epochs * batches)
        return Progress(epoch, epochs, batch, batches, percent, self.metrics)


class Context(Protocol):
    """The driver's side of the loop.

    `commit` and `warn` are called on the writer's thread too; all else on the training thread
    only. StaleAttempt from any of them ends the training at once.
    """

    @property
    def storage(self) -> Storage: ...

    @property
    def operation_id(self) -> str: ...

    @property
    def attempt(self) -> int: ...

    @property
    def rank(self) -> int: ...

    @property
    def world_size(self) -> int: ...

    @property
    def progress(self) -> LiveProgress: ...

    @property
    def stop_requested(self) -> StopKind | None:
        """The kind of stop that was requested; read before every batch, so it must be cheap."""

    def clock(self) -> float:
        """Seconds that never go backwards."""

    def now(self) -> datetime:
        """The time of day, aware."""

    def enter(self, phase: Phase) -> None: ...

    def epoch_finished(self, row: HistoryRow) -> None: ...

    def commit(self, checkpoint: NewCheckpoint) -> None:
        """Queue the row of a durable directory; never waits.

        Raises when the attempt is over or the delivery has failed. What retention supersedes is
        removed by others: a training never removes a committed checkpoint.
        """

    def warn(self, code: str, message: str) -> None:
        """Tell the user of something that training survives; never waits."""


class LocalContext:
    """One process, real storage, rows in memory: they are read back from the directories.

    `stop_at` asks for a stop once that many batches are done since the beginning.
    """

    rank = 0
    world_size = 1

    def __init__(
        self,
        storage: Storage,
        operation_id: str,
        attempt: int,
        stop_at: int | None = None,
        stop_kind: StopKind = StopKind.USER,
    ) -> None:
        self.storage = storage
        self.operation_id = operation_id
        self.attempt = attempt
        self.progress = LiveProgress()
        self.stop_at = stop_at
        self.stop_kind = stop_kind
        self.rows = _rows_on_storage(storage, operation_id)
        self.history: list[HistoryRow] = []
        self.phases: list[Phase] = []
        self.warnings: list[TrainingWarning] = []

    @property
    def stop_requested(self) -> StopKind | None:
        stop_at = self.stop_at
        return self.stop_kind if stop_at is not None and self.progress.step >= stop_at else None

    def clock(self) -> float:
        return time.monotonic()

    def now(self) -> datetime:
        return datetime.now(UTC)

    def enter(self, phase: Phase) -> None:
        self.phases.append(phase)

    def epoch_finished(self, row: HistoryRow) -> None:
        self.history.append(row)

    def commit(self, checkpoint: NewCheckpoint) -> None:
        """Add the row, and remove what retention supersedes, as supervisor and store do."""
        doomed = superseded(self.attempt, (checkpoint,), self.rows)
        row_id = 1 + max((row.id for row in self.rows), default=0)
        self.rows.append(_row(row_id, self.operation_id, self.attempt, checkpoint))
        now = self.now()
        self.rows = [
            dataclasses.replace(row, doomed_at=row.doomed_at or now) if row.key in doomed else row
            for row in self.rows
        ]
        try:
            removed = remove_doomed(self.storage, self.rows)
        except Unreachable as error:  # tried again with the next commit
            self.warn("CHECKPOINTS_NOT_REMOVED", f"superseded checkpoints not removed: {error}")
        else:
            self.rows = [row for row in self.rows if row.id not in removed]

    def warn(self, code: str, message: str) -> None:
        self.warnings.append(TrainingWarning(code, message))

    def latest_checkpoint(self) -> VerifiedCheckpoint | None:
        """Return the newest good one of any attempt, read once; None when none was committed.

        Raises CheckpointCorrupted when none is good.
        """
        if not self.rows:
            return None
        latest = open_latest_good(self.storage, self.rows)
        unusable = {row.id: why for row, why in latest.passed_over}
        self.rows = [
            dataclasses.replace(row, unusable=unusable.get(row.id, row.unusable))
            for row in self.rows
        ]
        return latest


def _rows_on_storage(storage: Storage, operation_id: str) -> list[Checkpoint]:
    folder = operation_folder(storage, operation_id)
    names = storage.files.names(folder) if storage.files.is_folder(folder) else []
    attempts = [int(name.removeprefix("attempt-")) for name in names]
    pairs = [(n, new) for n in attempts for new in listed(storage, operation_id, n)]
    return [_row(i, operation_id, n, new) for i, (n, new) in enumerate(pairs, start=1)]


def _row(row_id: int, operation_id: str, attempt: int, new: NewCheckpoint) -> Checkpoint:
    fields = {field.name: getattr(new, field.name) for field in dataclasses.fields(new)}
    return Checkpoint(id=row_id, operation_id=operation_id, attempt=attempt, **fields)
