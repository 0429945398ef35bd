"""Trainings that were stopped for real, on a real store and storage, without waiting for a Ray.

An attempt here does what a driver does (planned data, the loop, reports and commits through the
service), in this process.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from checkpoint_folder import CheckpointFolder
from local_cluster import RowsClient
from service_context import ServiceContext

from ktrdr.client import Client, Operation
from ktrdr.data.sample import sample_bars
from ktrdr.operations.service import OperationsService
from ktrdr.operations.types import Operation as Row
from ktrdr.operations.types import StopKind
from ktrdr.settings import read_settings
from ktrdr.strategy.loading import validate_strategy
from ktrdr.training.plan import TrainingJob, planned_dataset, planned_job
from ktrdr.training.resume import restore_from_checkpoint
from ktrdr.training.trainer import Completed, Stopped, fit

EPOCHS = 4
ROWS = 3000
BATCHES = 8  # of 256 rows, per epoch
SHIPPED = Path(__file__).parents[2] / "strategies" / "mean_reversion.yaml"
TRAINING: dict[str, Any] = {
    "epochs": EPOCHS,
    "batch_size": 256,
    "learning_rate": 0.002,
    "lr_scheduler": {"type": "reduce_on_plateau", "factor": 0.5, "patience": 0},
    "checkpoint": {"every_epochs": 1, "every_seconds": 300},
}


@dataclass(frozen=True)
class Site:
    """A home with sample bars, a strategy file in it, and a client of the two."""

    client: Client
    strategy: Path

    @property
    def service(self) -> OperationsService:
        return self.client.service

    def submit(self, **options: Any) -> Operation:
        """A row in its first attempt that waits for nobody but `run`."""
        operation = self.client.train(self.strategy, **options)
        self.service.start(operation.id, self.row(operation).owner.id)
        return operation

    def stopped(self, step: int, **options: Any) -> Operation:
        """Cancelled after that many batches."""
        operation = self.submit(**options)
        assert isinstance(self.run(operation, step), Stopped)
        return operation

    def damaged(self) -> tuple[Operation, dict[str, Any]]:
        """Stopped after two epochs and again five batches later, where the checkpoint is bad now.

        With it the record of the good one.
        """
        operation = self.stopped(2 * BATCHES)
        good = operation.checkpoints()[-1]
        operation.resume()
        self.run(operation, 2 * BATCHES + 5)
        newest = Path(operation.checkpoints()[-1]["path"])
        (newest / "model.pt").write_bytes(b"rubbish")
        return operation, good

    def run(
        self,
        operation: Operation,
        stop_at: int | None = None,
        environment: Mapping[str, Any] | None = None,
    ) -> Completed | Stopped:
        """The current attempt, to its end or stop; a stop is written, an end is not."""
        row = self.row(operation)
        strategy = validate_strategy(row.plan.config, "the plan")
        dataset = planned_dataset(row.request, row.plan, strategy)
        job = planned_job(row.request, row.plan, strategy, dataset)
        context = ServiceContext(self.service, row, stop_at, StopKind.USER)
        outcome = fit(_in_environment(job, environment), dataset, context, self._seed(row))
        context.say()
        if isinstance(outcome, Stopped):
            self.service.finish_stopped(row.operation_id, row.attempt, outcome.kind)
        return outcome

    def completed(self, operation: Operation) -> Completed:
        outcome = self.run(operation)
        assert isinstance(outcome, Completed)
        return outcome

    def row(self, operation: Operation) -> Row:
        return self.service.get(operation.id)

    def edit(self, path: Path | None = None, **changes: Any) -> None:
        """Change the strategy file; `training__epochs=5` goes below `training`; None removes."""
        content = yaml.safe_load(self.strategy.read_text())
        for name, value in changes.items():
            *folders, key = name.split("__")
            part = content
            for folder in folders:
                part = part.setdefault(folder, {})
            if value is None:
                part.pop(key, None)
            else:
                part[key] = value
        (path or self.strategy).write_text(yaml.safe_dump(content, sort_keys=False))

    def _seed(self, row: Row) -> Any:
        for checkpoint in self.service.checkpoints(row.operation_id):
            if checkpoint.id == row.seed_checkpoint_id:
                folder = Path(row.plan.storage) / checkpoint.path
                return restore_from_checkpoint(CheckpointFolder(folder))
        return None


def make_site(home: Path, **training: Any) -> Site:
    client = RowsClient(read_settings({}, home=home))
    client.bars.write(sample_bars(rows=ROWS))
    content = yaml.safe_load(SHIPPED.read_text())
    content["training"] |= TRAINING | training
    path = home / "strategies" / "mean_reversion.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return Site(client, path)


def outcome(result: Completed) -> dict[str, Any]:
    """What is equal, bit for bit, where two trainings make the same model."""
    return {
        "weights": result.weights_digest,
        "best_epoch": result.best_epoch,
        "metrics": result.metrics,
        "history": [(r.epoch, r.metrics | {"duration": None}) for r in result.history],
    }


def _in_environment(job: TrainingJob, environment: Mapping[str, Any] | None) -> TrainingJob:
    """The job as another machine would have recorded it."""
    changed = {**job.provenance.environment, **(environment or {})}
    provenance = job.provenance.model_copy(update={"environment": changed})
    return dataclasses.replace(job, provenance=provenance)
