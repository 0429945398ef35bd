"""A Ray that stays: raised by `ktrdr up`, found by the home's `cluster.json`, or RAY_ADDRESS."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ktrdr.cluster import remote
from ktrdr.errors import ClusterUnavailable, StoreMismatch, VersionMismatch
from ktrdr.operations.service import OperationsService
from ktrdr.operations.types import Owner, OwnerKind
from ktrdr.processes import lives
from ktrdr.settings import Settings

CLUSTER_FILE = "cluster.json"
HEAD_RESOURCE = "node:__internal_head__"


@dataclass(frozen=True)
class Cluster:
    """What a client must know of a standing Ray; nothing of it is secret."""

    address: str
    owner_id: str
    """Ray's cluster id: what the operations actor owns outlives the actor."""
    host: str | None
    version: str
    store_id: str
    dashboard: str | None = None
    pid: int | None = None
    """Of the head; None when another machine raised it."""
    process_started_at: float | None = None
    session: int | None = None
    """The operating system's session of all its processes."""


class StandingRay:
    """A cluster as a place to run: its actor sees new rows by itself, and Ray is joined only
    when there is something to kill."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.owner = Owner(cluster.owner_id, OwnerKind.CLUSTER, cluster.host)

    @property
    def standing(self) -> bool:
        return True

    def check(self, store_id: str) -> None:
        """Refuse a cluster of another version or store.

        Raises:
            VersionMismatch, StoreMismatch.
        """
        here = version("ktrdr")
        if self.cluster.version != here:
            raise VersionMismatch(
                f"the cluster at {self.cluster.address} runs ktrdr {self.cluster.version}, this is"
                f" {here}: `ktrdr down` and `ktrdr up`, or use the same version"
            )
        if self.cluster.store_id != store_id:
            raise StoreMismatch(
                f"the cluster at {self.cluster.address} keeps its operations in another store"
                f" ({self.cluster.store_id}, this one is {store_id}): use the same"
                " KTRDR_DATABASE_URL"
            )

    def launch(self, service: OperationsService, operation_id: str) -> None:
        """Nothing to start: the cluster's actor sees the row within a fraction of a second."""

    def close(self, service: OperationsService) -> bool:  # noqa: ARG002
        """Leave it as it is: what runs there goes on."""
        return False


def find(settings: Settings, notice: Callable[[str], None]) -> StandingRay | None:
    """The standing Ray that commands with these settings use, if any.

    RAY_ADDRESS, else `cluster.json`. A file whose head is gone is removed with a notice.

    Raises:
        ClusterUnavailable: nobody answers at RAY_ADDRESS.
    """
    if settings.ray_address:
        return StandingRay(_ask(settings.ray_address))
    cluster = read_cluster(settings.home)
    if cluster is None:
        return None
    if not head_lives(cluster):
        forget_cluster(settings.home)
        notice(f"the cluster at {cluster.address} is gone: its {CLUSTER_FILE} was removed")
        return None
    return StandingRay(cluster)


def describe_cluster(address: str, owner: Owner, actor: Any) -> Cluster:
    """Ask a cluster's actor what clients must know."""
    import ray

    hello = ray.get(actor.hello.remote(), timeout=remote.CALL_TIMEOUT_S)
    return Cluster(
        address=address,
        owner_id=owner.id,
        host=owner.host,
        version=hello["version"],
        store_id=hello["store_id"],
    )


def joined_owner() -> Owner:
    """The owner that the joined cluster is."""
    from ray._private.worker import global_worker  # no public name for the cluster's id

    worker: Any = global_worker
    cluster_id = worker.gcs_client.cluster_id.hex()
    return Owner(f"cluster-{cluster_id}", OwnerKind.CLUSTER, _head_host())


def nodes() -> list[dict[str, Any]]:
    """The nodes of the joined cluster: id, address, host, alive, head, CPUs and GPUs."""
    import ray

    rows: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [
        {
            "node_id": node["NodeID"],
            "address": node["NodeManagerAddress"],
            "host": node["NodeManagerHostname"],
            "alive": node["Alive"],
            "head": HEAD_RESOURCE in node["Resources"],
            "cpus": node["Resources"].get("CPU", 0.0),
            "gpus": node["Resources"].get("GPU", 0.0),
        }
        for node in rows
    ]


def read_cluster(home: Path) -> Cluster | None:
    """What `up` wrote; None without a file, or with one that is not ours."""
    try:
        return Cluster(**json.loads((home / CLUSTER_FILE).read_text()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError) as error:
        raise ClusterUnavailable(
            f"{home / CLUSTER_FILE} cannot be read ({error}): remove it, and `ktrdr up` again"
        ) from None


def write_cluster(home: Path, cluster: Cluster) -> None:
    """Replace the file as a whole."""
    draft = home / f".{CLUSTER_FILE}.{os.getpid()}"
    draft.write_text(json.dumps(asdict(cluster), indent=1) + "\n")
    draft.chmod(0o600)
    draft.replace(home / CLUSTER_FILE)


def forget_cluster(home: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        (home / CLUSTER_FILE).unlink()


def head_lives(cluster: Cluster) -> bool:
    """Whether the head's process is there; a head of another machine is taken at its word."""
    if cluster.pid is None or cluster.host != socket.gethostname():
        return True
    return lives(cluster.pid, cluster.process_started_at)


def _ask(address: str) -> Cluster:
    remote.join(address)
    owner = joined_owner()
    return describe_cluster(address, owner, remote.start_actor(owner, {HEAD_RESOURCE: 0.001}))


def _head_host() -> str | None:
    return next((node["host"] for node in nodes() if node["head"]), None)
