"""A model that a home has, trained without waiting for a Ray."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stopped_training import Site

from ktrdr.driver.finish import Work, complete
from ktrdr.operations.service import OperationsService
from ktrdr.operations.types import Operation as Row
from ktrdr.storage.root import Storage
from ktrdr.strategy.loading import validate_strategy
from ktrdr.training.plan import planned_dataset, planned_job
from ktrdr.training.trainer import Completed


@dataclass(frozen=True)
class Line:
    """Asks the service without an actor between."""

    service: OperationsService
    row: Row

    def ask(self, verb: str, *arguments: Any) -> Any:
        return getattr(self.service, verb)(self.row.operation_id, self.row.attempt, *arguments)

    def brief(self) -> Any:
        return self.service.get(self.row.operation_id), ()

    def forget_checkpoints(self, ids: tuple[int, ...]) -> None:
        self.service.forget_checkpoints(self.row.operation_id, ids)


def train(site: Site, **options: Any) -> Completed:
    """Train the site's strategy and store its model, as a driver does."""
    operation = site.submit(**options)
    outcome, row = site.completed(operation), site.row(operation)
    strategy = validate_strategy(row.plan.config, "the plan")
    dataset = planned_dataset(row.request, row.plan, strategy)
    job = planned_job(row.request, row.plan, strategy, dataset)
    work = Work(Line(site.service, row), row, Storage(Path(row.plan.storage)))
    complete(work, job, dataset, outcome, datetime(2026, 1, 1, tzinfo=UTC))
    return outcome
