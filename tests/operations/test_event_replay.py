"""What a row's events lead to, and events that cannot be."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ktrdr.errors import IllegalTransition
from ktrdr.operations.event_replay import fold
from ktrdr.operations.types import Event, Status

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ID = "op_training_20260102_030405_0123abcd"
LIFE = (
    "submitted pending 0",
    "started running 1",
    "checkpoint_committed running 1",
    "attempt_lost running 2",
    "launched running 2",
    "drained running 3",
    "cancel_requested running 3",
    "stopped cancelled 3",
    "resumed running 4",
    "attempt_failed failed 4",
    "checkpoints_deleted failed 4",
)


def events(*lines: str) -> list[Event]:
    split = [line.split() for line in lines]
    return [
        Event(number, ID, int(attempt), name, Status(status), AT, {})
        for number, (name, status, attempt) in enumerate(split, start=1)
    ]


def test_events_lead_to_status_and_attempt_at_every_point() -> None:
    for number in range(1, len(LIFE) + 1):
        _, status, attempt = LIFE[number - 1].split()
        assert fold(events(*LIFE[:number])) == (Status(status), int(attempt))


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("started running 1",),
        ("submitted pending 0", "submitted pending 0"),
        ("submitted pending 0", "started running 2"),
        (*LIFE[:2], "completed completed 1", "resumed running 2"),
        (*LIFE[:2], "completed completed 1", "stopped cancelled 1"),
        (*LIFE[:2], "reported running 2"),
        (*LIFE[:2], "attempt_lost running 1"),
        (*LIFE[:2], "attempt_lost failed 2"),
        (*LIFE[:8], "reported running 3"),
        (*LIFE, "unheard_of failed 4"),
    ],
)
def test_what_the_table_does_not_admit_is_refused(lines: tuple[str, ...]) -> None:
    with pytest.raises(IllegalTransition, match="cannot"):
        fold(events(*lines))
