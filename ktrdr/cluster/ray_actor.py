"""The operations actor of a Ray that this process has joined: made once, asked, told to stop."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import psutil
import ray

from ktrdr.driver.names import NAMESPACE, OPERATIONS
from ktrdr.errors import ClusterUnavailable
from ktrdr.operations.types import Owner, OwnerKind
from ktrdr.supervisor import ray_drivers
from ktrdr.supervisor.actor import OperationsActor
from ktrdr.supervisor.nodes import HEAD_RESOURCE
from ktrdr.supervisor.spare import memory_allows

READY_DEADLINE_S = 60.0
CALL_TIMEOUT_S = 5.0
OBJECT_STORE_BYTES = 128 * 1024 * 1024  # hardly used: bars and checkpoints travel by storage


def make(owner: Owner, address: str, dashboard: str | None) -> Any:
    """Return the handle of the actor, made when there is none; it may not serve yet.

    With SQLite it must run where the file is: on the head.
    """
    options: dict[str, Any] = {
        "name": OPERATIONS,
        "namespace": NAMESPACE,
        "lifetime": "detached",
        "get_if_exists": True,
        "max_restarts": -1,
        "max_concurrency": 8,
        "num_cpus": 0,
        "resources": {HEAD_RESOURCE: 0.001} if owner.kind is OwnerKind.CLUSTER else {},
    }
    return ray.remote(OperationsActor).options(**options).remote(owner, address, dashboard)


def make_spare() -> None:
    """Make the first driver ahead: it imports while the actor starts, which finds it there."""
    if memory_allows():
        with contextlib.suppress(Exception):  # the actor makes another one
            ray_drivers.make_spare()


def wait_until_ready(actor: Any) -> None:
    """Return when it serves.

    Raises:
        ClusterUnavailable: it could not open its store within the deadline.
    """
    deadline = time.monotonic() + READY_DEADLINE_S
    while not ray.get(actor.ready.remote(), timeout=READY_DEADLINE_S):
        if time.monotonic() > deadline:
            raise ClusterUnavailable("the operations actor could not open its store")
        time.sleep(0.05)


def shut_down(actor: Any) -> None:
    """Ask it to stop every driver with a last checkpoint, when it can hear that."""
    with contextlib.suppress(Exception):
        ray.get(actor.shut_down.remote(), timeout=CALL_TIMEOUT_S)


def nothing_left(actor: Any) -> bool:
    """Whether all its operations have ended, or it does not answer."""
    try:
        return bool(ray.get(actor.idle.remote(), timeout=CALL_TIMEOUT_S))
    except Exception:
        return True


def is_driver(process: psutil.Process) -> bool:
    """Whether Ray has named this process after a driver."""
    with contextlib.suppress(psutil.Error, IndexError):
        return process.cmdline()[0].startswith("ray::Driver")
    return False
