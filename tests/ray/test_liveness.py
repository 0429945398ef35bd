"""Frozen, taken over, cancelled from elsewhere: real processes and real signals.

One Ray of this process for the module; the commands that are frozen have their own, on the same
home. Leases are moved into the past instead of being waited for.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from ktrdr.client import Client, Operation
from ktrdr.data.sample import sample_bars
from ktrdr.settings import read_settings

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]

Record = dict[str, Any]
DEADLINE_S = 90.0
HANG_AFTER_S = 3
PROGRAM = Path(sys.executable).parent / "ktrdr"
SHIPPED = Path(__file__).parents[2] / "strategies" / "mean_reversion.yaml"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    environment = {"KTRDR_HANG_AFTER_S": str(HANG_AFTER_S)}
    settings = read_settings(environment, home=tmp_path_factory.mktemp("home"))
    with Client(settings) as client:
        client.bars.write(sample_bars())
        yield client


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


@pytest.fixture
def command(client: Client, strategy: Path) -> Iterator[subprocess.Popen[str]]:
    """`ktrdr train` in the foreground, a second embedded run on the same database."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("KTRDR_", "RAY_"))}
    process = subprocess.Popen(
        [PROGRAM, "train", str(strategy), "--json"],
        env=plain | client.settings.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    if process.poll() is None:
        below = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        for member in below:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
    process.communicate()


def until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {DEADLINE_S} s: {what}")


def past(operation: Operation, epoch: int) -> None:
    def reached() -> bool:
        progress = operation.record()["progress"]
        return bool(progress and progress["epoch"] >= epoch)

    until(reached, f"{operation.id} past epoch {epoch}")


def processes(name: str, below: int) -> list[psutil.Process]:
    """The Ray actors of a class below a process."""
    found = []
    for process in psutil.Process(below).children(recursive=True):
        try:
            if process.cmdline()[:1] == [f"ray::{name}"] or f"ray::{name}." in process.cmdline()[0]:
                found.append(process)
        except (psutil.Error, IndexError):
            continue
    return found


def newest(client: Client, pid: int) -> Operation:
    """The operation that a command is running, past its second epoch."""

    def owned() -> Operation | None:
        records, _ = client.operations(status="running")
        found = [record for record in records if record["owner"]["pid"] == pid]
        return client.operation(found[0]["operation_id"]) if found else None

    operation: Operation = until(owned, f"an operation of process {pid}")
    past(operation, 2)
    return operation


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
    [driver] = processes("Driver", os.getpid())
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


def test_a_run_frozen_past_its_lease_and_taken_over_changes_nothing_when_it_goes_on(
    client: Client, command: subprocess.Popen[str]
) -> None:
    operation = newest(client, command.pid)
    until(operation.checkpoints, "a checkpoint")
    [actor] = processes("OperationsActor", command.pid)
    [driver] = processes("Driver", command.pid)
    frozen = [psutil.Process(command.pid), actor, driver]
    freeze_past_its_lease(client, operation, frozen)
    assert operation.record()["owner"]["alive"] is False

    resumed = operation.resume()
    assert (resumed["status"], resumed["attempt"]) == ("running", 2)
    assert resumed["owner"]["pid"] == os.getpid()
    past(operation, resumed["resumed_from"]["epoch"] + 1)
    for process in frozen:
        process.resume()

    out, err = command.communicate(timeout=DEADLINE_S)
    assert command.returncode == 4, err
    error = json.loads(out)["error"]
    assert error["code"] == "OPERATION_RUNNING"
    assert f"taken over by process {os.getpid()} on" in error["message"]
    until(lambda: not driver.is_running(), "the old driver gone")
    seen = attempts(operation)
    begun = seen.index((2, "resumed"))
    assert seen[begun - 1] == (1, "owner_lost")
    assert all(attempt == 2 for attempt, _ in seen[begun:])

    reached = operation.record()["progress"]["epoch"]
    past(operation, reached + 1)  # it goes on as if nothing had been
    [mine] = [d for d in processes("Driver", os.getpid()) if d.pid != driver.pid]
    assert operation.record()["status"] == "running"
    assert operation.cancel(wait=True, timeout=DEADLINE_S)["status"] == "cancelled"
    assert [c["attempt"] for c in operation.checkpoints()][-1] == 2
    until(lambda: not mine.is_running(), "the new driver gone")


def test_two_embedded_runs_share_a_database_and_a_cancel_reaches_the_other_one(
    client: Client, strategy: Path, command: subprocess.Popen[str]
) -> None:
    mine = client.train(strategy)
    theirs = newest(client, command.pid)
    past(mine, 1)
    asked = time.monotonic()
    stopped = theirs.cancel(wait=True, timeout=DEADLINE_S)
    took = time.monotonic() - asked
    assert stopped["status"] == "cancelled"
    assert stopped["checkpoint"]["checkpoint_type"] == "cancellation"
    assert took < 10.0
    out, _ = command.communicate(timeout=DEADLINE_S)
    assert command.returncode == 130
    assert json.loads(out)["status"] == "cancelled"
    assert mine.record()["status"] == "running"
    assert mine.cancel(wait=True, timeout=DEADLINE_S)["status"] == "cancelled"
    assert {record["attempt"] for record in (mine.record(), theirs.record())} == {1}
