"""Run drivers that do nothing on a Ray of this process's own, and print what is seen of them.

Started by tests/ray/test_ray_drivers.py, since a process has one Ray in its life.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil
import ray

from ktrdr.driver.heartbeat import Heartbeat
from ktrdr.driver.names import NAMESPACE, AttemptKey
from ktrdr.operations.types import Phase
from ktrdr.supervisor import ray_drivers
from ktrdr.supervisor.ray_drivers import RayDrivers

DEADLINE_S = 60.0
KEYS = [(f"op_training_20260102_030405_0000000{number}", 1) for number in range(3)]


BEGUN: list[AttemptKey] = []
"""What a driver leaves in its process; of it `step` tells how much."""


class IdleDriver:
    def begin(self, operation_id: str, attempt: int) -> bool:
        BEGUN.append((operation_id, attempt))
        return True

    def pulse(self, wait_s: float = 0.1) -> Heartbeat:
        time.sleep(wait_s)
        started_at = psutil.Process().create_time()
        process = socket.gethostname(), os.getpid(), started_at
        return Heartbeat(*process, Phase.STARTING, step=len(BEGUN))


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise TimeoutError


def launch(drivers: RayDrivers, key: AttemptKey) -> None:
    drivers.launch(key, drivers.choose(key))


def until_it_answers(drivers: RayDrivers, key: AttemptKey) -> None:
    until(lambda: drivers.lost(key) is None and drivers.pulse(key))


def killed_for_memory(drivers: RayDrivers) -> Any:
    """Ray's limit is below what is used already: it kills every driver."""
    launch(drivers, KEYS[0])
    lost = until(lambda: drivers.lost(KEYS[0]))
    return {"reason": lost.reason, "message": lost.message}


def room_of_two(drivers: RayDrivers) -> Any:
    """Two CPUs: the room before and after each launch, and when a driver was killed."""
    rooms = [drivers.room()]
    for key in KEYS[:2]:
        launch(drivers, key)
        rooms.append(drivers.room())
    for key in KEYS[:2]:
        until_it_answers(drivers, key)
    rooms.append(drivers.room())
    launch(drivers, KEYS[2])  # one too many
    assert until(lambda: drivers.unplaced(KEYS[2]))
    drivers.kill(KEYS[0])
    lost = until(lambda: drivers.lost(KEYS[0]))
    until_it_answers(drivers, KEYS[2])
    drivers.kill(KEYS[1])
    until(lambda: drivers.lost(KEYS[1]))
    until(lambda: drivers.room() == 1)
    names = spare_names()
    return {"rooms": rooms, "reason": lost.reason, "message": lost.message, "names": names}


def spare_names() -> list[str]:
    """The names chosen while one driver is kept ready: twice without a launch, and after one."""
    drivers = RayDrivers(keep_spare=True)
    drivers.keep_ready()
    until(lambda: drivers.room() == 1)
    names = [drivers.choose(KEYS[0]) for _ in range(2)]
    drivers.launch(KEYS[0], names[0])
    until_it_answers(drivers, KEYS[0])
    return [*names, drivers.choose(KEYS[1])]


def used_once(drivers: RayDrivers) -> Any:
    """Two attempts one after the other on drivers that were kept ready; the second one is killed
    before it is used, so that a third takes its place."""
    seen = []
    for number, key in enumerate(KEYS[:2]):
        until(lambda: _one_is_ready(drivers))
        name = drivers.choose(key)
        if number == 1:
            ray.kill(ray.get_actor(name, namespace=NAMESPACE))
        drivers.launch(key, name)
        until_it_answers(drivers, key)
        heard = until(lambda key=key: _begun(drivers, key))  # type: ignore[misc]
        seen.append({"name": name, "pid": heard.pid, "begun": heard.step})
        drivers.kill(key)
        until(lambda key=key: drivers.lost(key))  # type: ignore[misc]
    return seen


def _one_is_ready(drivers: RayDrivers) -> bool:
    drivers.keep_ready()
    return drivers.choose(KEYS[0]).startswith("spare:") and drivers.room() == 1


def _begun(drivers: RayDrivers, key: AttemptKey) -> Heartbeat | None:
    assert drivers.lost(key) is None
    heard = drivers.pulse(key)
    return heard if heard is not None and heard.step else None


def main(case: str) -> None:
    memory = {"memory_usage_threshold": 0.01, "memory_monitor_refresh_ms": 100}
    ray.init(
        address="local",
        num_cpus=2,
        namespace=NAMESPACE,
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
        object_store_memory=80 * 1024 * 1024,
        _system_config=memory if case == "killed_for_memory" else None,
    )
    ray_drivers.Driver = IdleDriver  # type: ignore[assignment, attr-defined]
    cases = {
        "killed_for_memory": killed_for_memory,
        "room_of_two": room_of_two,
        "used_once": used_once,
    }
    drivers = RayDrivers(keep_spare=case == "used_once")
    sys.stdout.write(json.dumps({"seen": cases[case](drivers)}) + "\n")
    ray.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])
