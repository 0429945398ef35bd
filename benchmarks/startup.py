"""From Enter to the first batch: a first command, a later one and a resume, beside a bare script.

    .venv/bin/python benchmarks/startup.py [--rounds 5] [--json]

The bare script does what no start can do without: `ray start --head` with the dashboard, one actor,
and `import ray.train.torch` in another. Everything alternates in one run; medians are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from ktrdr import processes
from ktrdr.client import Client
from ktrdr.cluster import local
from ktrdr.data.sample import sample_bars
from ktrdr.settings import read_settings

PROGRAM = Path(sys.executable).with_name("ktrdr")
RAY = Path(sys.executable).with_name("ray")
SHIPPED = Path(__file__).parents[1] / "strategies" / "mean_reversion.yaml"
DEADLINE_S = 120.0
LOOK_EVERY_S = 0.1
SETTLE_S = 5.0
"""What is ended takes some seconds to be gone."""
READY_AGAIN_S = 8.0
"""After which a process is kept ready again."""
BARE = """
import logging, sys, ray
ray.init(address=sys.argv[1], namespace="bare", log_to_driver=False, logging_level=logging.ERROR)
class First:
    def answer(self): return 1
class Second:
    def answer(self):
        import ray.train.torch
        return 2
first = ray.remote(First).options(num_cpus=0).remote()
ray.get(first.answer.remote())
second = ray.remote(Second).options(num_cpus=1).remote()
ray.get(second.answer.remote())
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    seconds: dict[str, list[float]] = {"bare": [], "cold": [], "warm": [], "resume": []}
    for number in range(arguments.rounds):
        with tempfile.TemporaryDirectory(prefix="kb-") as folder:
            seconds["bare"].append(bare(Path(folder)))
        time.sleep(SETTLE_S)
        with tempfile.TemporaryDirectory(prefix="kb-") as folder:
            for name, taken in ours(Path(folder)).items():
                seconds[name].append(taken)
        time.sleep(SETTLE_S)
        print(f"round {number + 1}: {show(seconds, -1)}", file=sys.stderr)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = {
        f"{name}_vs_bare": medians[name] / medians["bare"] for name in ("cold", "warm", "resume")
    }
    found = {"seconds": medians, "ratios": ratios, "rounds": arguments.rounds}
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        for name, value in (medians | ratios).items():
            print(f"{name:16} {value:.3g}")


def show(seconds: dict[str, list[float]], index: int) -> str:
    return "  ".join(f"{name} {values[index]:.2f} s" for name, values in seconds.items())


def bare(folder: Path) -> float:
    """Ray started, one actor made, Ray Train imported in another."""
    environ = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"}
    environ.pop("RAY_ADDRESS", None)
    port = "26379"
    words = [
        str(RAY), "start", "--head", f"--port={port}", f"--temp-dir={folder}",
        "--dashboard-host=127.0.0.1", "--disable-usage-stats",
        f"--object-store-memory={128 * 1024 * 1024}",
    ]  # fmt: skip
    begun = time.monotonic()
    subprocess.run(words, env=environ, check=True, stdout=subprocess.DEVNULL)
    subprocess.run([sys.executable, "-c", BARE, f"127.0.0.1:{port}"], env=environ, check=True)
    taken = time.monotonic() - begun
    processes.end(processes.told_of(folder), 1.0)
    return taken


def ours(home: Path) -> dict[str, float]:
    """A first command of a fresh home, a later one, and a resume: each to its first batch."""
    settings = read_settings({}, home=home)
    with Client(settings) as client:
        client.bars.write(sample_bars())
        try:
            cold, first = until_a_batch(client, ["train", str(strategy(home))])
            client.operation(first).cancel(wait=True)
            time.sleep(READY_AGAIN_S)
            warm, second = until_a_batch(client, ["train", str(strategy(home))])
            client.operation(second).cancel(wait=True)
            time.sleep(READY_AGAIN_S)
            resume, _ = until_a_batch(client, ["operations", "resume", second])
        finally:
            local.stop(settings, lambda: client.service)
    return {"cold": cold, "warm": warm, "resume": resume}


def strategy(home: Path) -> Path:
    content = yaml.safe_load(SHIPPED.read_text())
    content["training"] |= {"epochs": 100_000, "early_stopping": None}
    path = home / "mean_reversion.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def until_a_batch(client: Client, words: list[str]) -> tuple[float, str]:
    """Seconds from the start of a command to the first batch of the attempt that it leads to."""
    environ = os.environ | client.settings.environment()
    environ.pop("RAY_ADDRESS", None)
    known = {record["operation_id"]: record["attempt"] for record in client.operations()[0]}
    begun = time.monotonic()
    process = subprocess.Popen(
        [PROGRAM, *words, "--detach"],
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def trained() -> str | None:
        for record in client.operations(status="running")[0]:
            name = record["operation_id"]
            if record["attempt"] > known.get(name, 0) and record["phase"] == "training":
                return str(name)
        return None

    name = until(trained)
    taken = time.monotonic() - begun
    process.wait(DEADLINE_S)
    return taken, name


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(LOOK_EVERY_S)
    raise TimeoutError


if __name__ == "__main__":
    main()
