"""The state machine as data: the one list of what may happen to an operation.

transitions.py checks every step against it and docs/operations.md is generated from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ktrdr.operations.types import Status

_PENDING, _RUNNING = Status.PENDING, Status.RUNNING
_COMPLETED, _FAILED, _CANCELLED = Status.COMPLETED, Status.FAILED, Status.CANCELLED


class Transition(StrEnum):
    SUBMIT = "submit"
    QUEUE = "queue"
    START = "start"
    LAUNCH = "launch"
    WAIT = "wait"
    REPORT = "report"
    WARN = "warn"
    COMMIT_CHECKPOINT = "commit_checkpoint"
    REQUEST_CANCEL = "request_cancel"
    REQUEST_KILL = "request_kill"
    STOP = "finish(stopped: user or shutdown)"
    DRAIN = "finish(stopped: drain)"
    COMPLETE = "finish(ok)"
    FAIL = "finish(error, reason)"
    LOSE = "lose(reason)"
    LOSE_OWNER = "lose(owner_lost)"
    TRY_RESUME = "try_resume"
    DELETE_CHECKPOINTS = "delete_checkpoints"
    DELETE = "delete"


@dataclass(frozen=True)
class Rule:
    transition: Transition
    before: tuple[Status, ...]
    """Empty: there is no row yet."""
    after: tuple[Status, ...]
    """Empty: there is no row any more."""
    by: str
    event: str | None
    """The name its event row carries; None: it goes with the row."""
    guard: str
    """What else is required, and what is written, in words."""


_JUDGED = (
    "attempt; writes the rows of durable checkpoints that have none; cancelled if a cancel was"
    " requested; else attempt + 1 if the reason is retryable and budget is left (the history past"
    " the latest good checkpoint is dropped, `launch_not_before` is set by the back-off); else"
    " failed"
)

RULES = (
    Rule(
        Transition.SUBMIT,
        (),
        (_PENDING,),
        "client",
        "submitted",
        "the request id is new: a repeated one gives the first answer; attempt 0; writes the"
        " owner that is to start it, which must not be closing, and its lease",
    ),
    Rule(
        Transition.QUEUE,
        (_PENDING,),
        (_PENDING,),
        "owner",
        "queued",
        "owner; writes what it waits for, when that has changed",
    ),
    Rule(Transition.START, (_PENDING,), (_RUNNING,), "owner", "started", "owner; attempt 1"),
    Rule(
        Transition.LAUNCH,
        (_RUNNING,),
        (_RUNNING,),
        "owner",
        "launched",
        "owner; attempt; `launch_not_before` has come; phase `restarting`, which becomes"
        " `starting`: a restarted owner knows by it which attempt never had a driver",
    ),
    Rule(
        Transition.WAIT,
        (_RUNNING,),
        (_RUNNING,),
        "owner",
        "reported",
        "owner; attempt; phase `starting`, which becomes `waiting_for_resources` until the driver"
        " has found its place and reports, or `restarting`, which stays; writes what it waits for",
    ),
    Rule(
        Transition.REPORT,
        (_RUNNING,),
        (_RUNNING,),
        "driver",
        "reported",
        "attempt; a sequence already seen changes nothing; history is keyed by epoch and"
        " overwritten; an event only when the phase changes or a checkpoint was restored",
    ),
    Rule(
        Transition.WARN,
        (_RUNNING,),
        (_RUNNING,),
        "driver or owner",
        "warned",
        "attempt; adds to the row's warnings: a trouble that training survives; a driver's are part"
        " of its numbered reports, so that none counts twice",
    ),
    Rule(
        Transition.COMMIT_CHECKPOINT,
        (_RUNNING,),
        (_RUNNING,),
        "driver",
        "checkpoint_committed",
        "attempt; a number already seen changes nothing; writes the row and dooms those it"
        " supersedes",
    ),
    Rule(
        Transition.REQUEST_CANCEL,
        (_PENDING,),
        (_CANCELLED,),
        "client",
        "cancel_requested",
        "request id; no resume since the attempt that the client read",
    ),
    Rule(
        Transition.REQUEST_CANCEL,
        (_RUNNING,),
        (_RUNNING,),
        "client",
        "cancel_requested",
        "the same; sets `cancel_requested_at` and phase `stopping`; repeated: the same answer",
    ),
    Rule(
        Transition.REQUEST_KILL,
        (_PENDING,),
        (_CANCELLED,),
        "client",
        "kill_requested",
        "the same as `request_cancel`",
    ),
    Rule(
        Transition.REQUEST_KILL,
        (_RUNNING,),
        (_RUNNING,),
        "client",
        "kill_requested",
        "the same as `request_cancel`; sets `kill_requested_at` too: the owner kills the driver and"
        " ends the attempt as cancelled",
    ),
    Rule(
        Transition.STOP,
        (_RUNNING,),
        (_CANCELLED,),
        "driver, or the owner before it has one",
        "stopped",
        "attempt; sets `cancel_requested_at` when it was not set",
    ),
    Rule(
        Transition.DRAIN,
        (_RUNNING,),
        (_CANCELLED, _RUNNING),
        "driver",
        "drained",
        "attempt; cancelled if a cancel was requested; else attempt + 1, which costs no budget",
    ),
    Rule(
        Transition.COMPLETE,
        (_RUNNING,),
        (_COMPLETED,),
        "driver",
        "completed",
        "attempt; writes the result, completes the model's row, dooms every checkpoint row",
    ),
    Rule(
        Transition.FAIL,
        (_RUNNING,),
        (_CANCELLED, _RUNNING, _FAILED),
        "driver",
        "attempt_failed",
        _JUDGED,
    ),
    Rule(
        Transition.LOSE,
        (_RUNNING,),
        (_CANCELLED, _RUNNING, _FAILED),
        "owner",
        "attempt_lost",
        _JUDGED,
    ),
    Rule(
        Transition.LOSE_OWNER,
        (_PENDING, _RUNNING),
        (_CANCELLED, _FAILED),
        "whoever resumes or cancels it",
        "owner_lost",
        "the lease has expired or the owner's process is gone on the caller's host; cancelled if a"
        " cancel was requested, else failed",
    ),
    Rule(
        Transition.TRY_RESUME,
        (_CANCELLED, _FAILED),
        (_RUNNING,),
        "client",
        "resumed",
        "request id; attempt; the chosen checkpoint row is not doomed; the owner is not closing;"
        " attempt + 1, owner and lease, the accepted changes of the strategy; clears"
        " `cancel_requested_at`, `completed_at` and the error (kept in the event),"
        " resets the restart budget, drops history past the checkpoint",
    ),
    Rule(
        Transition.DELETE_CHECKPOINTS,
        (_FAILED,),
        (_FAILED,),
        "client",
        "checkpoints_deleted",
        "dooms every checkpoint row; with none standing, and when completed, nothing is written",
    ),
    Rule(
        Transition.DELETE_CHECKPOINTS,
        (_CANCELLED,),
        (_CANCELLED,),
        "client",
        "checkpoints_deleted",
        "the same",
    ),
    Rule(
        Transition.DELETE,
        (_COMPLETED, _FAILED, _CANCELLED),
        (),
        "client",
        None,
        "dooms every checkpoint row; events, history and request ids go with the row, its model"
        " stays",
    ),
)


def rule_for(transition: Transition, before: Status | None) -> Rule | None:
    """Return the rule by which a row of that status (None: no row) may make the transition."""
    for rule in RULES:
        admitted = before in rule.before if before is not None else not rule.before
        if rule.transition is transition and admitted:
            return rule
    return None


def table_markdown() -> str:
    """Return the table as it stands in docs/operations.md."""
    head = "| transition | from | to | by | event | guarded on, and writes |\n"
    head += "|---|---|---|---|---|---|\n"
    return head + "".join(
        f"| {rule.transition} | {_names(rule.before) or '-'} | {_names(rule.after) or 'gone'}"
        f" | {rule.by} | {_quoted(rule.event)} | {rule.guard} |\n"
        for rule in RULES
    )


def _names(statuses: tuple[Status, ...]) -> str:
    return ", ".join(statuses)


def _quoted(event: str | None) -> str:
    return f"`{event}`" if event is not None else "-"
