"""Names that Ray keeps to itself, used nowhere else; tests/ray has a test for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray


def cluster_id() -> str:
    """Return the id of the joined cluster, which restarts of its head keep."""
    from ray._private.worker import global_worker

    worker: Any = global_worker
    return str(worker.gcs_client.cluster_id.hex())


def num_unplaced(resources: Mapping[str, float]) -> int:
    """Return how many actors that ask for these resources Ray has found no place for.

    Not those that are starting. The autoscaler's view: the state API needs the dashboard.
    """
    from ray.autoscaler.v2.sdk import get_cluster_status

    demands = get_cluster_status(ray.get_runtime_context().gcs_address).resource_demands
    bundles = [b for demand in demands.ray_task_actor_demand for b in demand.bundles_by_count]
    return sum(b.count for b in bundles if b.bundle == dict(resources))
