"""Ray Train around the training loop: one worker in this very process (local mode)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ray.train
from ray.train import Checkpoint as RayCheckpoint
from ray.train import CheckpointUploadMode, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from ktrdr.checkpoints.layout import operation_folder
from ktrdr.driver.delivery import Delivery
from ktrdr.driver.preparation import Preparation
from ktrdr.operations.types import HistoryRow, NewCheckpoint, Operation, Phase, StopKind
from ktrdr.storage.root import Storage
from ktrdr.training.context import LiveProgress
from ktrdr.training.trainer import Completed, Stopped, fit

_NO_RESTARTS: Any = FailureConfig(  # type: ignore[call-arg]  # the checker sees Ray Train v1's
    max_failures=0, max_preemption_failures=0, controller_failure_limit=0
)


class RayContext:
    """The training loop's context in a driver: what it is told goes to the delivery."""

    rank = 0
    world_size = 1

    def __init__(
        self,
        operation: Operation,
        delivery: Delivery,
        progress: LiveProgress,
        stop_requested: Callable[[], StopKind | None],
    ) -> None:
        self.storage = Storage(Path(operation.plan.storage))
        self.operation_id = operation.operation_id
        self.attempt = operation.attempt
        self.progress = progress
        self._delivery = delivery
        self._stop_requested = stop_requested

    @property
    def stop_requested(self) -> StopKind | None:
        return self._stop_requested()

    def clock(self) -> float:
        return time.monotonic()

    def now(self) -> datetime:
        return datetime.now(UTC)

    def enter(self, phase: Phase) -> None:
        self._delivery.enter(phase)

    def epoch_finished(self, row: HistoryRow) -> None:
        self._delivery.epoch_finished(row)

    def commit(self, checkpoint: NewCheckpoint) -> None:
        """Queue the fenced row, and tell Ray Train of the directory, which is durable already."""
        self._delivery.commit(checkpoint)
        ray.train.report(
            {"epoch": checkpoint.epoch, "batch": checkpoint.batch},
            checkpoint=RayCheckpoint(str(self.storage.at(checkpoint.path))),
            checkpoint_upload_mode=CheckpointUploadMode.NO_UPLOAD,
        )

    def warn(self, code: str, message: str) -> None:
        self._delivery.warn(code, message)


def train(prepared: Preparation, context: RayContext) -> Completed | Stopped:
    """Run a new `TorchTrainer` to its end or stop, seeded through its `train_loop_config`.

    Ray Train's own restarts are off: another execution is another attempt. What the loop raises
    comes out as it is.
    """
    outcome: list[Completed | Stopped | Exception] = []

    def loop(config: dict[str, Any]) -> None:
        try:
            outcome.append(fit(prepared.job, prepared.dataset, context, config["resume"]))
        except Exception as error:
            outcome.append(error)
            raise

    trainer = TorchTrainer(
        loop,
        train_loop_config={"resume": prepared.resume},
        scaling_config=ScalingConfig(num_workers=0, use_gpu=False),
        run_config=RunConfig(
            name=f"attempt-{context.attempt:04d}",
            storage_path=os.fspath(operation_folder(context.storage, context.operation_id)),
            failure_config=_NO_RESTARTS,
        ),
    )
    try:
        trainer.fit()
    except Exception:
        if not outcome:
            raise
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]
