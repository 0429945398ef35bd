"""The drivers of an owner as Ray actors, found by the names that stand in the rows."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    NodeDiedError,
    OutOfMemoryError,
    RayError,
)

from ktrdr.driver.driver import Driver
from ktrdr.driver.heartbeat import Heartbeat
from ktrdr.driver.names import (
    NAMESPACE,
    AttemptKey,
    driver_name,
    is_driver_name,
    is_spare_name,
    spare_name,
)
from ktrdr.driver.ray_internals import num_unplaced
from ktrdr.operations.types import FailureReason, StopKind
from ktrdr.processes import lives, seen_from_outside
from ktrdr.supervisor.drivers import Lost
from ktrdr.supervisor.spare import Spare

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

    def __init__(self, *, keep_spare: bool = False) -> None:
        self._connections: dict[AttemptKey, _Connection] = {}
        """In the order of their launch."""
        self._spare = Spare(make_spare)
        self._keeps_spare = keep_spare

    def room(self) -> int:
        if self._spare.held:
            return int(self._spare.ready)  # no other: it has the CPU that one would wait for
        drivers, since = self._connections.values(), time.monotonic() - VIEW_LAG_S
        unseen = sum(driver.last is None and driver.launched_at > since for driver in drivers)
        own = _num_cpus(ray.cluster_resources()) - len(drivers)  # type: ignore[no-untyped-call]
        free = _num_cpus(ray.available_resources()) - unseen  # type: ignore[no-untyped-call]
        return max(0, min(own, free))

    def keep_ready(self) -> None:
        """Replace the spare that was used; called at every tick."""
        if self._keeps_spare:
            self._spare.renew()

    def choose(self, key: AttemptKey) -> str:
        return self._spare.name or driver_name(key)

    def launch(self, key: AttemptKey, name: str) -> None:
        handle = (self._spare.take() if name == self._spare.name else None) or _make(name)
        handle.begin.remote(*key)
        self._connect(key, handle)

    def attach(self, named: Mapping[str, AttemptKey]) -> set[AttemptKey]:
        for name in filter(is_driver_name, _named_actors()):
            try:
                handle: Any = ray.get_actor(name, namespace=NAMESPACE)
            except ValueError:
                continue  # it went away meanwhile
            if name in named:
                handle.begin.remote(*named[name])  # whoever chose it may have died before that
                self._connect(named[name], handle)
            elif (
                not self._keeps_spare
                or not is_spare_name(name)
                or not self._spare.hold(name, handle)
            ):
                ray.kill(handle, no_restart=True)
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
        wanted = num_unplaced({"CPU": NUM_CPUS}) - (self._spare.held and not self._spare.ready)
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


def _make(name: str) -> Any:
    """Make a driver, or return the one of this name that lives already."""
    options: dict[str, Any] = {
        "name": name,
        "namespace": NAMESPACE,
        "lifetime": "detached",
        "get_if_exists": True,
        "max_restarts": 0,
        "max_concurrency": 4,
        "num_cpus": NUM_CPUS,
    }
    return ray.remote(Driver).options(**options).remote()


def _named_actors() -> list[str]:
    """Return the names of the actors in this namespace."""
    return [str(name) for name in ray.util.list_named_actors()]


def make_spare() -> tuple[str, Any]:
    """Make a driver that has no attempt yet; return its name and handle."""
    name = spare_name()
    return name, _make(name)


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


def _num_cpus(resources: dict[str, float]) -> int:
    return int(resources.get("CPU", 0.0) / NUM_CPUS)
