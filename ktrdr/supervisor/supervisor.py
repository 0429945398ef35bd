"""Looks after the operations of one owner: observes, lets `decisions` decide, and executes.

No Ray in here. Every decision ends in a guarded write of the service, so a stale look at a row
does no harm. Nothing here waits for a driver or for storage: what takes time is asked for, and
what came of it is seen by a later tick.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from ktrdr.driver.names import AttemptKey
from ktrdr.errors import Conflict, OperationNotFound
from ktrdr.operations.service import OperationsService
from ktrdr.operations.transition_records import waits
from ktrdr.operations.types import (
    FailureReason,
    Operation,
    Owner,
    Phase,
    Status,
    TrainingWarning,
)
from ktrdr.supervisor.decisions import (
    QUEUED_S,
    End,
    Forget,
    GiveUp,
    Handled,
    KeepStacks,
    Kill,
    Launch,
    Queue,
    ReadUncommitted,
    Seen,
    Stop,
    Stopped,
    decide,
    decide_leftover,
)
from ktrdr.supervisor.drivers import Drivers, Lost
from ktrdr.supervisor.liveness import Liveness, LivenessLimits
from ktrdr.supervisor.sweeper import StacksKept, StorageFailed, StorageWorker, UncommittedRead

BACK_OFF_S = 1.0
"""How long an operation is left alone after an unforeseen error."""

SWEEP_EVERY_S = 2.0

LONGEST_TICK_S = 1.0
"""A pause between two ticks counts as no longer: the machine, or this process, was asleep."""

log = logging.getLogger(__name__)


class Supervisor:
    """Starts, stops, watches and restarts the drivers of everything that one owner owns."""

    def __init__(
        self,
        service: OperationsService,
        owner: Owner,
        drivers: Drivers,
        storage: StorageWorker,
        *,
        limits: LivenessLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service = service
        self._owner = owner
        self._drivers = drivers
        self._storage = storage
        self._limits = limits or LivenessLimits()
        self._clock = clock
        self._ticked_at: float | None = None
        self._time = 0.0
        """Seconds that this supervisor was awake: all that a driver is given is measured by it."""
        self._rows: Mapping[AttemptKey, Operation] = {}
        """Pending and running, in the order of their submission."""
        self._handled: dict[AttemptKey, Handled] = {}
        self._liveness: dict[AttemptKey, Liveness] = {}
        self._room: int | None = None
        """How many more drivers can be placed; None: not asked in this tick."""
        self._retry_at: dict[str, float] = {}
        """By operation id, after an unforeseen error."""
        self._sweep_at = 0.0
        self._shutting_down = False
        self._executors: dict[type, Callable[[AttemptKey, Any], None]] = {
            Launch: self._launch,
            Queue: self._queue,
            Stop: self._stop,
            GiveUp: self._give_up,
            KeepStacks: self._keep_stacks,
            Kill: self._kill,
            ReadUncommitted: self._read_uncommitted,
            End: self._end,
            Forget: self._forget,
        }

    def reconcile(self) -> None:
        """Make rows and drivers agree after a start: re-attach, lose, or kill.

        A row in phase `restarting` has had no driver yet and is launched by a later tick.
        """
        self._read_rows()
        named = {row.driver: key for key, row in self._rows.items() if row.driver is not None}
        alive = self._drivers.attach(named)
        for key in alive:
            self._handled[key] = Handled(self._time, launched=True)
            self._liveness[key] = Liveness()
            if key not in self._rows:
                self._kill(key, Kill(None))
        for key, row in self._rows.items():
            self._check(row)
            begun = row.status is Status.RUNNING and row.phase is not Phase.RESTARTING
            if begun and key not in alive:
                lost = Lost(FailureReason.DRIVER_LOST, "its driver was gone", found_on_start=True)
                self._handled[key] = Handled(self._time, launched=True, lost=lost)

    def tick(self) -> None:
        """Look once at everything; called a few times a second, from one thread."""
        passed_s = self._pass_time()
        self._read_rows()
        self._take_results()
        for key in self._leftovers():
            with self._isolated(key[0]):
                self._attend_leftover(key)
        for key, row in self._rows.items():
            with self._isolated(row.operation_id):
                self._attend(key, row, passed_s)
        self._sweep()

    def shut_down(self) -> None:
        """Ask every driver for a last checkpoint, and start no other."""
        self._shutting_down = True

    # Observing -----------------------------------------------------------------------------------

    def _attend(self, key: AttemptKey, row: Operation, passed_s: float) -> None:
        if self._retry_at.get(row.operation_id, 0.0) > self._time:
            return
        seen = self._observe(key, row, passed_s)
        for action in decide(row, seen, self._time):
            self._executors[type(action)](key, action)

    def _attend_leftover(self, key: AttemptKey) -> None:
        if self._retry_at.get(key[0], 0.0) > self._time:
            return
        handled = self._handled[key]
        if handled.launched and handled.lost is None:
            over_since = self._time if handled.over_since is None else handled.over_since
            lost = self._drivers.lost(key)
            handled = self._note(key, lost=lost, over_since=over_since)
        for action in decide_leftover(self._own(key[0]), key[1], handled, self._time):
            self._executors[type(action)](key, action)

    def _observe(self, key: AttemptKey, row: Operation, passed_s: float) -> Seen:
        handled = self._handled.setdefault(key, Handled(self._time))
        if handled.launched and handled.lost is None:
            handled = self._note(key, lost=self._drivers.lost(key))
        seen = Seen(handled, shutting_down=self._shutting_down)
        if not handled.launched:
            return self._observe_queued(row, seen)
        return self._observe_driver(key, row, seen, passed_s) if handled.lost is None else seen

    def _observe_queued(self, row: Operation, seen: Seen) -> Seen:
        if row.launch_not_before is not None and waits(row, self._service.now()):
            return replace(seen, held_back=True)
        if self._room is None:
            self._room = self._drivers.room()
        return replace(seen, room=self._room > 0)

    def _observe_driver(self, key: AttemptKey, row: Operation, seen: Seen, passed_s: float) -> Seen:
        liveness = self._liveness[key]
        liveness.look(self._drivers.pulse(key), passed_s)
        begun = liveness.last is not None or row.report_sequence > 0
        stopping = row.cancel_requested_at is not None or self._shutting_down
        due = not begun and (stopping or liveness.silent_s >= QUEUED_S)
        unplaced = due and self._drivers.unplaced(key)
        if unplaced:
            liveness.excuse()
        return replace(
            seen,
            begun=begun,
            unplaced=unplaced,
            hung=liveness.hung(self._limits),
            stacks=self._drivers.stacks(key) if seen.handled.gives_stacks else None,
        )

    def _read_rows(self) -> None:
        owned = self._service.owned(self._owner.id)
        self._rows = {(row.operation_id, row.attempt): row for row in owned}
        self._room = None

    def _take_results(self) -> None:
        for result in self._storage.take_results():
            if result.key not in self._handled:
                continue
            match result:
                case UncommittedRead(key, adoption):
                    self._note(key, adoption=adoption)
                case StacksKept(key, where):
                    self._note(key, stacks_kept=where)
                case StorageFailed(key, error):
                    log.error("%s attempt %d", *key, exc_info=error)
                    self._note(key, adoption_asked=False)
                    self._retry_at[key[0]] = self._time + BACK_OFF_S

    def _leftovers(self) -> list[AttemptKey]:
        """Return the attempts that are over and were still looked after a moment ago."""
        return [key for key in self._handled if key not in self._rows]

    def _own(self, operation_id: str) -> Operation | None:
        """Return an operation's row; None when it is deleted, or in other hands."""
        with contextlib.suppress(OperationNotFound):
            row = self._service.get(operation_id)
            return row if row.owner.id == self._owner.id else None
        return None

    def _pass_time(self) -> float:
        now = self._clock()
        passed_s = 0.0 if self._ticked_at is None else min(now - self._ticked_at, LONGEST_TICK_S)
        self._ticked_at = now
        self._time += passed_s
        return passed_s

    # Executing -----------------------------------------------------------------------------------

    def _launch(self, key: AttemptKey, _: Launch) -> None:
        row, owner_id = self._rows[key], self._owner.id
        key = row.operation_id, max(row.attempt, 1)
        name = self._drivers.choose(key)
        if row.status is Status.PENDING:
            self._service.start(row.operation_id, owner_id, name)
        elif row.phase is Phase.RESTARTING:
            self._service.launch(*key, owner_id, name)
        else:
            name = row.driver or name  # the answer that it was written was lost
        try:
            self._drivers.launch(key, name)
        except Exception as error:
            message = f"no driver could be started: {error}"
            self._service.lose(*key, FailureReason.LAUNCH_FAILED, message)
            return
        self._handled[key] = Handled(self._time, launched=True)
        self._liveness[key] = Liveness()
        self._room = (self._room or 0) - 1

    def _queue(self, key: AttemptKey, action: Queue) -> None:
        if self._rows[key].status is Status.PENDING:
            self._service.queue(key[0], self._owner.id, action.waiting_for)
        else:
            self._service.wait(*key, self._owner.id, action.waiting_for)

    def _stop(self, key: AttemptKey, action: Stop) -> None:
        self._drivers.stop(key, action.kind)
        self._note(key, stop_asked_at=self._time)

    def _give_up(self, key: AttemptKey, action: GiveUp) -> None:
        self._note(key, ending=action.lost, ending_since=self._time)

    def _keep_stacks(self, key: AttemptKey, action: KeepStacks) -> None:
        self._storage.keep_stacks(self._rows[key], action.stacks or self._drivers.outside(key))

    def _kill(self, key: AttemptKey, action: Kill) -> None:
        self._note(key, ending=action.ending, killed_at=self._time)
        self._drivers.kill(key)

    def _read_uncommitted(self, key: AttemptKey, action: ReadUncommitted) -> None:
        self._storage.read_uncommitted(self._rows[key])
        self._note(key, ending=action.ending, adoption_asked=True)

    def _end(self, key: AttemptKey, action: End) -> None:
        match action.ending:
            case Stopped() if self._rows[key].status is Status.PENDING:
                self._service.request_cancel(*key, f"shutdown of {key[0]}")
            case Stopped(kind):
                self._service.finish_stopped(*key, kind, action.adoption)
            case Lost(reason, message, on_start):
                self._service.lose(*key, reason, message, on_start, action.adoption)

    def _forget(self, key: AttemptKey, _: Forget) -> None:
        del self._handled[key]
        self._liveness.pop(key, None)

    def _note(self, key: AttemptKey, **changes: Any) -> Handled:
        self._handled[key] = replace(self._handled[key], **changes)
        return self._handled[key]

    def _sweep(self) -> None:
        """Let be swept what is over, unless a driver of it may still be writing."""
        if self._time < self._sweep_at:
            return
        self._sweep_at = self._time + SWEEP_EVERY_S
        written = {key[0] for key in self._leftovers()}
        found = self._service.sweepable(self._owner.id)
        self._storage.sweep(name for name in found if name not in written)

    def _check(self, operation: Operation) -> None:
        """Warn where row and events differ: they are written together, so a stranger wrote one."""
        name = operation.operation_id
        wrong = self._service.inconsistency(name)
        if wrong is None:
            return
        log.error("%s: %s", name, wrong)
        if operation.status is Status.RUNNING:
            with contextlib.suppress(Conflict):  # the row has moved on meanwhile
                warning = TrainingWarning("ROW_INCONSISTENT", f"row and events differ: {wrong}")
                self._service.warn(name, operation.attempt, warning)

    @contextlib.contextmanager
    def _isolated(self, operation_id: str) -> Iterator[None]:
        """Let no error with one operation reach the others; back off after an unforeseen one."""
        try:
            yield
        except (Conflict, OperationNotFound):
            pass  # the row has moved on: the next look sees where to
        except Exception:
            log.exception("looking after %s failed", operation_id)
            self._retry_at[operation_id] = self._time + BACK_OFF_S
