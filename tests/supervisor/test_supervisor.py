"""The supervisor on the real service: what it does with drivers that do as a test says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from supervision import BATCHES, LIMITS, World

from ktrdr.driver.names import AttemptKey
from ktrdr.errors import IllegalTransition, StaleAttempt, StoreUnavailable
from ktrdr.operations.types import FailureReason, Operation, Phase, Status, StopKind
from ktrdr.supervisor.decisions import GRACE_S, KILL_S


def stacks_file(world: World, key: AttemptKey) -> Path:
    return world.storage.at(f"operations/{key[0]}/attempt-{key[1]:04d}/stacks.txt")


def ended(operation: Operation) -> tuple[Status, int]:
    return operation.status, operation.attempt


def test_what_is_pending_is_started_and_given_one_driver(world: World) -> None:
    name = world.submit()
    world.run(3)
    assert world.drivers.launched == [(name, 1)]
    assert ended(world.row(name)) == (Status.RUNNING, 1)


def test_a_start_whose_answer_was_lost_is_gone_on_with(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = world.service.start
    answers: list[bool] = [False]

    def unanswered(*arguments: Any) -> Operation:
        row = start(*arguments)
        if answers.pop():
            return row
        raise StoreUnavailable("the connection broke after the commit")

    monkeypatch.setattr(world.service, "start", unanswered)
    name = world.submit()
    world.run(3)
    assert world.drivers.launched == [(name, 1)]
    world.restart()  # the row names the driver that runs
    world.run(1)
    assert world.drivers.killed == []
    assert ended(world.row(name)) == (Status.RUNNING, 1)


def test_a_lost_driver_is_followed_by_the_next_attempt(world: World) -> None:
    key = world.running()
    world.commit(key)
    world.drivers.alive.clear()
    world.run(1)
    assert world.drivers.launched == [key, (key[0], 2)]
    assert world.row(key[0]).restarts == 1
    assert "it died" in world.last_message(key[0])


def test_without_progress_the_next_attempt_waits_for_its_time(world: World) -> None:
    key = world.running()
    world.drivers.alive.clear()
    world.run()
    world.execute("UPDATE operations SET launch_not_before = '2200-01-01 00:00:00'")
    world.run(60)
    assert world.drivers.launched == [key]
    world.restart()
    world.run(5)
    assert world.drivers.launched == [key]
    world.execute("UPDATE operations SET launch_not_before = '2000-01-01 00:00:00'")
    world.run()
    assert world.drivers.launched == [key, (key[0], 2)]


def test_a_restarted_owner_goes_on_with_the_drivers_that_live(world: World) -> None:
    key = world.training()
    world.restart()
    world.run(10)
    assert world.drivers.launched == [key]
    assert world.drivers.killed == []
    assert ended(world.row(key[0])) == (Status.RUNNING, 1)
    world.cancel(key[0])
    world.run(1)
    assert world.drivers.stopped == [(key, StopKind.USER)]


def test_a_restarted_owner_that_finds_no_driver_starts_another_at_no_cost(world: World) -> None:
    name = world.submit()
    world.run()
    world.drivers.alive.clear()
    world.restart()
    world.run()
    world.execute("UPDATE operations SET launch_not_before = NULL")
    world.run()
    assert world.drivers.launched == [(name, 1), (name, 2)]
    assert world.row(name).restarts == 0


def test_a_restarted_owner_kills_drivers_whose_attempt_is_over(world: World) -> None:
    key = world.running()
    world.service.finish_stopped(*key, StopKind.USER)
    world.restart()
    assert world.drivers.killed == [key]


def test_a_driver_that_does_not_leave_after_its_end_is_killed(world: World) -> None:
    key = world.running()
    world.service.finish_stopped(*key, StopKind.USER)
    world.run(GRACE_S - 2)
    assert world.drivers.killed == []
    world.run(4)
    assert world.drivers.killed == [key]


def test_a_kill_that_takes_no_effect_holds_nothing_up_for_long(world: World) -> None:
    key = world.running()
    other = world.running("r2")
    world.drivers.undying = {key}
    world.service.request_kill(key[0], 1, "r-kill")
    world.run(KILL_S - 1)
    assert world.row(key[0]).attempt == 1
    world.cancel(other[0])
    world.run()
    assert world.drivers.stopped == [(other, StopKind.USER)]
    world.run(2)
    assert world.row(key[0]).status is Status.CANCELLED


def test_the_trouble_of_one_operation_does_not_reach_the_others(world: World) -> None:
    keys = [world.running(f"r{number}") for number in range(3)]
    world.drivers.broken = {keys[0][0]}
    for name, _ in keys:
        world.cancel(name, f"cancel {name}")
    world.run(1)
    assert world.drivers.stopped == [(key, StopKind.USER) for key in keys[1:]]
    world.drivers.broken = set()
    world.run(2)
    assert (keys[0], StopKind.USER) in world.drivers.stopped


def test_a_cancel_is_asked_for_once_and_the_driver_has_the_last_word(world: World) -> None:
    key = world.training()
    for number in range(3):
        world.cancel(key[0], f"r-cancel-{number}")
        world.run(2)
    assert world.drivers.stopped == [(key, StopKind.USER)]
    assert world.row(key[0]).phase is Phase.STOPPING
    assert world.row(key[0]).status is Status.RUNNING  # nothing is said before it has stopped
    world.service.finish_stopped(*key, StopKind.USER)
    world.drivers.alive.clear()
    world.run(5)
    assert ended(world.row(key[0])) == (Status.CANCELLED, 1)
    assert world.events(key[0])[-1] == "stopped"


def test_a_cancel_that_is_not_obeyed_is_a_kill_and_beats_a_late_completion(world: World) -> None:
    key = world.training()
    world.cancel(key[0])
    world.run(GRACE_S - 1)
    assert world.drivers.killed == []
    world.run(3)
    assert world.drivers.killed == [key]
    assert ended(world.row(key[0])) == (Status.CANCELLED, 1)
    with pytest.raises(IllegalTransition):
        world.complete(key)
    assert world.drivers.launched == [key]


def test_a_completion_beats_a_cancel_that_came_while_saving(world: World) -> None:
    key = world.training()
    world.answer(key, Phase.SAVING)
    world.cancel(key[0])
    world.run(1)
    world.complete(key)
    world.drivers.alive.clear()
    world.run(GRACE_S + 5)
    assert ended(world.row(key[0])) == (Status.COMPLETED, 1)
    assert world.drivers.killed == []


def test_a_cancel_while_the_driver_starts_lets_it_save_what_a_resume_needs(world: World) -> None:
    name = world.submit()
    world.run()
    world.cancel(name)
    world.run(5)
    assert world.drivers.stopped == [((name, 1), StopKind.USER)]
    assert world.drivers.killed == []
    world.drivers.without_place = {(name, 1)}  # seen late: it cannot start at all
    world.run()
    assert ended(world.row(name)) == (Status.CANCELLED, 1)


def test_a_cancel_of_what_was_never_started_needs_no_owner(world: World) -> None:
    name = world.submit()
    world.cancel(name)
    world.run(2)
    assert ended(world.row(name)) == (Status.CANCELLED, 0)
    assert world.drivers.launched == []


def test_a_cancel_while_it_restarts_is_not_lost(world: World) -> None:
    key = world.running()
    world.drivers.alive.clear()
    world.run()
    assert world.row(key[0]).phase is Phase.RESTARTING
    world.cancel(key[0])
    world.run(2)
    assert ended(world.row(key[0])) == (Status.CANCELLED, 2)
    assert world.drivers.launched == [key]


def test_a_driver_that_dies_of_its_cancel_is_not_started_again(world: World) -> None:
    key = world.training()
    world.cancel(key[0])
    world.drivers.alive.clear()
    world.run(2)
    assert ended(world.row(key[0])) == (Status.CANCELLED, 1)
    assert world.drivers.launched == [key]


def test_a_shutdown_ends_everything_and_starts_nothing(world: World) -> None:
    going, dying, waiting = world.training("r1"), world.running("r2"), world.submit("r3")
    world.drivers.without_place = {(waiting, 1)}
    world.run()
    pending = world.submit("r4")
    world.supervision.supervisor.shut_down()
    world.drivers.alive.discard(dying)
    world.run()
    assert world.drivers.stopped == [(going, StopKind.SHUTDOWN)]
    world.service.finish_stopped(*going, StopKind.SHUTDOWN)
    world.run(1)
    rows = [world.row(name) for name in (going[0], dying[0], waiting, pending)]
    assert [ended(row) for row in rows] == [
        (Status.CANCELLED, 1), (Status.CANCELLED, 1), (Status.CANCELLED, 1), (Status.CANCELLED, 0)
    ]  # fmt: skip
    assert len(world.drivers.launched) == 3


def test_a_driver_without_a_place_waits_as_long_as_it_takes(world: World) -> None:
    name = world.submit()
    key = (name, 1)
    world.drivers.without_place = {key}
    world.run(0.5)
    assert world.row(name).phase is Phase.STARTING
    world.run(2 * LIMITS.otherwise_s)
    assert world.row(name).phase is Phase.WAITING_FOR_RESOURCES
    assert world.drivers.killed == []
    world.drivers.without_place = set()
    world.answer(key, Phase.PREPARING_DATA)
    world.report(key, 1, Phase.PREPARING_DATA)  # its first report counts, whatever was said before
    world.run(1)
    assert world.row(name).phase is Phase.PREPARING_DATA
    assert world.row(name).report_sequence == 1


def test_a_cancel_while_waiting_for_resources_takes_the_driver_back(world: World) -> None:
    name = world.submit()
    world.drivers.without_place = {(name, 1)}
    world.run(3)
    assert world.row(name).phase is Phase.WAITING_FOR_RESOURCES
    world.cancel(name)
    world.run()
    assert world.drivers.killed == [(name, 1)]
    assert ended(world.row(name)) == (Status.CANCELLED, 1)


def test_a_training_without_a_batch_is_hung_and_what_it_did_is_kept(world: World) -> None:
    key = world.training()
    world.commit(key)
    world.drivers.threads = "Thread 0x1: in wait_for_ever"
    world.run(LIMITS.training_s - 2)
    assert world.row(key[0]).attempt == 1
    world.run(5)
    assert world.row(key[0]).attempt == 2
    assert world.drivers.killed[0] == key
    loss = next(e for e in world.service.events(key[0]) if e.event == "attempt_lost")
    assert loss.details["reason"] == FailureReason.HUNG
    assert "no batch for 6" in loss.details["message"]
    assert f"{key[0]}/attempt-0001/stacks.txt" in loss.details["message"]
    assert stacks_file(world, key).read_text() == "Thread 0x1: in wait_for_ever"
    assert world.drivers.launched[-1] == (key[0], 2)


def test_a_frozen_driver_is_hung_and_described_from_outside(world: World) -> None:
    key = world.training()
    world.drivers.pulses.clear()
    world.run(LIMITS.training_s + 6)
    assert world.row(key[0]).attempt == 2
    assert "has not answered for 6" in world.last_message(key[0])
    assert stacks_file(world, key).read_text() == f"{key[0]} does not answer"


def test_a_driver_that_freezes_in_its_first_epoch_is_not_waited_for_longer(world: World) -> None:
    key = world.running()
    world.train(key, range(3), 0.5)
    world.drivers.pulses.clear()
    world.run(LIMITS.training_s + 6)
    assert world.row(key[0]).attempt == 2


def test_what_is_slow_by_nature_is_not_hung(world: World) -> None:
    key = world.training(batch_s=15.0)
    world.run(8 * 15.0)
    world.train(key, range(BATCHES + 2, BATCHES + 5), 5.0)
    assert world.drivers.killed == []
    world.run(8 * 130.0)  # the longest time between two batches was those 8 * 15 s
    assert world.drivers.killed == []
    world.run(3 * 130.0)
    assert world.drivers.killed[0] == key


@pytest.mark.parametrize("phase", [Phase.PREPARING_DATA, Phase.TRAINING, Phase.SAVING])
def test_before_and_after_the_batches_more_time_is_given(world: World, phase: Phase) -> None:
    key = world.running()
    world.answer(key, phase)
    world.run(LIMITS.otherwise_s - 5)
    assert world.drivers.killed == []
    world.run(10)
    assert world.drivers.killed[0] == key
    assert world.service.events(key[0])[-1].details["reason"] == FailureReason.HUNG


def test_silence_teaches_nothing_about_the_batches(world: World) -> None:
    key = world.training()
    world.drivers.pulses.clear()
    world.run(LIMITS.training_s - 5)
    world.train(key, range(50, 60), 0.5)
    world.run(LIMITS.training_s + 5)
    assert world.drivers.killed[0] == key


def test_a_machine_that_slept_finds_everything_as_it_was(world: World) -> None:
    key = world.training()
    world.drivers.pulses.clear()  # nobody had time to answer yet
    world.supervision.now += 8 * 3600
    world.run(1)
    world.train(key, range(BATCHES + 2, BATCHES + 5), 2.0)
    assert ended(world.row(key[0])) == (Status.RUNNING, 1)
    assert world.drivers.killed == []


def test_a_hang_that_is_cancelled_ends_cancelled(world: World) -> None:
    key = world.training()
    world.run(LIMITS.training_s + 1)  # its stacks are being asked for
    world.cancel(key[0])
    world.run(5)
    assert ended(world.row(key[0])) == (Status.CANCELLED, 1)
    assert world.drivers.launched == [key]


def test_an_owner_that_was_frozen_too_long_changes_nothing_and_kills_its_driver(
    world: World,
) -> None:
    key = world.training()
    world.commit(key)
    world.take_over(key)
    row, events = world.row(key[0]), world.events(key[0])
    world.supervision.now += 100.0
    world.run(1)
    assert world.drivers.killed == [key]
    world.run(30)
    assert (world.row(key[0]), world.events(key[0])) == (row, events)
    assert world.drivers.launched == [key]
    with pytest.raises(StaleAttempt):
        world.report(key, 2, Phase.TRAINING)


def test_a_restarted_owner_leaves_what_was_taken_over_alone(world: World) -> None:
    key = world.training()
    world.commit(key)
    world.take_over(key)
    row = world.row(key[0])
    world.restart()
    world.run(5)
    assert replace(world.row(key[0]), lease_expires_at=None) == replace(row, lease_expires_at=None)
    assert world.drivers.killed == [key]
