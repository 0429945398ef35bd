"""`ktrdr up | down | nodes`: a Ray that stays, so that trainings outlive the command."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer

from ktrdr.cli import render
from ktrdr.cli.command import Call, command
from ktrdr.errors import ClusterRequired


def add_to(app: typer.Typer) -> None:
    command(app, "up")(raise_cluster)
    command(app, "down")(take_down)
    command(app, "nodes")(list_nodes)


def raise_cluster(call: Call) -> int:
    """Start a Ray that stays until `ktrdr down`; trainings then run there, also detached.

    Repeated: the one that is up is shown.
    """
    from ktrdr.cluster import raising

    with call.client() as client:
        client.storage()  # its trouble is the user's, and better known now
        render.say("starting Ray")
        cluster, new = raising.up(client.settings)
    document = {
        "address": cluster.address,
        "dashboard": cluster.dashboard,
        "owner_id": cluster.owner_id,
        "pid": cluster.pid,
        "new": new,
    }
    return call.answer(document, lambda: render.fields(list(document.items())))


def take_down(call: Call) -> int:
    """Stop every training with a last checkpoint, then the Ray that `ktrdr up` started.

    What was stopped ends `cancelled` and can be resumed.
    """
    from ktrdr.cluster import raising

    with call.client() as client:
        stopped = raising.down(client.settings, lambda: client.service)
    if stopped is not None and stopped.unsaved is not None:
        render.say(
            f"the store does not answer ({stopped.unsaved}): what ran there is shown as lost when"
            " it is back, and can be resumed"
        )
    address = stopped.cluster.address if stopped is not None else None
    document = {"stopped": stopped is not None, "address": address}
    return call.answer(document, lambda: f"stopped {address}" if address else "no cluster was up")


def list_nodes(call: Call) -> int:
    """List the machines of the cluster."""
    from ktrdr.cluster import local, remote

    cluster = local.find(call.settings(), render.say)
    if cluster is None:
        raise ClusterRequired("no cluster is up: start one with `ktrdr up`, or set RAY_ADDRESS")
    with render.stdout_is_ours():
        remote.join(cluster.cluster.address)
        nodes = local.nodes()
    return call.answer_list("nodes", nodes, lambda: _nodes(nodes))


def _nodes(items: Sequence[dict[str, Any]]) -> str:
    headers = ("NODE", "ADDRESS", "HOST", "ALIVE", "HEAD", "CPUS", "GPUS")
    keys = ("node_id", "address", "host", "alive", "head", "cpus", "gpus")
    return render.table(headers, [[node[key] for key in keys] for node in items])
