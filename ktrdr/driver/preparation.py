"""What an attempt needs before its first batch: the checkpoint that it goes on from, and data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ktrdr.checkpoints.verify import VerifiedCheckpoint, open_latest_good, open_row
from ktrdr.driver.delivery import Delivery
from ktrdr.errors import CheckpointNotFound
from ktrdr.features.dataset import Dataset
from ktrdr.operations.types import Checkpoint, Operation, Phase, Restored
from ktrdr.storage.root import Storage
from ktrdr.strategy.loading import validate_strategy
from ktrdr.training.environment import environment, round_as
from ktrdr.training.exactness import resumed_from
from ktrdr.training.plan import (
    DEVICE,
    THREADS,
    WORKERS,
    TrainingJob,
    planned_dataset,
    planned_job,
)
from ktrdr.training.resume import TrainingResumeContext, restore_from_checkpoint


@dataclass(frozen=True, eq=False)
class Preparation:
    """A training that can begin; without `resume` it begins at the first batch."""

    job: TrainingJob
    dataset: Dataset
    resume: TrainingResumeContext | None = None


def prepare(
    operation: Operation, checkpoints: Sequence[Checkpoint], delivery: Delivery
) -> Preparation:
    """Restore the checkpoint of an attempt, say so in its first report, and open its data.

    Raises:
        CheckpointNotFound, CheckpointCorrupted, DataNotFound, DataChanged, StorageUnavailable.
    """
    request, plan = operation.request, operation.plan
    resume = _restore(operation, checkpoints, delivery)
    delivery.enter(Phase.PREPARING_DATA)
    strategy = validate_strategy(plan.config, request.strategy_path)
    dataset = planned_dataset(request, plan, strategy)
    return Preparation(planned_job(request, plan, strategy, dataset), dataset, resume)


def _restore(
    operation: Operation, checkpoints: Sequence[Checkpoint], delivery: Delivery
) -> TrainingResumeContext | None:
    found = _open(operation, checkpoints)
    if found is None:
        return None
    resume = restore_from_checkpoint(found)
    round_as(found.manifest.environment)
    here = environment(DEVICE, WORKERS, THREADS)
    source = resumed_from(found.row, found.manifest, operation.plan, here)
    passed_over = tuple((bad.id, why) for bad, why in found.passed_over)
    delivery.restored(Restored(found.row.id, source, passed_over), resume.training_history)
    return resume


def _open(operation: Operation, checkpoints: Sequence[Checkpoint]) -> VerifiedCheckpoint | None:
    """Read the checkpoint that a user's resume chose; else the latest good one, if there is any."""
    storage = Storage(Path(operation.plan.storage))
    chosen = operation.seed_checkpoint_id
    if chosen is not None:
        for row in checkpoints:
            if row.id == chosen:
                return open_row(storage, row)
        raise CheckpointNotFound("the checkpoint that this attempt was to start from is gone")
    if all(row.doomed_at is not None for row in checkpoints):
        return None
    return open_latest_good(storage, checkpoints)
