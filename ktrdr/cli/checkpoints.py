"""`ktrdr checkpoints ...`."""

from __future__ import annotations

from typing import Annotated

import typer

from ktrdr.cli import views
from ktrdr.cli.command import Call, command, group


def add_to(app: typer.Typer) -> None:
    family = group(app, "checkpoints", "Look at what a resume can start from.")
    command(family, "list")(list_latest)
    command(family, "show")(show)


def list_latest(call: Call) -> int:
    """List the latest checkpoint of every operation that has one."""
    with call.client() as client:
        records, _ = client.operations()
    latest = [
        {"operation_id": r["operation_id"], "status": r["status"], **r["checkpoint"]}
        for r in records
        if r["checkpoint"] is not None
    ]
    return call.answer_list("checkpoints", latest, lambda: views.checkpoints(latest))


def show(
    call: Call,
    operation_id: Annotated[str, typer.Argument(metavar="OPERATION", help="An operation's id.")],
) -> int:
    """Show all checkpoints of an operation, oldest first."""
    with call.client() as client:
        found = client.operation(operation_id).checkpoints()
    return call.answer_list("checkpoints", found, lambda: views.checkpoints(found))
