"""One attempt from its row to its end: data, checkpoint, training, model, and the last word."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from ktrdr.checkpoints.manifest import ModelHeader, Provenance
from ktrdr.checkpoints.models import write_model
from ktrdr.checkpoints.retention import remove_doomed
from ktrdr.checkpoints.storage import Storage
from ktrdr.checkpoints.verify import latest_good
from ktrdr.data.bars import fingerprint
from ktrdr.data.store import BarStore
from ktrdr.errors import (
    CheckpointCorrupted,
    CheckpointNotFound,
    DataChanged,
    DataNotFound,
    IllegalTransition,
    InvalidData,
    StaleAttempt,
)
from ktrdr.features.cache import cached_dataset
from ktrdr.features.dataset import Dataset
from ktrdr.operations.model import (
    Checkpoint,
    FailureReason,
    Operation,
    Phase,
    Restored,
    Result,
    ResumedFrom,
    StopKind,
)
from ktrdr.runtime.caretaker import describe
from ktrdr.runtime.link import Link
from ktrdr.runtime.names import NAMESPACE, OPERATIONS
from ktrdr.runtime.worker import RayContext, Seed, train
from ktrdr.strategy.loading import validate_strategy
from ktrdr.strategy.schema import Strategy
from ktrdr.training.environment import differences, environment
from ktrdr.training.models import model_files
from ktrdr.training.state import NonFiniteLoss
from ktrdr.training.trainer import Completed, TrainingJob

DEVICE, WORKERS, THREADS = "cpu", 1, 1

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Work:
    """What an attempt knows once it has read its row."""

    link: Link
    operation: Operation
    strategy: Strategy
    storage: Storage


def run_attempt(operation_id: str, attempt: int, stop_kind: Callable[[], StopKind | None]) -> None:
    """Train, and end the attempt in the store, whatever happens; nothing more once it is stale."""
    link = Link(OPERATIONS, NAMESPACE, operation_id, attempt)
    operation, checkpoints = link.brief()
    storage = Storage(Path(operation.plan.storage))
    context = RayContext(link, storage, stop_kind)
    try:
        strategy = validate_strategy(operation.plan.config, operation.request.strategy_path)
        work = _Work(link, operation, strategy, storage)
        context.enter(Phase.PREPARING_DATA)
        dataset = _dataset(work)
        job = _job(work, dataset)
        seed = _seed(work, context, checkpoints, job.provenance)
        outcome = train(job, dataset, context, seed)
        if isinstance(outcome, Completed):
            context.enter(Phase.SAVING)
            context.reporter.flush()
            _complete(work, job, dataset, outcome, context.now())
        else:
            context.reporter.flush()
            link.ask("finish_stopped", outcome.kind)
    except (StaleAttempt, IllegalTransition) as error:
        log.info("%s attempt %d is over: %s", operation_id, attempt, error)
    except Exception as error:
        log.exception("%s attempt %d failed", operation_id, attempt)
        _fail(link, context, error)
    finally:
        context.reporter.close()


def _dataset(work: _Work) -> Dataset:
    """The very rows that the operation was submitted with."""
    plan, request = work.operation.plan, work.operation.request
    bars = BarStore(work.storage.root).read(request.symbols[0], request.timeframes[0])
    bars = bars.between(plan.span["first"], plan.span["last"])
    if fingerprint(bars) != plan.data_fingerprint:
        raise DataChanged(
            f"the bars of {bars.symbol} {bars.timeframe} were revised since the operation began"
        )
    dataset = cached_dataset(work.storage.root, work.strategy, bars)
    if dataset.digest != plan.dataset_digest:
        raise DataChanged("the same bars and strategy gave other features: was ktrdr upgraded?")
    return dataset


def _job(work: _Work, dataset: Dataset) -> TrainingJob:
    request = asdict(work.operation.request)
    provenance = Provenance(
        request={k: list(v) if isinstance(v, tuple) else v for k, v in request.items()},
        strategy_path=work.operation.request.strategy_path,
        strategy_fingerprint=work.operation.plan.strategy_fingerprint,
        data_fingerprint=work.operation.plan.data_fingerprint,
        dataset_digest=dataset.digest,
        environment=environment(DEVICE, WORKERS, THREADS),
    )
    return TrainingJob(work.strategy, provenance, DEVICE, THREADS)


def _seed(
    work: _Work,
    context: RayContext,
    checkpoints: tuple[Checkpoint, ...],
    provenance: Provenance,
) -> Seed | None:
    """The checkpoint that a resume chose; else, after a restart, the latest good one."""
    operation = work.operation
    if operation.seed_checkpoint_id is not None:
        for row in checkpoints:
            if row.id == operation.seed_checkpoint_id:
                return Seed(work.storage.at(row.path))
        raise CheckpointNotFound("the checkpoint that this attempt was to start from is gone")
    if all(row.doomed_at is not None for row in checkpoints):
        return None
    row, manifest, passed_over = latest_good(work.storage, checkpoints)
    differing = differences(manifest.environment, provenance.environment)
    resumed_from = ResumedFrom(
        row.checkpoint_type, row.created_at, row.epoch, row.batch, not differing, tuple(differing)
    )
    context.reporter.restored(
        Restored(row.id, resumed_from, tuple((bad.id, why) for bad, why in passed_over))
    )
    context.reporter.flush()
    return Seed(work.storage.at(row.path))


def _complete(
    work: _Work, job: TrainingJob, dataset: Dataset, outcome: Completed, now: datetime
) -> None:
    """The model durable first, then the row, then the checkpoints go."""
    version = work.link.ask("reserve_model")
    header = ModelHeader(
        strategy_name=version.strategy_name,
        version=version.version,
        operation_id=work.operation.operation_id,
        attempt=work.operation.attempt,
        weights_digest=outcome.weights_digest,
        epochs=outcome.epochs,
        best_epoch=outcome.best_epoch,
        metrics=outcome.metrics,
        input_names=list(dataset.input_names),
        class_names=list(dataset.class_names),
        strategy_fingerprint=job.provenance.strategy_fingerprint,
        data_fingerprint=job.provenance.data_fingerprint,
        dataset_digest=dataset.digest,
        environment=job.provenance.environment,
        created_at=now,
    )
    path = write_model(work.storage, header, model_files(work.strategy, outcome.weights))
    result = Result(
        model_path=str(work.storage.at(path)),
        weights_digest=outcome.weights_digest,
        epochs=outcome.epochs,
        best_epoch=outcome.best_epoch,
        metrics=outcome.metrics,
    )
    work.link.ask("finish_completed", result, (version.strategy_name, version.version))
    _remove_checkpoints(work)


def _remove_checkpoints(work: _Work) -> None:
    """What is left of the attempts; a failure here costs disk space and nothing else."""
    try:
        _, rows = work.link.brief()
        removed = remove_doomed(work.storage, rows)
        if removed:
            work.link.forget_checkpoints(removed)
    except Exception:
        log.exception("%s: checkpoints not removed", work.operation.operation_id)


def _fail(link: Link, context: RayContext, error: Exception) -> None:
    try:
        context.reporter.flush()
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
