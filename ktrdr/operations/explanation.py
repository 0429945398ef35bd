"""Why an operation is where it is: its events in plain words, and what to do next."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ktrdr.operations.records import stopped_early
from ktrdr.operations.types import (
    Checkpoint,
    Event,
    FailureReason,
    Operation,
    Status,
    StopKind,
    timestamp,
)

_REASONS = {
    FailureReason.WORKER_LOST: "a worker was lost",
    FailureReason.DRIVER_LOST: "the training process was lost",
    FailureReason.HUNG: "it stopped making progress",
    FailureReason.NODE_PREEMPTED: "its node was taken away",
    FailureReason.OUT_OF_MEMORY: "it ran out of memory",
    FailureReason.USER_ERROR: "training raised an error",
    FailureReason.NON_FINITE_LOSS: "the loss was no longer a finite number",
    FailureReason.DATA_ERROR: "its data could not be used",
    FailureReason.CHECKPOINT_UNUSABLE: "no checkpoint could be used",
    FailureReason.LAUNCH_FAILED: "it could not be launched",
    FailureReason.OWNER_LOST: "it was lost: no live process",
}
_STOPS = {
    StopKind.USER: "because it was asked to",
    StopKind.SHUTDOWN: "because its process or machine was shut down",
    StopKind.DRAIN: "because its node was drained",
}


def explanation(
    operation: Operation, events: Iterable[Event], latest: Checkpoint | None, alive: bool
) -> dict[str, Any]:
    """Return the answer of `operations why`.

    `latest` is its latest good checkpoint; `alive` says whether its owner is.
    """
    links, early = chain(events), _early(operation)
    return {
        "operation_id": operation.operation_id,
        "status": operation.status.value,
        "lost": not (operation.status.terminal or alive),
        "chain": [
            {
                "at": timestamp(link.at),
                "attempt": link.attempt,
                "event": link.event,
                "text": text_of(link) + (early if link.event == "completed" else ""),
            }
            for link in links
        ],
        "next": next_command(operation, latest, alive),
    }


def chain(events: Iterable[Event]) -> tuple[Event, ...]:
    """Return the events that tell the story, oldest first.

    Left out is what happens in every training: launches, changes of phase, and of several
    checkpoints or warnings in a row all but the last.
    """
    kept: list[Event] = []
    for event in events:
        if event.event == "launched" or (
            event.event == "reported" and "checkpoint" not in event.details
        ):
            continue
        if event.event in _ONCE and kept and kept[-1].event == event.event:
            kept.pop()
        kept.append(event)
    return tuple(kept)


def text_of(event: Event) -> str:
    """Return one event in plain words: who did what, and why."""
    return TEXTS[event.event](event)


def next_command(operation: Operation, latest: Checkpoint | None, alive: bool) -> str:
    """Return the command that makes sense now."""
    name = operation.operation_id
    if not operation.status.terminal:
        return _of_the_living(name, latest, alive)
    if operation.status is Status.COMPLETED:
        return f"ktrdr models show {_model_name(operation)}"
    reason = operation.error.reason if operation.error is not None else None
    if reason is FailureReason.CHECKPOINT_UNUSABLE:
        return f"ktrdr checkpoints verify {name}"
    if latest is None:
        return f"ktrdr operations rerun {name}"
    changed = " --allow-changes" if reason is FailureReason.NON_FINITE_LOSS else ""
    return f"ktrdr operations resume {name}{changed}"


def _early(operation: Operation) -> str:
    result = operation.result
    if result is None or not stopped_early(operation):
        return ""
    return f"; it stopped early after {result.epochs} of {operation.request.epochs} epochs"


def _of_the_living(name: str, latest: Checkpoint | None, alive: bool) -> str:
    if alive:
        return f"ktrdr operations watch {name}"
    return f"ktrdr operations {'resume' if latest is not None else 'cancel'} {name}"


def _model_name(operation: Operation) -> str:
    path = operation.result.model_path if operation.result is not None else ""
    version = path.rstrip("/").rpartition("/")[2]
    return f"{operation.request.strategy_name}@{version}"


def _started(event: Event) -> str:
    return f"attempt {event.attempt} was started"


def _reported(event: Event) -> str:
    if "checkpoint" not in event.details:
        return f"the training entered the phase {event.details['phase']}"
    return f"attempt {event.attempt} began {_from(event.details)}"


def _committed(event: Event) -> str:
    return f"the {_place(event.details)} was saved"


def _cancel_requested(event: Event) -> str:
    if event.status is Status.CANCELLED:
        return "a user cancelled it before it was started"
    return "a user asked to cancel it"


def _kill_requested(event: Event) -> str:
    if event.status is Status.CANCELLED:
        return "a user killed it before it was started"
    return "a user asked to kill its process"


def _stopped(event: Event) -> str:
    kind = StopKind(event.details["kind"])
    text = f"attempt {event.details['ended_attempt']} stopped at a batch boundary, {_STOPS[kind]}"
    if event.status is Status.RUNNING:
        return f"{text}; attempt {event.attempt} goes on from its last checkpoint"
    return f"{text}; the operation is cancelled"


def _ended(event: Event) -> str:
    """Of an attempt that nobody had asked to end; by its driver or, for it, its owner."""
    details = event.details
    why = _REASONS[FailureReason(details["reason"])]
    text = f"attempt {details['ended_attempt']} ended because {why} ({details['message']})"
    if event.status is Status.CANCELLED:
        return f"{text}; a cancel had been requested, so the operation is cancelled"
    if event.status is Status.FAILED:
        return f"{text}; the operation failed: it is not restarted, {details['refusal']}"
    wait = details.get("back_off_s") or 0
    return f"{text}; attempt {event.attempt} follows " + (f"in {wait:g} s" if wait else "at once")


def _owner_lost(event: Event) -> str:
    ending = "failed"
    if event.status is Status.CANCELLED:
        ending = "is cancelled, as had been requested"
    return f"it was found lost, with no live process; the operation {ending}"


def _resumed(event: Event) -> str:
    before = event.details["before"]["status"]
    return (
        f"a user resumed it after it was {before}: attempt {event.attempt} {_from(event.details)}"
    )


def _checkpoints_deleted(event: Event) -> str:
    number = len(event.details["doomed"])
    deleted = "its checkpoint" if number == 1 else f"its {number} checkpoints"
    return f"a user deleted {deleted}: it cannot be resumed"


TEXTS: dict[str, Callable[[Event], str]] = {
    "submitted": lambda _event: "a user submitted it",
    "queued": lambda event: f"it waits for {event.details['waiting_for']}",
    "started": _started,
    "launched": lambda event: f"attempt {event.attempt} was given a process",
    "reported": _reported,
    "warned": lambda event: f"warning: {event.details['message']}",
    "checkpoint_committed": _committed,
    "cancel_requested": _cancel_requested,
    "kill_requested": _kill_requested,
    "stopped": _stopped,
    "drained": _stopped,
    "completed": lambda event: f"it completed: its model is {event.details['model']}",
    "attempt_failed": _ended,
    "attempt_lost": _ended,
    "owner_lost": _owner_lost,
    "resumed": _resumed,
    "checkpoints_deleted": _checkpoints_deleted,
}
"""By event: a test holds them to the table."""

_ONCE = ("checkpoint_committed", "warned")


def _from(details: dict[str, Any]) -> str:
    source = details["checkpoint"]
    text = f"from the {_place(source)}" if source is not None else "from the beginning"
    passed = [f"{_place(bad)}: {bad['why']}" for bad in details["passed_over"] if "epoch" in bad]
    return f"{text}; passed over: {', '.join(passed)}" if passed else text


def _place(at: dict[str, Any]) -> str:
    return f"{at['checkpoint_type']} checkpoint of epoch {at['epoch']}, batch {at['batch']}"
