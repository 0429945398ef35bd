"""One attempt from its row to its end: data, checkpoint, training, model, and the last word."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from ktrdr.checkpoints.manifest import Provenance
from ktrdr.checkpoints.verify import latest_good
from ktrdr.driver.actor_call import Link
from ktrdr.driver.finish import Work, complete
from ktrdr.driver.heartbeat import Vitals
from ktrdr.driver.names import NAMESPACE, OPERATIONS
from ktrdr.driver.ray_train import RayContext, ResumeCheckpoint, train
from ktrdr.errors import (
    CheckpointCorrupted,
    CheckpointNotFound,
    DataChanged,
    DataNotFound,
    IllegalTransition,
    InvalidData,
    StaleAttempt,
    describe,
)
from ktrdr.operations.types import Checkpoint, FailureReason, Phase, Restored, StopKind
from ktrdr.storage.root import Storage
from ktrdr.strategy.loading import validate_strategy
from ktrdr.training.exactness import resumed_from
from ktrdr.training.plan import planned_dataset, planned_job
from ktrdr.training.state import NonFiniteLoss
from ktrdr.training.trainer import Completed

log = logging.getLogger(__name__)


def run_attempt(
    operation_id: str, attempt: int, stop_kind: Callable[[], StopKind | None], vitals: Vitals
) -> None:
    """Train, and end the attempt in the store, whatever happens; nothing more once it is stale."""
    link = Link(OPERATIONS, NAMESPACE, operation_id, attempt)
    operation, checkpoints = link.brief()
    storage = Storage(Path(operation.plan.storage))
    context = RayContext(link, storage, stop_kind)
    vitals.follow(context.progress, context.reporter)
    try:
        strategy = validate_strategy(operation.plan.config, operation.request.strategy_path)
        work = Work(link, operation, storage)
        context.enter(Phase.PREPARING_DATA)
        dataset = planned_dataset(operation.request, operation.plan, strategy)
        job = planned_job(operation.request, operation.plan, strategy, dataset)
        seed = _seed(work, context, checkpoints, job.provenance)
        outcome = train(job, dataset, context, seed)
        if isinstance(outcome, Completed):
            context.enter(Phase.SAVING)
            context.settle()
            complete(work, job, dataset, outcome, context.now())
        else:
            context.settle()
            link.ask("finish_stopped", outcome.kind)
    except (StaleAttempt, IllegalTransition) as error:
        log.info("%s attempt %d is over: %s", operation_id, attempt, error)
    except Exception as error:
        log.exception("%s attempt %d failed", operation_id, attempt)
        _fail(link, context, error)
    finally:
        context.reporter.close()


def _seed(
    work: Work,
    context: RayContext,
    checkpoints: tuple[Checkpoint, ...],
    provenance: Provenance,
) -> ResumeCheckpoint | None:
    """The checkpoint that a resume chose; else, after a restart, the latest good one."""
    operation = work.operation
    if operation.seed_checkpoint_id is not None:
        for row in checkpoints:
            if row.id == operation.seed_checkpoint_id:
                return ResumeCheckpoint(work.storage.at(row.path))
        raise CheckpointNotFound("the checkpoint that this attempt was to start from is gone")
    if all(row.doomed_at is not None for row in checkpoints):
        return None
    row, manifest, passed_over = latest_good(work.storage, checkpoints)
    source = resumed_from(row, manifest, operation.plan, provenance.environment)
    context.reporter.restored(
        Restored(row.id, source, tuple((bad.id, why) for bad, why in passed_over))
    )
    context.reporter.flush()
    return ResumeCheckpoint(work.storage.at(row.path))


def _fail(link: Link, context: RayContext, error: Exception) -> None:
    try:
        context.settle()
        link.ask("finish_failed", reason_of(error), describe(error))
    except (StaleAttempt, IllegalTransition) as stale:
        log.info("%s attempt %d is over: %s", link.operation_id, link.attempt, stale)


def reason_of(error: Exception) -> FailureReason:
    """Why an attempt failed, judged by what ended it."""
    if isinstance(error, NonFiniteLoss):
        return FailureReason.NON_FINITE_LOSS
    if isinstance(error, CheckpointCorrupted | CheckpointNotFound):
        return FailureReason.CHECKPOINT_UNUSABLE
    if isinstance(error, DataChanged | DataNotFound | InvalidData):
        return FailureReason.DATA_ERROR
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return FailureReason.OUT_OF_MEMORY
    return FailureReason.USER_ERROR
