"""Names that Ray keeps to itself, used nowhere else; tests/ray has a test for each."""

from __future__ import annotations

from typing import Any


def cluster_id() -> str:
    """Return the id of the joined cluster, which restarts of its head keep."""
    from ray._private.worker import global_worker

    worker: Any = global_worker
    return str(worker.gcs_client.cluster_id.hex())
