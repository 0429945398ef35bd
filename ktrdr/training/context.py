"""All that the training loop knows of the world around it, and a local twin without Ray or SQL."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from ktrdr.checkpoints.adoption import found
from ktrdr.checkpoints.layout import operation_folder
from ktrdr.checkpoints.verify import latest_good
from ktrdr.operations.types import Checkpoint, HistoryRow, NewCheckpoint, Phase, Progress, StopKind
from ktrdr.storage.root import Storage


class LiveProgress:
    """Where the loop stands: the training thread writes plain attributes, anyone samples them."""

    __slots__ = ("batches", "epochs", "metrics", "step")

    def __init__(self) -> None:
        self.step = 0
        """Batches done since the beginning; one number, so that a reader never sees it torn."""
        self.epochs = 0
        self.batches = 0
        """Batches per epoch; 0 until the data are there."""
        self.metrics: dict[str, Any] | None = None
        """Of the last finished epoch; replaced, never changed."""

    def sample(self) -> Progress:
        step, batches, epochs = self.step, self.batches, self.epochs
        if not batches:
            return Progress(0, epochs, 0, None, 0.0, self.metrics)
        epoch, batch = divmod(step, batches)
        percent = 100.0 * step / (epochs * batches)
        return Progress(epoch, epochs, batch, batches, percent, self.metrics)


class Context(Protocol):
    """The driver's side of the loop.

    `commit`, `forget` and `warn` are called on the writer's thread too; all else on the training
    thread only. StaleAttempt from any of them ends the training at once.
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
        """Who wants the training to stop; read before every batch, so it must cost nothing."""

    def clock(self) -> float:
        """Seconds that never go backwards."""

    def now(self) -> datetime:
        """The time of day, aware."""

    def enter(self, phase: Phase) -> None: ...

    def epoch_finished(self, row: HistoryRow) -> None: ...

    def commit(self, checkpoint: NewCheckpoint) -> Sequence[Checkpoint]:
        """Commit the row of a durable directory; all doomed rows of the operation come back.

        When it can only be queued, the answer is empty: nothing may be removed yet.
        """

    def forget(self, ids: Sequence[int]) -> None:
        """The directories of these doomed rows are gone."""

    def warn(self, message: str) -> None:
        """Tell the user of a trouble that training survives; never waits long."""


@dataclass(frozen=True)
class CheckpointFolder:
    """A local directory in the shape of a `ray.train.Checkpoint`."""

    path: Path

    @contextlib.contextmanager
    def as_directory(self) -> Iterator[str]:
        yield str(self.path)


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
        self._last_id = len(self.rows)
        self.history: list[HistoryRow] = []
        self.phases: list[Phase] = []
        self.warnings: list[str] = []

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

    def commit(self, checkpoint: NewCheckpoint) -> Sequence[Checkpoint]:
        """Keep the two newest rows and the newest best one, doom the rest, as the store does."""
        self._last_id += 1
        self.rows.append(_row(self._last_id, self.operation_id, self.attempt, checkpoint))
        live = [row for row in self.rows if row.doomed_at is None]
        kept = {row.id for row in live[-2:]} | {
            row.id for row in [r for r in live if r.is_best][-1:]
        }
        now = self.now()
        self.rows = [
            row
            if row.doomed_at is not None or row.id in kept
            else dataclasses.replace(row, doomed_at=now)
            for row in self.rows
        ]
        return [row for row in self.rows if row.doomed_at is not None]

    def forget(self, ids: Sequence[int]) -> None:
        self.rows = [row for row in self.rows if row.id not in ids]

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def latest_checkpoint(self) -> CheckpointFolder | None:
        """The newest good one of any attempt; None when none was ever committed."""
        if not self.rows:
            return None
        row, _, _ = latest_good(self.storage, self.rows)
        return CheckpointFolder(self.storage.at(row.path))


def _rows_on_storage(storage: Storage, operation_id: str) -> list[Checkpoint]:
    folder = operation_folder(storage, operation_id)
    names = storage.files.names(folder) if storage.files.is_folder(folder) else []
    attempts = [int(name.removeprefix("attempt-")) for name in names]
    pairs = [(n, new) for n in attempts for new in found(storage, operation_id, n)]
    return [_row(i, operation_id, n, new) for i, (n, new) in enumerate(pairs, start=1)]


def _row(row_id: int, operation_id: str, attempt: int, new: NewCheckpoint) -> Checkpoint:
    fields = {field.name: getattr(new, field.name) for field in dataclasses.fields(new)}
    return Checkpoint(id=row_id, operation_id=operation_id, attempt=attempt, **fields)
