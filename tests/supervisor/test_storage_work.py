"""Storage that is slow, away or broken: no tick waits for it, and nothing is lost by it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoint_bench import Bench, SilentDrivers

from ktrdr.checkpoints.adoption import found
from ktrdr.checkpoints.layout import attempt_folder
from ktrdr.operations.types import FailureReason, Operation, StopKind
from ktrdr.storage.posix import Files
from ktrdr.supervisor.lease_renewal import LeaseRenewal
from ktrdr.supervisor.supervisor import Supervisor
from ktrdr.supervisor.sweeper import StorageWorker

DEADLINE_S = 20.0


class SlowFiles(Files):
    """Answers no reader before it is told to."""

    def __init__(self) -> None:
        self.answering = threading.Event()
        self.asked = threading.Event()

    def read(self, path: Path, limit: int) -> bytes:
        self._wait()
        return super().read(path, limit)

    def names(self, path: Path) -> list[str]:
        self._wait()
        return super().names(path)

    def _wait(self) -> None:
        self.asked.set()
        assert self.answering.wait(DEADLINE_S)


def expired(bench: Bench, row: Operation) -> bool:
    return bench.service.lease_expired(bench.service.get(row.operation_id))


def until(condition: Callable[[], bool], meanwhile: Callable[[], None] = lambda: None) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        meanwhile()
        time.sleep(0.01)


def test_a_storage_that_does_not_answer_delays_no_tick_and_costs_no_lease(bench: Bench) -> None:
    lost, going = bench.running("lost"), bench.running("going")
    bench.write(lost, 1)
    files, drivers, now = SlowFiles(), SilentDrivers((going.operation_id, 1)), [0.0]
    storage = StorageWorker(bench.service, files)
    supervisor = Supervisor(bench.service, lost.owner, drivers, storage, clock=lambda: now[0])

    def tick() -> None:
        now[0] += 1.0
        supervisor.tick()

    supervisor.reconcile()
    storage.start()
    tick()
    assert files.asked.wait(DEADLINE_S)
    with bench.store._writer.begin() as connection:
        long_ago = "UPDATE operations SET lease_expires_at = '2000-01-01 00:00:00'"
        connection.exec_driver_sql(long_ago)
    with LeaseRenewal(bench.service, lost.owner.id, every_s=0.01):
        bench.service.request_kill(going.operation_id, 1, "r-kill")
        for _ in range(30):
            tick()
        assert drivers.killed == [(going.operation_id, 1)]
        until(lambda: not expired(bench, lost))
    assert bench.service.get(lost.operation_id).attempt == 1  # what it left is still being read

    files.answering.set()
    until(lambda: bench.service.get(lost.operation_id).attempt == 2, tick)
    adopted = bench.service.latest_checkpoint(lost.operation_id)
    assert adopted is not None
    assert adopted.key == (1, 1)
    until(lambda: bench.service.get(going.operation_id).status.terminal, tick)


def test_an_unforeseen_error_while_reading_is_tried_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    row = bench.running()
    bench.write(row, 1)
    names, read = Files.names, []

    def broken(files: Files, path: Path) -> list[str]:
        read.append(path)
        if len(read) == 1:
            raise RuntimeError("out of order")
        return names(files, path)

    monkeypatch.setattr(Files, "names", broken)
    bench.supervise()
    assert bench.service.get(row.operation_id).attempt == 2
    assert bench.service.latest_checkpoint(row.operation_id) is not None
    assert "out of order" in caplog.text


def test_what_a_running_operation_has_superseded_is_removed_and_nothing_else(bench: Bench) -> None:
    row = bench.running()
    supervision = bench.supervise(SilentDrivers((row.operation_id, 1)))
    for number in range(1, 5):
        bench.commit(row, number, is_best=number == 1)
    bench.write(row, 5)  # its row may follow
    half_written = attempt_folder(bench.storage, row.operation_id, 1) / ".tmp-checkpoint-000006"
    half_written.mkdir()
    supervision.pass_time(5.0)
    left = [new.number for new in found(bench.storage, row.operation_id, 1)]
    assert left == [1, 3, 4, 5]
    assert half_written.exists()
    assert bench.service.checkpoints(row.operation_id, doomed=True) == ()
    assert [c.number for c in bench.service.checkpoints(row.operation_id)] == [1, 3, 4]


def test_nothing_is_swept_while_a_driver_of_what_is_over_may_write(bench: Bench) -> None:
    row = bench.running()
    drivers = SilentDrivers((row.operation_id, 1))
    supervision = bench.supervise(drivers)
    bench.commit(row, 1)
    half_written = attempt_folder(bench.storage, row.operation_id, 1) / ".tmp-checkpoint-000002"
    half_written.mkdir()
    bench.service.finish_stopped(row.operation_id, 1, StopKind.USER)
    supervision.pass_time(5.0)
    assert half_written.exists()
    drivers.alive.clear()
    supervision.pass_time(5.0)
    assert not half_written.exists()
    assert bench.service.latest_checkpoint(row.operation_id) is not None


def test_what_was_swept_is_not_looked_at_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = bench.cancelled()
    bench.supervise()
    looked, is_folder = [], Files.is_folder

    def seen(files: Files, path: Path) -> bool:
        looked.append(path)
        return is_folder(files, path)

    monkeypatch.setattr(Files, "is_folder", seen)
    bench.supervise()
    assert looked == []
    again = bench.resumed(row)
    bench.service.finish_failed(again.operation_id, 2, FailureReason.USER_ERROR, "boom")
    bench.supervise()
    assert looked != []
