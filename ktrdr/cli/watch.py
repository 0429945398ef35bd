"""`ktrdr operations watch`: look on until they end; leaving changes nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ktrdr.cli import operation_views, render
from ktrdr.cli.command import Call
from ktrdr.cli.interrupts import EXIT_STATUS, Interrupts
from ktrdr.errors import ClusterUnavailable, StoreUnavailable

if TYPE_CHECKING:
    from ktrdr.client import Client, Operation

Record = dict[str, Any]

POLL_S = 0.3
PATIENCE_S = 60.0
_STATUS_OF = {"completed": 0, "cancelled": EXIT_STATUS, "failed": 1}


def watch(
    call: Call,
    operation_ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID]...", help="Ids, as elsewhere (@last); none: all that run."),
    ] = None,
) -> int:
    """Follow operations until they end, wherever they run; Ctrl-C leaves and changes nothing.

    Exit status: 0 all completed (or you left), 1 one failed, 130 one was cancelled, 6 out of reach.
    """
    interrupts = Interrupts()
    interrupts.install()
    with call.client() as client:
        handles = _handles(client, operation_ids)
        records = [handle.record() for handle in handles]
        said = dict.fromkeys([handle.id for handle in handles], "")
        while not interrupts.count and any(r["status"] not in _STATUS_OF for r in records):
            _say_changes(records, said)
            time.sleep(POLL_S)
            records = _look_again(handles)
        _say_changes(records, said)
    answer = {"operations": records, "total": len(records)}
    call.answer(answer, lambda: operation_views.operations(records))
    left = any(record["status"] not in _STATUS_OF for record in records)
    ends = {_STATUS_OF[r["status"]] for r in records if r["status"] in _STATUS_OF}
    return 0 if left else next((status for status in (1, EXIT_STATUS) if status in ends), 0)


def _handles(client: Client, operation_ids: list[str] | None) -> list[Operation]:
    ids = operation_ids or [r["operation_id"] for r in client.operations("running")[0]]
    handles = [client.operation(operation_id) for operation_id in ids]
    return list({handle.id: handle for handle in handles}.values())


def _look_again(handles: list[Operation]) -> list[Record]:
    """A store that is away for a while is waited for.

    Raises:
        StoreUnavailable, ClusterUnavailable: it stayed away, or one of them is lost.
    """
    since = time.monotonic()
    while True:
        try:
            records = [handle.record() for handle in handles]
            break
        except StoreUnavailable as error:
            if time.monotonic() - since > PATIENCE_S:
                raise
            render.say(f"the store is away, trying again: {error.message}")
            time.sleep(2.0)
    for record in records:
        if record["lost"]:
            raise ClusterUnavailable(
                f"{record['operation_id']} is lost, no live process: take it over with"
                f" `ktrdr operations resume {record['operation_id']}`"
            )
    return records


def _say_changes(records: list[Record], said: dict[str, str]) -> None:
    """A line when an operation's status, phase or epoch has changed."""
    for record in records:
        ended = record["status"] in _STATUS_OF
        line = _end(record) if ended else operation_views.progress_line(record)
        stage = f"{record['status']} {record['phase']} {(record['progress'] or {}).get('epoch')}"
        if said[record["operation_id"]] != stage:
            said[record["operation_id"]] = stage
            render.say(f"{record['operation_id']}: {line}")


def _end(record: Record) -> str:
    early = operation_views.stopped_early(record)
    return f"{record['status']}, {early}" if early else str(record["status"])
