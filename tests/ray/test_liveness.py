"""Frozen, taken over, cancelled from elsewhere: real processes and real signals.

Leases are moved into the past instead of being waited for.
"""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from local_cluster import driver_process, host_process, ray_processes, until

from ktrdr.client import Client, Operation
from ktrdr.cluster import local

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]

Record = dict[str, Any]
DEADLINE_S = 90.0
SHIPPED = Path(__file__).parents[2] / "strategies" / "mean_reversion.yaml"


@pytest.fixture(scope="module")
def client(shared_client: Client) -> Client:
    return shared_client


@pytest.fixture
def other(client: Client) -> Iterator[Client]:
    """Another home with a cluster of its own, on the same store and storage."""
    with tempfile.TemporaryDirectory(prefix="kt-") as folder:
        settings = replace(client.settings, home=Path(folder))
        with Client(settings) as other:
            yield other
            local.stop(settings, lambda: other.service)


@pytest.fixture(scope="module")
def strategy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that goes on for as long as a test needs it."""
    content = yaml.safe_load(SHIPPED.read_text())
    content["training"] |= {
        "epochs": 2000,
        "batch_size": 32,
        "early_stopping": None,
        "checkpoint": {"every_epochs": 1000, "every_seconds": 0.5},
    }
    path = tmp_path_factory.mktemp("strategies") / "mean_reversion.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def past(operation: Operation, epoch: int) -> None:
    def reached() -> bool:
        progress = operation.record()["progress"]
        return bool(progress and progress["epoch"] >= epoch)

    until(reached, f"{operation.id} past epoch {epoch}")


def expire_lease(client: Client, operation: Operation) -> None:
    """What twenty seconds do to a row whose owner does not renew it."""
    past = "UPDATE operations SET lease_expires_at = '2000-01-01 00:00:00' WHERE operation_id = ?"
    with contextlib.closing(sqlite3.connect(client.settings.home / "ktrdr.db", timeout=1.0)) as db:
        db.execute(past, (operation.id,))
        db.commit()


def freeze_past_its_lease(client: Client, operation: Operation, run: list[psutil.Process]) -> None:
    """Between two of its transactions: inside one it keeps SQLite's lock for as long as it sleeps.

    On a laptop everything sleeps, so that nobody is there to mind.
    """

    def frozen() -> bool:
        for process in run:
            process.suspend()
        try:
            expire_lease(client, operation)
        except sqlite3.OperationalError:
            for process in run:
                process.resume()
            return False
        return True

    until(frozen, f"{operation.id} frozen without a lock")


def attempts(operation: Operation) -> list[tuple[int, str]]:
    return [(event["attempt"], event["event"]) for event in operation.events()]


def test_a_frozen_driver_is_hung_killed_and_followed_by_another(
    client: Client, strategy: Path
) -> None:
    operation = client.train(strategy)
    past(operation, 2)
    until(operation.checkpoints, "a checkpoint")
    driver = driver_process(client.settings.home)
    driver.suspend()
    until(lambda: operation.record()["attempt"] == 2, "the next attempt")
    loss = next(e for e in operation.events() if e["event"] == "attempt_lost")
    assert loss["details"]["reason"] == "hung"
    assert not driver.is_running() or driver.status() == psutil.STATUS_ZOMBIE
    folder = client.settings.storage / "operations" / operation.id
    [kept] = folder.glob("attempt-0001/stacks.txt")
    assert kept.relative_to(client.settings.storage).as_posix() in loss["details"]["message"]
    assert f"process {driver.pid} does not answer; it is stopped" in kept.read_text()
    reached = operation.record()["progress"]["epoch"]
    past(operation, reached + 1)
    assert operation.record()["resumed_from"] is not None
    assert operation.cancel(wait=True, timeout=DEADLINE_S)["status"] == "cancelled"


def test_what_is_frozen_past_its_lease_and_taken_over_changes_nothing_when_it_goes_on(
    client: Client, other: Client, strategy: Path
) -> None:
    operation = client.operation(other.train(strategy).id)
    past(operation, 2)
    until(operation.checkpoints, "a checkpoint")
    home = other.settings.home
    [actor] = ray_processes(home, "OperationsActor")
    driver = driver_process(home)
    freeze_past_its_lease(client, operation, [host_process(home), actor, driver])
    assert operation.record()["lost"] is True

    resumed = operation.resume()
    assert (resumed["status"], resumed["attempt"]) == ("running", 2)
    assert resumed["owner"]["pid"] == host_process(client.settings.home).pid
    past(operation, resumed["resumed_from"]["epoch"] + 1)
    for process in (host_process(home), actor, driver):
        process.resume()
    until(lambda: not driver.is_running(), "the old driver gone")
    seen = attempts(operation)
    begun = seen.index((2, "resumed"))
    assert seen[begun - 1] == (1, "owner_lost")
    assert all(attempt == 2 for attempt, _ in seen[begun:])

    reached = operation.record()["progress"]["epoch"]
    past(operation, reached + 1)  # it goes on as if nothing had been
    mine = driver_process(client.settings.home)
    assert operation.record()["status"] == "running"
    assert operation.cancel(wait=True, timeout=DEADLINE_S)["status"] == "cancelled"
    assert [c["attempt"] for c in operation.checkpoints()][-1] == 2
    until(lambda: not mine.is_running(), "the new driver gone")

    # Each cluster looks after its own: a cancel from one home reaches what runs on the other.
    theirs = other.train(strategy)
    past(theirs, 1)
    assert client.operation(theirs.id).cancel(wait=True)["status"] == "cancelled"
    last = theirs.record()["checkpoint"]
    assert last is not None
    assert last["checkpoint_type"] == "cancellation"
