"""While the operations actor is away: directories become durable, rows follow, nothing is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_bench import PROVENANCE, Bench, Fleet, opened

from ktrdr.checkpoints.adoption import found
from ktrdr.checkpoints.verify import latest_good
from ktrdr.driver import ray_train
from ktrdr.driver.ray_train import RayContext
from ktrdr.errors import StaleAttempt, StoreUnavailable
from ktrdr.operations.types import CheckpointType, FailureReason, HistoryRow, Operation, Phase
from ktrdr.training.checkpoint_writer import CheckpointWriter
from ktrdr.training.state import Loop, Snapshot, random_state

DEADLINE_S = 20.0


class Line:
    """Stands for the way to the actor: there, or away; what it asks is the real service."""

    def __init__(self, bench: Bench, operation: Operation) -> None:
        self.operation_id, self.attempt = operation.operation_id, operation.attempt
        self.service = bench.service
        self.there = threading.Event()
        self.there.set()
        self.asked: list[str] = []

    def ask(self, verb: str, *arguments: Any, deadline_s: float = DEADLINE_S) -> Any:
        self._wait(deadline_s)
        self.asked.append(verb)
        return getattr(self.service, verb)(self.operation_id, self.attempt, *arguments)

    def forget_checkpoints(self, ids: tuple[int, ...], deadline_s: float) -> None:
        self._wait(deadline_s)
        self.service.forget_checkpoints(self.operation_id, ids)

    def _wait(self, deadline_s: float) -> None:
        if not self.there.wait(deadline_s):
            raise StoreUnavailable(f"the actor did not answer for {deadline_s} s")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(ray_train, "PATIENCE_S", 0.05)
    monkeypatch.setattr("ray.train.report", lambda *_, **__: None)
    with opened(tmp_path) as bench:
        yield bench


@pytest.fixture
def line(bench: Bench) -> Line:
    return Line(bench, bench.running())


@pytest.fixture
def context(bench: Bench, line: Line) -> Iterator[RayContext]:
    context = RayContext(line, bench.storage, lambda: None)  # type: ignore[arg-type]
    yield context
    line.there.set()
    context.reporter.close()


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
    bench: Bench,
    line: Line,
    context: RayContext,
    writer: CheckpointWriter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = line.operation_id
    monkeypatch.setattr(ray_train, "PATIENCE_S", DEADLINE_S)
    writer.finish(snapshot(1))
    line.there.clear()
    monkeypatch.setattr(ray_train, "PATIENCE_S", 0.05)
    for number in (2, 3, 4, 5):
        context.epoch_finished(HistoryRow(number, {"train_loss": 0.5}))
        assert writer.finish(snapshot(number)) is not None
    assert [new.number for new in found(bench.storage, name, 1)] == [1, 2, 3, 4, 5]
    assert [row.number for row in bench.service.checkpoints(name)] == [1]
    monkeypatch.setattr(ray_train, "PATIENCE_S", DEADLINE_S)
    line.there.set()  # nobody asks: the next report finds it there
    until(lambda: [row.number for row in bench.service.checkpoints(name)] == [4, 5])
    assert [row.epoch for row in bench.service.history(name)] == [2, 3, 4, 5]
    writer.finish(snapshot(6))  # what it supersedes is left to the supervisor
    assert [new.number for new in found(bench.storage, name, 1)] == [1, 2, 3, 4, 5, 6]


def test_before_the_last_word_everything_that_waits_is_delivered(
    bench: Bench, line: Line, context: RayContext, writer: CheckpointWriter
) -> None:
    line.there.clear()
    writer.finish(snapshot(1))
    context.warn("CHECKPOINT_NOT_SAVED", "something was wrong meanwhile")
    threading.Timer(0.2, line.there.set).start()
    context.settle()
    assert [row.number for row in bench.service.checkpoints(line.operation_id)] == [1]
    events = [e.event for e in bench.service.events(line.operation_id)]
    assert events.index("checkpoint_committed") < events.index("warned")


def test_a_driver_that_dies_meanwhile_leaves_what_its_successor_goes_on_from(
    bench: Bench, line: Line, writer: CheckpointWriter
) -> None:
    line.there.clear()
    for number in (1, 2, 3):
        writer.finish(snapshot(number))
    bench.owner(Fleet())  # the actor is back, the driver is gone
    row, _, passed_over = latest_good(bench.storage, bench.service.checkpoints(line.operation_id))
    assert (row.number, passed_over) == (3, ())
    assert bench.service.get(line.operation_id).attempt == 2


def test_epochs_that_were_never_reported_come_back_with_the_checkpoint_that_holds_them(
    bench: Bench, line: Line, context: RayContext, writer: CheckpointWriter
) -> None:
    reported, trained = 8, 60
    rows = [HistoryRow(n, {"train_loss": 1.0 / n, "duration": 0.1}) for n in range(1, trained + 1)]
    for row in rows[:reported]:
        context.epoch_finished(row)
    context.reporter.flush()
    line.there.clear()  # from here on the actor is frozen, and training goes on
    for row in rows[reported:]:
        context.epoch_finished(row)
        writer.finish(snapshot(row.epoch, rows[: row.epoch]))
    bench.owner(Fleet())  # it is back, and the driver was killed meanwhile
    after = bench.service.get(line.operation_id)
    assert (after.attempt, after.progress and after.progress.epoch) == (2, trained)
    assert list(bench.service.history(line.operation_id)) == rows


def test_rows_of_an_attempt_that_is_over_are_refused_and_end_the_training(
    bench: Bench, line: Line, context: RayContext, writer: CheckpointWriter
) -> None:
    line.there.clear()
    writer.finish(snapshot(1))
    bench.service.lose(line.operation_id, 1, FailureReason.HUNG, "taken for dead")
    line.there.set()
    context.enter(Phase.TRAINING)

    def refused() -> bool:
        try:
            return context.stop_requested is not None
        except StaleAttempt:
            return True

    until(refused)
    with pytest.raises(StaleAttempt):
        writer.finish(snapshot(2))
    writer.failure = None  # raised already: leaving would raise it again
    assert bench.service.checkpoints(line.operation_id) == ()
