"""What every Ray of ours has in common: its environment, how it is joined, and its actor."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

from ktrdr.driver.names import NAMESPACE, OPERATIONS
from ktrdr.errors import ClusterUnavailable
from ktrdr.operations.types import Owner

READY_DEADLINE_S = 60.0
CALL_TIMEOUT_S = 10.0
OBJECT_STORE_BYTES = 128 * 1024 * 1024  # hardly used: bars and checkpoints travel by storage

RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


def join(address: str) -> None:
    """Connect this process to a Ray that runs; nothing happens when it is connected to that one.

    Raises:
        ClusterUnavailable: nobody listens there, or this process cannot join any more.
    """
    _check_listening(address)
    expect_token()
    import ray

    if ray.is_initialized():
        if ray.get_runtime_context().gcs_address == address:
            return
        raise ClusterUnavailable("this process has joined another Ray: call ray.shutdown() first")
    try:
        ray.init(
            address=address,
            namespace=NAMESPACE,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except Exception as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise ClusterUnavailable(f"cannot join the Ray at {address}: {said}") from error


def expect_token() -> None:
    """Clusters are joined with Ray's token; Ray reads the mode once, when it is imported."""
    if "ray" not in sys.modules:
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def start_actor(owner: Owner, resources: dict[str, float] | None = None) -> Any:
    """The operations actor, made when there is none; returns when it serves.

    Raises:
        ClusterUnavailable: it could not open its store within the deadline.
    """
    import ray

    from ktrdr.supervisor.actor import OperationsActor

    actor: Any = (
        ray.remote(OperationsActor)
        .options(
            name=OPERATIONS,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            max_restarts=-1,
            max_concurrency=8,
            num_cpus=0,
            resources=resources or {},
        )
        .remote(owner)
    )
    deadline = time.monotonic() + READY_DEADLINE_S
    while not ray.get(actor.ready.remote(), timeout=READY_DEADLINE_S):
        if time.monotonic() > deadline:
            raise ClusterUnavailable("the operations actor could not open its store")
        time.sleep(0.02)
    return actor


@contextlib.contextmanager
def exported(variables: dict[str, str]) -> Iterator[None]:
    """Ray's processes inherit these; this process keeps its own."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _check_listening(address: str) -> None:
    """Ray itself would try for a minute."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=CALL_TIMEOUT_S).close()
    except (OSError, ValueError) as error:
        raise ClusterUnavailable(
            f"no Ray answers at {address[:80]!r} ({error}): start one with `ktrdr up`, or unset"
            " RAY_ADDRESS"
        ) from None
