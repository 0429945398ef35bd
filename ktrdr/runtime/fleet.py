"""The drivers of an owner as Ray actors, found by name: `training:<operation id>:<attempt>`."""

from __future__ import annotations

import contextlib
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayError

from ktrdr.operations.model import StopKind
from ktrdr.runtime.driver import Driver
from ktrdr.runtime.names import NAMESPACE, Key, driver_key, driver_name


class RayFleet:
    """Detached actors, one per attempt; each holds the CPU that it trains on."""

    def __init__(self) -> None:
        self._handles: dict[Key, Any] = {}
        self._ends: dict[Key, Any] = {}

    def launch(self, key: Key) -> None:
        options = {
            "name": driver_name(key),
            "namespace": NAMESPACE,
            "lifetime": "detached",
            "get_if_exists": True,
            "max_restarts": 0,
            "max_concurrency": 4,
            "num_cpus": 1,
        }
        self._watch(key, ray.remote(Driver).options(**options).remote(*key))

    def attach(self) -> set[Key]:
        for name in ray.util.list_named_actors():
            key = driver_key(name)
            if key is None:
                continue
            with contextlib.suppress(ValueError):  # it went away meanwhile
                self._watch(key, ray.get_actor(name, namespace=NAMESPACE))
        return set(self._handles)

    def ended(self, key: Key) -> str | None:
        if key not in self._ends:
            return "it was never started here"
        ready, _ = ray.wait([self._ends[key]], timeout=0)
        if not ready:
            return None
        try:
            ray.get(ready[0])
        except ActorDiedError as error:
            self._drop(key)
            return str(error).splitlines()[-1].strip()
        except RayError as error:  # out of reach for the moment: look again
            self._ends[key] = self._handles[key].join.remote()
            return None if "unavailable" in type(error).__name__.lower() else str(error)
        self._drop(key)
        return "it ended"

    def stop(self, key: Key, kind: StopKind) -> None:
        self._handles[key].stop.remote(kind)

    def kill(self, key: Key) -> None:
        handle = self._handles.get(key)
        if handle is not None:
            ray.kill(handle, no_restart=True)

    def _watch(self, key: Key, handle: Any) -> None:
        self._handles[key] = handle
        self._ends[key] = handle.join.remote()

    def _drop(self, key: Key) -> None:
        self._handles.pop(key, None)
        self._ends.pop(key, None)
