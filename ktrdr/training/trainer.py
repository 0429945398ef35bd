"""The training loop: from the first batch, or a checkpoint, to a model or a stop."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ktrdr.errors import Conflict
from ktrdr.features.dataset import Dataset
from ktrdr.operations.types import CheckpointType, HistoryRow, NewCheckpoint, Phase, StopKind
from ktrdr.training.checkpoint_writer import CheckpointWriter, Position
from ktrdr.training.context import Context
from ktrdr.training.learner import Device, Learner
from ktrdr.training.live_metrics import LiveMetrics
from ktrdr.training.plan import TrainingJob
from ktrdr.training.resume import TrainingResumeContext
from ktrdr.training.state import NonFiniteLoss
from ktrdr.training.weights import weights_digest

_CHECKPOINT_OF_STOP = {
    StopKind.USER: CheckpointType.CANCELLATION,
    StopKind.SHUTDOWN: CheckpointType.SHUTDOWN,
    StopKind.DRAIN: CheckpointType.DRAIN,
}


@dataclass(frozen=True, eq=False)
class Completed:
    """The model of the best epoch, on the CPU."""

    weights: dict[str, Tensor]
    weights_digest: str
    epochs: int
    """Epochs run."""
    best_epoch: int
    metrics: dict[str, Any]
    history: tuple[HistoryRow, ...]
    stopped_early: bool = False
    """Whether early stopping ended it before the epochs that were asked for."""


@dataclass(frozen=True)
class Stopped:
    """Stopped at a batch boundary; `checkpoint` is None when storage refused the last one."""

    kind: StopKind
    epoch: int
    batch: int
    checkpoint: NewCheckpoint | None


def _ignore(_learner: Learner) -> None:
    """Do nothing."""


def fit(
    job: TrainingJob,
    dataset: Dataset,
    context: Context,
    resume: TrainingResumeContext | None = None,
    after_epoch: Callable[[Learner], None] = _ignore,
) -> Completed | Stopped:
    """Train to the end, or until the context wants a stop; `after_epoch` is called after each.

    Raises NonFiniteLoss, DataChanged and CheckpointCorrupted (the checkpoint is of other data or
    another strategy), and whatever the context raises.
    """
    learner = _prepare(job, dataset, context, resume)
    clock, progress, triggers = context.clock, context.progress, job.strategy.training.checkpoint
    live = LiveMetrics(learner, progress, clock())
    context.enter(Phase.TRAINING)
    saved = None if resume is None else _position(learner)
    with (
        CheckpointWriter(context, job.provenance, saved) as writer,
        _failure_saved(learner, writer),
    ):
        if resume is None:
            writer.start(learner.snapshot(CheckpointType.INITIAL))
        due = clock() + triggers.every_seconds
        while not learner.finished:
            for batch in learner.remaining_batches():
                if (stop := context.stop_requested) is not None:
                    return _stop(learner, writer, context, stop)
                now = clock()
                live.update(now)
                if now >= due or writer.failure is not None:
                    due = now + triggers.every_seconds
                    _save(learner, writer)
                learner.step(batch)
                progress.step += 1
            row = learner.finish_epoch()
            live.epoch_finished(row)
            context.epoch_finished(row)
            after_epoch(learner)
            if row.epoch % triggers.every_epochs == 0:
                due = clock() + triggers.every_seconds
                _save(learner, writer)
        if (stop := context.stop_requested) is not None:
            return _stop(learner, writer, context, stop)
        writer.settle()
        return _complete(learner)


def _prepare(
    job: TrainingJob, dataset: Dataset, context: Context, resume: TrainingResumeContext | None
) -> Learner:
    torch.set_num_threads(job.threads)
    device = Device(torch.device(job.device), context.rank, context.clock)
    learner = Learner(job.strategy, dataset, device)
    if resume is not None:
        made_under = resume.manifest.strategy_fingerprint
        learner.restore(resume, changed=made_under != job.provenance.strategy_fingerprint)
    progress = context.progress
    progress.epochs, progress.batches = job.strategy.training.epochs, learner.num_batches
    progress.step = learner.steps
    return learner


def _position(learner: Learner) -> Position:
    return Position(learner.steps, learner.loop.epoch, learner.loop.batch)


def _save(learner: Learner, writer: CheckpointWriter) -> None:
    """A periodic checkpoint, unless one is still being written."""
    if writer.idle:
        writer.start(learner.snapshot(CheckpointType.PERIODIC))


def _stop(learner: Learner, writer: CheckpointWriter, context: Context, kind: StopKind) -> Stopped:
    context.enter(Phase.STOPPING)
    checkpoint = writer.finish(learner.snapshot(_CHECKPOINT_OF_STOP[kind]))
    return Stopped(kind, learner.loop.epoch, learner.loop.batch, checkpoint)


def _complete(learner: Learner) -> Completed:
    metrics = learner.test()
    assert learner.best_weights is not None
    return Completed(
        weights=learner.best_weights,
        weights_digest=weights_digest(learner.best_weights),
        epochs=learner.loop.epoch,
        best_epoch=learner.loop.best_epoch,
        metrics=metrics,
        history=tuple(learner.loop.history),
        stopped_early=learner.stopped_early,
    )


@contextlib.contextmanager
def _failure_saved(learner: Learner, writer: CheckpointWriter) -> Iterator[None]:
    """Save where an error strikes between steps; an error of that is noted, never raised."""
    try:
        yield
    except Exception as error:
        if not learner.mid_update and not isinstance(error, NonFiniteLoss | Conflict):
            try:
                writer.finish(learner.snapshot(CheckpointType.FAILURE))
            except Exception as trouble:
                error.add_note(f"no checkpoint of this failure was saved: {trouble}")
        raise
