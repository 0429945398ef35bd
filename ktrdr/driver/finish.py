"""The end of an attempt: a durable model, or the reason of a failure."""

from __future__ import annotations

from datetime import datetime

from ktrdr.checkpoints.manifest import ModelHeader
from ktrdr.checkpoints.model_store import write_model
from ktrdr.driver.preparation import Preparation
from ktrdr.errors import (
    CheckpointCorrupted,
    CheckpointNotFound,
    DataChanged,
    DataNotFound,
    InvalidData,
)
from ktrdr.features.input_schema import input_schema_of
from ktrdr.inference.model import model_files
from ktrdr.operations.types import FailureReason, ModelRow, Result
from ktrdr.storage.root import Storage
from ktrdr.training.state import NonFiniteLoss
from ktrdr.training.trainer import Completed


def store_model(
    storage: Storage, reserved: ModelRow, prepared: Preparation, outcome: Completed, now: datetime
) -> Result:
    """Write the model of a training durably under the version that was reserved for it."""
    provenance, dataset = prepared.job.provenance, prepared.dataset
    header = ModelHeader(
        strategy_name=reserved.strategy_name,
        version=reserved.version,
        operation_id=reserved.operation_id,
        attempt=reserved.attempt,
        weights_digest=outcome.weights_digest,
        epochs=outcome.epochs,
        best_epoch=outcome.best_epoch,
        metrics=outcome.metrics,
        input_names=list(dataset.input_names),
        class_names=list(dataset.class_names),
        strategy_fingerprint=provenance.strategy_fingerprint,
        data_fingerprint=provenance.data_fingerprint,
        dataset_digest=dataset.digest,
        environment=provenance.environment,
        created_at=now,
    )
    files = model_files(prepared.job.strategy, input_schema_of(dataset), outcome.weights)
    path = write_model(storage, header, files)
    return Result(
        model_path=str(storage.at(path)),
        weights_digest=outcome.weights_digest,
        epochs=outcome.epochs,
        best_epoch=outcome.best_epoch,
        metrics=outcome.metrics,
        stopped_early=outcome.stopped_early,
    )


def reason_of(error: Exception) -> FailureReason:
    """Return why an attempt failed, judged by what ended it."""
    if isinstance(error, NonFiniteLoss):
        return FailureReason.NON_FINITE_LOSS
    if isinstance(error, CheckpointCorrupted | CheckpointNotFound):
        return FailureReason.CHECKPOINT_UNUSABLE
    if isinstance(error, DataChanged | DataNotFound | InvalidData):
        return FailureReason.DATA_ERROR
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return FailureReason.OUT_OF_MEMORY
    return FailureReason.USER_ERROR
