"""The main job with the installed command: train, Ctrl-C, resume, kill -9, resume, compare."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from local_cluster import driver_process, host_process
from running import PROGRAM, Run

from ktrdr.data.sample import sample_bars
from ktrdr.data.store import SYNTHETIC, BarStore
from ktrdr.operations.types import CheckpointType

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

REPOSITORY = Path(__file__).parents[2]
REAL_BARS = REPOSITORY.parent / "shared" / "data" / "EURUSD_5m.csv.gz"
CONTRACT = REPOSITORY.parent / "shared" / "contract" / "operation.schema.json"
DEADLINE_S = 90.0

Record = dict[str, Any]
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(environment: dict[str, str]) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def begin(*words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [PROGRAM, *words, "--json"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def strategy(tmp_path: Path, home: Path, ktrdr: Run) -> Path:
    """A shipped strategy in small batches, on real bars where they are, else on sample bars."""
    if REAL_BARS.exists():
        ran = ktrdr("data", "import", str(REAL_BARS), "--symbol", "EURUSD", "--timeframe", "5m")
        assert "75,519 bars" in ran.out
    else:
        bars = sample_bars("EURUSD", "5m", rows=40_000)
        BarStore(home / "storage").write(bars, source=SYNTHETIC)
    content = yaml.safe_load((REPOSITORY / "strategies" / "trend_follower.yaml").read_text())
    content["training"] |= {"batch_size": 32, "epochs": 12}
    content["training"]["checkpoint"] = {"every_epochs": 2, "every_seconds": 1.0}
    path = tmp_path / "trend_follower.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def finish(process: subprocess.Popen[str]) -> tuple[int, Record]:
    out, err = process.communicate(timeout=DEADLINE_S)
    assert "Traceback" not in err, err
    document: Record = json.loads(out)
    if CONTRACT.exists():
        jsonschema.validate(document, json.loads(CONTRACT.read_text()))
    return process.returncode, document


def inside_an_epoch(ktrdr: Run, epoch: int) -> Record:
    """The record of the running operation once it is past `epoch` epochs, inside the next one."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        for record in ktrdr("operations", "list", "--status", "running", "--json").document[
            "operations"
        ]:
            progress = record["progress"]
            if progress and progress["epoch"] >= epoch and progress["batch"] > 0:
                found: Record = record
                return found
        time.sleep(0.05)
    raise AssertionError(f"no operation past epoch {epoch} within {DEADLINE_S} s")


def essence(ktrdr: Run, record: Record) -> Record:
    """All that must be equal: digest, epochs, best epoch, metrics, history without durations."""
    history = ktrdr("operations", "history", record["operation_id"], "--json").document["history"]
    result = {key: value for key, value in record["result"].items() if key != "model_path"}
    rows = [{key: v for key, v in row.items() if key != "duration"} for row in history]
    return {"result": result, "history": rows}


def test_stopped_killed_and_resumed_it_is_the_model_of_a_straight_run(
    ktrdr: Run, start: Start, home: Path, strategy: Path
) -> None:
    train = ("train", str(strategy), "--symbols", "EURUSD", "--timeframes", "5m")
    status, straight = finish(start(*train))
    assert (status, straight["status"]) == (0, "completed")

    process = start(*train)
    inside_an_epoch(ktrdr, 2)
    process.send_signal(signal.SIGINT)
    status, stopped = finish(process)
    assert (status, stopped["status"]) == (130, "cancelled")
    assert stopped["checkpoint"]["checkpoint_type"] == "cancellation"
    name = stopped["operation_id"]

    process = start("operations", "resume", name)
    running = inside_an_epoch(ktrdr, stopped["checkpoint"]["epoch"] + 2)
    host = host_process(home)
    assert running["owner"] == running["owner"] | {"pid": host.pid, "alive": True}
    assert ktrdr("operations", "resume", name, "--json").status == 4
    process.kill()
    process.communicate()
    host.kill()
    lost = ktrdr("operations", "status", name, "--json").document
    assert (lost["status"], lost["lost"], lost["owner"]["alive"]) == ("running", True, False)

    status, resumed = finish(start("operations", "resume", name))
    assert (status, resumed["status"], resumed["attempt"]) == (0, "completed", 3)
    assert resumed["resumed_from"]["exact"] is True
    assert CheckpointType(resumed["resumed_from"]["checkpoint_type"]) is CheckpointType.PERIODIC
    assert essence(ktrdr, resumed) == essence(ktrdr, straight)
    events = ktrdr("operations", "events", name, "--json").document["events"]
    assert [e["event"] for e in events if e["event"] in ("stopped", "owner_lost", "resumed")] == [
        "stopped", "resumed", "owner_lost", "resumed",
    ]  # fmt: skip
    for words in (("resume", name), ("cancel", name)):
        assert ktrdr("operations", *words, "--json").status == 4


def test_a_cancel_from_elsewhere_and_a_second_interrupt(
    ktrdr: Run, start: Start, home: Path, strategy: Path
) -> None:
    train = ("train", str(strategy), "--symbols", "EURUSD", "--timeframes", "5m")
    process = start(*train, "--epochs", "1000")
    record = inside_an_epoch(ktrdr, 1)
    cancelled = ktrdr("operations", "cancel", record["operation_id"], "--json")
    assert (cancelled.status, cancelled.document["status"]) == (0, "cancelled")
    assert finish(process)[0] == 130

    process = start(*train, "--epochs", "1000")
    record = inside_an_epoch(ktrdr, 2)
    driver = driver_process(home)
    driver.suspend()  # it cannot stop at a batch any more
    process.send_signal(signal.SIGINT)
    name, deadline = record["operation_id"], time.monotonic() + DEADLINE_S
    while not ktrdr("operations", "status", name, "--json").document["cancel_requested_at"]:
        assert time.monotonic() < deadline, "the first signal was not obeyed"
    process.send_signal(signal.SIGINT)
    status, killed = finish(process)
    assert (status, killed["status"]) == (130, "cancelled")
    assert killed["checkpoint"]["checkpoint_type"] == "periodic"
