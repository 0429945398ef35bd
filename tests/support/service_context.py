"""A training's context that reports and commits through the service, without an actor between."""

from __future__ import annotations

from pathlib import Path

from ktrdr.checkpoints.retention import remove_doomed
from ktrdr.operations.service import OperationsService
from ktrdr.operations.types import HistoryRow, NewCheckpoint, Operation, Report, StopKind
from ktrdr.storage.posix import DISK, Files
from ktrdr.storage.root import Storage
from ktrdr.training.context import LocalContext


class ServiceContext(LocalContext):
    """Does for one attempt what its driver and its supervisor do."""

    def __init__(
        self,
        service: OperationsService,
        row: Operation,
        stop_at: int | None = None,
        stop_kind: StopKind = StopKind.USER,
        files: Files = DISK,
    ) -> None:
        storage = Storage(Path(row.plan.storage), files)
        super().__init__(storage, row.operation_id, row.attempt, stop_at, stop_kind)
        self._service = service
        self._sequence = 0

    def epoch_finished(self, row: HistoryRow) -> None:
        self.say((row,))

    def say(self, history: tuple[HistoryRow, ...] = ()) -> None:
        """Report the progress, and rows of history."""
        self._sequence += 1
        report = Report(self._sequence, None, self.progress.sample(), history)
        self._service.report(self.operation_id, self.attempt, report)

    def commit(self, checkpoint: NewCheckpoint) -> None:
        """Write the row, then remove what it supersedes, as the supervisor does."""
        name = self.operation_id
        self._service.commit_checkpoint(name, self.attempt, checkpoint)
        doomed = self._service.checkpoints(name, doomed=True)
        self._service.forget_checkpoints(name, remove_doomed(self.storage, doomed))
