"""What a transition is made of, and the checks and row forms that several of them share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from ktrdr.errors import IllegalTransition, StaleAttempt
from ktrdr.operations.judgement import Key, Latest, progress_at
from ktrdr.operations.model import (
    Checkpoint,
    HistoryRow,
    NewCheckpoint,
    Operation,
    OwnerKind,
    Phase,
    Status,
)
from ktrdr.operations.table import Transition, rule_for

LEASE_S = 20.0

Held = Sequence[Checkpoint]
"""All checkpoint rows of the operation, as read in the same transaction."""


@dataclass(frozen=True)
class Effects:
    """What a transition writes beside the operation's row and its event."""

    request_id: str | None = None
    commit: tuple[NewCheckpoint, ...] = ()
    """New rows of the attempt before the transition."""
    doom: tuple[Key, ...] = ()
    flag: tuple[tuple[int, str], ...] = ()
    """(checkpoint id, why it is unusable)."""
    keep_epochs: int | None = None
    """History of later epochs is dropped, before `history` is written."""
    history: tuple[HistoryRow, ...] = ()
    complete_model: tuple[str, int, str] | None = None
    """(strategy name, version, weights digest)."""
    delete: bool = False
    """The row goes."""


@dataclass(frozen=True)
class Step:
    transition: Transition
    event: str | None
    before: Operation | None
    after: Operation
    """The row as it was, when the transition deletes it."""
    at: datetime
    details: dict[str, Any] = field(default_factory=dict)
    effects: Effects = Effects()
    recorded: bool = True
    """Whether an event row is written: reports come every second and mostly leave none."""


def make_step(
    transition: Transition,
    before: Operation | None,
    after: Operation,
    at: datetime,
    details: dict[str, Any],
    effects: Effects,
) -> Step:
    """Return the step when the table has it, else raise IllegalTransition."""
    rule = rule_for(transition, before.status if before is not None else None)
    if rule is None or (rule.after and after.status not in rule.after):
        seen = before.status if before is not None else "not there"
        raise IllegalTransition(
            f"{transition} is not possible: operation {after.operation_id} is {seen}"
        )
    recorded = rule.event is not None
    return Step(transition, rule.event, before, after, at, details, effects, recorded)


def check_running(operation: Operation, attempt: int) -> None:
    """Raise StaleAttempt or IllegalTransition unless `attempt` owns the operation now."""
    if operation.attempt != attempt:
        raise StaleAttempt(
            f"attempt {attempt} of operation {operation.operation_id} is over:"
            f" attempt {operation.attempt} owns it now"
        )
    if operation.status is not Status.RUNNING:
        raise IllegalTransition(
            f"attempt {attempt} of operation {operation.operation_id} is over:"
            f" the operation is {operation.status}"
        )


def lease_expired(operation: Operation, now: datetime) -> bool:
    lease = operation.lease_expires_at
    return not operation.status.terminal and lease is not None and lease <= now


def waits(operation: Operation, now: datetime) -> bool:
    """Say whether a restart is still held back."""
    return operation.launch_not_before is not None and now < operation.launch_not_before


def ownerless(operation: Operation, presumed_dead: str | None, now: datetime) -> bool:
    """Say whether nobody looks after a pending or running operation any more."""
    if operation.status.terminal:
        return False
    owner = operation.owner
    dead = owner.kind is OwnerKind.EMBEDDED and owner.id == presumed_dead
    return dead or lease_expired(operation, now)


def lease_from(now: datetime) -> datetime:
    return now + timedelta(seconds=LEASE_S)


def ended(operation: Operation, status: Status, now: datetime) -> Operation:
    return replace(
        operation,
        status=status,
        phase=None,
        lease_expires_at=None,
        completed_at=now,
        launch_not_before=None,
    )


def next_attempt(
    operation: Operation, latest: Latest | None, not_before: datetime | None = None
) -> Operation:
    """Return the row of a new attempt that is to begin at `latest`, or at the beginning."""
    return replace(
        operation,
        status=Status.RUNNING,
        phase=Phase.RESTARTING,
        attempt=operation.attempt + 1,
        report_sequence=0,
        progress=progress_at(latest, operation),
        seed_checkpoint_id=None,
        launch_not_before=not_before,
    )
