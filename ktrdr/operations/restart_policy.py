"""What the transitions decide by: which checkpoints stay, and whether an attempt is repeated.

Pure functions of what the rows say, so that every rule is testable without a store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from ktrdr.operations.types import (
    Checkpoint,
    FailureReason,
    LastFailure,
    NewCheckpoint,
    Operation,
    Progress,
)

NUM_NEWEST_KEPT = 2
NUM_MEMORY_RESTARTS = 1
BACK_OFF_S = 1.0
MAX_BACK_OFF_S = 60.0

CheckpointKey = tuple[int, int]
"""(attempt, number) of a checkpoint: unique in an operation, and ordered by age."""

Latest = Checkpoint | NewCheckpoint


@dataclass(frozen=True)
class Verdict:
    """What follows a failed attempt; `refusal` says why it is not repeated."""

    repeat: bool
    refusal: str | None = None
    restarts: int = 0
    memory_restarts: int = 0
    last_failure: LastFailure | None = None
    back_off: timedelta = timedelta()


def superseded(
    attempt: int, new: Sequence[NewCheckpoint], held: Sequence[Checkpoint]
) -> set[CheckpointKey]:
    """Return the keys that retention dooms: all but the two newest good ones and the best one."""
    standing = [c.key for c in held if c.doomed_at is None]
    good = [(c.key, c.is_best) for c in held if c.good]
    good += [((attempt, c.number), c.is_best) for c in new]
    good.sort()
    kept = {key for key, _ in good[-NUM_NEWEST_KEPT:]}
    kept |= set([key for key, is_best in good if is_best][-1:])
    return ({key for key, _ in good} | set(standing)) - kept


def latest_good_row(
    attempt: int, new: Sequence[NewCheckpoint], held: Sequence[Checkpoint]
) -> tuple[CheckpointKey, Latest] | None:
    """Return the latest checkpoint that a next attempt may begin at, with its key."""
    good: dict[CheckpointKey, Latest] = {c.key: c for c in held if c.good}
    good |= {(attempt, c.number): c for c in new}
    return max(good.items(), default=None, key=lambda item: item[0])


def decide_restart(
    operation: Operation, reason: FailureReason, latest: CheckpointKey | None, found_on_start: bool
) -> Verdict:
    """Decide whether the attempt that ended with `reason` is followed by another one.

    `latest` is the key of the latest good checkpoint, adopted ones included.
    """
    if found_on_start and operation.report_sequence == 0:
        return _free(operation)
    back_off = _back_off(operation, latest)
    if reason is FailureReason.NODE_PREEMPTED:
        return replace(_free(operation), back_off=back_off)
    failure = LastFailure(reason, _step(operation.progress), latest)
    refusal = _refusal(operation, failure)
    if refusal is not None:
        return Verdict(False, refusal, operation.restarts, operation.memory_restarts, failure)
    memory = int(reason is FailureReason.OUT_OF_MEMORY)
    restarts, memory_restarts = operation.restarts + 1, operation.memory_restarts + memory
    return Verdict(True, None, restarts, memory_restarts, failure, back_off)


def progress_at(checkpoint: Latest | None, before: Operation) -> Progress | None:
    """Return the progress of an attempt that begins at a checkpoint, None from the beginning."""
    if checkpoint is None:
        return None
    epochs = before.request.epochs
    batches = before.progress.batches if before.progress is not None else None
    part = checkpoint.batch / batches if batches else 0.0
    percent = min(100.0, 100.0 * (checkpoint.epoch + part) / epochs)
    return Progress(checkpoint.epoch, epochs, checkpoint.batch, batches, percent, None)


def _refusal(operation: Operation, failure: LastFailure) -> str | None:
    if not failure.reason.retryable:
        return "it would fail again"
    if failure.reason is FailureReason.OUT_OF_MEMORY and (
        operation.memory_restarts >= NUM_MEMORY_RESTARTS
    ):
        return "out of memory is retried once"
    if operation.restarts >= operation.plan.max_restarts:
        return f"the budget of {operation.plan.max_restarts} restarts is used up"
    if failure == operation.last_failure:
        return "the same failure came back at the same step without a new checkpoint"
    return None


def _back_off(operation: Operation, latest: CheckpointKey | None) -> timedelta:
    """Return how long to wait: not at all after progress, else twice as long every time.

    Progress is a checkpoint of the attempt that ended; attempts without one count from the
    latest good checkpoint, or from the user's resume.
    """
    committed_in = latest[0] if latest is not None else 0
    idle = operation.attempt - max(committed_in, operation.resumed_attempt - 1)
    if idle <= 0:
        return timedelta()
    doublings = min(idle - 1, 30)  # far past the cap, and no overflow
    return timedelta(seconds=min(MAX_BACK_OFF_S, BACK_OFF_S * 2.0**doublings))


def _free(operation: Operation) -> Verdict:
    return Verdict(
        True, None, operation.restarts, operation.memory_restarts, operation.last_failure
    )


def _step(progress: Progress | None) -> tuple[int, int] | None:
    return None if progress is None else (progress.epoch, progress.batch)
