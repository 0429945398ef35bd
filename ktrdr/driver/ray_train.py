"""Ray Train around the training loop: one worker in this very process (local mode)."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ray.train
from ray.train import (
    Checkpoint as RayCheckpoint,
)
from ray.train import (
    CheckpointUploadMode,
    FailureConfig,
    RunConfig,
    ScalingConfig,
)
from ray.train.torch import TorchTrainer

from ktrdr.checkpoints.layout import operation_folder
from ktrdr.driver.actor_call import DEADLINE_S, Link
from ktrdr.driver.delivery import Reporter
from ktrdr.driver.outbox import Outbox
from ktrdr.errors import Conflict, KtrdrError, StoreUnavailable
from ktrdr.features.dataset import Dataset
from ktrdr.operations.types import (
    HistoryRow,
    NewCheckpoint,
    Phase,
    StopKind,
    TrainingWarning,
)
from ktrdr.storage.root import Storage
from ktrdr.training.context import LiveProgress
from ktrdr.training.resume import restore_from_checkpoint
from ktrdr.training.trainer import Completed, Stopped, TrainingJob, fit

_NO_RESTARTS: Any = FailureConfig(  # type: ignore[call-arg]  # the checker sees Ray Train v1's
    max_failures=0, max_preemption_failures=0, controller_failure_limit=0
)


PATIENCE_S = 5.0
"""How long a checkpoint waits for its row before it is left to follow: training goes on anyway."""


@dataclass(frozen=True)
class ResumeCheckpoint:
    """The checkpoint that an attempt goes on from."""

    directory: Path


class RayContext:
    """The loop's side of a driver: reports through the actor, commits rows, hears of stops."""

    rank = 0
    world_size = 1

    def __init__(self, link: Link, storage: Storage, stop_kind: Callable[[], StopKind | None]):
        self.link = link
        self.storage = storage
        self.operation_id = link.operation_id
        self.attempt = link.attempt
        self.progress = LiveProgress()
        self._stop_kind = stop_kind
        self._refused: KtrdrError | None = None
        self._outbox = Outbox(
            lambda verb, argument, deadline_s: link.ask(verb, argument, deadline_s=deadline_s)
        )
        self.reporter = Reporter(
            lambda report: link.ask("report", report),
            self._sample,
            self._remember_refusal,
            self._catch_up,
        )

    @property
    def stop_requested(self) -> StopKind | None:
        if self._refused is not None:
            raise self._refused
        return self._stop_kind()

    def clock(self) -> float:
        return time.monotonic()

    def now(self) -> datetime:
        return datetime.now(UTC)

    def enter(self, phase: Phase) -> None:
        self.reporter.enter(phase)

    def epoch_finished(self, row: HistoryRow) -> None:
        self.reporter.epoch_finished(row)

    def commit(self, checkpoint: NewCheckpoint) -> None:
        """Reports first, then the fenced row; then Ray Train hears of the directory.

        While the actor is away the row waits.
        """
        self._outbox.put("commit_checkpoint", checkpoint)
        try:
            self.reporter.flush(PATIENCE_S)
            self._outbox.deliver(PATIENCE_S)
        except StoreUnavailable:
            return
        ray.train.report(
            {"epoch": checkpoint.epoch, "batch": checkpoint.batch},
            checkpoint=RayCheckpoint(str(self.storage.at(checkpoint.path))),
            checkpoint_upload_mode=CheckpointUploadMode.NO_UPLOAD,
        )

    def warn(self, code: str, message: str) -> None:
        self._outbox.put("warn", TrainingWarning(code, message))
        self._catch_up()

    def settle(self) -> None:
        """Wait until all that was said and committed is in the store; raises what refused it."""
        self.reporter.flush()
        self._outbox.deliver(DEADLINE_S)

    def _catch_up(self) -> None:
        with contextlib.suppress(StoreUnavailable):  # the next report tries again
            self._outbox.deliver(PATIENCE_S)

    def _sample(self) -> Any:
        return self.progress.sample() if self.progress.epochs else None

    def _remember_refusal(self, error: KtrdrError) -> None:
        self._refused = error


def train(
    job: TrainingJob, dataset: Dataset, context: RayContext, seed: ResumeCheckpoint | None
) -> Completed | Stopped:
    """Run a new `TorchTrainer`, seeded from a checkpoint's directory, to its end or stop.

    Ray Train's own restarts are off: another execution is another attempt. What the loop raises
    comes out as it is.
    """
    outcome: list[Completed | Stopped | Exception] = []

    def loop(config: dict[str, Any]) -> None:
        directory = config["checkpoint"]
        try:
            resume = restore_from_checkpoint(RayCheckpoint(directory)) if directory else None
            # Its rows may never have reached the store: rows that are there already stay the same.
            for row in resume.training_history if resume is not None else ():
                context.epoch_finished(row)
            outcome.append(fit(job, dataset, context, resume))
        except Exception as error:
            outcome.append(error)
            raise

    trainer = TorchTrainer(
        loop,
        train_loop_config={"checkpoint": str(seed.directory) if seed else None},
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


def refused(error: BaseException) -> bool:
    """Whether the attempt is over for everybody else: then it has nothing more to say."""
    return isinstance(error, Conflict) and error.code in ("STALE_ATTEMPT", "ILLEGAL_TRANSITION")
