"""A disk that refuses: training goes on, the user is told, the last good checkpoint stays."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tiny_training import BATCHES, OPERATION, Bench, make_dataset, make_job, make_strategy, outcome

from ktrdr.checkpoints.adoption import found
from ktrdr.checkpoints.layout import attempt_folder
from ktrdr.checkpoints.verify import verify_row
from ktrdr.errors import StaleAttempt, StoreUnavailable
from ktrdr.storage.posix import Files
from ktrdr.storage.root import Storage
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


class Full(Files):
    """The disk is full while `refuses` says so of a path that is written."""

    def __init__(self, refuses: Callable[[Path], bool]) -> None:
        self.refuses = refuses

    def write(self, path: Path, data: bytes) -> None:
        if self.refuses(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().write(path, data)


def numbers(*refused: int) -> Callable[[Path], bool]:
    return lambda path: path.parent.name in {f".tmp-checkpoint-{n:06d}" for n in refused}


def train(
    context: LocalContext, resumed_from: LocalContext | None = None, **training: Any
) -> Completed | Stopped:
    dataset = make_dataset()
    latest = resumed_from.latest_checkpoint() if resumed_from else None
    resume = restore_from_checkpoint(latest) if latest else None
    return fit(make_job(make_strategy(**training), dataset), dataset, context, resume)


def on(bench: Bench, files: Files, attempt: int = 1, stop_at: int | None = None) -> LocalContext:
    return LocalContext(Storage(bench.storage.root, files), OPERATION, attempt, stop_at)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "refusing", make_strategy())


def test_a_stop_that_cannot_be_saved_says_which_batches_are_lost(bench: Bench) -> None:
    context = on(bench, Full(numbers(3)), stop_at=BATCHES + 3)
    result = train(context, **EVERY_EPOCH)
    assert isinstance(result, Stopped)
    assert result.checkpoint is None
    [said] = context.warnings
    assert said.startswith("cancellation checkpoint not saved, lost are the 3 batches since epoch")
    assert "epoch 1, batch 0, where a resume goes on" in said
    assert "No space left" in said
    verify_row(context.storage, context.rows[-1])


def test_a_resumed_run_that_saves_nothing_counts_from_where_it_was_resumed(bench: Bench) -> None:
    first = on(bench, Files(), stop_at=BATCHES)
    train(first)
    context = on(bench, Full(lambda _: True), attempt=2, stop_at=BATCHES + 2)
    train(context, first)
    assert "lost are the 2 batches since epoch 1, batch 0" in context.warnings[0]


def test_with_no_checkpoint_at_all_a_stop_says_that_too(bench: Bench) -> None:
    context = on(bench, Full(lambda _: True), stop_at=2)
    train(context)
    assert "initial checkpoint not saved, training goes on" in context.warnings[0]
    assert "there is no earlier one to resume from" in context.warnings[1]
    assert context.rows == []


def test_a_failure_that_cannot_be_saved_is_still_the_failure(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = on(bench, Full(numbers(2)))

    def fails(_: Any) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(context, "epoch_finished", fails)
    with pytest.raises(RuntimeError, match="out of luck"):
        train(context)
    [said] = context.warnings
    assert said.startswith("failure checkpoint not saved, lost are the 4 batches")
    assert [row.number for row in context.rows] == [1]


def test_a_warning_that_is_refused_ends_the_training(bench: Bench) -> None:
    class Over(LocalContext):
        def warn(self, message: str) -> None:
            raise StaleAttempt(f"attempt 1 is over: {message}")

    context = Over(Storage(bench.storage.root, Full(numbers(1))), OPERATION, 1)
    with pytest.raises(StaleAttempt):
        train(context, epochs=100_000)


def test_what_cannot_be_removed_is_told_and_removed_later(
    bench: Bench, expected: dict[str, Any]
) -> None:
    class Keeping(Files):
        allowed = False

        def rename(self, source: Path, target: Path) -> None:
            if target.name.startswith(".trash-") and not self.allowed:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            super().rename(source, target)

    context = on(bench, Keeping())
    assert outcome(_completed(train(context, **EVERY_EPOCH))) == expected
    assert len(found(bench.storage, OPERATION, 1)) == 4
    kept = [row for row in context.rows if row.doomed_at is not None]
    assert kept
    for row in context.rows:
        verify_row(context.storage, row)


def test_a_store_that_goes_away_after_a_commit_does_not_unsay_it(bench: Bench) -> None:
    class Forgetful(LocalContext):
        def forget(self, ids: Sequence[int]) -> None:
            raise StoreUnavailable(f"the store is away: {ids}")

    context = Forgetful(bench.storage, OPERATION, 1)
    _completed(train(context, epochs=5, **EVERY_EPOCH))
    assert {said.split(":")[0] for said in context.warnings} == {
        "superseded checkpoints not removed yet"
    }


def test_a_folder_that_is_in_the_way_is_refused_until_it_is_gone(
    bench: Bench, expected: dict[str, Any]
) -> None:
    folder = attempt_folder(bench.storage, OPERATION, 1)
    folder.parent.mkdir(parents=True)
    folder.write_bytes(b"a file, where a folder should be")

    class Clearing(LocalContext):
        def warn(self, message: str) -> None:
            super().warn(message)
            folder.unlink()

    context = Clearing(bench.storage, OPERATION, 1)
    assert outcome(_completed(train(context, **EVERY_EPOCH))) == expected
    assert len(context.warnings) == 1
    assert [row.number for row in context.rows][-1] == 4


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused(bench: Bench, expected: dict[str, Any]) -> None:
    context = on(bench, Files(), stop_at=1)
    train(context)
    folder = attempt_folder(bench.storage, OPERATION, 2)
    folder.mkdir()
    folder.chmod(0o500)
    again = on(bench, Files(), attempt=2)
    assert outcome(_completed(train(again, context))) == expected
    assert "Permission denied" in again.warnings[0]


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
