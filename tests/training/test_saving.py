"""Checkpoints while training: when they are made, what they may cost, and who may refuse them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults import NO_FAULTS, FaultPlan, FaultyContext
from tiny_training import (
    BATCHES,
    EPOCHS,
    OPERATION,
    Bench,
    make_dataset,
    make_job,
    make_storage,
    make_strategy,
    outcome,
)

from ktrdr.checkpoints.adoption import found
from ktrdr.checkpoints.verify import VerifiedCheckpoint, verify_row
from ktrdr.errors import StaleAttempt, StoreUnavailable
from ktrdr.operations.types import CheckpointType, Phase
from ktrdr.storage.posix import Files
from ktrdr.storage.root import Storage
from ktrdr.training import trainer
from ktrdr.training.checkpoint_writer import CheckpointWriter
from ktrdr.training.context import LocalContext
from ktrdr.training.learner import Learner
from ktrdr.training.losses import ClassCriterion
from ktrdr.training.resume import restore_from_checkpoint
from ktrdr.training.split_scores import evaluate
from ktrdr.training.trainer import Completed, Stopped, fit

EVALUATE = "ktrdr.training.learner.evaluate"


def recording(root: Path, plan: FaultPlan = NO_FAULTS, stop_at: int | None = None) -> FaultyContext:
    """A context whose clock shows one second per batch."""
    return FaultyContext(make_storage(root), OPERATION, plan, stop_at=stop_at, ticking=True)


def train(context: LocalContext, **training: Any) -> Completed | Stopped:
    dataset = make_dataset()
    return fit(make_job(make_strategy(**training), dataset), dataset, context)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No periodic checkpoint is skipped: each waits for the one before it."""
    save = trainer._save

    def settled(learner: Learner, writer: CheckpointWriter) -> None:
        writer.settle()
        save(learner, writer)

    monkeypatch.setattr(trainer, "_save", settled)


@pytest.fixture
def expected(tmp_path: Path) -> dict[str, Any]:
    return outcome(Bench(tmp_path / "undisturbed", make_strategy()).complete())


@pytest.mark.usefixtures("patient")
def test_the_time_trigger_works_from_the_start_and_inside_epochs(tmp_path: Path) -> None:
    context = recording(tmp_path)
    train(context, checkpoint={"every_epochs": 1000, "every_seconds": 3})
    assert context.committed == [
        (CheckpointType.INITIAL, 0, 0),
        (CheckpointType.PERIODIC, 0, 3),
        (CheckpointType.PERIODIC, 1, 2),
        (CheckpointType.PERIODIC, 2, 1),
    ]


@pytest.mark.usefixtures("patient")
def test_the_epoch_trigger_saves_at_boundaries(tmp_path: Path) -> None:
    context = recording(tmp_path)
    train(context, epochs=6, checkpoint={"every_epochs": 2})
    assert context.committed == [
        (CheckpointType.INITIAL, 0, 0),
        *((CheckpointType.PERIODIC, epoch, 0) for epoch in (2, 4, 6)),
    ]


def test_a_resumed_run_makes_no_initial_checkpoint(tmp_path: Path) -> None:
    bench = Bench(tmp_path, make_strategy())
    bench.stop(2)
    bench.stop(3)
    kinds = [new.checkpoint_type for new in found(bench.storage, OPERATION, 2)]
    assert kinds == [CheckpointType.CANCELLATION]


@pytest.mark.usefixtures("patient")
def test_two_newest_and_the_best_checkpoint_stay(tmp_path: Path) -> None:
    context = recording(tmp_path)
    result = train(context, epochs=8, learning_rate=0.2, seed=13, checkpoint={"every_epochs": 1})
    assert isinstance(result, Completed)
    assert result.best_epoch < 6
    kept = [(row.epoch, row.is_best) for row in context.rows]
    assert kept == [(result.best_epoch, True), (7, False), (8, False)]
    for row in context.rows:
        verify_row(context.storage, row)
    assert len(found(context.storage, OPERATION, 1)) == 3


class Gated(Files):
    """Writes wait for a gate."""

    def __init__(self) -> None:
        self.gate = threading.Event()

    def write(self, path: Path, data: bytes) -> None:
        assert self.gate.wait(30)
        super().write(path, data)


def test_periodic_checkpoints_are_skipped_while_one_is_written_and_a_stop_waits(
    tmp_path: Path,
) -> None:
    files = Gated()

    class OpensWhenStopping(FaultyContext):
        def enter(self, phase: Phase) -> None:
            super().enter(phase)
            if phase is Phase.STOPPING:
                files.gate.set()

    storage = Storage(make_storage(tmp_path).root, files)
    context = OpensWhenStopping(storage, OPERATION, stop_at=2 * BATCHES + 1, ticking=True)
    result = train(context, checkpoint={"every_epochs": 1, "every_seconds": 1})
    assert isinstance(result, Stopped)
    assert result.checkpoint is not None
    assert context.committed == [
        (CheckpointType.INITIAL, 0, 0),
        (CheckpointType.CANCELLATION, 2, 1),
    ]


@pytest.mark.usefixtures("patient")
def test_a_full_disk_is_a_warning_and_the_next_trigger_tries_again(
    tmp_path: Path, expected: dict[str, Any]
) -> None:
    context = recording(tmp_path / "s", FaultPlan(full_for=frozenset({2, 3})))
    result = train(context, checkpoint={"every_epochs": 1})
    assert isinstance(result, Completed)
    assert outcome(result) == expected
    assert [position[1:] for position in context.committed] == [(0, 0), (3, 0)]
    assert len(context.warnings) == 2
    assert "No space left" in context.warnings[0].message


def test_a_stop_that_cannot_be_saved_keeps_the_last_good_one(tmp_path: Path) -> None:
    context = recording(tmp_path, FaultPlan(full_for=frozenset({2})), stop_at=3)
    result = train(context)
    assert isinstance(result, Stopped)
    assert result.checkpoint is None
    assert len(context.warnings) == 1
    latest = context.latest_checkpoint()
    assert latest is not None
    assert restore_from_checkpoint(latest).start_batch == 0


def test_an_absent_store_is_a_warning(tmp_path: Path, expected: dict[str, Any]) -> None:
    away = StoreUnavailable("the store is away: try later")
    context = recording(tmp_path / "s", FaultPlan(commit=away))
    result = train(context)
    assert isinstance(result, Completed)
    assert outcome(result) == expected
    assert "the store is away" in context.warnings[0].message


@pytest.mark.parametrize("error", [StaleAttempt("attempt 1 is over"), KeyError("a bug")])
def test_an_error_of_the_writer_ends_the_training(tmp_path: Path, error: Exception) -> None:
    context = recording(tmp_path, FaultPlan(commit=error))
    with pytest.raises(type(error)):
        train(context, epochs=100_000)
    assert found(context.storage, OPERATION, 1)[1:] == ()


def _fails_once(function: Callable[..., Any], at_call: int) -> Callable[..., Any]:
    calls = 0

    def failing(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at_call:
            raise RuntimeError("out of luck")
        return function(*args)

    return failing


def _resumed(context: LocalContext) -> Completed:
    dataset = make_dataset()
    again = LocalContext(context.storage, OPERATION, 2)
    latest = again.latest_checkpoint()
    assert latest is not None
    result = fit(
        make_job(make_strategy(), dataset), dataset, again, restore_from_checkpoint(latest)
    )
    assert isinstance(result, Completed)
    return result


def test_an_error_while_validating_is_saved_at_the_end_of_the_epoch_and_resumes_exactly(
    tmp_path: Path, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    context = recording(tmp_path / "s")
    with monkeypatch.context() as patched:
        patched.setattr(EVALUATE, _fails_once(evaluate, 2))
        with pytest.raises(RuntimeError, match="out of luck"):
            train(context)
    assert context.committed[-1] == (CheckpointType.FAILURE, 1, BATCHES)
    assert outcome(_resumed(context)) == expected


def test_an_error_of_the_context_is_saved_at_the_boundary(
    tmp_path: Path, expected: dict[str, Any]
) -> None:
    plan = FaultPlan(epoch_finished=RuntimeError("out of luck"))
    context = recording(tmp_path / "s", plan)
    with pytest.raises(RuntimeError, match="out of luck"):
        train(context)
    assert context.committed[-1] == (CheckpointType.FAILURE, 1, 0)
    assert outcome(_resumed(context)) == expected


def test_an_error_inside_a_step_is_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = recording(tmp_path)
    monkeypatch.setattr(ClassCriterion, "mean", _fails_once(ClassCriterion.mean, BATCHES + 2))
    with pytest.raises(RuntimeError, match="out of luck"):
        train(context)
    assert context.committed == [(CheckpointType.INITIAL, 0, 0)]


def test_an_error_while_testing_the_best_model_is_not_saved_as_the_live_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = recording(tmp_path)
    monkeypatch.setattr(EVALUATE, _fails_once(evaluate, EPOCHS + 1))
    with pytest.raises(RuntimeError, match="out of luck"):
        train(context)
    assert [kind for kind, _, _ in context.committed] == [CheckpointType.INITIAL]


@pytest.mark.usefixtures("patient")
def test_history_and_progress_reach_the_context_as_they_happen(tmp_path: Path) -> None:
    context = recording(tmp_path)
    result = train(context)
    assert isinstance(result, Completed)
    assert tuple(context.history) == result.history
    progress = context.progress.sample()
    assert (progress.epoch, progress.epochs, progress.batch) == (EPOCHS, EPOCHS, 0)
    assert progress.percent == 100.0
    assert progress.metrics is not None
    assert result.history[-1].metrics.items() <= progress.metrics.items()
    assert progress.metrics["best_epoch"] == result.best_epoch
    best = result.history[result.best_epoch - 1].metrics
    assert progress.metrics["best_score"] == best[progress.metrics["monitor"]]


@pytest.mark.usefixtures("patient")
def test_the_running_loss_is_shown_before_the_first_epoch_has_ended(tmp_path: Path) -> None:
    context = recording(tmp_path, stop_at=2)
    train(context, epochs=2)
    shown = context.progress.sample().metrics
    assert shown is not None
    first = restore_from_checkpoint(_latest(context)).loop
    assert set(shown) == {"running_loss", "batches_per_s"}
    assert 0 < shown["running_loss"] < 3
    assert shown["batches_per_s"] == 1.0
    assert (first.epoch, first.batch) == (0, 2)


def test_a_resumed_run_shows_at_once_what_its_checkpoint_knows(tmp_path: Path) -> None:
    bench = Bench(tmp_path, make_strategy())
    bench.stop(BATCHES + 2)
    bench.stop(BATCHES + 2)
    shown = bench.context.progress.sample().metrics
    restored = bench.restored()
    assert shown is not None
    assert restored is not None
    assert shown["running_loss"] == restored.loop.loss_total / 32
    assert (shown["best_epoch"], shown["monitor"]) == (1, "val_loss")
    assert shown["best_score"] == restored.training_history[0].metrics["val_loss"]


def _latest(context: LocalContext) -> VerifiedCheckpoint:
    latest = context.latest_checkpoint()
    assert latest is not None
    return latest
