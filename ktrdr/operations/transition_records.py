"""What a transition is made of, and the checks and row forms that several of them share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from ktrdr.errors import IllegalTransition, StaleAttempt
from ktrdr.operations.restart_policy import CheckpointKey, Latest, progress_at
from ktrdr.operations.state_machine import Transition, rule_for
from ktrdr.operations.types import (
    Checkpoint,
    HistoryRow,
    NewCheckpoint,
    Operation,
    Phase,
    Status,
)

Held = Sequence[Checkpoint]
"""All checkpoint rows of the operation, as read in the same transaction."""


@dataclass(frozen=True)
class Effects:
    """What a transition writes beside the operation's row and its event."""

    request_id: str | None = None
    commit: tuple[NewCheckpoint, ...] = ()
    """New rows of the attempt before the transition."""
    doom: tuple[CheckpointKey, ...] = ()
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
class TransitionRecord:
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


def transition_record(
    transition: Transition,
    before: Operation | None,
    after: Operation,
    at: datetime,
    details: dict[str, Any],
    effects: Effects,
) -> TransitionRecord:
    """Return the record when the table has the transition, else raise IllegalTransition."""
    rule = rule_for(transition, before.status if before is not None else None)
    if rule is None or (rule.after and after.status not in rule.after):
        seen = before.status if before is not None else "not there"
        raise IllegalTransition(
            f"{transition} is not possible: operation {after.operation_id} is {seen}"
        )
    recorded = rule.event is not None
    return TransitionRecord(transition, rule.event, before, after, at, details, effects, recorded)


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


def waits(operation: Operation, now: datetime) -> bool:
    """Say whether a restart is still held back."""
    return operation.launch_not_before is not None and now < operation.launch_not_before


def ended(operation: Operation, status: Status, now: datetime) -> Operation:
    return replace(
        operation,
        status=status,
        phase=None,
        lease_expires_at=None,
        completed_at=now,
        launch_not_before=None,
        waiting_for=None,
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
        waiting_for=None,
        driver=None,
    )
