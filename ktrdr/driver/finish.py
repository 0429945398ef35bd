"""The end of a training that went well: the model durable, then its row, then checkpoints go."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from ktrdr.checkpoints.manifest import ModelHeader
from ktrdr.checkpoints.model_store import write_model
from ktrdr.checkpoints.retention import remove_doomed
from ktrdr.features.dataset import Dataset
from ktrdr.features.input_schema import recipe_of
from ktrdr.inference.model import model_files
from ktrdr.operations.types import Operation, Result
from ktrdr.storage.root import Storage
from ktrdr.training.trainer import Completed, TrainingJob

log = logging.getLogger(__name__)


class DriverConnection(Protocol):
    """What an attempt may ask of the store."""

    def ask(self, verb: str, *arguments: Any) -> Any: ...

    def brief(self) -> Any: ...

    def forget_checkpoints(self, ids: tuple[int, ...]) -> None: ...


@dataclass(frozen=True)
class Work:
    """What an attempt is to do, where, and whom it tells."""

    link: DriverConnection
    operation: Operation
    storage: Storage


def complete(
    work: Work, job: TrainingJob, dataset: Dataset, outcome: Completed, now: datetime
) -> None:
    """Store the model and end the operation with it; a crash at any step loses nothing."""
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
    files = model_files(job.strategy, recipe_of(dataset), outcome.weights)
    path = write_model(work.storage, header, files)
    result = Result(
        model_path=str(work.storage.at(path)),
        weights_digest=outcome.weights_digest,
        epochs=outcome.epochs,
        best_epoch=outcome.best_epoch,
        metrics=outcome.metrics,
        stopped_early=outcome.stopped_early,
    )
    work.link.ask("finish_completed", result, (version.strategy_name, version.version))
    _remove_checkpoints(work)


def _remove_checkpoints(work: Work) -> None:
    """What is left of the attempts; a failure here costs disk space and nothing else."""
    try:
        _, rows = work.link.brief()
        removed = remove_doomed(work.storage, rows)
        if removed:
            work.link.forget_checkpoints(removed)
    except Exception:
        log.exception("%s: checkpoints not removed", work.operation.operation_id)
