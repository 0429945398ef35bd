"""What a driver says: in order, each once, kept while nobody takes it, ended when refused."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from checkpoint_bench import Bench, opened
from hypothesis import given, settings
from hypothesis import strategies as st
from service_call import ServiceCall

from ktrdr.driver.delivery import Delivery
from ktrdr.driver.warning_rate import WARN_EVERY_S, WarningRate
from ktrdr.errors import StaleAttempt, StoreUnavailable
from ktrdr.operations.types import (
    FailureReason,
    HistoryRow,
    Phase,
    Progress,
    Report,
    StopKind,
    TrainingWarning,
)

START = Progress(epoch=0, epochs=3, batch=0, batches=10, percent=0.0, metrics=None)
FULL = "CHECKPOINT_NOT_SAVED"
DEADLINE_S = 20.0


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with opened(tmp_path) as bench:
        yield bench


@pytest.fixture
def call(bench: Bench) -> ServiceCall:
    return ServiceCall(bench.service, bench.running())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def delivery(call: ServiceCall, clock: Clock) -> Iterator[Delivery]:
    delivery = Delivery(call, lambda: START, clock)
    yield delivery
    delivery.close()


def row(epoch: int) -> HistoryRow:
    return HistoryRow(epoch, {"train_loss": 1.0 / epoch})


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def raised_by(delivery: Delivery) -> BaseException | None:
    try:
        delivery.check()
    except BaseException as error:
        return error
    return None


def reports(call: ServiceCall) -> list[Report]:
    return [argument for verb, argument in call.called if verb == "report"]


def test_all_that_was_said_is_delivered_before_the_end_in_order_and_once(
    bench: Bench, call: ServiceCall, delivery: Delivery
) -> None:
    operation = bench.service.get(call.operation_id)
    delivery.enter(Phase.TRAINING)
    for number in (1, 2, 3):
        delivery.epoch_finished(row(number))
        delivery.commit(bench.write(operation, number))
    delivery.warn(FULL, "the disk is full")
    delivery.finish("finish_stopped", StopKind.USER)
    verbs = [verb for verb, _ in call.called]
    assert verbs[-2:] == ["report", "finish_stopped"]
    assert [r.epoch for report in reports(call) for r in report.history] == [1, 2, 3]
    assert [report.sequence for report in reports(call)] == list(range(1, len(reports(call)) + 1))
    for number, (verb, new) in enumerate(call.called):
        if verb == "commit_checkpoint":  # its history was there before its row
            told = [argument for verb, argument in call.called[:number] if verb == "report"]
            assert new.number in [r.epoch for report in told for r in report.history]
    events = [event.event for event in bench.service.events(call.operation_id)]
    assert events.index("checkpoint_committed") < events.index("warned") < events.index("stopped")


def test_an_answer_that_got_lost_changes_nothing_when_it_is_asked_for_again(
    bench: Bench, call: ServiceCall, delivery: Delivery
) -> None:
    call.faults.extend(["lost"] * 3)
    delivery.warn(FULL, "the disk is full")
    delivery.enter(Phase.TRAINING)
    delivery.epoch_finished(row(1))
    until(lambda: not call.faults)
    call.faults.extend(["lost"] * 2)
    delivery.finish("finish_stopped", StopKind.USER)
    assert bench.service.get(call.operation_id).warnings == (
        TrainingWarning(FULL, "the disk is full", 1),
    )
    said = {report.sequence: report for report in reports(call)}
    assert all(said[report.sequence] == report for report in reports(call))  # the same every time
    events = [event.event for event in bench.service.events(call.operation_id)]
    assert (events.count("warned"), events.count("stopped")) == (1, 1)


@pytest.mark.timeout(120)
@settings(max_examples=25, deadline=None)
@given(
    said=st.lists(st.sampled_from(["phase", "epoch", "commit", "warn"]), max_size=12),
    faults=st.lists(st.sampled_from(["away", "lost", None]), max_size=12),
)
def test_whatever_gets_lost_on_the_way_the_store_has_each_thing_once(
    tmp_path_factory: pytest.TempPathFactory, said: list[str], faults: list[str | None]
) -> None:
    with opened(tmp_path_factory.mktemp("home")) as bench:
        operation = bench.running()
        call = ServiceCall(bench.service, operation)
        call.faults.extend(faults)
        delivery = Delivery(call, lambda: START, Clock())
        counts = dict.fromkeys(said, 0)
        for what in said:
            counts[what] += 1
            if what == "phase":
                delivery.enter(Phase.TRAINING)
            elif what == "epoch":
                delivery.epoch_finished(row(counts[what]))
            elif what == "commit":
                delivery.commit(bench.write(operation, counts[what]))
            else:
                delivery.warn(FULL, "the disk is full")
        delivery.finish("finish_stopped", StopKind.USER)
        delivery.close()
        name, epochs = operation.operation_id, counts.get("epoch", 0)
        events = [event.event for event in bench.service.events(name)]
        assert [r.epoch for r in bench.service.history(name)] == list(range(1, epochs + 1))
        assert events.count("checkpoint_committed") == counts.get("commit", 0)
        assert sum(w.count for w in bench.service.get(name).warnings) == counts.get("warn", 0)
        assert events.count("stopped") == 1


def test_while_nobody_takes_it_the_speaker_does_not_wait(
    bench: Bench, call: ServiceCall, delivery: Delivery
) -> None:
    call.there.clear()
    operation = bench.service.get(call.operation_id)
    for number in (1, 2, 3):  # returns at once, or this test would hang
        delivery.epoch_finished(row(number))
        delivery.commit(bench.write(operation, number))
    delivery.warn(FULL, "the disk is full")
    threading.Timer(0.2, call.there.set).start()
    delivery.finish("finish_stopped", StopKind.USER)
    assert [r.epoch for r in bench.service.history(call.operation_id)] == [1, 2, 3]
    assert [c.number for c in bench.service.checkpoints(call.operation_id)] == [2, 3]


def test_a_refusal_ends_it_and_is_raised_by_everything_that_is_said_after(
    bench: Bench, call: ServiceCall, delivery: Delivery
) -> None:
    bench.service.lose(call.operation_id, 1, FailureReason.HUNG, "taken for dead")
    delivery.enter(Phase.TRAINING)
    until(lambda: raised_by(delivery) is not None)
    with pytest.raises(StaleAttempt):
        delivery.epoch_finished(row(1))
    with pytest.raises(StaleAttempt):
        delivery.warn(FULL, "the disk is full")
    with pytest.raises(StaleAttempt):
        delivery.finish("finish_stopped", StopKind.USER)
    with pytest.raises(StaleAttempt):
        delivery.fail(FailureReason.USER_ERROR, "what refused it")


def test_an_error_that_is_none_of_ours_ends_the_attempt_with_its_reason(
    bench: Bench, call: ServiceCall, delivery: Delivery
) -> None:
    call.errors["report"] = TypeError("cannot be sent")
    delivery.epoch_finished(row(1))
    until(lambda: isinstance(raised_by(delivery), TypeError))
    with pytest.raises(TypeError, match="cannot be sent"):
        delivery.finish("finish_stopped", StopKind.USER)
    delivery.fail(FailureReason.USER_ERROR, "cannot be sent")
    after = bench.service.get(call.operation_id)
    assert after.error is not None
    assert after.error.message == "cannot be sent"


def test_who_waits_for_an_answer_hears_of_an_error_before_it(
    call: ServiceCall, delivery: Delivery
) -> None:
    call.there.clear()
    delivery.enter(Phase.TRAINING)
    call.errors["report"] = TypeError("cannot be sent")
    threading.Timer(0.2, call.there.set).start()
    with pytest.raises(TypeError, match="cannot be sent"):
        delivery.ask("reserve_model")


def test_a_store_that_stays_away_for_too_long_ends_the_attempt(call: ServiceCall) -> None:
    call.there.clear()
    delivery = Delivery(call, lambda: START, deadline_s=0.2)
    with pytest.raises(StoreUnavailable):
        delivery.ask("read_attempt")
    with pytest.raises(StoreUnavailable):
        delivery.fail(FailureReason.USER_ERROR, "the store is away")
    delivery.close()


def test_of_one_trouble_a_user_hears_once_a_minute_and_how_often_it_was(
    bench: Bench, call: ServiceCall, delivery: Delivery, clock: Clock
) -> None:
    def warned() -> list[tuple[str, int]]:
        events = bench.service.events(call.operation_id)
        found = [event.details for event in events if event.event == "warned"]
        return [(details["message"], details["count"]) for details in found]

    delivery.warn(FULL, "full 0")
    delivery.enter(Phase.TRAINING)
    until(lambda: warned() == [("full 0", 1)])
    for number in range(1, 62):
        delivery.warn(FULL, f"full {number}")
    delivery.warn("OTHER", "odd")
    delivery.enter(Phase.STOPPING)
    until(lambda: ("odd", 1) in warned())
    assert warned() == [("full 0", 1), ("odd", 1)]
    clock.now += WARN_EVERY_S
    until(lambda: ("full 61", 61) in warned())
    delivery.warn(FULL, "full 62")
    delivery.finish("finish_stopped", StopKind.USER)  # the last one does not wait for its minute
    assert warned()[2:] == [("full 61", 61), ("full 62", 1)]
    counts = {w.code: w.count for w in bench.service.get(call.operation_id).warnings}
    assert counts == {FULL: 63, "OTHER": 1}


def test_warnings_of_one_code_are_counted_into_the_next_that_is_due() -> None:
    rate = WarningRate()
    rate.add("A", "first")
    assert rate.take(0.0) == (TrainingWarning("A", "first", 1),)
    rate.add("A", "second")
    rate.add("A", "third")
    rate.add("B", "another")
    assert rate.take(WARN_EVERY_S - 1) == (TrainingWarning("B", "another", 1),)
    assert rate.take(WARN_EVERY_S) == (TrainingWarning("A", "third", 2),)
    assert rate.take(WARN_EVERY_S) == ()
