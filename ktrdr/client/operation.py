"""A handle on one operation."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ktrdr.client.session import Record, Session
from ktrdr.errors import ClusterUnavailable, Usage
from ktrdr.operations import records
from ktrdr.operations.explanation import explanation
from ktrdr.operations.types import Status
from ktrdr.storage.root import Storage
from ktrdr.usecases.ownership import looked_after, retried_when_closing, seen_dead

if TYPE_CHECKING:
    from ktrdr.inference.model import LoadedModel

POLL_S = 0.2
OWNERLESS_AFTER_S = 10.0


class Operation:
    """A handle on one operation; everything it says is read from the store."""

    def __init__(self, session: Session, operation_id: str) -> None:
        self._session = session
        self.id = operation_id

    def __repr__(self) -> str:
        return f"Operation({self.id!r})"

    def record(self) -> Record:
        """The operation record, as `ktrdr operations status --json` prints it."""
        service = self._session.service
        row, latest = service.get(self.id), service.latest_checkpoint(self.id)
        return self._session.record_of(row, latest, service.now())

    def wait(
        self, timeout: float | None = None, on_record: Callable[[Record], None] | None = None
    ) -> Record:
        """Follow until it ends, and return its last record; leaving changes nothing.

        Raises:
            TimeoutError: it has not ended yet.
            ClusterUnavailable: it is lost, no live process: `resume` takes it over.
        """
        started, ownerless_since = time.monotonic(), None
        while True:
            record = self.record()
            if on_record is not None:
                on_record(record)
            if Status(record["status"]).terminal:
                return record
            now = time.monotonic()
            ownerless_since = ownerless_since or now if record["lost"] else None
            if ownerless_since and now - ownerless_since > OWNERLESS_AFTER_S:
                raise ClusterUnavailable(
                    f"{self.id} is lost, no live process:"
                    f" take it over with `ktrdr operations resume {self.id}`"
                )
            if timeout is not None and now - started >= timeout:
                raise TimeoutError(f"{self.id} is still {record['status']} after {timeout} s")
            time.sleep(POLL_S)

    def cancel(
        self, wait: bool = False, timeout: float | None = None, *, kill: bool = False
    ) -> Record:
        """Ask for the end; with `wait`, return when it has come.

        With `kill` its driver is killed at once: the latest committed checkpoint stands.

        Raises:
            OperationNotCancellable: it completed or failed first.
        """
        service = self._session.service
        self._request(service.request_kill if kill else service.request_cancel)
        return self.wait(timeout) if wait else self.record()

    def resume(self, *, strategy: str | Path | None = None, allow_changes: bool = False) -> Record:
        """Continue from the latest good checkpoint; returns when that is written down.

        Args:
            strategy: the strategy's file, where it is not where it was.
            allow_changes: train on with what was changed in it; see docs/resume.md for what can.

        Raises:
            OperationNotResumable, StrategyNotFound, InvalidStrategy, StrategyChanged,
            DataNotFound, DataChanged, CheckpointNotFound, CheckpointCorrupted: nothing has
            changed.
        """
        from ktrdr.usecases import resume

        session, path = self._session, None if strategy is None else Path(strategy)
        options = resume.ResumeOptions(path, allow_changes)
        service, store_id = session.service, session.store_id()
        retried_when_closing(
            lambda: resume.claim(service, store_id, session.owner, self.id, options)
        )
        return self.record()

    def rerun(self) -> Operation:
        """Train it again from the beginning, as a new operation; returns when it is submitted.

        Strategy file, options and fold are the same; file and bars are read as they are now.

        Raises:
            what `Client.train` raises: nothing has changed.
        """
        from ktrdr.usecases import rerun

        session = self._session
        chosen = rerun.choose(session.service.get(self.id), session.storage())
        return Operation(session, session.submit(chosen)[0])

    def resume_report(self) -> Record:
        """Of the last resume: what was restored, what differs, what was lost and passed over.

        Raises:
            Usage: it was never resumed.
        """
        for event in reversed(self.events()):
            if event["event"] == "resumed":
                report: Record = event["details"]
                return report
        raise Usage(f"{self.id} was never resumed: there is no report of that")

    def kill(self) -> None:
        """Ask that its driver be killed at once: it ends cancelled, the last commit stands.

        Raises:
            OperationNotCancellable: it completed or failed first.
        """
        self._request(self._session.service.request_kill)

    def _request(self, verb: Callable[[str, int, str, str | None], object]) -> None:
        row = self._session.service.get(self.id)
        dead = row.owner.id if seen_dead(row.owner) else None
        verb(self.id, row.attempt, secrets.token_hex(16), dead)

    def history(self) -> list[Record]:
        return [records.history_record(row) for row in self._session.service.history(self.id)]

    def events(self, after: int = 0) -> list[Record]:
        """What happened to it, oldest first; only events with a higher id than `after`."""
        found = self._session.service.events(self.id, after)
        return [records.event_record(event) for event in found]

    def checkpoints(self) -> list[Record]:
        service = self._session.service
        root = service.get(self.id).plan.storage
        return [records.checkpoint_record(row, root) for row in service.checkpoints(self.id)]

    def verify_checkpoints(self) -> list[Record]:
        """The records of its checkpoints, with what was found in every file of each.

        Raises:
            StorageUnavailable, StoreMismatch: they cannot be read.
        """
        from ktrdr.checkpoints.verify import inspect_rows

        service = self._session.service
        storage = Storage(Path(service.get(self.id).plan.storage))
        storage.check(self._session.store_id())
        found = inspect_rows(storage, service.checkpoints(self.id))
        standing = {row.id for row in service.checkpoints(self.id)}  # retention may have gone on
        root = str(storage.root)
        return [
            records.checkpoint_record(row, root) | records.findings(files)
            for row, files in found
            if row.id in standing
        ]

    def delete_checkpoints(self) -> int:
        """Remove all its checkpoints, so that it cannot be resumed; how many there were.

        Raises:
            OperationRunning: it has not ended.
        """
        from ktrdr.checkpoints.cleanup import delete_checkpoints

        return delete_checkpoints(self._session.service, self.id)

    def why(self) -> Record:
        """The chain of events that led to its present state, and the next sensible command."""
        service = self._session.service
        row, latest = service.get(self.id), service.latest_checkpoint(self.id)
        alive = row.status.terminal or looked_after(row, service.now())
        return explanation(row, service.events(self.id), latest, alive)

    def delete(self) -> None:
        """Delete it, its history and its checkpoints; the model that it made stays.

        Raises:
            OperationRunning: it has not ended.
            StorageUnavailable, StoreMismatch: its folder cannot be removed.
        """
        from ktrdr.checkpoints.cleanup import delete_operation

        delete_operation(self._session.service, self.id)

    def model(self) -> LoadedModel:
        """The model that it made.

        Raises:
            ModelNotFound: it has not completed.
        """
        return self._session.load_model(*self._session.service.model_of(self.id))
