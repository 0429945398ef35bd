"""`ktrdr verify-resume` on a user's strategy and bars: equal or not, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from running import PROGRAM, Run

from ktrdr.data.sample import sample_bars
from ktrdr.data.store import SYNTHETIC, BarStore
from ktrdr.usecases.verify_resume import verification

ROOT = Path(__file__).parents[2]
STRATEGY = ROOT / "strategies" / "mean_reversion.yaml"
BROKEN = ROOT / "tests" / "support" / "broken_attempt.py"
OURS = "ktrdr-*"
DEADLINE_S = 30.0


@pytest.fixture
def strategy(home: Path) -> Path:
    """A strategy's file; its bars are stored."""
    BarStore(home / "storage").write(sample_bars(rows=3_000), source=SYNTHETIC)
    return STRATEGY


@pytest.fixture
def temporary(tmp_path: Path, environment: dict[str, str]) -> Path:
    """Where programs with the environment keep temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    environment["TMPDIR"] = str(folder)
    return folder


@pytest.fixture
def started(
    strategy: Path, temporary: Path, environment: dict[str, str]
) -> Iterator[subprocess.Popen[str]]:
    """A verification that goes on for long, whose straight training has begun."""
    with subprocess.Popen(
        [PROGRAM, "verify-resume", str(strategy), "--epochs", "100000", "--json"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            assert "--chaos-seed" in process.stderr.readline()
            assert "straight training" in process.stderr.readline()
            assert list(temporary.glob(OURS))
            yield process
        finally:
            process.kill()


def test_stopped_and_killed_is_equal_and_nothing_is_left(
    program: Run, strategy: Path, temporary: Path, home: Path
) -> None:
    words = ["verify-resume", str(strategy), "--epochs", "3", "--chaos-seed", "11", "--json"]
    ran = program(*words)
    assert ran.status == 0, ran.err
    found = ran.document
    assert (found["equal"], found["first_difference"]) == (True, None)
    assert (found["seed"], found["epochs"]) == (11, 3)
    kinds = sorted(interruption["kind"] for interruption in found["interruptions"])
    assert kinds == ["kill", "kill", "stop"]
    assert all(0 <= interruption["epoch"] <= 3 for interruption in found["interruptions"])
    assert found["digests"]["straight"] == found["digests"]["interrupted"]
    assert "--chaos-seed 11" in ran.err
    assert list(temporary.glob(OURS)) == []
    assert [path.name for path in home.iterdir()] == ["storage"]
    assert {path.name for path in (home / "storage").iterdir()} == {"bars", "features"}


def test_a_resume_that_forgets_something_is_different(
    ktrdr: Run, strategy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "PROGRAM", (sys.executable, str(BROKEN), "random_state"))
    words = ["verify-resume", str(strategy), "--epochs", "2", "--kills", "2"]
    ran = ktrdr(*words, "--chaos-seed", "17")  # whose first interruption is a stop in epoch 2
    assert ran.status == 1
    told = dict(line.split("  ", 1) for line in ran.out.splitlines())
    assert told["resumed is"].strip() == "DIFFERENT"
    assert told["first difference"].strip().startswith("in epoch 2, attempt ")
    assert "weights" in told["first difference"]
    assert "--chaos-seed 17" in told["sampled from"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["int", "term"])
def test_a_signal_ends_it_and_its_children_and_removes_its_folder(
    number: signal.Signals, started: subprocess.Popen[str], temporary: Path
) -> None:
    children = psutil.Process(started.pid).children(recursive=True)
    assert children
    started.send_signal(number)
    out, err = started.communicate(timeout=DEADLINE_S)
    assert started.returncode == 130
    assert '"CANCELLED"' in out
    assert err.splitlines()[-1].startswith("error: stopped")
    assert all(map(gone, children))
    assert list(temporary.glob(OURS)) == []


def test_children_end_with_a_parent_that_was_killed(started: subprocess.Popen[str]) -> None:
    children = psutil.Process(started.pid).children(recursive=True)
    assert children
    os.kill(started.pid, signal.SIGKILL)
    deadline = time.monotonic() + DEADLINE_S
    while not all(map(gone, children)):
        assert time.monotonic() < deadline, "they train on"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--kills", "0"], "USAGE"),
        (["--epochs", "0"], "USAGE"),
        (["--symbols", "A,,B"], "USAGE"),
        (["--symbols", "OTHER"], "DATA_NOT_FOUND"),
        (["--start-date", "2031-01-01"], "DATA_NOT_FOUND"),
    ],
)
def test_what_cannot_be_verified_is_refused_at_once(
    ktrdr: Run, strategy: Path, words: list[str], code: str
) -> None:
    ran = ktrdr("verify-resume", str(strategy), *words, "--json")
    assert ran.status in (2, 3)
    assert ran.error["code"] == code


def gone(process: psutil.Process) -> bool:
    """Whether it runs no more; nobody may have asked yet how it ended."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
