"""The drivers of an owner as Ray actors, found by name: `training:<operation id>:<attempt>`."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from dataclasses import dataclass
from typing import Any

import ray
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    NodeDiedError,
    OutOfMemoryError,
    RayError,
)

from ktrdr.driver.driver import Driver
from ktrdr.driver.heartbeat import Heartbeat
from ktrdr.driver.names import NAMESPACE, AttemptKey, driver_key, driver_name
from ktrdr.operations.types import FailureReason, StopKind
from ktrdr.processes import lives, seen_from_outside
from ktrdr.supervisor.drivers import Lost

NUM_CPUS = 1.0

VIEW_LAG_S = 1.0
"""How old Ray's view of what is free may be."""

_NODE_DIED = "its node has died"


@dataclass
class _Connection:
    """To one driver: a pulse is always under way, which fails when the driver dies."""

    handle: Any
    pulse: Any
    launched_at: float
    stacks: Any = None
    heard: Heartbeat | None = None
    """Not told yet."""
    last: Heartbeat | None = None
    lost: Lost | None = None
    """Why it is dead, as far as Ray is concerned."""


class RayDrivers:
    """Detached actors, one per attempt; each holds the CPU that it trains on."""

    def __init__(self) -> None:
        self._connections: dict[AttemptKey, _Connection] = {}
        """In the order of their launch."""

    def room(self) -> int:
        free: float = ray.available_resources().get("CPU", 0.0)  # type: ignore[no-untyped-call]
        since = time.monotonic() - VIEW_LAG_S
        unseen = sum(c.last is None and c.launched_at > since for c in self._connections.values())
        return int(free / NUM_CPUS) - unseen

    def launch(self, key: AttemptKey) -> None:
        options = {
            "name": driver_name(key),
            "namespace": NAMESPACE,
            "lifetime": "detached",
            "get_if_exists": True,
            "max_restarts": 0,
            "max_concurrency": 4,
            "num_cpus": NUM_CPUS,
        }
        self._connect(key, ray.remote(Driver).options(**options).remote(*key))

    def attach(self) -> set[AttemptKey]:
        for name in ray.util.list_named_actors():
            key = driver_key(name)
            if key is None:
                continue
            with contextlib.suppress(ValueError):  # it went away meanwhile
                self._connect(key, ray.get_actor(name, namespace=NAMESPACE))
        return set(self._connections)

    def lost(self, key: AttemptKey) -> Lost | None:
        driver = self._connections.get(key)
        if driver is None:
            return Lost(FailureReason.DRIVER_LOST, "the driver was never started here")
        driver.lost = driver.lost or _listen(driver)
        if driver.lost is None or (driver.last is not None and _lives_here(driver.last)):
            return None  # Ray gives up a process some moments before it is gone
        return self._connections.pop(key).lost

    def pulse(self, key: AttemptKey) -> Heartbeat | None:
        driver = self._connections[key]
        heard, driver.heard = driver.heard, None
        return heard

    def unplaced(self, key: AttemptKey) -> bool:
        silent = [other for other, driver in self._connections.items() if driver.last is None]
        wanted = _num_unplaced()
        return wanted > 0 and key in silent[-wanted:]

    def stop(self, key: AttemptKey, kind: StopKind) -> None:
        self._connections[key].handle.stop.remote(kind)

    def stacks(self, key: AttemptKey) -> str | None:
        driver = self._connections[key]
        if driver.stacks is None:
            driver.stacks = driver.handle.stacks.remote()
        ready, _ = ray.wait([driver.stacks], timeout=0)
        if not ready:
            return None
        with contextlib.suppress(RayError):
            return str(ray.get(ready[0]))
        return None

    def outside(self, key: AttemptKey) -> str:
        last = self._connections[key].last
        if last is None:
            return "it has never answered"
        if last.host != socket.gethostname():
            return f"it does not answer, and runs on another machine: {last.host}"
        return seen_from_outside(last.pid)

    def kill(self, key: AttemptKey) -> None:
        driver = self._connections.get(key)
        if driver is None:
            return
        ray.kill(driver.handle, no_restart=True)
        if driver.last is not None:  # Ray alone takes 5 s for a process that is frozen
            _kill_here(driver.last)

    def _connect(self, key: AttemptKey, handle: Any) -> None:
        self._connections[key] = _Connection(handle, handle.pulse.remote(0.0), time.monotonic())


def loss_of(error: RayError) -> Lost:
    """Return what Ray's error says of why an actor is gone.

    A process that the kernel killed for its memory is `driver_lost`: Ray cannot tell.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if isinstance(error, OutOfMemoryError):
        return Lost(FailureReason.OUT_OF_MEMORY, f"the driver is gone: {lines[0]}")
    reason = FailureReason.DRIVER_LOST
    if isinstance(error, ActorDiedError) and error.preempted:
        reason = FailureReason.NODE_PREEMPTED
    elif isinstance(error, NodeDiedError) or _NODE_DIED in str(error):
        reason = FailureReason.WORKER_LOST
    return Lost(reason, f"the driver is gone: {lines[-1].strip()}")


def _listen(driver: _Connection) -> Lost | None:
    """Take what has come in; say why the driver is gone, or None."""
    ready, _ = ray.wait([driver.pulse], timeout=0)
    if not ready:
        return None
    try:
        driver.last = driver.heard = ray.get(ready[0])
    except ActorUnavailableError:
        pass  # out of reach for the moment: ask again
    except RayError as error:
        return loss_of(error)
    driver.pulse = driver.handle.pulse.remote()
    return None


def _kill_here(driver: Heartbeat) -> None:
    if _lives_here(driver):
        with contextlib.suppress(ProcessLookupError):
            os.kill(driver.pid, signal.SIGKILL)


def _lives_here(driver: Heartbeat) -> bool:
    here = driver.host == socket.gethostname()
    return here and lives(driver.pid, driver.process_started_at)


def _num_unplaced() -> int:
    """How many actors in the shape of a driver Ray has found no place for; not those that start.

    The autoscaler's view, since the state API needs the dashboard.
    """
    demands = get_cluster_status(ray.get_runtime_context().gcs_address).resource_demands
    bundles = [b for demand in demands.ray_task_actor_demand for b in demand.bundles_by_count]
    return sum(b.count for b in bundles if b.bundle == {"CPU": NUM_CPUS})
