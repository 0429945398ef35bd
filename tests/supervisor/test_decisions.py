"""What is done next, as a table: a row, what was seen, and the actions that follow."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from store_bench import OWNER, plan, request

from ktrdr.operations.types import (
    Adoption,
    FailureReason,
    HistoryRow,
    Operation,
    Phase,
    Status,
    StopKind,
)
from ktrdr.supervisor.decisions import (
    GRACE_S,
    KILL_S,
    ONE_CPU,
    QUEUED_S,
    STACKS_S,
    Action,
    AskStacks,
    End,
    Forget,
    Handled,
    KeepStacks,
    Kill,
    Launch,
    Queue,
    ReadUncommitted,
    Seen,
    Stop,
    Stopped,
    decide,
    decide_leftover,
)
from ktrdr.supervisor.drivers import Lost

NOW = 1000.0
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DIED = Lost(FailureReason.DRIVER_LOST, "the driver is gone: it died")
HUNG = Lost(FailureReason.HUNG, "hung: no batch for 61 s")
LATE = Lost(FailureReason.DRIVER_LOST, "did not stop within 30 s and was killed")
ON_REQUEST = Lost(FailureReason.DRIVER_LOST, "killed on request")
USER, SHUTDOWN = Stopped(StopKind.USER), Stopped(StopKind.SHUTDOWN)
FOUND = Adoption(history=(HistoryRow(1, {}),))

PENDING = Operation(
    operation_id="op_training_20260102_030405_0123abcd",
    status=Status.PENDING,
    phase=None,
    attempt=0,
    owner=OWNER,
    lease_expires_at=AT,
    request=request(),
    plan=plan(),
    created_at=AT,
)
STARTING = replace(PENDING, status=Status.RUNNING, phase=Phase.STARTING, attempt=1)
TRAINING = replace(STARTING, phase=Phase.TRAINING, report_sequence=3)
RESTARTING = replace(STARTING, phase=Phase.RESTARTING, attempt=2)
CANCELLED = replace(TRAINING, status=Status.CANCELLED, phase=None)


def cancelling(row: Operation) -> Operation:
    return replace(row, phase=Phase.STOPPING, cancel_requested_at=AT)


def killing(row: Operation) -> Operation:
    return replace(cancelling(row), kill_requested_at=AT)


def queued(since_s: float, **seen: Any) -> Seen:
    """An attempt that has had no driver yet."""
    return Seen(Handled(NOW - since_s), **seen)


def driven(handled: dict[str, Any] | None = None, **seen: Any) -> Seen:
    """An attempt that was given a driver."""
    return Seen(Handled(0.0, launched=True, **(handled or {})), **seen)


def hung(ago_s: float, **seen: Any) -> Seen:
    return driven({"ending": HUNG, "ending_since": NOW - ago_s}, **seen)


def gone(**handled: Any) -> Seen:
    return driven({"lost": DIED, **handled})


BEFORE_ITS_DRIVER: list[tuple[str, Operation, Seen, tuple[Action, ...]]] = [
    ("a place", PENDING, queued(0, room=True), (Launch(),)),
    ("a place, another attempt", RESTARTING, queued(0, room=True), (Launch(),)),
    ("a place, started a moment ago", STARTING, queued(0, room=True), (Launch(),)),
    ("no place for a moment", PENDING, queued(QUEUED_S / 2), ()),
    ("no place", PENDING, queued(QUEUED_S), (Queue(ONE_CPU),)),
    ("no place, said already", replace(PENDING, waiting_for=ONE_CPU), queued(QUEUED_S), ()),
    ("no place, another attempt", RESTARTING, queued(QUEUED_S), (Queue(ONE_CPU),)),
    ("held back", RESTARTING, queued(99, room=True, held_back=True), ()),
    ("cancelled", cancelling(RESTARTING), queued(0, room=True), (End(USER),)),
    ("held back and cancelled", cancelling(RESTARTING), queued(0, held_back=True), (End(USER),)),
    ("shut down, pending", PENDING, queued(0, room=True, shutting_down=True), (End(SHUTDOWN),)),
    ("shut down", RESTARTING, queued(0, room=True, shutting_down=True), (End(SHUTDOWN),)),
    ("both", cancelling(RESTARTING), queued(0, shutting_down=True), (End(USER),)),
]

WHILE_IT_LIVES: list[tuple[str, Operation, Seen, tuple[Action, ...]]] = [
    ("all is well", TRAINING, driven(begun=True), ()),
    ("it starts", STARTING, driven(), ()),
    ("no place", STARTING, driven(unplaced=True), (Queue(ONE_CPU),)),
    (
        "no place, said already",
        replace(STARTING, phase=Phase.WAITING_FOR_RESOURCES),
        driven(unplaced=True, hung="silent"),
        (),
    ),
    ("cancelled", cancelling(TRAINING), driven(begun=True), (Stop(StopKind.USER),)),
    ("cancelled while it starts", cancelling(STARTING), driven(), (Stop(StopKind.USER),)),
    ("cancelled without a place", cancelling(STARTING), driven(unplaced=True), (Kill(USER),)),
    ("shut down", TRAINING, driven(begun=True, shutting_down=True), (Stop(StopKind.SHUTDOWN),)),
    (
        "shut down without a place",
        STARTING,
        driven(unplaced=True, shutting_down=True),
        (Kill(SHUTDOWN),),
    ),
    ("asked to stop", cancelling(TRAINING), driven({"stop_asked_at": NOW - GRACE_S}), ()),
    (
        "asked to stop long ago",
        cancelling(TRAINING),
        driven({"stop_asked_at": NOW - GRACE_S - 1}),
        (Kill(LATE),),
    ),
    ("killed on request", killing(TRAINING), driven(begun=True), (Kill(ON_REQUEST),)),
    (
        "killed on request, asked to stop before",
        killing(TRAINING),
        driven({"stop_asked_at": NOW}),
        (Kill(ON_REQUEST),),
    ),
    ("hung", TRAINING, driven(begun=True, hung=HUNG.message), (AskStacks(HUNG),)),
    ("hung, its stacks awaited", TRAINING, hung(STACKS_S / 2), ()),
    ("hung, its stacks there", TRAINING, hung(0, stacks="T"), (KeepStacks("T"), Kill(HUNG))),
    ("hung, no stacks", TRAINING, hung(STACKS_S + 1), (KeepStacks(None), Kill(HUNG))),
    ("killed a moment ago", TRAINING, driven({"ending": HUNG, "killed_at": NOW - KILL_S}), ()),
]

AFTER_ITS_DRIVER: list[tuple[str, Operation, Seen, tuple[Action, ...]]] = [
    ("gone", TRAINING, gone(), (ReadUncommitted(DIED),)),
    ("gone, being read", TRAINING, gone(adoption_asked=True), ()),
    ("gone, read", TRAINING, gone(adoption=FOUND), (End(DIED, FOUND),)),
    ("gone, cancelled", cancelling(TRAINING), gone(adoption=FOUND), (End(DIED, FOUND),)),
    ("killed", TRAINING, gone(ending=HUNG, killed_at=NOW), (ReadUncommitted(HUNG),)),
    (
        "killed, its stacks kept",
        TRAINING,
        gone(ending=HUNG, stacks_kept="its stacks are in x", adoption=FOUND),
        (End(replace(HUNG, message=f"{HUNG.message}; its stacks are in x"), FOUND),),
    ),
    (
        "killed, and does not go",
        TRAINING,
        driven({"ending": HUNG, "killed_at": NOW - KILL_S - 1}),
        (ReadUncommitted(HUNG),),
    ),
    (
        "stopped without a place",
        cancelling(STARTING),
        gone(ending=USER, adoption=FOUND),
        (End(USER, FOUND),),
    ),
    (
        "gone in a shutdown",
        TRAINING,
        replace(gone(adoption=FOUND), shutting_down=True),
        (End(SHUTDOWN, FOUND),),
    ),
    (
        "gone in a shutdown, cancelled before",
        cancelling(TRAINING),
        replace(gone(adoption=FOUND), shutting_down=True),
        (End(DIED, FOUND),),
    ),
]


@pytest.mark.parametrize(
    ("row", "seen", "actions"),
    [
        pytest.param(*case[1:], id=case[0])
        for case in (*BEFORE_ITS_DRIVER, *WHILE_IT_LIVES, *AFTER_ITS_DRIVER)
    ],
)
def test_what_is_done_next(row: Operation, seen: Seen, actions: tuple[Action, ...]) -> None:
    assert decide(row, seen, NOW) == actions


LEFTOVERS: list[tuple[str, Operation | None, Handled, tuple[Action, ...]]] = [
    ("never had a driver", CANCELLED, Handled(0.0), (Forget(),)),
    ("gone", CANCELLED, gone().handled, (Forget(),)),
    ("may still leave", CANCELLED, driven({"over_since": NOW - GRACE_S}).handled, ()),
    ("does not leave", CANCELLED, driven({"over_since": NOW - 31}).handled, (Kill(None),)),
    ("another attempt begins", RESTARTING, driven({"over_since": NOW}).handled, (Kill(None),)),
    ("taken over", None, driven({"over_since": NOW}).handled, (Kill(None),)),
    ("killed", None, driven({"over_since": 0.0, "killed_at": NOW - KILL_S}).handled, ()),
    (
        "killed, and does not go",
        None,
        driven({"over_since": 0.0, "killed_at": NOW - KILL_S - 1}).handled,
        (Kill(None),),
    ),
]


@pytest.mark.parametrize(
    ("row", "handled", "actions"), [pytest.param(*case[1:], id=case[0]) for case in LEFTOVERS]
)
def test_what_is_done_about_an_attempt_that_is_over(
    row: Operation | None, handled: Handled, actions: tuple[Action, ...]
) -> None:
    assert decide_leftover(row, 1, handled, NOW) == actions
