"""`ktrdr train` and `ktrdr operations ...`."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from ktrdr.cli import operation_views, render, resume_view
from ktrdr.cli.command import Call, OperationId, command, group
from ktrdr.cli.interrupts import Interrupts
from ktrdr.cli.training_options import TrainingArguments
from ktrdr.cli.watch import watch
from ktrdr.errors import OperationNotCancellable

if TYPE_CHECKING:
    from ktrdr.client import Operation

Detach = Annotated[
    bool, typer.Option("--detach", help="Return as soon as it is submitted, do not follow it.")
]


class StatusName(StrEnum):
    """The statuses, known here so that help needs nothing else."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


def add_to(app: typer.Typer) -> None:
    command(app, "train")(train)
    family = group(app, "operations", "Look at trainings, stop them, resume them.")
    command(family, "list")(list_operations)
    command(family, "status")(show_status)
    command(family, "cancel")(cancel)
    command(family, "resume")(resume)
    command(family, "rerun")(rerun)
    command(family, "watch")(watch)
    command(family, "events")(show_events)
    command(family, "history")(show_history)
    command(family, "why")(explain)
    command(family, "delete")(delete)


def train(
    call: Call,
    strategy: Annotated[str, typer.Argument(metavar="STRATEGY", help="A strategy's YAML file.")],
    training: TrainingArguments,
    detach: Detach = False,
) -> int:
    """Train a strategy's model and follow it to the end.

    Ctrl-C or SIGTERM saves a checkpoint and cancels; a second one kills the training, a third
    leaves at once. Exit status: 0 completed, 1 failed, 130 cancelled. A split with folds gives one
    operation per fold and a summary of them; then the status is that of the worst end.
    """
    interrupts = _interrupts(call)
    with call.client() as client:
        interrupts.leave_if_asked()
        operations = client.train_folds(strategy, **vars(training.options()))
        return _run(call, operations, interrupts, detach)


def rerun(call: Call, operation_id: OperationId, detach: Detach = False) -> int:
    """Train an operation again from the beginning, with the same settings, and follow it.

    It is a new operation with the same strategy file, options and fold. Exit status as of `train`.
    """
    interrupts = _interrupts(call)
    with call.client() as client:
        interrupts.leave_if_asked()
        again = client.operation(operation_id).rerun()
        return _run(call, (again,), interrupts, detach)


def _run(call: Call, operations: Sequence[Operation], interrupts: Interrupts, detach: bool) -> int:
    """Follow what was submitted, unless it is to run detached."""
    from ktrdr.cli.follow import follow, follow_folds

    for operation in operations:
        render.say(f"submitted {operation.id}")
    if detach:
        return _leave(call, operations)
    if len(operations) > 1:
        return follow_folds(call, operations, interrupts)
    return follow(call, operations[0], interrupts)


def list_operations(
    call: Call,
    status: Annotated[
        StatusName | None, typer.Option(help="Only operations of this status.")
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only operations of this strategy.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=2**31 - 1, help="How many at most.")] = 100,
    offset: Annotated[
        int, typer.Option(min=0, max=2**31 - 1, help="How many of the newest to leave out.")
    ] = 0,
) -> int:
    """List operations, newest first, one page of them; `total` counts all that match."""
    with call.client() as client:
        records, total = client.operations(status and status.value, limit, offset, strategy)
    call.answer(
        {"operations": records, "total": total}, lambda: operation_views.operations(records)
    )
    if 0 < len(records) < total:
        render.say(f"{offset + 1} to {offset + len(records)} of {total}: see --limit and --offset")
    return 0


def show_status(call: Call, operation_id: OperationId) -> int:
    """Show one operation."""
    with call.client() as client:
        record = client.operation(operation_id).record()
    return call.answer(record, lambda: operation_views.operation(record))


def cancel(
    call: Call,
    operation_id: OperationId,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Do not wait until it has stopped.")
    ] = False,
    kill: Annotated[
        bool,
        typer.Option("--kill", help="Kill its process: the latest committed checkpoint stands."),
    ] = False,
) -> int:
    """Cancel an operation and wait until it has stopped with a last checkpoint.

    Exit status: 0 cancelled, also when repeated; 4 when it ended otherwise first.
    """
    with call.client() as client:
        record = client.operation(operation_id).cancel(wait=not no_wait, kill=kill)
    if record["status"] in ("completed", "failed"):
        raise OperationNotCancellable(
            f"{record['operation_id']} {record['status']} before it could be cancelled:"
            f" see `ktrdr operations status {record['operation_id']}`",
            operation_id=record["operation_id"],
            status=record["status"],
        )
    return call.answer(record, lambda: operation_views.operation(record))


def resume(
    call: Call,
    operation_id: OperationId,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Say what was restored, what differs, what was lost.")
    ] = False,
    strategy: Annotated[
        str | None, typer.Option(metavar="FILE", help="The strategy's file, where it is now.")
    ] = None,
    allow_changes: Annotated[
        bool,
        typer.Option(
            "--allow-changes",
            help="Train on with what was changed in the strategy, such as epochs or learning rate.",
        ),
    ] = False,
    detach: Detach = False,
) -> int:
    """Resume a cancelled, failed or lost operation from its latest checkpoint, and follow it.

    Exit status: 0 completed, 1 failed, 130 cancelled; 4 when it cannot be resumed, or strategy or
    data were changed: then nothing has changed.
    """
    from ktrdr.cli.follow import follow

    interrupts = _interrupts(call)
    with call.client() as client:
        operation = client.operation(operation_id)
        interrupts.leave_if_asked()
        record = operation.resume(strategy=strategy, allow_changes=allow_changes)
        _announce(call, resume_view.resumed(record, operation.resume_report(), verbose))
        if detach:
            return _leave(call, [operation])
        return follow(call, operation, interrupts)


def show_events(call: Call, operation_id: OperationId) -> int:
    """Show what happened to an operation, oldest first."""
    with call.client() as client:
        events = client.operation(operation_id).events()
    return call.answer_list("events", events, lambda: operation_views.events(events))


def show_history(call: Call, operation_id: OperationId) -> int:
    """Show the metrics of every finished epoch."""
    with call.client() as client:
        history = client.operation(operation_id).history()
    return call.answer_list("history", history, lambda: operation_views.history(history))


def _leave(call: Call, operations: Sequence[Operation]) -> int:
    """Show what was submitted: one record, or the list of the folds."""
    records = [operation.record() for operation in operations]
    if len(records) == 1:
        return call.answer(records[0], lambda: operation_views.operation(records[0]))
    found = {"operations": records, "total": len(records), "summary": None}
    return call.answer(found, lambda: operation_views.operations(records))


def explain(call: Call, operation_id: OperationId) -> int:
    """Say in plain words what led to an operation's present state, and what to do next."""
    with call.client() as client:
        why = client.operation(operation_id).why()
    return call.answer(why, lambda: operation_views.explanation(why))


def delete(call: Call, operation_id: OperationId) -> int:
    """Delete an operation that has ended, with its history and checkpoints; its model stays."""
    with call.client() as client:
        operation = client.operation(operation_id)
        operation.delete()
    document = {"operation_id": operation.id, "deleted": True}
    return call.answer(document, lambda: f"deleted {operation.id}")


def _interrupts(call: Call) -> Interrupts:
    """Count signals from here on: this comes before anything slow."""
    import json

    left = render.failure_document("CANCELLED", "left at once on the third signal", {})
    interrupts = Interrupts(json.dumps(left) + "\n" if call.as_json else "")
    interrupts.install()
    return interrupts


def _announce(call: Call, said: str) -> None:
    """Say at once that a resume worked; with `--json` stdout is kept for the final record."""
    if not call.as_json:
        render.text(said)
        return
    for line in said.splitlines():
        render.say(line)
