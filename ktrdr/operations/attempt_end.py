"""The transitions that end an attempt, and what follows: another one, or a final status.

A pending cancel beats any restart. Pure, like transitions.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from ktrdr.operations.restart_policy import decide_restart, latest_good_row, superseded
from ktrdr.operations.state_machine import Transition
from ktrdr.operations.transition_records import (
    Effects,
    Held,
    TransitionRecord,
    check_running,
    ended,
    next_attempt,
    transition_record,
)
from ktrdr.operations.types import (
    Adoption,
    Failure,
    FailureReason,
    Operation,
    Result,
    Status,
    StopKind,
)


@dataclass(frozen=True)
class AttemptEnd:
    """How an attempt ended without being asked to."""

    reason: FailureReason
    message: str
    adopt: Adoption = field(default_factory=Adoption)
    found_on_start: bool = False


def finish_completed(
    operation: Operation,
    attempt: int,
    result: Result,
    model: tuple[str, int],
    held: Held,
    now: datetime,
) -> TransitionRecord | None:
    if operation.attempt == attempt and operation.result == result:
        return None
    check_running(operation, attempt)
    after = replace(ended(operation, Status.COMPLETED, now), result=result)
    effects = Effects(
        doom=tuple(c.key for c in held if c.doomed_at is None),
        complete_model=(*model, result.weights_digest),
    )
    details = {"model": f"{model[0]}@v{model[1]}", "weights_digest": result.weights_digest}
    return transition_record(Transition.COMPLETE, operation, after, now, details, effects)


def finish_stopped(
    operation: Operation,
    attempt: int,
    kind: StopKind,
    adopt: Adoption,
    held: Held,
    now: datetime,
) -> TransitionRecord | None:
    if operation.attempt == attempt and operation.status is Status.CANCELLED:
        return None
    check_running(operation, attempt)
    effects = _adopting(attempt, adopt, held)
    details: dict[str, Any] = {"kind": kind, "ended_attempt": attempt}
    if kind is StopKind.DRAIN and operation.cancel_requested_at is None:
        latest = latest_good_row(attempt, effects.commit, held)
        after = next_attempt(operation, latest[1] if latest else None)
        effects = _kept_to(effects, latest[1].epoch if latest else 0)
        return transition_record(Transition.DRAIN, operation, after, now, details, effects)
    asked_at = operation.cancel_requested_at or now
    after = replace(ended(operation, Status.CANCELLED, now), cancel_requested_at=asked_at)
    transition = Transition.DRAIN if kind is StopKind.DRAIN else Transition.STOP
    return transition_record(transition, operation, after, now, details, effects)


def finish_failed(
    operation: Operation, attempt: int, end: AttemptEnd, held: Held, now: datetime
) -> TransitionRecord | None:
    already = operation.error is not None and operation.error.reason is end.reason
    if operation.attempt == attempt and operation.status is Status.FAILED and already:
        return None
    check_running(operation, attempt)
    return _judged(Transition.FAIL, operation, end, held, now)


def lose(
    operation: Operation, attempt: int, end: AttemptEnd, held: Held, now: datetime
) -> TransitionRecord:
    check_running(operation, attempt)
    return _judged(Transition.LOSE, operation, end, held, now)


def lose_owner(operation: Operation, now: datetime) -> TransitionRecord:
    """End a row whose owner is gone; `ownerless` says whether it is."""
    details = {"owner": operation.owner.id, "ended_attempt": operation.attempt}
    if operation.cancel_requested_at is not None:
        after = ended(operation, Status.CANCELLED, now)
        return transition_record(Transition.LOSE_OWNER, operation, after, now, details, Effects())
    error = _failure(
        FailureReason.OWNER_LOST,
        "its owner is gone: resume it to continue from its checkpoint",
    )
    after = replace(ended(operation, Status.FAILED, now), error=error)
    return transition_record(Transition.LOSE_OWNER, operation, after, now, details, Effects())


def _judged(
    transition: Transition, operation: Operation, end: AttemptEnd, held: Held, now: datetime
) -> TransitionRecord:
    effects = _adopting(operation.attempt, end.adopt, held)
    details: dict[str, Any] = {
        "reason": end.reason,
        "message": end.message,
        "ended_attempt": operation.attempt,
    }
    if operation.cancel_requested_at is not None:
        after = ended(operation, Status.CANCELLED, now)
        return transition_record(transition, operation, after, now, details, effects)
    latest = latest_good_row(operation.attempt, effects.commit, held)
    verdict = decide_restart(
        operation, end.reason, latest[0] if latest else None, end.found_on_start
    )
    counted = replace(
        operation,
        restarts=verdict.restarts,
        memory_restarts=verdict.memory_restarts,
        last_failure=verdict.last_failure,
    )
    if verdict.repeat:
        not_before = now + verdict.back_off if verdict.back_off else None
        after = next_attempt(counted, latest[1] if latest else None, not_before)
        effects = _kept_to(effects, latest[1].epoch if latest else 0)
        details["back_off_s"] = verdict.back_off.total_seconds()
        return transition_record(transition, operation, after, now, details, effects)
    message = end.message
    if end.reason.retryable:
        message = f"{message} (not restarted: {verdict.refusal})"
    error = _failure(end.reason, message)
    after = replace(ended(counted, Status.FAILED, now), error=error)
    details["refusal"] = verdict.refusal
    return transition_record(transition, operation, after, now, details, effects)


def _adopting(attempt: int, adopt: Adoption, held: Held) -> Effects:
    # An older number than a row's was committed once: doomed, forgotten, and perhaps gone since.
    last = max((c.number for c in held if c.attempt == attempt), default=0)
    new = tuple(c for c in adopt.checkpoints if c.number > last)
    doomed = superseded(attempt, new, held) if new else set()
    return Effects(commit=new, doom=tuple(sorted(doomed)), history=adopt.history)


def _kept_to(effects: Effects, epoch: int) -> Effects:
    """Let the next attempt begin with the history of its checkpoint and nothing later."""
    history = tuple(row for row in effects.history if row.epoch <= epoch)
    return replace(effects, history=history, keep_epochs=epoch)


def _failure(reason: FailureReason, message: str) -> Failure:
    return Failure(reason.upper(), reason, message)
