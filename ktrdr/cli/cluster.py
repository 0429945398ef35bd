"""`ktrdr up | down | nodes`: the cluster on which trainings run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer

from ktrdr.cli import render
from ktrdr.cli.command import Call, command
from ktrdr.errors import ClusterUnavailable


def add_to(app: typer.Typer) -> None:
    command(app, "up")(start)
    command(app, "down")(stop)
    command(app, "nodes")(list_nodes)


def start(call: Call) -> int:
    """Start the local cluster and let it stay until `ktrdr down`.

    Repeated: the one that is up is shown, and stays. With RAY_ADDRESS set, the operations actor of
    that cluster is made.
    """
    from ktrdr.cluster import local

    with call.client() as client:
        client.storage()  # its trouble is the user's, and better known now
        before = local.find(client.settings)
        row = client.keep_cluster()
    document = {
        "address": row.address,
        "dashboard": row.dashboard,
        "owner_id": row.owner.id,
        "pid": row.owner.pid,
        "new": before is None or before.owner_id != row.owner.id,
    }
    return call.answer(document, lambda: render.fields(list(document.items())))


def stop(call: Call) -> int:
    """Save every training with a last checkpoint and end the local cluster.

    What was stopped ends `cancelled` and can be resumed.
    """
    from ktrdr.cluster import local

    with call.client() as client:
        if client.settings.ray_address is not None:
            raise ClusterUnavailable(
                "`ktrdr down` ends local clusters only: unset RAY_ADDRESS, or stop that Ray itself"
            )
        stopped = local.stop(client.settings, lambda: client.service)
    if stopped is not None and stopped.unsaved is not None:
        render.say(
            f"the store does not answer ({stopped.unsaved}): what ran there is shown as lost when"
            " it is back, and can be resumed"
        )
    address = stopped.cluster.address if stopped is not None else None
    document = {"stopped": stopped is not None, "address": address}
    return call.answer(document, lambda: "no cluster was up" if stopped is None else "stopped")


def list_nodes(call: Call) -> int:
    """List the machines of the cluster."""
    with call.client() as client:
        nodes = client.nodes()
    return call.answer_list("nodes", nodes, lambda: _nodes(nodes))


def _nodes(items: Sequence[dict[str, Any]]) -> str:
    headers = ("NODE", "ADDRESS", "HOST", "ALIVE", "HEAD", "CPUS", "GPUS")
    keys = ("node_id", "address", "host", "alive", "head", "cpus", "gpus")
    return render.table(headers, [[node[key] for key in keys] for node in items])
