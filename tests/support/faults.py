"""What fails where in a training: one plan, and the context and file calls that carry it out."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from pathlib import Path

from ktrdr.operations.types import CheckpointType, HistoryRow, NewCheckpoint, StopKind
from ktrdr.storage.posix import Files
from ktrdr.storage.root import Storage
from ktrdr.training.context import LocalContext


class KilledAt(BaseException):
    """The end of a process at a batch boundary: nothing is saved any more."""


@dataclass(frozen=True)
class FaultPlan:
    """Faults by where they strike; a training with an empty plan goes well."""

    killed_at: int | None = None
    """Batches done since the beginning when the process dies."""
    commit: Exception | None = None
    """Raised by every commit of a checkpoint's row."""
    epoch_finished: Exception | None = None
    warning: Exception | None = None
    full_for: frozenset[int] = frozenset()
    """Numbers of the checkpoints whose files find the disk full."""
    always_full: bool = False
    never_removed: bool = False
    """No directory can be removed."""
    in_the_way: Path | None = None
    """A file that is removed once a warning has told of it."""


NO_FAULTS = FaultPlan()


@dataclass
class FaultyFiles(Files):
    """File calls that the plan lets fail."""

    plan: FaultPlan
    full: set[str] = field(init=False)

    def __post_init__(self) -> None:
        self.full = {f".tmp-checkpoint-{number:06d}" for number in self.plan.full_for}

    def write(self, path: Path, data: bytes) -> None:
        if self.plan.always_full or path.parent.name in self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().write(path, data)

    def rename(self, source: Path, target: Path) -> None:
        if self.plan.never_removed and target.name.startswith(".trash-"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        super().rename(source, target)


class FaultyContext(LocalContext):
    """Carries out a plan, and remembers the checkpoints that were to be committed.

    `ticking`: its clock shows one second per batch.
    """

    def __init__(
        self,
        storage: Storage,
        operation_id: str,
        plan: FaultPlan = NO_FAULTS,
        *,
        attempt: int = 1,
        stop_at: int | None = None,
        ticking: bool = False,
    ) -> None:
        if plan.full_for or plan.always_full or plan.never_removed:
            storage = Storage(storage.root, FaultyFiles(plan))
        super().__init__(storage, operation_id, attempt, stop_at)
        self.plan = plan
        self.ticking = ticking
        self.committed: list[tuple[CheckpointType, int, int]] = []

    @property
    def stop_requested(self) -> StopKind | None:
        if self.plan.killed_at is not None and self.progress.step >= self.plan.killed_at:
            raise KilledAt
        return super().stop_requested

    def clock(self) -> float:
        return float(self.progress.step) if self.ticking else super().clock()

    def epoch_finished(self, row: HistoryRow) -> None:
        if self.plan.epoch_finished is not None:
            raise self.plan.epoch_finished
        super().epoch_finished(row)

    def commit(self, checkpoint: NewCheckpoint) -> None:
        self.committed.append((checkpoint.checkpoint_type, checkpoint.epoch, checkpoint.batch))
        if self.plan.commit is not None:
            raise self.plan.commit
        super().commit(checkpoint)

    def warn(self, code: str, message: str) -> None:
        if self.plan.warning is not None:
            raise self.plan.warning
        super().warn(code, message)
        if self.plan.in_the_way is not None:
            self.plan.in_the_way.unlink()
