"""The drivers of an owner as Ray actors, found by name: `training:<operation id>:<attempt>`."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError

from ktrdr.driver.driver import Driver
from ktrdr.driver.heartbeat import Heartbeat
from ktrdr.driver.names import NAMESPACE, AttemptKey, driver_key, driver_name
from ktrdr.driver.ray_internals import num_unplaced
from ktrdr.operations.types import StopKind
from ktrdr.processes import lives, seen_from_outside

NUM_CPUS = 1.0


@dataclass
class _Line:
    """The line to one driver: a pulse is always under way, which fails when the driver dies."""

    handle: Any
    pulse: Any
    stacks: Any = None
    heard: Heartbeat | None = None
    """Not told yet."""
    last: Heartbeat | None = None
    why: str | None = None
    """Why it is dead, as far as Ray is concerned."""


class RayFleet:
    """Detached actors, one per attempt; each holds the CPU that it trains on."""

    def __init__(self) -> None:
        self._lines: dict[AttemptKey, _Line] = {}
        """In the order of their launch."""

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
        return set(self._lines)

    def ended(self, key: AttemptKey) -> str | None:
        line = self._lines.get(key)
        if line is None:
            return "it was never started here"
        line.why = line.why or _listen(line)
        if line.why is None or (line.last is not None and _lives_here(line.last)):
            return None  # Ray gives up a process some moments before it is gone
        return self._lines.pop(key).why

    def pulse(self, key: AttemptKey) -> Heartbeat | None:
        line = self._lines[key]
        heard, line.heard = line.heard, None
        return heard

    def waiting(self, key: AttemptKey) -> bool:
        silent = [other for other, line in self._lines.items() if line.last is None]
        wanted = num_unplaced({"CPU": NUM_CPUS})
        return wanted > 0 and key in silent[-wanted:]

    def stop(self, key: AttemptKey, kind: StopKind) -> None:
        self._lines[key].handle.stop.remote(kind)

    def stacks(self, key: AttemptKey) -> str | None:
        line = self._lines[key]
        if line.stacks is None:
            line.stacks = line.handle.stacks.remote()
        ready, _ = ray.wait([line.stacks], timeout=0)
        if not ready:
            return None
        with contextlib.suppress(RayError):
            return str(ray.get(ready[0]))
        return None

    def outside(self, key: AttemptKey) -> str:
        last = self._lines[key].last
        if last is None:
            return "it has never answered"
        if last.host != socket.gethostname():
            return f"it does not answer, and runs on another machine: {last.host}"
        return seen_from_outside(last.pid)

    def kill(self, key: AttemptKey) -> None:
        line = self._lines.get(key)
        if line is None:
            return
        ray.kill(line.handle, no_restart=True)
        if line.last is not None:  # Ray alone takes 5 s for a process that is frozen
            _kill_here(line.last)

    def _connect(self, key: AttemptKey, handle: Any) -> None:
        self._lines[key] = _Line(handle, handle.pulse.remote(0.0))


def _listen(line: _Line) -> str | None:
    """Take what has come in; why the driver is gone, or None."""
    ready, _ = ray.wait([line.pulse], timeout=0)
    if not ready:
        return None
    try:
        line.last = line.heard = ray.get(ready[0])
    except ActorDiedError as error:
        return str(error).splitlines()[-1].strip()
    except ActorUnavailableError:
        pass  # out of reach for the moment: ask again
    except RayError as error:
        return str(error)
    line.pulse = line.handle.pulse.remote()
    return None


def _kill_here(driver: Heartbeat) -> None:
    if _lives_here(driver):
        with contextlib.suppress(ProcessLookupError):
            os.kill(driver.pid, signal.SIGKILL)


def _lives_here(driver: Heartbeat) -> bool:
    here = driver.host == socket.gethostname()
    return here and lives(driver.pid, driver.process_started_at)
