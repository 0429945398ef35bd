"""What endings and crashes leave is swept by what the rows say; nothing else is touched."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from checkpoint_bench import OWNER, Bench, SilentDrivers, opened

from ktrdr.checkpoints.adoption import found
from ktrdr.checkpoints.cleanup import clean_up, delete_checkpoints, sweep_operation
from ktrdr.checkpoints.layout import attempt_folder
from ktrdr.checkpoints.model_store import read_model
from ktrdr.checkpoints.orphans import find_orphans, remove_orphans
from ktrdr.checkpoints.verify import latest_good
from ktrdr.errors import (
    CheckpointNotFound,
    OperationRunning,
    StaleAttempt,
    StorageUnavailable,
)
from ktrdr.operations.types import Adoption, FailureReason, Operation, Owner, OwnerKind, Status

STRANGER = Owner("owner-2", OwnerKind.EMBEDDED, "host", 4243, 1001.0)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with opened(tmp_path) as bench:
        yield bench


def litter(bench: Bench, operation: Operation, attempt: int) -> None:
    """What a driver leaves that dies while it writes a checkpoint, removes one, and stores."""
    folder = attempt_folder(bench.storage, operation.operation_id, attempt)
    staging = f".staging-{operation.operation_id}-{attempt:04d}"
    for place in (
        folder / ".tmp-checkpoint-000077",
        folder / ".trash-checkpoint-000001",
        bench.storage.path("models", "demo") / staging,
    ):
        place.mkdir(parents=True)
        (place / "model.pt").write_bytes(b"half")


def hidden(bench: Bench) -> set[str]:
    return {name for name in bench.names() if Path(name).name.startswith(".")}


def test_an_owner_that_starts_sweeps_what_is_over_and_spares_what_goes_on(bench: Bench) -> None:
    done, ended, going = bench.running("done"), bench.running("ended"), bench.running("going")
    for number in (1, 2, 3):
        bench.commit(done, number)
    bench.complete(done)
    bench.cancelled("cancelled")
    ended = bench.service.lose(
        ended.operation_id, 1, FailureReason.DRIVER_LOST, "gone: attempt 2 goes on"
    )
    for operation in (done, ended):
        litter(bench, operation, 1)
    litter(bench, ended, 2)
    litter(bench, going, 1)
    mine = {name for name in hidden(bench) if going.operation_id in name}
    mine |= {name for name in hidden(bench) if "0002" in name and ended.operation_id in name}
    drivers = SilentDrivers((going.operation_id, 1), (ended.operation_id, 2))

    bench.supervise(drivers)

    assert hidden(bench) == mine
    assert not any(done.operation_id in name for name in bench.names())
    assert bench.service.checkpoints(done.operation_id, doomed=True) == ()
    read_model(bench.storage, "demo", 1)
    assert [c.number for c in bench.service.checkpoints(going.operation_id)] == []


def test_doomed_checkpoints_of_what_has_ended_are_swept_by_any_owner(bench: Bench) -> None:
    row = bench.running()
    bench.commit(row, 1)
    bench.complete(row)
    bench.supervise(owner=STRANGER)
    assert not any(name.startswith("operations/") for name in bench.names())


def test_what_a_driver_leaves_is_swept_when_it_has_ended(bench: Bench) -> None:
    drivers = SilentDrivers()
    supervision = bench.supervise(drivers)
    row = bench.running()
    supervision.pass_time(5.0)
    bench.commit(row, 1)
    bench.complete(row)
    litter(bench, row, 1)
    supervision.pass_time(5.0)
    assert hidden(bench)  # its driver lives: it may be removing them itself
    drivers.alive.clear()
    supervision.pass_time(5.0)
    assert bench.names() == {"models/demo"} | {
        f"models/demo/v1{name}"
        for name in ("", "/loop.pt", "/manifest.json", "/model.pt", "/optimizer.pt")
    }


def test_a_storage_that_is_away_is_swept_when_it_is_back(bench: Bench) -> None:
    row = bench.running()
    bench.commit(row, 1)
    bench.complete(row)
    away = bench.storage.root.with_name("unmounted")
    os.rename(bench.storage.root, away)
    bench.supervise()
    assert len(bench.service.checkpoints(row.operation_id, doomed=True)) == 1
    os.rename(away, bench.storage.root)
    bench.supervise()
    assert bench.service.checkpoints(row.operation_id, doomed=True) == ()


def test_standing_checkpoints_survive_every_sweep(bench: Bench) -> None:
    ended = bench.cancelled(numbers=5)
    row, _, _ = latest_good(bench.storage, bench.service.checkpoints(ended.operation_id))
    for _ in range(2):
        bench.supervise()
        clean_up(bench.service, timedelta(days=30))
        sweep_operation(bench.service, ended.operation_id)
    good = [new.number for new in found(bench.storage, ended.operation_id, 1)]
    assert good == [4, 5]
    assert row.number == 5


def test_an_unmarked_model_goes_and_a_marked_one_stays_also_when_stored_late(bench: Bench) -> None:
    row = bench.running()
    bench.commit(row, 1)
    result, model = bench.store_model(row)
    again = bench.service.lose(row.operation_id, 1, FailureReason.DRIVER_LOST, "gone")
    drivers = SilentDrivers((row.operation_id, 2))
    assert "models/demo/v1" in bench.names()
    bench.supervise(drivers)
    assert "models/demo/v1" not in bench.names()
    with pytest.raises(StaleAttempt):
        bench.service.finish_completed(row.operation_id, 1, result, model)
    bench.complete(again)
    bench.supervise()
    assert read_model(bench.storage, "demo", 2)[0].attempt == 2
    assert [m.version for m in bench.service.models()] == [2]


def test_a_model_of_somebody_else_in_the_place_is_left(bench: Bench) -> None:
    row, other = bench.running("one"), bench.running("two")
    bench.store_model(row)
    bench.complete(other)
    v1, v2 = (bench.storage.at(f"models/demo/v{n}") for n in (1, 2))
    shutil.rmtree(v1)
    os.rename(v2, v1)
    bench.service.finish_failed(row.operation_id, 1, FailureReason.USER_ERROR, "boom")
    for operation in (row, other):
        sweep_operation(bench.service, operation.operation_id)
    assert other.operation_id.encode() in (v1 / "manifest.json").read_bytes()


def test_checkpoints_are_deleted_only_when_it_has_ended(bench: Bench) -> None:
    row = bench.running()
    bench.commit(row, 1)
    with pytest.raises(OperationRunning, match="operations cancel"):
        delete_checkpoints(bench.service, row.operation_id)
    latest_good(bench.storage, bench.service.checkpoints(row.operation_id))


def test_after_a_delete_nothing_is_left_to_resume_from(bench: Bench) -> None:
    ended = bench.cancelled(numbers=2)
    running = replace(ended, status=Status.RUNNING)
    bench.write(running, 9)  # a directory whose row was never written
    litter(bench, ended, 1)
    assert delete_checkpoints(bench.service, ended.operation_id) == 2
    assert not any(name.startswith("operations/") for name in bench.names())
    with pytest.raises(CheckpointNotFound):
        latest_good(bench.storage, bench.service.checkpoints(ended.operation_id))
    assert delete_checkpoints(bench.service, ended.operation_id) == 0
    events = [e.event for e in bench.service.events(ended.operation_id)]
    assert events.count("checkpoints_deleted") == 1


def test_a_delete_on_a_storage_that_is_away_changes_nothing(bench: Bench) -> None:
    ended = bench.cancelled(numbers=2)
    os.rename(bench.storage.root, bench.storage.root.with_name("unmounted"))
    with pytest.raises(StorageUnavailable):
        delete_checkpoints(bench.service, ended.operation_id)
    assert len(bench.service.checkpoints(ended.operation_id)) == 2


def test_a_resume_that_chose_a_checkpoint_loses_against_a_delete(bench: Bench) -> None:
    ended = bench.cancelled()
    chosen = bench.service.latest_checkpoint(ended.operation_id)
    delete_checkpoints(bench.service, ended.operation_id)
    assert chosen is not None
    with pytest.raises(AssertionError):
        bench.resumed(ended)
    assert bench.service.get(ended.operation_id) == ended


def test_cleanup_takes_the_old_ones_that_have_ended_and_no_others(bench: Bench) -> None:
    old, young, going = bench.cancelled("old"), bench.cancelled("young"), bench.running("going")
    bench.commit(going, 1)
    with bench.store._writer.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE operations SET completed_at = '2020-01-01 00:00:00'"
            f" WHERE operation_id = '{old.operation_id}'"
        )
    done = clean_up(bench.service, timedelta(days=30))
    assert (done.expired, done.removed, done.left) == ((old.operation_id,), 2, ())
    assert bench.service.checkpoints(old.operation_id) == ()
    for operation in (young, going):
        latest_good(bench.storage, bench.service.checkpoints(operation.operation_id))
    assert clean_up(bench.service, timedelta(days=30)).expired == ()
    assert clean_up(bench.service, timedelta(weeks=999_999)).expired == ()
    assert clean_up(bench.service, timedelta(0)).expired == (young.operation_id,)


def test_only_what_the_store_does_not_know_is_an_orphan(bench: Bench) -> None:
    going, ended = bench.running("going"), bench.cancelled("ended")
    bench.write(going, 1)  # its row may still follow
    bench.write(replace(ended, status=Status.RUNNING), 9)
    bench.store_model(going)
    for name in (
        "operations/op_training_20200101_000000_0123abcd/attempt-0001",
        "operations/something else",
        "models/unknown/v1",
        "models/demo/v9",
    ):
        (bench.storage.root / name).mkdir(parents=True)
    (bench.storage.root / "operations" / "a link").symlink_to("/tmp")
    orphans = find_orphans(bench.service, bench.storage)
    assert {orphan.path for orphan in orphans} == {
        "operations/op_training_20200101_000000_0123abcd",
        "operations/something else",
        f"operations/{ended.operation_id}/attempt-0001/checkpoint-000009",
        "models/unknown",
        "models/demo/v9",
    }
    assert remove_orphans(bench.storage, orphans) == orphans
    assert find_orphans(bench.service, bench.storage) == ()
    assert found(bench.storage, going.operation_id, 1)
    assert len(found(bench.storage, ended.operation_id, 1)) == 2
    assert Path("/tmp").exists()
    assert "models/demo/v1" in bench.names()


def test_a_checkpoint_without_a_row_is_adopted_by_the_end_of_its_attempt(bench: Bench) -> None:
    row = bench.running()
    bench.commit(row, 1)
    bench.commit(row, 2)
    bench.write(row, 3)
    bench.write(row, 4)
    (bench.storage.at(bench.write(row, 5).path) / "model.pt").write_bytes(b"torn")
    bench.supervise()
    restarted = bench.service.get(row.operation_id)
    assert (restarted.attempt, restarted.status) == (2, Status.RUNNING)
    assert restarted.progress is not None
    assert restarted.progress.epoch == 4
    assert [c.key for c in bench.service.checkpoints(row.operation_id)] == [(1, 3), (1, 4)]
    assert bench.service.checkpoints(row.operation_id, doomed=True) == ()  # swept


def test_a_checkpoint_that_retention_has_forgotten_is_not_adopted_again(bench: Bench) -> None:
    row = bench.running()
    first = bench.write(row, 1)
    for number in (2, 3, 4):
        bench.commit(row, number)
    bench.service.lose(row.operation_id, 1, FailureReason.HUNG, "", adopt=Adoption((first,)))
    assert [c.number for c in bench.service.checkpoints(row.operation_id)] == [3, 4]


def test_a_cancelled_operation_whose_driver_died_ends_at_its_last_durable_checkpoint(
    bench: Bench,
) -> None:
    row = bench.running()
    bench.commit(row, 1)
    bench.service.request_cancel(row.operation_id, 1, "r-cancel")
    bench.write(row, 2)
    bench.supervise()
    ended = bench.service.get(row.operation_id)
    assert ended.status is Status.CANCELLED
    latest = bench.service.latest_checkpoint(row.operation_id)
    assert latest is not None
    assert latest.number == 2
    resumed = bench.resumed(ended)
    assert (resumed.attempt, resumed.owner) == (2, OWNER)


def test_a_kill_on_request_reaches_only_what_runs_now(bench: Bench) -> None:
    drivers = SilentDrivers()
    supervision = bench.supervise(drivers)
    row = bench.running()
    supervision.pass_time(5.0)
    bench.commit(row, 1)
    bench.service.request_cancel(row.operation_id, 1, "r-cancel")
    bench.service.request_kill(row.operation_id, 1, "r-kill")
    supervision.pass_time(5.0)
    ended = bench.service.get(row.operation_id)
    assert (ended.status, drivers.killed) == (Status.CANCELLED, [(row.operation_id, 1)])
    assert bench.service.request_kill(row.operation_id, 1, "r-late") == ended
    bench.resumed(ended)
    for _ in range(3):
        supervision.pass_time(5.0)
    assert bench.service.get(row.operation_id).status is Status.RUNNING
