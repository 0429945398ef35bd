"""The local cluster of a home: started by the first command, left running, ended, and lost."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from local_cluster import DEADLINE_S, end_cluster, host_process, ray_processes, until
from running import PROGRAM, Run

from ktrdr.cluster.cluster_file import read_cluster
from ktrdr.processes import lives

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

SHIPPED = Path(__file__).parents[2] / "strategies" / "mean_reversion.yaml"
EPOCHS = 16

Record = dict[str, Any]


@pytest.fixture
def home() -> Iterator[Path]:
    """A short path: Ray's sockets lie in the home."""
    folder = Path(tempfile.mkdtemp(prefix="kt-"))
    yield folder
    end_cluster(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def strategy(home: Path, ktrdr: Run) -> Path:
    """Small, with checkpoints inside its epochs; its bars are stored."""
    assert ktrdr("data", "sample").status == 0
    content = yaml.safe_load(SHIPPED.read_text())
    content["training"] |= {
        "epochs": EPOCHS,
        "batch_size": 64,
        "early_stopping": None,
        "checkpoint": {"every_epochs": 2, "every_seconds": 0.5},
    }
    path = home / "mean_reversion.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def record(ktrdr: Run, name: str) -> Record:
    found: Record = ktrdr("operations", "status", name, "--json").document
    return found


def past(ktrdr: Run, name: str, epoch: int) -> Record:
    def reached() -> Record | None:
        found = record(ktrdr, name)
        return found if found["progress"] and found["progress"]["epoch"] >= epoch else None

    found: Record = until(reached, f"{name} past epoch {epoch}")
    return found


def ended(ktrdr: Run, name: str) -> Record:
    def over() -> Record | None:
        found = record(ktrdr, name)
        return found if found["completed_at"] else None

    found: Record = until(over, f"{name} ended")
    return found


def essence(ktrdr: Run, name: str) -> Record:
    """All that must be equal: digest, best epoch, metrics, history without durations."""
    result = ended(ktrdr, name)["result"]
    history = ktrdr("operations", "history", name, "--json").document["history"]
    rows = [{key: v for key, v in row.items() if key != "duration"} for row in history]
    return {"result": result | {"model_path": None}, "history": rows}


def detached(program: Run, *words: str) -> str:
    ran = program("train", *words, "--detach", "--json")
    assert ran.status == 0, ran.err
    name: str = ran.document["operation_id"]
    return name


def test_two_first_commands_start_one_cluster_which_outlives_them_and_is_taken_down(
    ktrdr: Run, environment: dict[str, str], home: Path, strategy: Path
) -> None:
    # The pipe ends when nobody holds it any more: the cluster must not have inherited it.
    words = [str(PROGRAM), "train", str(strategy), "--epochs", "3000", "--detach", "--json"]
    first, second = (
        subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    )
    records = []
    for process in (first, second):
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        records.append(json.loads(out))
    assert records[0]["owner"]["pid"] == records[1]["owner"]["pid"]
    assert records[0]["owner"]["kind"] == "local"
    name = records[0]["operation_id"]
    past(ktrdr, name, 1)

    nodes = ktrdr("nodes", "--json").document
    assert (nodes["total"], nodes["nodes"][0]["head"]) == (1, True)
    up = ktrdr("up", "--json").document
    assert (up["new"], up["pid"]) == (False, records[0]["owner"]["pid"])
    assert up["dashboard"].startswith("http://127.0.0.1:")

    host = host_process(home)
    members = host.children(recursive=True)
    assert ktrdr("down", "--json").document["stopped"] is True
    assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in (host, *members))
    assert not (home / "cluster.json").exists()
    saved = record(ktrdr, name)
    assert (saved["status"], saved["checkpoint"]["checkpoint_type"]) == ("cancelled", "shutdown")
    assert saved["cancel_requested_at"] is not None
    assert record(ktrdr, records[1]["operation_id"])["status"] == "cancelled"
    assert ktrdr("down", "--json").document["stopped"] is False


def test_a_training_goes_on_when_its_command_is_killed_or_its_terminal_closes(
    ktrdr: Run, program: Run, environment: dict[str, str], strategy: Path
) -> None:
    straight = detached(program, str(strategy))
    ended(ktrdr, straight)

    words = [str(PROGRAM), "train", str(strategy)]
    process = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = next(line for line in process.stderr if line.startswith("submitted "))
    killed = said.split()[1]
    process.kill()
    process.communicate()

    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(words[0], words, environment)
    newest = until(
        lambda: [
            r
            for r in ktrdr("operations", "list", "--json").document["operations"]
            if r["operation_id"] not in (straight, killed)
        ],
        "an operation of the command in a terminal",
    )
    os.close(terminal)  # the terminal hangs up: SIGHUP
    os.waitpid(pid, 0)
    hung_up = newest[0]["operation_id"]

    ended(ktrdr, killed)
    ended(ktrdr, hung_up)
    watcher = program("operations", "watch", killed, hung_up)
    assert watcher.status == 0, watcher.err
    assert essence(ktrdr, killed) == essence(ktrdr, straight)
    assert essence(ktrdr, hung_up) == essence(ktrdr, straight)
    assert record(ktrdr, killed)["attempt"] == record(ktrdr, hung_up)["attempt"] == 1


@pytest.mark.parametrize("victim", ["host", "raylet", "gcs_server"])
def test_a_cluster_that_dies_is_noticed_at_once_and_a_resume_makes_the_same_model(
    ktrdr: Run, program: Run, home: Path, strategy: Path, victim: str
) -> None:
    name = detached(program, str(strategy))
    past(ktrdr, name, 4)
    host = host_process(home)
    [process] = [host] if victim == "host" else ray_processes(home, victim)
    process.kill()
    lost = until(lambda: record(ktrdr, name)["lost"], "shown as lost", 15.0)
    assert lost is True
    assert record(ktrdr, name)["status"] == "running"
    assert ktrdr("operations", "why", name, "--json").document["lost"] is True

    resumed = program("operations", "resume", name, "--detach", "--json")
    assert resumed.status == 0, resumed.err
    straight = detached(program, str(strategy))
    assert essence(ktrdr, name) == essence(ktrdr, straight)
    assert resumed.document["attempt"] == 2
    assert resumed.document["resumed_from"]["exact"] is True


def test_an_idle_cluster_ends_and_so_does_one_whose_home_is_deleted(
    environment: dict[str, str], program: Run, home: Path, strategy: Path
) -> None:
    environment["KTRDR_IDLE_S"] = "1"
    trained = program("train", str(strategy), "--epochs", "2", "--json")
    assert trained.status == 0, trained.err
    pid = trained.document["owner"]["pid"]
    until(lambda: not lives(pid, None), "an idle cluster ended")
    assert not (home / "cluster.json").exists()

    # One command after the other, whenever the one before it is just ending.
    for _ in range(3):
        assert program("train", str(strategy), "--epochs", "1").status == 0
        time.sleep(1.0)

    environment["KTRDR_IDLE_S"] = "600"
    assert program("up").status == 0
    host = host_process(home)
    members = host.children(recursive=True)
    shutil.rmtree(home)
    until(lambda: not host.is_running(), "ended without its home", 20.0)
    assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in members)


def test_other_settings_or_another_version_replace_an_idle_cluster_and_are_refused_by_a_busy_one(
    ktrdr: Run, program: Run, home: Path, strategy: Path
) -> None:
    busy = detached(program, str(strategy), "--epochs", "3000")
    cluster = read_cluster(home)
    assert cluster is not None
    other = f"sqlite:///{home}/other.db"
    storage = str(home / "other")
    shutil.copytree(home / "storage" / "bars", home / "other" / "bars")
    train = ("train", str(strategy), "--epochs", "1", "--detach", "--json")
    refused = program(*train, "--database-url", other, "--storage", storage)
    assert (refused.status, refused.error["code"]) == (6, "STORE_MISMATCH")
    assert "ktrdr down" in refused.error["message"]

    file = home / "cluster.json"
    document = json.loads(file.read_text())
    file.write_text(json.dumps(document | {"version": "0.0.9+0"}))
    refused = program(*train)
    assert (refused.status, refused.error["code"]) == (6, "VERSION_MISMATCH")
    assert "0.0.9+0" in refused.error["message"]
    file.write_text(json.dumps(document))
    assert record(ktrdr, busy)["status"] in ("pending", "running")

    assert ktrdr("operations", "cancel", busy).status == 0
    replaced = program(*train, "--database-url", other, "--storage", storage)
    assert replaced.status == 0, replaced.err
    now = read_cluster(home)
    assert now is not None
    assert now.owner_id != cluster.owner_id
    assert not lives(cluster.pid, cluster.process_started_at) or until(
        lambda: not lives(cluster.pid, cluster.process_started_at), "the old one ended"
    )


def test_a_ray_that_cannot_start_fails_what_waits_for_it_and_leaves_nothing(
    ktrdr: Run, program: Run, home: Path, strategy: Path
) -> None:
    (home / "ray").write_text("no folder")
    ran = program("train", str(strategy), "--json")
    assert ran.status == 1, ran.err
    assert (ran.document["status"], ran.document["error"]["reason"]) == ("failed", "launch_failed")
    assert "Ray did not start" in ran.document["error"]["message"]
    assert "Traceback" not in ran.err
    assert not (home / "cluster.json").exists()
    assert ktrdr("up", "--json").error["code"] == "CLUSTER_UNAVAILABLE"


def test_ray_address_leads_to_a_cluster_of_the_same_store_only(
    environment: dict[str, str], program: Run, home: Path, tmp_path: Path
) -> None:
    assert program("data", "sample").status == 0
    assert program("up").status == 0
    cluster = read_cluster(home)
    assert cluster is not None
    assert cluster.address is not None
    environment["RAY_ADDRESS"] = cluster.address
    train = ("train", str(SHIPPED), "--epochs", "1", "--json")
    assert program(*train).document["owner"]["pid"] == cluster.pid
    environment["KTRDR_HOME"] = str(tmp_path / "stranger")
    assert program("data", "sample").status == 0
    refused = program(*train)
    assert (refused.status, refused.error["code"]) == (6, "STORE_MISMATCH")
    assert program("operations", "list", "--json").document["total"] == 0
    environment["RAY_ADDRESS"] = "127.0.0.1:1"
    assert program(*train).error["code"] == "CLUSTER_UNAVAILABLE"


def test_ctrl_c_cancels_while_the_cluster_still_starts(
    environment: dict[str, str], strategy: Path
) -> None:
    process = subprocess.Popen(
        [PROGRAM, "train", str(strategy), "--json"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    next(line for line in process.stderr if line.startswith("submitted "))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130, err
    assert json.loads(out)["status"] == "cancelled"
