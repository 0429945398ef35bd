"""Resume operations in a process of its own, without a cluster, rounding as their checkpoints say.

MKL reads how it is to round once per process: not in that of the tests.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from local_cluster import RowsClient
from stopped_training import Site

from ktrdr.client import Client
from ktrdr.settings import Settings


def resumed_apart(
    settings: Settings, operation_ids: Iterable[str], mkl_cbwr: str
) -> dict[str, dict[str, Any]]:
    """Return by id what each operation becomes: result, history, and what it was resumed from."""
    environ = os.environ | settings.environment() | {"MKL_CBWR": mkl_cbwr}
    words = [sys.executable, __file__, *operation_ids]
    done = subprocess.run(words, env=environ, stdout=subprocess.PIPE, check=True)
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found


def _resumed(client: Client, operation_id: str) -> dict[str, Any]:
    operation = client.operation(operation_id)
    operation.resume()
    outcome = Site(client, Path()).completed(operation)
    names = ("weights_digest", "epochs", "best_epoch", "metrics")
    return {
        "result": {name: getattr(outcome, name) for name in names},
        "history": operation.history(),
        "resumed_from": operation.record()["resumed_from"],
    }


if __name__ == "__main__":
    with RowsClient() as client:
        print(json.dumps({name: _resumed(client, name) for name in sys.argv[1:]}))  # noqa: T201
