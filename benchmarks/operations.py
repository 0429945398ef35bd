"""How quick the life of an operation is: transitions, cancels, recoveries, lists.

Everything is real: a local cluster, its operations actor, drivers that train. Medians and 95th
percentiles of what a user would wait for.

    python benchmarks/operations.py [--json] [--rounds N]
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import platform
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import yaml

from ktrdr.client import Client, Operation
from ktrdr.cluster import local
from ktrdr.cluster.cluster_file import read_cluster
from ktrdr.data.sample import sample_bars
from ktrdr.driver.names import NAMESPACE, OPERATIONS
from ktrdr.operations.service import OperationsService
from ktrdr.operations.types import Owner, OwnerKind, Phase, Report
from ktrdr.settings import read_settings
from ktrdr.store import open_store

SHIPPED = Path(__file__).parents[1] / "strategies" / "mean_reversion.yaml"
STORED = 10_000
TRANSITIONS = 300
DEADLINE_S = 120.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--rounds", type=int, default=8, help="cancels and kills that are measured")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="kt-") as folder,
        contextlib.redirect_stdout(sys.stderr),  # Ray's notices of what is killed here
    ):
        document = measure(Path(folder), options.rounds)
    if options.json:
        print(json.dumps(document, indent=1))
    else:
        for name, figure in document["figures"].items():
            print(f"{name:40} {figure}")


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    figures: dict[str, Any] = {"first_page_of_10000_ms": first_page(folder)}
    with cluster(folder) as client:
        home = client.settings.home
        strategy = write_strategy(folder)
        running = start(client, strategy)
        figures["transition_direct_ms"] = direct_transitions(folder)
        figures["transition_beside_a_training_ms"] = through_actor(client, folder)
        figures["actor_killed_to_serving_s"] = spread([kill_actor(home) for _ in range(rounds)])
        running.cancel(wait=True)
        until(lambda: len(processes(home, "Driver")) < 2, "the driver has left")
        figures["transition_through_actor_ms"] = through_actor(client, folder)
        figures |= cancels(client, strategy, rounds)
        figures |= kills(client, strategy, max(2, rounds // 2))
    return {
        "machine": {"cpus": os.cpu_count(), "processor": platform.processor() or "unknown"},
        "figures": figures,
    }


def first_page(folder: Path) -> dict[str, float]:
    """Store time of the newest 50 of 10,000 operations, each with its latest checkpoint."""
    service = service_at(folder / "many.db")
    request_of, plan_of = request_and_plan(folder)
    owner = Owner("bench", OwnerKind.EMBEDDED)
    for number in range(STORED):
        service.submit(request_of, plan_of, owner, f"request-{number}")
    taken = []
    for _ in range(20):
        began = time.perf_counter()
        rows, total = service.list(limit=50)
        service.latest_checkpoints(tuple(row.operation_id for row in rows))
        taken.append(1000 * (time.perf_counter() - began))
        assert total == STORED
    return spread(taken)


def direct_transitions(folder: Path) -> dict[str, float]:
    """Guarded report with its event on a file SQLite, without the actor."""
    service = service_at(folder / "direct.db")
    request_of, plan_of = request_and_plan(folder)
    row = service.submit(request_of, plan_of, Owner("bench", OwnerKind.EMBEDDED), "request")
    row = service.start(row.operation_id, "bench")
    taken = []
    for sequence in range(1, TRANSITIONS + 1):
        began = time.perf_counter()
        service.report(row.operation_id, 1, Report(sequence))
        taken.append(1000 * (time.perf_counter() - began))
    return spread(taken)


def through_actor(client: Client, folder: Path) -> dict[str, float]:
    """The same asked of the operations actor, as a driver does; a change of phase leaves an event.

    The operation is nobody's: no driver reports on it meanwhile.
    """
    owner = Owner("bench", OwnerKind.EMBEDDED)
    row = client.service.submit(*request_and_plan(folder), owner, secrets.token_hex(8))
    client.service.start(row.operation_id, owner.id)
    from ktrdr.driver.actor_call import ActorCall

    call = ActorCall((row.operation_id, 1))
    phases = itertools.cycle((Phase.TRAINING, Phase.SAVING))
    taken = []
    for sequence, phase in zip(range(1, TRANSITIONS + 1), phases, strict=False):
        began = time.perf_counter()
        call("report", Report(sequence, phase))
        taken.append(1000 * (time.perf_counter() - began))
    return spread(taken)


def kill_actor(home: Path) -> float:
    """Seconds from SIGKILL until the actor serves again, its rows reconciled."""
    import ray

    [actor] = processes(home, "OperationsActor")
    actor.kill()
    began = time.perf_counter()

    def serves() -> bool:
        try:
            handle = ray.get_actor(OPERATIONS, namespace=NAMESPACE)
            return bool(ray.get(handle.ready.remote(), timeout=5.0))
        except (ValueError, ray.exceptions.RayError):
            return False

    actor.wait(10)
    until(serves, "the actor serves again")
    return time.perf_counter() - began


def cancels(client: Client, strategy: Path, rounds: int) -> dict[str, Any]:
    """From the cancel to compute stopped (the last batch counted), and to `cancelled`."""
    stopped, ended = [], []
    for _ in range(rounds):
        operation = start(client, strategy)
        began = time.time()
        operation.cancel()
        record = operation.wait(DEADLINE_S)
        phases = [e for e in operation.events() if e["details"].get("phase") == "stopping"]
        commits = [e for e in operation.events() if e["event"] == "checkpoint_committed"]
        assert record["status"] == "cancelled"
        assert commits[-1]["details"]["checkpoint_type"] == "cancellation", phases
        made = seconds_of(record["checkpoint"]["created_at"])
        stopped.append(made - began)  # the snapshot is taken when the last batch is done
        ended.append(seconds_of(record["completed_at"]) - began)
    return {"cancel_to_stopped_s": spread(stopped), "cancel_to_cancelled_s": spread(ended)}


def kills(client: Client, strategy: Path, rounds: int) -> dict[str, Any]:
    """From a driver's SIGKILL to the next useful batch, beside a plain start."""
    plain, again = [], []
    for _ in range(rounds):
        began = time.perf_counter()
        operation = client.train(strategy)
        until(lambda op=operation: batches(op) > 0, "a first batch")  # type: ignore[misc]
        plain.append(time.perf_counter() - began)
        until(lambda op=operation: batches(op) > 3000, "some epochs")  # type: ignore[misc]
        # The one that is kept ready is younger.
        driver = min(processes(client.settings.home, "Driver"), key=psutil.Process.create_time)
        driver.kill()
        began, before = time.perf_counter(), batches(operation)
        until(
            lambda op=operation, least=before: (  # type: ignore[misc]
                op.record()["attempt"] == 2 and batches(op) > least
            ),
            "a batch beyond what was done before the kill",
        )
        again.append(time.perf_counter() - began)
        operation.cancel(wait=True)
    ratio = statistics.median(again) / statistics.median(plain)
    return {
        "plain_start_to_batch_s": spread(plain),
        "driver_killed_to_next_batch_s": spread(again),
        "driver_killed_vs_plain_start": round(ratio, 3),
    }


def start(client: Client, strategy: Path) -> Operation:
    operation = client.train(strategy)
    until(lambda: batches(operation) > 300, "a running training")
    return operation


def batches(operation: Operation) -> int:
    progress = operation.record()["progress"]
    return progress["epoch"] * (progress["batches"] or 0) + progress["batch"] if progress else 0


def write_strategy(folder: Path) -> Path:
    content = yaml.safe_load(SHIPPED.read_text())
    content["training"] |= {"batch_size": 32, "epochs": 100_000}
    content["training"]["checkpoint"] = {"every_epochs": 1, "every_seconds": 300}
    path = folder / "mean_reversion.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def service_at(path: Path) -> OperationsService:
    return OperationsService(open_store(f"sqlite:///{path}"))


def request_and_plan(folder: Path) -> tuple[Any, Any]:
    from ktrdr.operations.types import Plan, Request

    request = Request("s.yaml", "bench", ("SAMPLE",), ("1h",), None, None, 10, 42, 1)
    plan = Plan(
        config={"name": "bench"},
        overrides={},
        strategy_fingerprint="0" * 64,
        data_fingerprint="0" * 64,
        dataset_digest="0" * 64,
        spans=[],
        storage=str(folder / "storage"),
    )
    return request, plan


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Client]:
    """A local cluster that stays, joined by this process too, as drivers are."""
    os.environ["RAY_AUTH_MODE"] = "token"
    with Client(read_settings({}, home=folder / "home")) as client:
        client.bars.write(sample_bars())
        try:
            address = client.keep_cluster().address
            import ray

            ray.init(address=address, namespace=NAMESPACE, log_to_driver=False)
            yield client
        finally:
            local.stop(client.settings, lambda: client.service)


def processes(home: Path, name: str) -> list[psutil.Process]:
    """The Ray actors of a class on the cluster of a home."""
    found, running = [], read_cluster(home)
    assert running is not None
    for process in psutil.Process(running.pid).children(recursive=True):
        try:
            if " ".join(process.cmdline()).startswith(f"ray::{name}"):
                found.append(process)
        except psutil.Error:
            continue
    return found


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.01)


def seconds_of(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()


def spread(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "p50": round(statistics.median(ordered), 3),
        "p95": round(ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))], 3),
        "max": round(ordered[-1], 3),
    }


if __name__ == "__main__":
    main()
