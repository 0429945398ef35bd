"""The history that a checkpoint carries: readable without torch, read back to the same bits."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
from tiny_training import BATCHES, Bench, make_strategy, outcome

from ktrdr.checkpoints.history import HISTORY, encode_history, read_history
from ktrdr.checkpoints.verify import VerifiedCheckpoint, read_checkpoint
from ktrdr.errors import CheckpointCorrupted
from ktrdr.operations.types import HistoryRow
from ktrdr.storage.posix import Files
from ktrdr.training.context import LocalContext
from ktrdr.training.resume import restore_from_checkpoint
from ktrdr.training.weights import load_state, save_state


@pytest.fixture
def stopped(tmp_path: Path) -> Bench:
    """Stopped in its third epoch."""
    bench = Bench(tmp_path / "stopped", make_strategy())
    bench.stop(2 * BATCHES + 1)
    return bench


def test_history_reads_back_to_the_same_bits() -> None:
    metrics = {"a": 0.1 + 0.2, "b": 5e-324, "c": -0.0, "d": math.nextafter(1.0, 2.0), "e": 3}
    [row] = read_history({HISTORY: encode_history([HistoryRow(1, metrics)])})
    assert {name: repr(value) for name, value in row.metrics.items()} == {
        name: repr(value) for name, value in metrics.items()
    }
    assert encode_history([])
    with pytest.raises(ValueError, match="JSON"):
        encode_history([HistoryRow(1, {"loss": math.nan})])


@pytest.mark.parametrize(
    "content", [b"{", b"[3]", b'[{"epoch": 2, "metrics": {}}]', b'[{"epoch": "1", "metrics": {}}]']
)
def test_a_history_that_is_none_is_refused(content: bytes) -> None:
    with pytest.raises(CheckpointCorrupted, match=HISTORY):
        read_history({HISTORY: content})


def test_a_checkpoint_carries_the_history_up_to_it(stopped: Bench) -> None:
    latest = _latest(stopped)
    assert read_history(latest.files) == tuple(stopped.context.history)
    assert [row.epoch for row in read_history(latest.files)] == [1, 2]
    assert "history" not in load_state(latest.files["loop.pt"], "loop.pt")


def test_a_checkpoint_of_the_version_before_resumes_to_the_same_end(
    stopped: Bench, tmp_path: Path
) -> None:
    """There the history is in loop.pt alone."""
    expected = outcome(Bench(tmp_path / "undisturbed", make_strategy()).complete())
    latest = _latest(stopped)
    rows = read_history(latest.files)
    old = _with_loop_history(latest, rows)
    files = {name: data for name, data in old.files.items() if name != HISTORY}
    resume = restore_from_checkpoint(dataclasses.replace(old, files=files))
    assert resume.training_history == rows
    assert outcome(stopped.complete(resume)) == expected


def test_two_histories_must_agree(stopped: Bench) -> None:
    latest = _latest(stopped)
    rows = read_history(latest.files)
    assert restore_from_checkpoint(_with_loop_history(latest, rows)).training_history == rows
    other = (rows[0], dataclasses.replace(rows[1], metrics={"train_loss": 9.0}))
    with pytest.raises(CheckpointCorrupted, match="another history"):
        restore_from_checkpoint(_with_loop_history(latest, other))


def test_a_start_from_a_checkpoint_reads_each_of_its_files_once(stopped: Bench) -> None:
    class Counting(Files):
        def read(self, path: Path, limit: int) -> bytes:
            names.append(path.name)
            return super().read(path, limit)

    names: list[str] = []
    context = LocalContext(stopped.storage, stopped.context.operation_id, 2)
    stopped.storage.files = Counting()
    latest = context.latest_checkpoint()
    assert latest is not None
    restore_from_checkpoint(latest)
    manifest, files = read_checkpoint(latest.directory)
    assert sorted(names) == sorted([*files, "manifest.json"])
    assert manifest == latest.manifest


def test_an_end_by_early_stopping_is_told_from_one_by_epochs(tmp_path: Path) -> None:
    impatient = {"enabled": True, "patience": 1, "min_delta": 10.0}
    early = Bench(tmp_path / "early", make_strategy(early_stopping=impatient)).complete()
    assert (early.stopped_early, early.epochs) == (True, 2)
    assert not Bench(tmp_path / "whole", make_strategy()).complete().stopped_early


def _latest(bench: Bench) -> VerifiedCheckpoint:
    latest = bench.context.latest_checkpoint()
    assert latest is not None
    return latest


def _with_loop_history(
    latest: VerifiedCheckpoint, rows: tuple[HistoryRow, ...]
) -> VerifiedCheckpoint:
    loop = load_state(latest.files["loop.pt"], "loop.pt")
    state = {**loop, "history": [dataclasses.asdict(row) for row in rows]}
    return dataclasses.replace(latest, files={**latest.files, "loop.pt": save_state(state)})
