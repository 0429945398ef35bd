"""More operations than the cluster has room for: each is started in its turn."""

from __future__ import annotations

import pytest
from supervision import World

from ktrdr.operations.types import FailureReason, Phase, Status, StopKind
from ktrdr.supervisor.decisions import ONE_CPU


@pytest.fixture
def world(world: World) -> World:
    world.drivers.cpus = 2
    return world


def test_no_more_drivers_are_started_than_there_is_room_for(world: World) -> None:
    names = [world.submit(f"r{number}") for number in range(4)]
    world.run(5)
    assert world.drivers.launched == [(names[0], 1), (names[1], 1)]
    rows = [world.row(name) for name in names]
    assert [row.status for row in rows] == [Status.RUNNING] * 2 + [Status.PENDING] * 2
    assert [row.waiting_for for row in rows] == [None, None, ONE_CPU, ONE_CPU]
    assert world.events(names[2]) == ["submitted", "queued"]

    world.service.finish_stopped(names[1], 1, StopKind.USER)
    world.drivers.alive.discard((names[1], 1))
    world.run(1)
    assert world.drivers.launched[2:] == [(names[2], 1)]
    assert world.row(names[2]).waiting_for is None
    assert world.row(names[3]).waiting_for == ONE_CPU


def test_a_restart_takes_its_turn_by_the_time_of_its_submission(world: World) -> None:
    old, other = world.running("r-old"), world.running("r-other")
    young = world.submit("r-young")
    world.drivers.cpus = 1
    world.commit(old)
    world.drivers.alive.discard(old)
    world.run(5)  # somebody else has taken its CPU
    row = world.row(old[0])
    assert (row.attempt, row.phase, row.waiting_for) == (2, Phase.RESTARTING, ONE_CPU)
    world.service.finish_stopped(*other, StopKind.USER)
    world.drivers.alive.discard(other)
    world.run(1)
    assert world.drivers.launched[2:] == [(old[0], 2)]
    assert world.row(young).status is Status.PENDING


def test_what_is_held_back_lets_others_pass(world: World) -> None:
    world.drivers.cpus = 1
    old = world.running("r-old")
    world.drivers.alive.discard(old)
    world.run()
    world.execute("UPDATE operations SET launch_not_before = '2200-01-01 00:00:00'")
    young = world.submit("r-young")
    world.run(1)
    assert world.drivers.launched == [old, (young, 1)]


def test_a_cancel_of_what_waits_ends_it_at_once(world: World) -> None:
    running = [world.running(f"r{number}") for number in range(2)]
    waiting = world.submit("r-waiting")
    world.drivers.cpus = 1
    world.commit(running[0])
    world.drivers.alive.discard(running[0])
    world.run(3)
    world.cancel(waiting)
    world.cancel(running[0][0], "r-cancel-2")
    world.run()
    ends = [world.row(name) for name in (waiting, running[0][0])]
    assert [(row.status, row.attempt, row.waiting_for) for row in ends] == [
        (Status.CANCELLED, 0, None),
        (Status.CANCELLED, 2, None),
    ]
    assert world.events(running[0][0])[-2:] == ["cancel_requested", "stopped"]
    assert world.drivers.launched == running


def test_a_shutdown_ends_what_waits(world: World) -> None:
    for number in range(2):
        world.running(f"r{number}")
    waiting = world.submit("r-waiting")
    world.run(3)
    world.supervision.supervisor.shut_down()
    world.run()
    row = world.row(waiting)
    assert (row.status, row.attempt, row.waiting_for) == (Status.CANCELLED, 0, None)


def test_the_reason_of_a_loss_is_what_the_cluster_says(world: World) -> None:
    key = world.running()
    world.drivers.reason = FailureReason.OUT_OF_MEMORY
    world.drivers.alive.discard(key)
    world.run(1)
    loss = next(e for e in world.service.events(key[0]) if e.event == "attempt_lost")
    assert loss.details["reason"] == FailureReason.OUT_OF_MEMORY
    assert world.row(key[0]).memory_restarts == 1
