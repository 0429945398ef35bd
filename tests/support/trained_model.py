"""A model that a home has, trained without waiting for a Ray."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stopped_training import Site

from ktrdr.driver.finish import store_model
from ktrdr.driver.preparation import Preparation
from ktrdr.features.dataset import Dataset
from ktrdr.operations.service import OperationsService
from ktrdr.operations.types import Operation
from ktrdr.storage.root import Storage
from ktrdr.strategy.loading import validate_strategy
from ktrdr.training.plan import TrainingJob, planned_dataset, planned_job
from ktrdr.training.trainer import Completed

TRAINED = datetime(2026, 1, 1, tzinfo=UTC)


def train(site: Site, **options: Any) -> Completed:
    """Train the site's strategy and store its model, as a driver does."""
    operation = site.submit(**options)
    outcome, row = site.completed(operation), site.row(operation)
    strategy = validate_strategy(row.plan.config, "the plan")
    dataset = planned_dataset(row.request, row.plan, strategy)
    job = planned_job(row.request, row.plan, strategy, dataset)
    complete(site.service, Storage(Path(row.plan.storage)), row, (job, dataset, outcome))
    return outcome


def complete(
    service: OperationsService,
    storage: Storage,
    row: Operation,
    trained: tuple[TrainingJob, Dataset, Completed],
) -> None:
    """Store the model of a training, and end its operation with it."""
    job, dataset, outcome = trained
    model = service.reserve_model(row.operation_id, row.attempt)
    result = store_model(storage, model, Preparation(job, dataset), outcome, TRAINED)
    version = model.strategy_name, model.version
    service.finish_completed(row.operation_id, row.attempt, result, version)
