"""What is done next for an operation, decided from its row and what was seen of its driver.

Pure: frozen values in, frozen actions out. The times are those of the supervisor's clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ktrdr.operations.types import Adoption, FailureReason, Operation, Phase, StopKind
from ktrdr.supervisor.drivers import Lost

GRACE_S = 30.0
"""How long a driver may take to stop when it was asked to, or to leave when its attempt is over."""

QUEUED_S = 1.0
"""From when on what has no place is said to wait for one."""

STACKS_S = 3.0
"""How long a hung driver may take to say what it is doing."""

KILL_S = 10.0
"""How long a killed process may take to be gone."""

ONE_CPU = "1 free CPU"
NOTHING_TO_ADOPT = Adoption()


@dataclass(frozen=True)
class Stopped:
    """The attempt ends because that was asked for."""

    kind: StopKind


Ending = Stopped | Lost


@dataclass(frozen=True)
class Handled:
    """What has been done about an attempt, and what came of it; None: not yet."""

    since: float
    launched: bool = False
    stop_asked_at: float | None = None
    ending: Ending | None = None
    """Why its driver was given up."""
    ending_since: float = 0.0
    stacks_kept: str | None = None
    """Where its stacks are, in words."""
    killed_at: float | None = None
    lost: Lost | None = None
    """Its driver is gone."""
    adoption_asked: bool = False
    adoption: Adoption | None = None
    """What it left on storage without a row."""
    over_since: float | None = None
    """The row has moved on from this attempt."""

    @property
    def stacks_asked(self) -> bool:
        """Whether its driver is hung and was not killed yet."""
        return isinstance(self.ending, Lost) and self.killed_at is None


@dataclass(frozen=True)
class Seen:
    """An attempt and its driver as they are now."""

    handled: Handled
    room: bool = False
    """The cluster can place a driver for it, after those that were submitted earlier."""
    held_back: bool = False
    """It failed a moment ago and is not to be launched yet."""
    begun: bool = False
    """Its driver has answered."""
    unplaced: bool = False
    hung: str | None = None
    """Why it counts as hung."""
    stacks: str | None = None
    shutting_down: bool = False


@dataclass(frozen=True)
class Launch:
    """Begin the attempt, and start its driver."""


@dataclass(frozen=True)
class Queue:
    """Say what the attempt waits for before its driver runs."""

    waiting_for: str


@dataclass(frozen=True)
class Stop:
    """Ask the driver for a last checkpoint."""

    kind: StopKind


@dataclass(frozen=True)
class AskStacks:
    """Ask a hung driver what its threads do, before it is killed."""

    lost: Lost


@dataclass(frozen=True)
class KeepStacks:
    """Write the stacks to storage; None: what can be said of it from outside."""

    stacks: str | None


@dataclass(frozen=True)
class Kill:
    """End the driver's process; `ending` says what the attempt then ends with."""

    ending: Ending | None


@dataclass(frozen=True)
class ReadUncommitted:
    """Read what a driver that is gone left on storage."""

    ending: Ending


@dataclass(frozen=True)
class End:
    """Write the end of the attempt."""

    ending: Ending
    adoption: Adoption = NOTHING_TO_ADOPT


@dataclass(frozen=True)
class Forget:
    """Nothing of the attempt is left to look after."""


Action = Launch | Queue | Stop | AskStacks | KeepStacks | Kill | ReadUncommitted | End | Forget


def decide(row: Operation, seen: Seen, now: float) -> tuple[Action, ...]:
    """Return what is to be done next for a pending or running operation."""
    handled = seen.handled
    if not handled.launched:
        return _before_its_driver(row, seen, now)
    if handled.lost is not None or _outlives_its_kill(handled, now):
        return _after_its_driver(row, seen)
    if handled.killed_at is not None:
        return ()
    if isinstance(handled.ending, Lost):  # hung
        return _before_its_kill(handled.ending, seen, now)
    return _while_it_lives(row, seen, now)


def decide_leftover(
    row: Operation | None, attempt: int, handled: Handled, now: float
) -> tuple[Action, ...]:
    """Return what is to be done about an attempt that is over.

    Its driver leaves by itself, and is killed when it does not: at once when the operation goes on
    without it. `row` is the operation, None when it is not this owner's any more.
    """
    if not handled.launched or handled.lost is not None:
        return (Forget(),)
    goes_on = row is None or (row.attempt > attempt and not row.status.terminal)
    over_since = handled.over_since if handled.over_since is not None else now
    if not goes_on and now - over_since <= GRACE_S:
        return ()
    if handled.killed_at is not None and not _outlives_its_kill(handled, now):
        return ()
    return (Kill(handled.ending),)


def _before_its_driver(row: Operation, seen: Seen, now: float) -> tuple[Action, ...]:
    if row.cancel_requested_at is not None:
        return (End(Stopped(StopKind.USER)),)
    if seen.shutting_down:
        return (End(Stopped(StopKind.SHUTDOWN)),)
    if seen.held_back:
        return ()
    if seen.room:
        return (Launch(),)
    waited = now - seen.handled.since >= QUEUED_S
    return (Queue(ONE_CPU),) if waited and row.waiting_for != ONE_CPU else ()


def _while_it_lives(row: Operation, seen: Seen, now: float) -> tuple[Action, ...]:
    if row.kill_requested_at is not None:
        return (Kill(Lost(FailureReason.DRIVER_LOST, "killed on request")),)
    if row.cancel_requested_at is not None or seen.shutting_down:
        return _stop(row, seen, now)
    if seen.unplaced:
        return (Queue(ONE_CPU),) if row.phase is Phase.STARTING else ()
    if seen.hung is not None:
        return (AskStacks(Lost(FailureReason.HUNG, seen.hung)),)
    return ()


def _stop(row: Operation, seen: Seen, now: float) -> tuple[Action, ...]:
    """Ask for a last checkpoint; kill what has no place to write one, or takes too long."""
    user = row.cancel_requested_at is not None
    kind = StopKind.USER if user else StopKind.SHUTDOWN
    if seen.unplaced and not seen.begun:
        return (Kill(Stopped(kind)),)
    if seen.handled.stop_asked_at is None:
        return (Stop(kind),)
    if now - seen.handled.stop_asked_at <= GRACE_S:
        return ()
    message = f"did not stop within {GRACE_S:.0f} s and was killed"
    return (Kill(Lost(FailureReason.DRIVER_LOST, message)),)


def _before_its_kill(ending: Lost, seen: Seen, now: float) -> tuple[Action, ...]:
    late = now - seen.handled.ending_since > STACKS_S
    if seen.stacks is None and not late:
        return ()
    return KeepStacks(seen.stacks), Kill(ending)


def _after_its_driver(row: Operation, seen: Seen) -> tuple[Action, ...]:
    """End the attempt with what its driver left: once it is gone nothing is written any more."""
    handled = seen.handled
    ending = handled.ending or handled.lost
    assert ending is not None  # it was killed for a reason, or is lost
    if handled.adoption is None:
        return () if handled.adoption_asked else (ReadUncommitted(ending),)
    if seen.shutting_down and row.cancel_requested_at is None:
        ending = Stopped(StopKind.SHUTDOWN)
    if isinstance(ending, Lost) and handled.stacks_kept is not None:
        ending = replace(ending, message=f"{ending.message}; {handled.stacks_kept}")
    return (End(ending, handled.adoption),)


def _outlives_its_kill(handled: Handled, now: float) -> bool:
    return handled.killed_at is not None and now - handled.killed_at > KILL_S
