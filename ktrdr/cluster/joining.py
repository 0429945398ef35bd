"""The child process that joins a Ray of many nodes and makes its operations actor.

Run as `python -m ktrdr.cluster.joining ADDRESS`. The last line on stdout is JSON: the
owner's id when the actor serves, else the error. No actor is made where the node that would run it
uses another store or storage.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

from ktrdr.cluster import ray_actor
from ktrdr.driver.names import NAMESPACE, OPERATIONS
from ktrdr.driver.ray_internals import cluster_id
from ktrdr.errors import ClusterUnavailable, KtrdrError, StoreMismatch, VersionMismatch, describe
from ktrdr.operations.types import Owner, OwnerKind
from ktrdr.settings import Settings, read_settings
from ktrdr.store import open_store
from ktrdr.supervisor.nodes import HEAD_RESOURCE, nodes
from ktrdr.version import version

PROBE_TIMEOUT_S = 60.0


def main(arguments: Sequence[str]) -> int:
    try:
        told = {"owner_id": serve(arguments[0], read_settings()).id}
    except KtrdrError as error:
        told = {"code": error.code, "message": error.message}
    sys.stdout.write(json.dumps(told) + "\n")
    return 0


def serve(address: str, settings: Settings) -> Owner:
    """Join, compare, and return the owner once its actor serves.

    Raises:
        ClusterUnavailable, StoreMismatch.
    """
    try:
        ray.init(
            address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR
        )
    except Exception as error:
        raise ClusterUnavailable(f"cannot join the Ray at {address}: {describe(error)}") from None
    owner = Owner(f"cluster-{cluster_id()}", OwnerKind.CLUSTER, _head_host())
    _check_places(_places_of(settings))
    actor = ray_actor.make(owner, address, None)
    _check_version(actor)
    ray_actor.wait_until_ready(actor)
    return owner


def places() -> tuple[str, str]:
    """Return the id of the store and the storage root that this node's settings lead to."""
    return _places_of(read_settings())


def _places_of(settings: Settings) -> tuple[str, str]:
    store = open_store(settings.database_url)
    try:
        return store.store_id(), str(Path(settings.storage))
    finally:
        store.close()


def _check_places(ours: tuple[str, str]) -> None:
    """Ask the head what it would use: the actor runs there."""
    probe: Any = ray.remote(places).options(num_cpus=0, resources={HEAD_RESOURCE: 0.001})
    try:
        theirs = ray.get(probe.remote(), timeout=PROBE_TIMEOUT_S)
    except Exception as error:
        raise ClusterUnavailable(f"the head cannot open its store: {describe(error)}") from None
    for what, variable, own, other in zip(
        ("store", "storage"), ("KTRDR_DATABASE_URL", "KTRDR_STORAGE"), ours, theirs, strict=True
    ):
        if own != other:
            raise StoreMismatch(
                f"the cluster uses another {what} ({other}, this one is {own}): set"
                f" {variable} to the same here and where Ray was started"
            )


def _check_version(actor: Any) -> None:
    """An actor that was made by another version stays, and is refused."""
    theirs = ray.get(actor.version.remote(), timeout=PROBE_TIMEOUT_S)
    if theirs != version():
        raise VersionMismatch(
            f"the cluster runs ktrdr {theirs}, this is {version()}: end its actor"
            f" {OPERATIONS!r}, or use the same version"
        )


def _head_host() -> str | None:
    return next((node["host"] for node in nodes() if node["head"]), None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
