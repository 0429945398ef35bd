"""The machines of this Ray, as rows can hold them."""

from __future__ import annotations

from typing import Any

import ray

HEAD_RESOURCE = "node:__internal_head__"


def nodes() -> list[dict[str, Any]]:
    """Return each node's id, address, host, CPUs and GPUs, whether it lives, and is the head."""
    rows: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [
        {
            "node_id": node["NodeID"],
            "address": node["NodeManagerAddress"],
            "host": node["NodeManagerHostname"],
            "alive": node["Alive"],
            "head": HEAD_RESOURCE in node["Resources"],
            "cpus": node["Resources"].get("CPU", 0.0),
            "gpus": node["Resources"].get("GPU", 0.0),
        }
        for node in rows
    ]
