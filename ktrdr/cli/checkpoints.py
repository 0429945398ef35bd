"""`ktrdr checkpoints ...`."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

import typer

from ktrdr.cli import checkpoint_views, render
from ktrdr.cli.command import Call, OperationId, command, group
from ktrdr.errors import CheckpointCorrupted, Usage

_AGE = re.compile(r"([0-9]{1,6})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def add_to(app: typer.Typer) -> None:
    family = group(app, "checkpoints", "Look at what a resume can start from, and clean up.")
    command(family, "list")(list_latest)
    command(family, "show")(show)
    command(family, "verify")(verify)
    command(family, "delete")(delete)
    command(family, "cleanup")(clean_up)


def list_latest(call: Call) -> int:
    """List the latest checkpoint of every operation that has one."""
    with call.client() as client:
        records, _ = client.operations()
    latest = [
        {"operation_id": r["operation_id"], "status": r["status"], **r["checkpoint"]}
        for r in records
        if r["checkpoint"] is not None
    ]
    return call.answer_list("checkpoints", latest, lambda: checkpoint_views.checkpoints(latest))


def show(call: Call, operation_id: OperationId) -> int:
    """Show all checkpoints of an operation, oldest first."""
    with call.client() as client:
        found = client.operation(operation_id).checkpoints()
    return call.answer_list("checkpoints", found, lambda: checkpoint_views.checkpoints(found))


def verify(call: Call, operation_id: OperationId) -> int:
    """Check every file of every checkpoint of an operation against its digest.

    Exit status: 0 all are good, 5 some are not.
    """
    with call.client() as client:
        found = client.operation(operation_id).verify_checkpoints()
    call.answer_list("checkpoints", found, lambda: checkpoint_views.verified(found))
    damaged = [c["path"] for c in found if not c["good"]]
    if not damaged:
        return 0
    good = len(found) - len(damaged)
    render.say(
        f"damaged: {len(damaged)} of {len(found)} checkpoints: restore them from a backup, or"
        + (" let a resume go on from a good one" if good else " train anew")
    )
    return CheckpointCorrupted.exit_status


def delete(call: Call, operation_id: OperationId) -> int:
    """Delete all checkpoints of an operation that has ended: it cannot be resumed then."""
    with call.client() as client:
        operation = client.operation(operation_id)
        deleted = operation.delete_checkpoints()
    document = {"operation_id": operation.id, "deleted": deleted}
    return call.answer(document, lambda: f"deleted {deleted} checkpoints of {operation.id}")


def clean_up(
    call: Call,
    older_than: Annotated[
        str | None,
        typer.Option(
            help="Delete the checkpoints of what failed or was cancelled longer ago, such as 30d"
            " (s, m, h, d, w)."
        ),
    ] = None,
    orphans: Annotated[
        bool, typer.Option("--orphans", help="Remove the folders that this store does not know.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Really remove them.")] = False,
) -> int:
    """Remove what endings and crashes left on storage, and list folders this store does not know.

    Completed operations, models, and checkpoints that a resume may need are never touched.
    """
    if yes and not orphans:
        raise Usage("--yes goes with --orphans: everything else needs no confirmation")
    age = None if older_than is None else _age(older_than)
    with call.client() as client:
        done = client.clean_up(age, remove_orphans=orphans and yes)
    call.answer(done, lambda: checkpoint_views.cleanup(done))
    for left in done["left"]:
        render.say(f"not cleaned up: {left['operation_id']}: {left['message']}")
    if not all(orphan["removed"] for orphan in done["orphans"]):
        render.say(_what_next(orphans, yes))
    return 0


def _what_next(orphans: bool, yes: bool) -> str:
    if not yes:
        word = "add --yes" if orphans else "run it with --orphans --yes"
        return f"to remove the folders that this store does not know, {word}"
    return "some folders could not be removed: check that the storage is writable"


def _age(text: str) -> timedelta:
    match = _AGE.fullmatch(text)
    if match is None:
        raise Usage(f"--older-than {text[:40]!a} is no age: write a number and s, m, h, d or w")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})
