"""`ktrdr up`: trainings that outlive the command, found again, stopped by `ktrdr down`."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from running import PROGRAM, Run

from ktrdr.processes import living

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

STRATEGY = Path(__file__).parents[2] / "strategies" / "mean_reversion.yaml"
DEADLINE_S = 90.0

Record = dict[str, Any]


@pytest.fixture
def home() -> Iterator[Path]:
    """A short path: Ray's sockets lie in the home."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="kt-") as folder:
        yield Path(folder)


@pytest.fixture
def cluster(program: Run, home: Path) -> Iterator[Record]:
    assert program("data", "sample").status == 0
    raised = program("up", "--json")
    assert raised.status == 0, raised.err
    info = json.loads((home / "cluster.json").read_text())
    yield info
    program("down")
    assert living((pid, at) for pid, at in info["processes"]) == []


def until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {DEADLINE_S} s: {what}")


def test_a_detached_training_outlives_its_command_and_down_saves_it(
    ktrdr: Run, program: Run, environment: dict[str, str], home: Path, cluster: Record
) -> None:
    assert program("up", "--json").document["new"] is False
    nodes = program("nodes", "--json").document
    assert (nodes["total"], nodes["nodes"][0]["head"]) == (1, True)
    assert cluster["dashboard"].startswith("http://127.0.0.1:")

    detached = program("train", str(STRATEGY), "--epochs", "2000", "--detach", "--json")
    assert detached.status == 0, detached.err
    name = detached.document["operation_id"]
    assert detached.document["owner"]["kind"] == "cluster"

    def record() -> Record:
        found: Record = ktrdr("operations", "status", name, "--json").document
        return found

    until(lambda: (record()["progress"] or {}).get("epoch"), "a first epoch")

    watcher = subprocess.Popen(
        [PROGRAM, "operations", "watch"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert watcher.stderr is not None
    assert name in watcher.stderr.readline()
    watcher.send_signal(signal.SIGINT)
    assert watcher.wait(DEADLINE_S) == 0
    watcher.communicate()
    assert record()["status"] == "running"  # who only watched has changed nothing

    assert program("operations", "cancel", name).status == 0
    follower = subprocess.Popen(
        [PROGRAM, "operations", "resume", name],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    stopped_at = record()["checkpoint"]["epoch"]
    until(lambda: record()["progress"]["epoch"] > stopped_at + 1, "an epoch after the resume")
    follower.kill()
    follower.wait()
    epoch = record()["progress"]["epoch"]
    until(lambda: record()["progress"]["epoch"] > epoch, "the run goes on without its command")
    assert (record()["attempt"], record()["owner"]["alive"]) == (2, True)

    assert program("down", "--json").document["stopped"] is True
    assert not (home / "cluster.json").exists()
    saved = record()
    assert (saved["status"], saved["checkpoint"]["checkpoint_type"]) == ("cancelled", "shutdown")
    refused = program("operations", "resume", name, "--detach", "--json")
    assert (refused.status, refused.error["code"]) == (6, "CLUSTER_REQUIRED")
    assert record() == saved


def test_a_cluster_of_another_version_or_that_is_gone_is_not_used(
    ktrdr: Run, home: Path, cluster: Record
) -> None:
    file = home / "cluster.json"
    file.write_text(json.dumps(cluster | {"version": "0.0.9"}))
    train = ("train", str(STRATEGY), "--detach", "--json")
    assert ktrdr(*train).error["code"] == "VERSION_MISMATCH"
    file.write_text(json.dumps(cluster | {"store_id": "0" * 32}))
    assert ktrdr(*train).error["code"] == "STORE_MISMATCH"
    file.write_text(json.dumps(cluster | {"pid": 2**22 + 1}))
    ran = ktrdr(*train)
    assert ran.error["code"] == "CLUSTER_REQUIRED"
    assert "was removed" in ran.err
    assert not file.exists()
    assert ktrdr("operations", "list", "--json").document["total"] == 0
    file.write_text(json.dumps(cluster))
