"""Each of Ray's private names that is used still means what it is used for."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
import ray

from ktrdr.driver.ray_internals import cluster_id, num_unplaced

pytestmark = [pytest.mark.ray, pytest.mark.timeout(120)]

DEADLINE_S = 60.0


@pytest.fixture(scope="module", autouse=True)
def _ray_with_one_cpu() -> Iterator[None]:
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@ray.remote(num_cpus=1)
class Holder:
    def cluster_id(self) -> str:
        return cluster_id()

    def pid(self) -> int:
        return os.getpid()


def test_every_process_of_a_cluster_sees_the_same_id() -> None:
    actor: Any = Holder
    holder = actor.remote()
    assert ray.get(holder.cluster_id.remote(), timeout=DEADLINE_S) == cluster_id()
    assert len(bytes.fromhex(cluster_id())) == 28
    ray.kill(holder)


def test_actors_without_a_place_are_counted_by_what_they_ask_for() -> None:
    actor: Any = Holder
    placed = actor.remote()
    ray.get(placed.pid.remote(), timeout=DEADLINE_S)
    waiting = [actor.remote() for _ in range(2)]
    deadline = time.monotonic() + DEADLINE_S
    while num_unplaced({"CPU": 1.0}) != len(waiting):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert num_unplaced({"CPU": 2.0}) == 0
    for handle in (placed, *waiting):
        ray.kill(handle)
