"""Signals that come before anything runs. The strategy is a named pipe, so that the command waits
for us in the middle of its submission."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from running import PROGRAM, Run

STRATEGY = Path(__file__).parents[2] / "strategies" / "mean_reversion.yaml"
DEADLINE_S = 30.0

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "strategy.yaml"
    os.mkfifo(path)
    return path


@pytest.fixture
def start(environment: dict[str, str]) -> Iterator[Start]:
    """Start the program as a script's background job: with SIGINT ignored."""
    started: list[subprocess.Popen[str]] = []

    def begin(*words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [PROGRAM, *words],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.ray
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_during_the_submission_cancels_before_an_attempt_begins(
    number: signal.Signals, pipe: Path, start: Start, ktrdr: Run
) -> None:
    ktrdr("data", "sample")
    process = start("train", str(pipe), "--json")
    with pipe.open("w") as strategy:  # opens when the command reads
        process.send_signal(number)
        strategy.write(STRATEGY.read_text())
    out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130, err
    (record,) = ktrdr("operations", "list", "--json").document["operations"]
    assert record["operation_id"] in out
    assert (record["status"], record["attempt"]) == ("cancelled", 0)
    name = record["operation_id"]
    assert ktrdr("operations", "status", name, "--json").document == record
    assert ktrdr("operations", "cancel", name).status == 0
    events = ktrdr("operations", "events", name, "--json").document["events"]
    assert [event["event"] for event in events] == ["submitted", "cancel_requested"]
    nothing = ktrdr("operations", "resume", name, "--json")
    assert (nothing.status, nothing.error["code"]) == (3, "CHECKPOINT_NOT_FOUND")
    assert ktrdr("operations", "status", name, "--json").document == record


def test_repeated_signals_end_a_command_that_hangs(pipe: Path, start: Start, ktrdr: Run) -> None:
    process = start("train", str(pipe), "--json")
    with pipe.open("w"):
        deadline = time.monotonic() + DEADLINE_S
        while process.poll() is None and time.monotonic() < deadline:
            process.send_signal(signal.SIGTERM)
            time.sleep(0.05)
    out, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130
    assert '"CANCELLED"' in out
    assert ktrdr("operations", "list", "--json").document["total"] == 0
