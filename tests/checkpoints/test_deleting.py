"""`delete`: all of an operation goes but its model, and wherever it is cut short it can go on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoint_bench import Bench, opened

from ktrdr.checkpoints.cleanup import clean_up, delete_operation
from ktrdr.checkpoints.model_store import read_model
from ktrdr.checkpoints.orphans import find_orphans, remove_orphans
from ktrdr.errors import OperationNotFound, OperationRunning, StorageUnavailable
from ktrdr.operations.types import Operation
from ktrdr.storage.posix import Files


class Killed(BaseException):
    """The process ends here."""


class KilledAt(Files):
    """Lets so many changes of the disk happen, and dies at the next."""

    def __init__(self, num_changes: int) -> None:
        self._left = num_changes

    def _change(self) -> None:
        if not self._left:
            raise Killed
        self._left -= 1

    def rename(self, source: Path, target: Path) -> None:
        self._change()
        super().rename(source, target)

    def remove_tree(self, path: Path) -> None:
        self._change()
        super().remove_tree(path)

    def remove_empty_folder(self, path: Path) -> None:
        self._change()
        super().remove_empty_folder(path)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with opened(tmp_path) as bench:
        yield bench


def folder(bench: Bench, operation: Operation) -> Path:
    return bench.storage.path("operations", operation.operation_id)


def ended(bench: Bench, name: str) -> Operation:
    """A cancelled operation with checkpoints, one without a row, and a file beside them."""
    operation = bench.cancelled(name, numbers=3)
    newest = folder(bench, operation) / "attempt-0001" / "checkpoint-000003"
    rowless = newest.with_name("checkpoint-000009")
    rowless.mkdir()
    (rowless / "model.pt").write_bytes((newest / "model.pt").read_bytes())
    (folder(bench, operation) / "stacks.txt").write_text("Thread 1")
    return operation


def test_all_of_it_goes_and_nothing_else(bench: Bench) -> None:
    gone, stays = ended(bench, "gone"), ended(bench, "stays")
    others = {name for name in bench.names() if gone.operation_id not in name}
    delete_operation(bench.service, gone.operation_id)
    assert bench.names() == others
    with pytest.raises(OperationNotFound):
        bench.service.get(gone.operation_id)
    with pytest.raises(OperationNotFound):
        delete_operation(bench.service, gone.operation_id)
    assert bench.service.events(stays.operation_id)
    assert bench.service.checkpoints(stays.operation_id)


def test_the_model_of_a_deleted_operation_stays(bench: Bench) -> None:
    row = bench.running()
    bench.commit(row, 1)
    bench.complete(row)
    delete_operation(bench.service, row.operation_id)
    assert [m.operation_id for m in bench.service.models()] == [row.operation_id]
    read_model(bench.storage, "demo", 1)
    assert find_orphans(bench.service, bench.storage) == ()
    clean_up(bench.service, None)
    read_model(bench.storage, "demo", 1)


def test_what_runs_or_whose_storage_is_away_is_left_as_it_is(bench: Bench) -> None:
    row, other = bench.running(), ended(bench, "other")
    with pytest.raises(OperationRunning):
        delete_operation(bench.service, row.operation_id)
    bench.storage.root.rename(bench.storage.root.with_name("unmounted"))
    before = bench.service.get(other.operation_id), bench.service.checkpoints(other.operation_id)
    with pytest.raises(StorageUnavailable):
        delete_operation(bench.service, other.operation_id)
    now = bench.service.get(other.operation_id), bench.service.checkpoints(other.operation_id)
    assert now == before


def test_killed_anywhere_it_goes_on_or_leaves_a_listed_folder(bench: Bench) -> None:
    outcomes = set()
    for num_changes in range(40):
        operation = ended(bench, f"run-{num_changes}")
        try:
            delete_operation(bench.service, operation.operation_id, KilledAt(num_changes))
        except Killed:
            outcomes.add(_after_a_kill(bench, operation))
        else:
            break
        assert not [name for name in bench.names() if operation.operation_id in name]
    assert outcomes == {"deleted again", "listed"}


def _after_a_kill(bench: Bench, operation: Operation) -> str:
    try:
        delete_operation(bench.service, operation.operation_id)
    except OperationNotFound:
        orphans = find_orphans(bench.service, bench.storage)
        assert len(orphans) == 1
        assert operation.operation_id in orphans[0].path
        assert remove_orphans(bench.storage, orphans) == orphans
        return "listed"
    return "deleted again"
