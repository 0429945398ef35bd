"""The transitions that begin or continue an attempt; attempt_end.py has those that end one.

Each is a pure function: the row before, what is asked, the time -> a TransitionRecord, or None
when it was done before and nothing is left to write.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from ktrdr.errors import (
    CheckpointNotFound,
    IllegalTransition,
    OperationNotCancellable,
    OperationNotResumable,
    OperationRunning,
    StaleAttempt,
)
from ktrdr.operations.lease import lease_from
from ktrdr.operations.restart_policy import CheckpointKey, superseded
from ktrdr.operations.state_machine import Transition
from ktrdr.operations.transition_records import (
    Effects,
    Held,
    TransitionRecord,
    check_running,
    ended,
    next_attempt,
    transition_record,
    waits,
)
from ktrdr.operations.types import (
    Checkpoint,
    NewCheckpoint,
    Operation,
    Owner,
    Phase,
    Plan,
    Report,
    Request,
    Restored,
    ResumedFrom,
    Resumption,
    Status,
    TrainingWarning,
    timestamp,
)

_BEFORE_ITS_DRIVER = (Phase.STARTING, Phase.RESTARTING, Phase.WAITING_FOR_RESOURCES)


def submit(
    operation_id: str, request: Request, plan: Plan, owner: Owner, request_id: str, now: datetime
) -> TransitionRecord:
    after = Operation(
        operation_id=operation_id,
        status=Status.PENDING,
        phase=None,
        attempt=0,
        owner=owner,
        lease_expires_at=lease_from(now),
        request=request,
        plan=plan,
        created_at=now,
    )
    return transition_record(
        Transition.SUBMIT, None, after, now, {}, Effects(request_id=request_id)
    )


def start(
    operation: Operation, owner_id: str, now: datetime, driver: str | None = None
) -> TransitionRecord:
    _check_owner(operation, owner_id)
    after = replace(
        operation,
        status=Status.RUNNING,
        phase=Phase.STARTING,
        attempt=1,
        started_at=now,
        waiting_for=None,
        driver=driver,
    )
    return transition_record(Transition.START, operation, after, now, {}, Effects())


def queue(
    operation: Operation, owner_id: str, waiting_for: str, now: datetime
) -> TransitionRecord | None:
    _check_owner(operation, owner_id)
    if operation.waiting_for == waiting_for and operation.status is Status.PENDING:
        return None
    after = replace(operation, waiting_for=waiting_for)
    details = {"waiting_for": waiting_for}
    return transition_record(Transition.QUEUE, operation, after, now, details, Effects())


def launch(
    operation: Operation, attempt: int, owner_id: str, now: datetime, driver: str | None = None
) -> TransitionRecord:
    _check_owner(operation, owner_id)
    check_running(operation, attempt)
    if operation.phase is not Phase.RESTARTING:
        raise IllegalTransition(
            f"attempt {attempt} of operation {operation.operation_id} is {operation.phase}:"
            " it was launched or cancelled meanwhile"
        )
    if waits(operation, now):
        raise IllegalTransition(
            f"attempt {attempt} of operation {operation.operation_id} is not to be launched yet:"
            " it failed a moment ago"
        )
    after = replace(
        operation,
        phase=Phase.STARTING,
        launch_not_before=None,
        waiting_for=None,
        driver=driver,
    )
    return transition_record(Transition.LAUNCH, operation, after, now, {}, Effects())


def wait(
    operation: Operation, attempt: int, owner_id: str, waiting_for: str, now: datetime
) -> TransitionRecord | None:
    _check_owner(operation, owner_id)
    check_running(operation, attempt)
    if operation.phase not in _BEFORE_ITS_DRIVER:
        raise IllegalTransition(
            f"attempt {attempt} of operation {operation.operation_id} is {operation.phase}:"
            " it waits for nothing"
        )
    # The phase `restarting` stays: by it a restarted owner knows that there is no driver yet.
    restarting = operation.phase is Phase.RESTARTING
    phase = Phase.RESTARTING if restarting else Phase.WAITING_FOR_RESOURCES
    if (operation.phase, operation.waiting_for) == (phase, waiting_for):
        return None
    after = replace(operation, phase=phase, waiting_for=waiting_for)
    details = {"phase": phase, "waiting_for": waiting_for}
    return transition_record(Transition.WAIT, operation, after, now, details, Effects())


def report(
    operation: Operation, attempt: int, report: Report, held: Held, now: datetime
) -> TransitionRecord | None:
    check_running(operation, attempt)
    if report.sequence <= operation.report_sequence:
        return None
    phase = report.phase or operation.phase
    # A cancel stays visible until it is confirmed, whatever the driver was doing when it came.
    phase = Phase.STOPPING if operation.cancel_requested_at else phase
    after = replace(
        operation,
        phase=phase,
        progress=report.progress or operation.progress,
        report_sequence=report.sequence,
        waiting_for=None,
    )
    effects = Effects(history=report.history)
    details: dict[str, Any] = {"phase": phase}
    restored = report.restored
    if restored is not None:
        found = _resume_checkpoint(operation, restored, held)
        after = replace(
            after,
            seed_checkpoint_id=found.id if found else None,
            resumed_from=restored.resumed_from,
        )
        effects = replace(
            effects, flag=restored.passed_over, keep_epochs=found.epoch if found else 0
        )
        details |= _resume_details(found, restored.resumed_from, restored.passed_over, held)
    step = transition_record(Transition.REPORT, operation, after, now, details, effects)
    recorded = phase is not operation.phase or report.restored is not None
    return replace(step, recorded=recorded)


def warn(
    operation: Operation, attempt: int, warning: TrainingWarning, now: datetime
) -> TransitionRecord:
    check_running(operation, attempt)
    known = {held.code: held for held in operation.warnings}
    before = known.get(warning.code)
    count = warning.count + (before.count if before is not None else 0)
    known[warning.code] = replace(warning, count=count)
    after = replace(operation, warnings=tuple(known.values()))
    return transition_record(Transition.WARN, operation, after, now, asdict(warning), Effects())


def commit_checkpoint(
    operation: Operation, attempt: int, new: NewCheckpoint, held: Held, now: datetime
) -> TransitionRecord | None:
    check_running(operation, attempt)
    # An older number is a repeat too: its row may have been doomed and forgotten since.
    if any(c.attempt == attempt and c.number >= new.number for c in held):
        return None
    effects = _committing(attempt, new, held)
    details = {
        "number": new.number,
        "checkpoint_type": new.checkpoint_type,
        "epoch": new.epoch,
        "batch": new.batch,
        "doomed": [list(key) for key in effects.doom],
    }
    return transition_record(
        Transition.COMMIT_CHECKPOINT, operation, operation, now, details, effects
    )


def request_cancel(
    operation: Operation, attempt: int, request_id: str, now: datetime
) -> TransitionRecord | None:
    _check_cancellable(operation, attempt)
    if operation.status is Status.CANCELLED or operation.cancel_requested_at is not None:
        return None
    after = replace(operation, cancel_requested_at=now, phase=Phase.STOPPING)
    return _stop_requested(Transition.REQUEST_CANCEL, operation, after, request_id, now)


def request_kill(
    operation: Operation, attempt: int, request_id: str, now: datetime
) -> TransitionRecord | None:
    _check_cancellable(operation, attempt)
    if operation.status is Status.CANCELLED or operation.kill_requested_at is not None:
        return None
    asked_at = operation.cancel_requested_at or now
    after = replace(
        operation, cancel_requested_at=asked_at, kill_requested_at=now, phase=Phase.STOPPING
    )
    return _stop_requested(Transition.REQUEST_KILL, operation, after, request_id, now)


def try_resume(
    operation: Operation, attempt: int, resumption: Resumption, held: Held, now: datetime
) -> TransitionRecord:
    check_resumable(operation, attempt)
    chosen = _chosen(operation, resumption.checkpoint_id, held)
    asked = replace(operation, request=resumption.request or operation.request)
    after = replace(
        next_attempt(asked, chosen),
        status=Status.RUNNING,
        owner=resumption.owner,
        lease_expires_at=lease_from(now),
        plan=resumption.plan,
        completed_at=None,
        cancel_requested_at=None,
        kill_requested_at=None,
        error=None,
        seed_checkpoint_id=chosen.id,
        resumed_from=resumption.resumed_from,
        resumed_attempt=operation.attempt + 1,
        restarts=0,
        memory_restarts=0,
        last_failure=None,
    )
    effects = Effects(
        request_id=resumption.request_id, flag=resumption.passed_over, keep_epochs=chosen.epoch
    )
    details = _resume_details(chosen, resumption.resumed_from, resumption.passed_over, held)
    details |= {
        "restored": resumption.restored,
        "lost": _lost(operation, chosen),
        "owner": resumption.owner.id,
        "before": _overwritten(operation),
    }
    return transition_record(Transition.TRY_RESUME, operation, after, now, details, effects)


def delete_checkpoints(operation: Operation, held: Held, now: datetime) -> TransitionRecord | None:
    _check_ended(operation)
    standing = _standing(held)
    if not standing:
        return None
    details = {"doomed": [list(key) for key in standing]}
    effects = Effects(doom=standing)
    return transition_record(
        Transition.DELETE_CHECKPOINTS, operation, operation, now, details, effects
    )


def delete(operation: Operation, held: Held, now: datetime) -> TransitionRecord:
    _check_ended(operation)
    effects = Effects(doom=_standing(held), delete=True)
    return transition_record(Transition.DELETE, operation, operation, now, {}, effects)


def check_resumable(operation: Operation, attempt: int) -> None:
    """Raise OperationNotResumable unless it ended cancelled or failed with this attempt."""
    status, name = operation.status, operation.operation_id
    if status not in (Status.CANCELLED, Status.FAILED):
        advice = (
            f"its model is in the store, see `ktrdr operations status {name}`"
            if status is Status.COMPLETED
            else f"cancel it first with `ktrdr operations cancel {name}`"
        )
        raise OperationNotResumable(
            f"operation {name} is {status} and cannot be resumed: {advice}", status=status.value
        )
    if operation.attempt != attempt:
        raise OperationNotResumable(
            f"operation {name} was resumed meanwhile and is {status} again after attempt"
            f" {operation.attempt}: look at it and resume it again",
            status=status.value,
        )


def _check_cancellable(operation: Operation, attempt: int) -> None:
    if operation.status in (Status.COMPLETED, Status.FAILED):
        raise OperationNotCancellable(
            f"operation {operation.operation_id} is {operation.status} and cannot be cancelled:"
            f" see `ktrdr operations status {operation.operation_id}`",
            status=operation.status.value,
        )
    overtaken = not operation.resumed_attempt <= attempt <= operation.attempt
    if overtaken and not operation.status.terminal:
        raise StaleAttempt(
            f"operation {operation.operation_id} was resumed meanwhile and is in attempt"
            f" {operation.attempt}: cancel it again to stop that one"
        )


def _stop_requested(
    transition: Transition, operation: Operation, after: Operation, request_id: str, now: datetime
) -> TransitionRecord:
    """Of a pending operation this is the end already."""
    if operation.status is Status.PENDING:
        after = ended(after, Status.CANCELLED, now)
    effects = Effects(request_id=request_id)
    return transition_record(transition, operation, after, now, {}, effects)


def _check_ended(operation: Operation) -> None:
    name = operation.operation_id
    if not operation.status.terminal:
        raise OperationRunning(
            f"operation {name} is {operation.status}: cancel it first with"
            f" `ktrdr operations cancel {name}`",
            status=operation.status.value,
        )


def _standing(held: Held) -> tuple[CheckpointKey, ...]:
    return tuple(c.key for c in held if c.doomed_at is None)


def _check_owner(operation: Operation, owner_id: str) -> None:
    if operation.owner.id != owner_id:
        raise StaleAttempt(f"operation {operation.operation_id} belongs to another owner")


def _committing(attempt: int, new: NewCheckpoint, held: Held) -> Effects:
    doomed = superseded(attempt, (new,), held)
    return Effects(commit=(new,), doom=tuple(sorted(doomed)))


def _chosen(operation: Operation, checkpoint_id: int, held: Held) -> Checkpoint:
    for checkpoint in held:
        if checkpoint.id == checkpoint_id and checkpoint.doomed_at is None:
            return checkpoint
    raise CheckpointNotFound(
        f"checkpoint {checkpoint_id} of operation {operation.operation_id} is gone:"
        " choose its latest one again"
    )


def _resume_checkpoint(operation: Operation, restored: Restored, held: Held) -> Checkpoint | None:
    if restored.checkpoint_id is None:
        return None
    return _chosen(operation, restored.checkpoint_id, held)


def _resume_details(
    begins_at: Checkpoint | None,
    resumed_from: ResumedFrom | None,
    passed_over: tuple[tuple[int, str], ...],
    held: Held,
) -> dict[str, Any]:
    known = {checkpoint.id: _named(checkpoint) for checkpoint in held}
    return {
        "checkpoint": _named(begins_at) if begins_at is not None else None,
        "exact": resumed_from.exact if resumed_from is not None else None,
        "differences": list(resumed_from.differences) if resumed_from is not None else [],
        "passed_over": [{"id": id_, **known.get(id_, {}), "why": why} for id_, why in passed_over],
    }


def _named(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "id": checkpoint.id,
        "attempt": checkpoint.attempt,
        "number": checkpoint.number,
        "checkpoint_type": checkpoint.checkpoint_type,
        "epoch": checkpoint.epoch,
        "batch": checkpoint.batch,
    }


def _lost(operation: Operation, chosen: Checkpoint) -> dict[str, Any]:
    """Return what was done after the checkpoint, as far as it was reported; None is unknown."""
    last = operation.progress
    if last is None:
        return {"batches": None, "epochs": None, "reported": None}
    batches = None
    if last.batches is not None:
        done = last.epoch * last.batches + last.batch
        batches = max(0, done - chosen.epoch * last.batches - chosen.batch)
    return {
        "batches": batches,
        "epochs": max(0, last.epoch - chosen.epoch),
        "reported": {"epoch": last.epoch, "batch": last.batch},
    }


def _overwritten(operation: Operation) -> dict[str, Any]:
    """Return what a resume clears in the row, for its event to keep."""
    error, cancel, ended_at = (
        operation.error,
        operation.cancel_requested_at,
        operation.completed_at,
    )
    return {
        "status": operation.status,
        "error": asdict(error) if error is not None else None,
        "cancel_requested_at": timestamp(cancel) if cancel is not None else None,
        "completed_at": timestamp(ended_at) if ended_at is not None else None,
        "restarts": operation.restarts,
        "progress": asdict(operation.progress) if operation.progress is not None else None,
    }
