"""What an owner does for its operations: start, stop, watch, restart. No Ray in here.

The caretaker reads its rows a few times a second and makes the drivers agree with them; every
decision is a guarded write of the service, so a stale look at a row does no harm.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ktrdr.errors import Conflict, KtrdrError
from ktrdr.operations.model import FailureReason, Operation, Owner, Phase, Status, StopKind
from ktrdr.operations.service import OperationsService
from ktrdr.runtime.names import Key

RENEW_EVERY_S = 5.0
GRACE_S = 30.0

log = logging.getLogger(__name__)


class Fleet(Protocol):
    """The drivers of this owner, by operation and attempt."""

    def launch(self, key: Key) -> None:
        """Start a driver; one of this name that lives already is kept."""

    def attach(self) -> set[Key]:
        """Find the drivers that live, also those that another process started."""

    def ended(self, key: Key) -> str | None:
        """Why the driver is gone, or None while it lives."""

    def stop(self, key: Key, kind: StopKind) -> None:
        """Ask it to stop at its next batch; returns at once."""

    def kill(self, key: Key) -> None:
        """End its process now; nothing happens when it is gone."""


@dataclass
class _Watched:
    told_to_stop: StopKind | None = None
    deadline: float | None = None


class Caretaker:
    """Looks after everything that one owner owns."""

    def __init__(
        self,
        service: OperationsService,
        owner: Owner,
        fleet: Fleet,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service = service
        self._owner = owner
        self._fleet = fleet
        self._clock = clock
        self._watched: dict[Key, _Watched] = {}
        self._renewed_at: float | None = None
        self._shutting_down = False

    def reconcile(self) -> None:
        """Make rows and drivers agree after a start: re-attach, lose, or kill.

        A row in phase `restarting` has had no driver yet and is launched by the next tick.
        """
        self._renew()
        alive = self._fleet.attach()
        current = {(op.operation_id, op.attempt): op for op in self._owned()}
        for key in alive - current.keys():
            self._fleet.kill(key)
        for key, operation in current.items():
            if key in alive:
                self._watched[key] = _Watched()
            elif operation.status is Status.RUNNING and operation.phase is not Phase.RESTARTING:
                self._lose(operation, FailureReason.DRIVER_LOST, "its driver was gone", True)

    def tick(self) -> None:
        """One look at everything; called a few times a second, from one thread."""
        self._renew()
        owned = self._owned()
        for operation in owned:
            try:
                self._look_after(operation)
            except Conflict:
                continue  # the row has moved on: the next look sees where to
        self._forget({(op.operation_id, op.attempt) for op in owned})

    def kill(self, operation_id: str) -> None:
        """End an operation's driver at once: its last committed checkpoint stands."""
        for operation in self._owned():
            if operation.operation_id == operation_id and operation.status is Status.RUNNING:
                self._fleet.kill((operation.operation_id, operation.attempt))
                self._lose(operation, FailureReason.DRIVER_LOST, "killed on request")

    def shut_down(self) -> None:
        """Ask every driver for a last checkpoint, and start no other."""
        self._shutting_down = True

    def _look_after(self, operation: Operation) -> None:
        if operation.status is Status.PENDING and not self._shutting_down:
            operation = self._service.start(operation.operation_id, self._owner.id)
        key = (operation.operation_id, operation.attempt)
        if key not in self._watched:
            self._begin(operation)
            return
        why = self._fleet.ended(key)
        if why is not None:
            self._lose(operation, FailureReason.DRIVER_LOST, f"the driver is gone: {why}")
            return
        self._stop_if_wanted(operation, self._watched[key])

    def _begin(self, operation: Operation) -> None:
        key = (operation.operation_id, operation.attempt)
        if self._shutting_down or operation.status is not Status.RUNNING:
            return
        if operation.cancel_requested_at is not None:
            self._lose(operation, FailureReason.DRIVER_LOST, "cancelled before it was launched")
            return
        for other in [k for k in self._watched if k[0] == operation.operation_id]:
            self._fleet.kill(other)
        if operation.phase is Phase.RESTARTING:
            self._service.launch(operation.operation_id, operation.attempt, self._owner.id)
        self._watched[key] = _Watched()
        try:
            self._fleet.launch(key)
        except Exception as error:
            message = f"no driver could be started: {error}"
            self._lose(operation, FailureReason.LAUNCH_FAILED, message)

    def _stop_if_wanted(self, operation: Operation, watched: _Watched) -> None:
        key = (operation.operation_id, operation.attempt)
        wanted = StopKind.USER if operation.cancel_requested_at else None
        wanted = wanted or (StopKind.SHUTDOWN if self._shutting_down else None)
        if wanted and watched.told_to_stop is None:
            self._fleet.stop(key, wanted)
            watched.told_to_stop, watched.deadline = wanted, self._clock() + GRACE_S
        elif watched.deadline is not None and self._clock() > watched.deadline:
            self._fleet.kill(key)
            message = f"did not stop within {GRACE_S:.0f} s and was killed"
            self._lose(operation, FailureReason.DRIVER_LOST, message)

    def _lose(
        self, operation: Operation, reason: FailureReason, message: str, on_start: bool = False
    ) -> None:
        try:
            self._service.lose(operation.operation_id, operation.attempt, reason, message, on_start)
        except Conflict as error:
            log.info("%s attempt %d: %s", operation.operation_id, operation.attempt, error)

    def _forget(self, current: set[Key]) -> None:
        """Drivers whose attempt is over exit by themselves; those that do not are killed."""
        for key in self._watched.keys() - current:
            watched = self._watched[key]
            if self._fleet.ended(key) is not None:
                del self._watched[key]
            elif watched.deadline is None:
                watched.deadline = self._clock() + GRACE_S
            elif self._clock() > watched.deadline:
                self._fleet.kill(key)

    def _renew(self) -> None:
        now = self._clock()
        if self._renewed_at is None or now - self._renewed_at >= RENEW_EVERY_S:
            self._service.renew(self._owner.id)
            self._renewed_at = now

    def _owned(self) -> tuple[Operation, ...]:
        return self._service.owned(self._owner.id)


def describe(error: BaseException) -> str:
    """An exception in one line."""
    text = error.message if isinstance(error, KtrdrError) else str(error)
    return (text.splitlines() or [type(error).__name__])[0][:500]
