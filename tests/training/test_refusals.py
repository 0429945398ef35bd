"""A disk that refuses: training goes on, the user is told, the last good checkpoint stays."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from faults import NO_FAULTS, FaultPlan, FaultyContext
from tiny_training import BATCHES, OPERATION, Bench, make_dataset, make_job, make_strategy, outcome

from ktrdr.checkpoints.adoption import found
from ktrdr.checkpoints.layout import attempt_folder
from ktrdr.checkpoints.verify import verify_row
from ktrdr.errors import StaleAttempt
from ktrdr.training import trainer
from ktrdr.training.checkpoint_writer import CheckpointWriter
from ktrdr.training.context import LocalContext
from ktrdr.training.learner import Learner
from ktrdr.training.resume import restore_from_checkpoint
from ktrdr.training.trainer import Completed, Stopped, fit

SCRIPT = Path(__file__).parents[1] / "support" / "refused_training.py"
EVERY_EPOCH: dict[str, Any] = {"checkpoint": {"every_epochs": 1, "every_seconds": 300}}


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No periodic checkpoint is skipped: each waits for the one before it."""
    save = trainer._save

    def settled(learner: Learner, writer: CheckpointWriter) -> None:
        writer.settle()
        save(learner, writer)

    monkeypatch.setattr(trainer, "_save", settled)


@pytest.fixture
def expected(tmp_path: Path) -> dict[str, Any]:
    return outcome(Bench(tmp_path / "undisturbed", make_strategy()).complete())


def train(
    context: LocalContext, resumed_from: LocalContext | None = None, **training: Any
) -> Completed | Stopped:
    dataset = make_dataset()
    latest = resumed_from.latest_checkpoint() if resumed_from else None
    resume = restore_from_checkpoint(latest) if latest else None
    return fit(make_job(make_strategy(**training), dataset), dataset, context, resume)


def on(
    bench: Bench, plan: FaultPlan = NO_FAULTS, attempt: int = 1, stop_at: int | None = None
) -> FaultyContext:
    return FaultyContext(bench.storage, OPERATION, plan, attempt=attempt, stop_at=stop_at)


def full_for(*numbers: int) -> FaultPlan:
    return FaultPlan(full_for=frozenset(numbers))


FULL = FaultPlan(always_full=True)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "refusing", make_strategy())


def test_a_stop_that_cannot_be_saved_says_which_batches_are_lost(bench: Bench) -> None:
    context = on(bench, full_for(3), stop_at=BATCHES + 3)
    result = train(context, **EVERY_EPOCH)
    assert isinstance(result, Stopped)
    assert result.checkpoint is None
    said = context.warnings[0].message
    assert [warning.code for warning in context.warnings] == ["CHECKPOINT_NOT_SAVED"]
    assert said.startswith("cancellation checkpoint not saved, lost are the 3 batches since epoch")
    assert "epoch 1, batch 0, where a resume goes on" in said
    assert "No space left" in said
    verify_row(context.storage, context.rows[-1])


def test_a_resumed_run_that_saves_nothing_counts_from_where_it_was_resumed(bench: Bench) -> None:
    first = on(bench, stop_at=BATCHES)
    train(first)
    context = on(bench, FULL, attempt=2, stop_at=BATCHES + 2)
    train(context, first)
    assert "lost are the 2 batches since epoch 1, batch 0" in context.warnings[0].message


def test_with_no_checkpoint_at_all_a_stop_says_that_too(bench: Bench) -> None:
    context = on(bench, FULL, stop_at=2)
    train(context)
    assert "initial checkpoint not saved, training goes on" in context.warnings[0].message
    assert "there is no earlier one to resume from" in context.warnings[1].message
    assert context.rows == []


def test_a_failure_that_cannot_be_saved_is_still_the_failure(
    bench: Bench,
) -> None:
    plan = dataclasses.replace(full_for(2), epoch_finished=RuntimeError("out of luck"))
    context = on(bench, plan)

    with pytest.raises(RuntimeError, match="out of luck"):
        train(context)
    [warning] = context.warnings
    assert warning.message.startswith("failure checkpoint not saved, lost are the 4 batches")
    assert [row.number for row in context.rows] == [1]


def test_a_warning_that_is_refused_ends_the_training(bench: Bench) -> None:
    over = StaleAttempt("attempt 1 is over")
    context = on(bench, dataclasses.replace(full_for(1), warning=over))
    with pytest.raises(StaleAttempt):
        train(context, epochs=100_000)


def test_what_cannot_be_removed_is_told_and_removed_later(
    bench: Bench, expected: dict[str, Any]
) -> None:
    context = on(bench, FaultPlan(never_removed=True))
    assert outcome(_completed(train(context, **EVERY_EPOCH))) == expected
    assert len(found(bench.storage, OPERATION, 1)) == 4
    kept = [row for row in context.rows if row.doomed_at is not None]
    assert kept
    for row in context.rows:
        verify_row(context.storage, row)


def test_a_folder_that_is_in_the_way_is_refused_until_it_is_gone(
    bench: Bench, expected: dict[str, Any]
) -> None:
    folder = attempt_folder(bench.storage, OPERATION, 1)
    folder.parent.mkdir(parents=True)
    folder.write_bytes(b"a file, where a folder should be")

    context = on(bench, FaultPlan(in_the_way=folder))
    assert outcome(_completed(train(context, **EVERY_EPOCH))) == expected
    assert len(context.warnings) == 1
    assert [row.number for row in context.rows][-1] == 4


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused(bench: Bench, expected: dict[str, Any]) -> None:
    context = on(bench, stop_at=1)
    train(context)
    folder = attempt_folder(bench.storage, OPERATION, 2)
    folder.mkdir()
    folder.chmod(0o500)
    again = on(bench, attempt=2)
    assert outcome(_completed(train(again, context))) == expected
    assert "Permission denied" in again.warnings[0].message


def test_a_real_limit_of_the_operating_system_is_survived(
    bench: Bench, expected: dict[str, Any]
) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(bench.storage.root)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["outcome"] == json.loads(json.dumps(expected))
    assert len(said["warnings"]) == 4
    assert "File too large" in said["warnings"][0]
    assert not list(attempt_folder(bench.storage, OPERATION, 1).iterdir())


def _completed(result: Completed | Stopped) -> Completed:
    assert isinstance(result, Completed)
    return result
