"""While the operations actor is away: directories become durable, rows follow, nothing is lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from checkpoint_bench import PROVENANCE, Bench, SilentDrivers, opened
from service_call import ServiceCall

from ktrdr.checkpoints.adoption import found
from ktrdr.checkpoints.verify import latest_good
from ktrdr.driver.delivery import Delivery
from ktrdr.driver.ray_train import RayContext
from ktrdr.errors import StaleAttempt
from ktrdr.operations.types import CheckpointType, FailureReason, HistoryRow
from ktrdr.training.checkpoint_writer import CheckpointWriter
from ktrdr.training.context import LiveProgress
from ktrdr.training.state import Loop, Snapshot, random_state

DEADLINE_S = 20.0


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr("ray.train.report", lambda *_, **__: None)
    with opened(tmp_path) as bench:
        yield bench


@pytest.fixture
def call(bench: Bench) -> ServiceCall:
    return ServiceCall(bench.service, bench.running())


@pytest.fixture
def delivery(call: ServiceCall) -> Iterator[Delivery]:
    delivery = Delivery(call, lambda: None)
    yield delivery
    delivery.close()


@pytest.fixture
def context(bench: Bench, call: ServiceCall, delivery: Delivery) -> RayContext:
    def stop_requested() -> None:
        delivery.check()

    row = bench.service.get(call.operation_id)
    return RayContext(row, delivery, LiveProgress(), stop_requested)


@pytest.fixture
def writer(context: RayContext) -> Iterator[CheckpointWriter]:
    with CheckpointWriter(context, PROVENANCE, None) as writer:
        yield writer


def snapshot(number: int, history: Sequence[HistoryRow] = ()) -> Snapshot:
    return Snapshot(
        checkpoint_type=CheckpointType.PERIODIC,
        loop=Loop(seed=1, epoch=number, history=list(history)),
        global_step=number,
        model={"w": torch.tensor([float(number)])},
        optimizer={"param_groups": []},
        scheduler=None,
        best_model=None,
        random_state=random_state(torch.device("cpu")),
        rank=0,
    )


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_checkpoints_go_on_and_their_rows_follow_when_it_is_back(
    bench: Bench, call: ServiceCall, context: RayContext, writer: CheckpointWriter
) -> None:
    name = call.operation_id
    writer.finish(snapshot(1))
    until(lambda: [row.number for row in bench.service.checkpoints(name)] == [1])
    call.there.clear()
    for number in (2, 3, 4, 5):
        context.epoch_finished(HistoryRow(number, {"train_loss": 0.5}))
        assert writer.finish(snapshot(number)) is not None
    assert [new.number for new in found(bench.storage, name, 1)] == [1, 2, 3, 4, 5]
    assert [row.number for row in bench.service.checkpoints(name)] == [1]
    call.there.set()
    until(lambda: [row.number for row in bench.service.checkpoints(name)] == [4, 5])
    assert [row.epoch for row in bench.service.history(name)] == [2, 3, 4, 5]
    assert [row.number for row in bench.service.checkpoints(name, doomed=True)] == [1, 2, 3]
    assert [new.number for new in found(bench.storage, name, 1)] == [1, 2, 3, 4, 5]  # not ours


def test_a_driver_that_dies_meanwhile_leaves_what_its_successor_goes_on_from(
    bench: Bench, call: ServiceCall, writer: CheckpointWriter
) -> None:
    call.there.clear()
    for number in (1, 2, 3):
        writer.finish(snapshot(number))
    bench.supervise(SilentDrivers())  # the actor is back, the driver is gone
    row, _, passed_over = latest_good(bench.storage, bench.service.checkpoints(call.operation_id))
    assert (row.number, passed_over) == (3, ())
    assert bench.service.get(call.operation_id).attempt == 2


def test_epochs_that_were_never_reported_come_back_with_the_checkpoint_that_holds_them(
    bench: Bench, call: ServiceCall, context: RayContext, writer: CheckpointWriter
) -> None:
    reported, trained = 8, 60
    rows = [HistoryRow(n, {"train_loss": 1.0 / n, "duration": 0.1}) for n in range(1, trained + 1)]
    for row in rows[:reported]:
        context.epoch_finished(row)
    until(lambda: len(bench.service.history(call.operation_id)) == reported)
    call.there.clear()  # from here on the actor is frozen, and training goes on
    for row in rows[reported:]:
        context.epoch_finished(row)
        writer.finish(snapshot(row.epoch, rows[: row.epoch]))
    bench.supervise(SilentDrivers())  # it is back, and the driver was killed meanwhile
    after = bench.service.get(call.operation_id)
    assert (after.attempt, after.progress and after.progress.epoch) == (2, trained)
    assert list(bench.service.history(call.operation_id)) == rows


def test_rows_of_an_attempt_that_is_over_are_refused_and_end_the_training(
    bench: Bench, call: ServiceCall, context: RayContext, writer: CheckpointWriter
) -> None:
    call.there.clear()
    writer.finish(snapshot(1))
    bench.service.lose(call.operation_id, 1, FailureReason.HUNG, "taken for dead")
    call.there.set()

    def refused() -> bool:
        try:
            return context.stop_requested is not None
        except StaleAttempt:
            return True

    until(refused)
    with pytest.raises(StaleAttempt):
        writer.finish(snapshot(2))
    writer.failure = None  # raised already: leaving would raise it again
    assert bench.service.checkpoints(call.operation_id) == ()
