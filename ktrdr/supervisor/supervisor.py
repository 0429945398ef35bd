"""What an owner does for its operations: start, stop, watch, restart. No Ray in here.

The caretaker reads its rows a few times a second and makes the drivers agree with them; every
decision is a guarded write of the service, so a stale look at a row does no harm. It never waits
for a driver: whatever takes time is looked at again by the next tick.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ktrdr.checkpoints.adoption import keep_stacks, uncommitted
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
    StopKind,
    TrainingWarning,
)
from ktrdr.supervisor.drivers import Fleet
from ktrdr.supervisor.liveness import Liveness, LivenessLimits
from ktrdr.supervisor.sweeper import Sweeper

RENEW_EVERY_S = 5.0


GRACE_S = 30.0


WAIT_S = 1.0
"""From when on a driver without a place is said to wait for one."""


STACKS_S = 3.0
"""How long a hung driver may take to say what it is doing."""


KILL_S = 10.0
"""How long a killed process may take to be gone."""


TROUBLE_S = 1.0
"""How long an operation is left alone after something unforeseen."""


LOOK_S = 1.0
"""A pause between two ticks counts as no longer: the machine, or this process, was asleep."""


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Ending:
    """A driver that is being given up: why, and until when the present step may take."""

    reason: FailureReason
    message: str
    until: float
    killed: bool = True


@dataclass
class _Watched:
    signs: Liveness = field(default_factory=Liveness)
    told_to_stop: bool = False
    deadline: float | None = None
    """When it is killed, unless it has stopped or left by itself."""
    ending: _Ending | None = None


class Caretaker:
    """Looks after everything that one owner owns."""

    def __init__(
        self,
        service: OperationsService,
        owner: Owner,
        fleet: Fleet,
        patience: LivenessLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service = service
        self._owner = owner
        self._fleet = fleet
        self._patience = patience or LivenessLimits()
        self._clock = clock
        self._ticked_at: float | None = None
        self._time = 0.0
        """Seconds that this caretaker was awake: deadlines of drivers are set by it."""
        self._watched: dict[AttemptKey, _Watched] = {}
        self._troubled: dict[str, float] = {}
        """Operation id -> not before."""
        self._sweeper = Sweeper(service, clock)
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
            self._check(operation)
            if key in alive:
                self._watched[key] = _Watched()
            elif operation.status is Status.RUNNING and operation.phase is not Phase.RESTARTING:
                self._lose(operation, FailureReason.DRIVER_LOST, "its driver was gone", True)
        for operation_id in self._service.sweepable(self._owner.id):
            self._sweeper.later(operation_id)

    def tick(self) -> None:
        """One look at everything; called a few times a second, from one thread."""
        self._renew()
        owned = self._owned()
        passed_s = self._pass_time()
        for operation in owned:
            with self._spared(operation.operation_id) as untroubled:
                if untroubled:
                    self._look_after(operation, passed_s)
        for key in self._watched.keys() - {(op.operation_id, op.attempt) for op in owned}:
            with self._spared(key[0]):
                self._forget(key)
        self._sweeper.sweep_next()

    def shut_down(self) -> None:
        """Ask every driver for a last checkpoint, and start no other."""
        self._shutting_down = True

    def _look_after(self, operation: Operation, passed_s: float) -> None:
        if operation.status is Status.PENDING and not self._shutting_down:
            operation = self._service.start(operation.operation_id, self._owner.id)
        key = _key(operation)
        watched = self._watched.get(key)
        if watched is None:
            self._begin(operation)
            return
        why = self._fleet.ended(key)
        if why is not None:
            lost = _Ending(FailureReason.DRIVER_LOST, f"the driver is gone: {why}", self._time)
            watched.ending = watched.ending or lost
            self._end(operation, watched.ending)
            return
        watched.signs.look(self._fleet.pulse(key), passed_s)
        if watched.ending is not None:
            self._go_on_ending(operation, watched, watched.ending)
        else:
            self._judge(operation, watched)

    def _begin(self, operation: Operation) -> None:
        """Give an attempt its driver, unless it is not wanted, or not yet."""
        key = _key(operation)
        if self._unwanted(operation):
            return
        for other in [k for k in self._watched if k[0] == operation.operation_id]:
            self._fleet.kill(other)
        if waits(operation, self._service.now()):
            return
        if operation.phase is Phase.RESTARTING:
            self._service.launch(operation.operation_id, operation.attempt, self._owner.id)
        self._watched[key] = _Watched()
        try:
            self._fleet.launch(key)
        except Exception as error:
            message = f"no driver could be started: {error}"
            self._lose(operation, FailureReason.LAUNCH_FAILED, message)

    def _unwanted(self, operation: Operation) -> bool:
        """End what is to end before it has a driver; whether that was so."""
        name, attempt = operation.operation_id, operation.attempt
        if operation.cancel_requested_at is not None:
            self._service.finish_stopped(name, attempt, StopKind.USER)
        elif not self._shutting_down:
            return False
        elif operation.status is Status.PENDING:
            self._service.request_cancel(name, attempt, secrets.token_hex(16))
        else:
            self._service.finish_stopped(name, attempt, StopKind.SHUTDOWN)
        return True

    def _judge(self, operation: Operation, watched: _Watched) -> None:
        """Let a living driver go on, or begin to end it."""
        if operation.kill_requested_at is not None:
            self._kill(operation, watched, FailureReason.DRIVER_LOST, "killed on request")
        elif operation.cancel_requested_at is not None or self._shutting_down:
            self._stop(operation, watched)
        else:
            self._tell_waiting(operation, watched)
            trouble = watched.signs.trouble(self._patience)
            if trouble is not None:
                until = self._time + STACKS_S
                watched.ending = _Ending(FailureReason.HUNG, trouble, until, killed=False)

    def _stop(self, operation: Operation, watched: _Watched) -> None:
        """Ask for a last checkpoint; kill what has no place to write one, or takes too long."""
        key = _key(operation)
        begun = watched.signs.last is not None or operation.report_sequence > 0
        if not begun and self._fleet.waiting(key):
            self._kill(operation, watched, FailureReason.DRIVER_LOST, "stopped before it began")
        elif not watched.told_to_stop:
            user = operation.cancel_requested_at is not None
            self._fleet.stop(key, StopKind.USER if user else StopKind.SHUTDOWN)
            watched.told_to_stop, watched.deadline = True, self._time + GRACE_S
        elif watched.deadline is not None and self._time > watched.deadline:
            message = f"did not stop within {GRACE_S:.0f} s and was killed"
            self._kill(operation, watched, FailureReason.DRIVER_LOST, message)

    def _tell_waiting(self, operation: Operation, watched: _Watched) -> None:
        """A driver that has no place yet is not slow, and not hung."""
        signs = watched.signs
        unplaced = operation.phase in (Phase.STARTING, Phase.WAITING_FOR_RESOURCES)
        if not unplaced or signs.last is not None or signs.silent_s < WAIT_S:
            return
        if not self._fleet.waiting(_key(operation)):
            return
        signs.excuse()
        if operation.phase is Phase.STARTING:
            self._service.wait(
                operation.operation_id, operation.attempt, self._owner.id, "1 free CPU"
            )

    def _kill(
        self, operation: Operation, watched: _Watched, reason: FailureReason, message: str
    ) -> None:
        """Once it is gone nothing is written any more that could be adopted."""
        key = _key(operation)
        watched.ending = _Ending(reason, message, self._time + KILL_S)
        self._fleet.kill(key)
        if self._fleet.ended(key) is not None:
            self._end(operation, watched.ending)

    def _go_on_ending(self, operation: Operation, watched: _Watched, ending: _Ending) -> None:
        late = self._time > ending.until
        if ending.killed:
            if late:
                self._end(operation, ending)
            return
        key = _key(operation)
        stacks = self._fleet.stacks(key)
        if stacks is None and not late:
            return
        kept = keep_stacks(operation, stacks or self._fleet.outside(key))
        self._kill(operation, watched, ending.reason, f"{ending.message}; {kept}")

    def _end(self, operation: Operation, ending: _Ending) -> None:
        """Say what became of a driver that is gone."""
        if self._shutting_down and operation.cancel_requested_at is None:
            name, attempt = operation.operation_id, operation.attempt
            adopt = uncommitted(self._service, operation)
            self._service.finish_stopped(name, attempt, StopKind.SHUTDOWN, adopt)
        else:
            self._lose(operation, ending.reason, ending.message)

    def _lose(
        self, operation: Operation, reason: FailureReason, message: str, on_start: bool = False
    ) -> None:
        name, attempt = operation.operation_id, operation.attempt
        try:
            adopt = uncommitted(self._service, operation)
            self._service.lose(name, attempt, reason, message, on_start, adopt)
        except (Conflict, OperationNotFound) as error:
            log.info("%s attempt %d: %s", name, attempt, error)

    def _forget(self, key: AttemptKey) -> None:
        """A driver whose attempt is over exits by itself; one that does not is killed.

        At once when the row is in other hands: it may have been frozen, and know nothing of that.
        """
        watched = self._watched[key]
        if self._fleet.ended(key) is not None:
            del self._watched[key]
            self._sweeper.later(key[0])
        elif self._taken_over(key):
            self._fleet.kill(key)
        elif watched.deadline is None:
            watched.deadline = self._time + GRACE_S
        elif self._time > watched.deadline:
            self._fleet.kill(key)

    def _taken_over(self, key: AttemptKey) -> bool:
        try:
            return self._service.get(key[0]).owner.id != self._owner.id
        except OperationNotFound:
            return True

    def _check(self, operation: Operation) -> None:
        """Row and events are written together: where they differ somebody else wrote one."""
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
    def _spared(self, operation_id: str) -> Iterator[bool]:
        """Let no trouble with one operation reach the others; whether it is out of trouble."""
        try:
            yield self._troubled.get(operation_id, 0.0) <= self._time
        except (Conflict, OperationNotFound):
            pass  # the row has moved on: the next look sees where to
        except Exception:
            log.exception("looking after %s failed", operation_id)
            self._troubled[operation_id] = self._time + TROUBLE_S

    def _pass_time(self) -> float:
        now = self._clock()
        passed_s = 0.0 if self._ticked_at is None else min(now - self._ticked_at, LOOK_S)
        self._ticked_at = now
        self._time += passed_s
        return passed_s

    def _renew(self) -> None:
        now = self._clock()
        if self._renewed_at is None or now - self._renewed_at >= RENEW_EVERY_S:
            self._service.renew(self._owner.id)
            self._renewed_at = now

    def _owned(self) -> tuple[Operation, ...]:
        return self._service.owned(self._owner.id)


def _key(operation: Operation) -> AttemptKey:
    return operation.operation_id, operation.attempt
