"""What an operation's events say about its row: the two are written together and must agree."""

from __future__ import annotations

from collections.abc import Iterable

from ktrdr.errors import IllegalTransition
from ktrdr.operations.state_machine import RULES, Transition
from ktrdr.operations.types import Event, Operation, Status

Folded = tuple[Status, int]
"""(status, attempt)."""

_ADMITTED = frozenset(
    (rule.event, before, after)
    for rule in RULES
    for before in rule.before or (None,)
    for after in rule.after
)
_RESTARTING = frozenset(
    rule.event
    for rule in RULES
    if rule.transition
    in (Transition.DRAIN, Transition.FAIL, Transition.LOSE, Transition.TRY_RESUME)
)
"""Events that begin another attempt when they leave the operation running."""


def fold(events: Iterable[Event]) -> Folded:
    """Return the status and attempt that events lead to, oldest first.

    Raise IllegalTransition at the first one that the table does not admit where it stands.
    """
    status, attempt = None, 0
    for event in events:
        expected = _attempt_after(event, attempt)
        if (event.event, status, event.status) not in _ADMITTED or event.attempt != expected:
            raise IllegalTransition(
                f"event {event.id} ({event.event}: {event.status}, attempt {event.attempt})"
                f" cannot follow {status or 'nothing'}, attempt {attempt}"
            )
        status, attempt = event.status, event.attempt
    if status is None:
        raise IllegalTransition("an operation without events cannot be")
    return status, attempt


def inconsistency(operation: Operation, events: Iterable[Event]) -> str | None:
    """Say how the row differs from the fold of its events; None: it does not."""
    try:
        status, attempt = fold(events)
    except IllegalTransition as error:
        return error.message
    if (status, attempt) == (operation.status, operation.attempt):
        return None
    return (
        f"the row says {operation.status}, attempt {operation.attempt}; its events lead to"
        f" {status}, attempt {attempt}"
    )


def _attempt_after(event: Event, attempt: int) -> int:
    if event.event == "started":
        return 1
    return attempt + (event.event in _RESTARTING and event.status is Status.RUNNING)
