"""Make the home of a version of ktrdr with that version's own commands, to be kept as a fixture.

`0003` (named by the schema of its store) was made by commit eca3879, with the libraries of that day
in a virtual environment, by:

    git worktree add --detach /tmp/ktrdr-0003 eca3879
    export PYTHONPATH=/tmp/ktrdr-0003:$PWD/tests/support
    python tests/golden/homes/make_home.py tests/golden/homes/0003

What it says beside the home, in `expected.json`, is what that version itself says of it.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
from processor import processor

from ktrdr import Client, Operation
from ktrdr.store.opening import REVISIONS

PROGRAM = Path(sys.executable).parent / "ktrdr"
DEADLINE_S = 120.0
BARS = 600
PREDICTED_BARS = 40
STRATEGY = """\
name: tiny
description: Trained by an older version
version: "3.0"

training_data:
  symbols: {mode: single, symbol: SAMPLE}
  timeframes: {mode: single, timeframe: 1h}

indicators:
  rsi_14: {type: rsi, period: 14}
  roc_5: {type: roc, period: 5}

fuzzy_sets:
  momentum:
    indicator: rsi_14
    low: [0, 20, 45]
    middle: [35, 50, 65]
    high: [55, 80, 100]
  change:
    indicator: roc_5
    down: [-4, -2, 0]
    up: [0, 2, 4]

nn_inputs:
  - {fuzzy_set: momentum, timeframes: all}
  - {fuzzy_set: change, timeframes: all}

model:
  type: mlp
  architecture: {hidden_layers: [9, 7], dropout: 0.2}

training:
  epochs: 60
  batch_size: 2
  learning_rate: 0.003
  optimizer: adamw
  lr_scheduler: {type: reduce_on_plateau, factor: 0.5, patience: 8}
  checkpoint: {every_epochs: 10, every_seconds: 60}
  data_split: {train: 0.6, validation: 0.2, test: 0.2}
  labels: {source: zigzag, zigzag_threshold: 0.02}
"""


def make_home(home: Path) -> dict[str, Any]:
    """Fill an empty home, and return what is known of it."""
    (home / "tiny.yaml").write_text(STRATEGY)
    (home / "bars.csv").write_text(sample_csv())
    run("data", "import", str(home / "bars.csv"), "--symbol", "SAMPLE", "--timeframe", "1h")
    with Client() as client:
        operations = {
            "completed": completed(client),
            "cancelled": cancelled(client),
            "failed": failed(client),
            "cancelled_before_start": cancelled_before_start(client),
            "lost": lost(client),
            "lost_before_start": lost_before_start(),
            "lost_on_cluster": lost_on_cluster(client, home),
        }
    (home / "bars.csv").unlink()
    with Client() as client:  # the last one to close the store, which then is one file
        return {"home": str(home), **described(client, operations)}


def completed(client: Client) -> str:
    process, operation = begin(client)
    assert process.wait(DEADLINE_S) == 0
    return operation.id


def cancelled(client: Client) -> str:
    process, operation = begin(client)
    until(lambda: committed(operation, attempt=1, epoch=20))
    process.send_signal(signal.SIGINT)
    assert process.wait(DEADLINE_S) == 130
    return operation.id


def failed(client: Client) -> str:
    """Kill its driver until no restart is left; the first one has committed by then."""
    process, operation = begin(client)
    until(lambda: committed(operation, attempt=1, epoch=30))
    killed: set[int] = set()
    while process.poll() is None:
        for driver in drivers_below(process.pid):
            if driver.pid not in killed:
                killed.add(driver.pid)
                driver.kill()
        time.sleep(0.05)
    assert process.returncode == 1
    return operation.id


def cancelled_before_start(client: Client) -> str:
    operation = client.operation(lost_before_start())
    operation.cancel(wait=True)
    return operation.id


def lost(client: Client) -> str:
    """Kill the command, which owns the operation, with its Ray."""
    process, operation = begin(client)
    until(lambda: committed(operation, attempt=1, epoch=20))
    kill_all([psutil.Process(process.pid)])
    process.wait(DEADLINE_S)
    return operation.id


def lost_before_start() -> str:
    """Submit in a process that ends before it launches anything."""
    submit = "import sys; from ktrdr import Client; print(Client().submit(sys.argv[1]).id)"
    done = subprocess.run(
        [sys.executable, "-c", submit, strategy_path()], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def lost_on_cluster(client: Client, home: Path) -> str:
    """Kill all processes of a cluster at once."""
    run("up")
    operation = client.operation(
        json.loads(run("train", strategy_path(), "--detach", "--json"))["operation_id"]
    )
    until(lambda: committed(operation, attempt=1, epoch=20))
    cluster = json.loads((home / "cluster.json").read_text())
    kill_all(p for p in psutil.process_iter() if os.getsid(p.pid) == cluster["session"])
    return operation.id


def described(client: Client, operations: dict[str, str]) -> dict[str, Any]:
    """What this version says of the home that it made."""
    return {
        "schema": REVISIONS[-1],
        "environment": environment(client),
        "operations": operations,
        "records": {name: client.operation(name).record() for name in operations.values()},
        "events": {name: client.operation(name).events() for name in operations.values()},
        "history": {name: client.operation(name).history() for name in operations.values()},
        "models": client.models(),
        "predictions": predictions(client),
    }


def environment(client: Client) -> dict[str, Any]:
    """What decides on the bits: as the model's manifest says, and what it does not say.

    MKL rounds as it chooses where MKL_CBWR is not set, which later versions set and record.
    """
    recorded: dict[str, Any] = client.model_info("tiny")["manifest"]["environment"]
    return recorded | {"mkl_cbwr": os.environ.get("MKL_CBWR", "AUTO"), "processor": processor()}


def predictions(client: Client) -> list[list[float]]:
    """Probabilities at the newest bars; a float32 is the same again when it is read back."""
    frame = client.load_model("tiny").predict(client.bars.read("SAMPLE", "1h"))
    rows = frame.drop("timestamp").tail(PREDICTED_BARS).rows()
    return [list(row) for row in rows]


# Processes ---------------------------------------------------------------------------------------


def begin(client: Client) -> tuple[subprocess.Popen[bytes], Operation]:
    """Start `ktrdr train`, and return it with its operation once that is there."""
    before = client.operations(limit=1)[1]
    process = subprocess.Popen([PROGRAM, "train", strategy_path()], stdout=subprocess.DEVNULL)
    until(lambda: client.operations(limit=1)[1] > before)
    return process, client.operation(client.operations(limit=1)[0][0]["operation_id"])


def committed(operation: Operation, attempt: int, epoch: int) -> bool:
    record = operation.record()
    latest = record["checkpoint"]
    return record["attempt"] == attempt and latest is not None and latest["epoch"] >= epoch


def drivers_below(pid: int) -> list[psutil.Process]:
    found = []
    for process in below([psutil.Process(pid)]):
        try:
            if process.name().startswith("ray::Driver"):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def below(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    found: dict[int, psutil.Process] = {}
    for process in processes:
        try:
            found |= {child.pid: child for child in process.children(recursive=True)}
        except psutil.NoSuchProcess:
            continue
    return list(found.values())


def kill_all(roots: Iterable[psutil.Process]) -> None:
    """Kill processes and all below them, and wait until they are gone."""
    known = list(roots)
    doomed = list({process.pid: process for process in (*known, *below(known))}.values())
    for process in doomed:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(doomed, timeout=DEADLINE_S)


def run(*words: str) -> str:
    return subprocess.run([PROGRAM, *words], capture_output=True, text=True, check=True).stdout


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, condition
        time.sleep(0.02)


# What is trained on ------------------------------------------------------------------------------


def strategy_path() -> str:
    return f"{os.environ['KTRDR_HOME']}/tiny.yaml"


def sample_csv() -> str:
    """A random walk of hourly bars."""
    rng, close = random.Random(5), 100.0
    first, lines = datetime(2024, 1, 1, tzinfo=UTC), ["timestamp,open,high,low,close,volume"]
    for hour in range(BARS):
        start, close = close, round(close * (1 + rng.gauss(0.0, 0.006)), 4)
        high = max(start, close) * (1 + abs(rng.gauss(0.0, 0.002)))
        low = min(start, close) * (1 - abs(rng.gauss(0.0, 0.002)))
        at = first + timedelta(hours=hour)
        volume = rng.randint(100, 999)
        lines.append(f"{at:%Y-%m-%dT%H:%M:%SZ},{start},{high:.4f},{low:.4f},{close},{volume}")
    return "\n".join(lines) + "\n"


def main(target: Path) -> None:
    """Make a home in a temporary folder, and copy it to a new one with what is known of it."""
    with tempfile.TemporaryDirectory(prefix="ktrdr-home-") as folder:
        home = Path(folder) / "home"
        home.mkdir()
        os.environ["KTRDR_HOME"] = str(home)
        os.chdir(home)  # Ray's workers would import ktrdr from the working directory
        expected = make_home(home)
        shutil.copytree(home, target, ignore=shutil.ignore_patterns("ray", "cluster.lock"))
    (target / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
