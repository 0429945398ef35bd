"""Runs of the command line: as the installed program, and in this process where that is enough."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_cluster import RowsClient, end_cluster
from running import PROGRAM, Ran, Run

from ktrdr.cli.interrupts import SIGNALS
from ktrdr.cli.main import run
from ktrdr.client import Client
from ktrdr.cluster.cluster_file import read_cluster

SETTINGS = (
    "KTRDR_HOME",
    "KTRDR_DATABASE_URL",
    "KTRDR_STORAGE",
    "KTRDR_DEBUG",
    "KTRDR_HANG_AFTER_S",
    "KTRDR_IDLE_S",
    "KTRDR_CACHE_BYTES",
    "KTRDR_CACHE_BYTES",
    "RAY_ADDRESS",
)


@pytest.fixture
def home(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A home of the test's own; a cluster that it has started is ended."""
    home = tmp_path / "home"
    yield home
    started = read_cluster(home) is not None
    end_cluster(home)
    assert not started or request.node.get_closest_marker("ray"), "mark it: it needs a cluster"


@pytest.fixture
def environment(home: Path) -> dict[str, str]:
    """The environment of a user who has nothing set but the home."""
    plain = {key: value for key, value in os.environ.items() if key not in SETTINGS}
    return {**plain, "KTRDR_HOME": str(home)}


@pytest.fixture
def program(environment: dict[str, str]) -> Run:
    """Run the installed `ktrdr` to its end."""

    def start(*words: str, cwd: Path | None = None) -> Ran:
        done = subprocess.run(
            [PROGRAM, *words], env=environment, cwd=cwd, capture_output=True, text=True, timeout=60
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    return start


@pytest.fixture
def ktrdr(
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> Run:
    """Run the command line in this process; without the mark `ray` nothing it submits is begun."""
    if request.node.get_closest_marker("ray") is None:
        monkeypatch.setattr(Client, "owner", RowsClient.owner)
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KTRDR_HOME", environment["KTRDR_HOME"])

    def call(*words: str) -> Ran:
        capsys.readouterr()
        handlers = {number: signal.getsignal(number) for number in SIGNALS}
        try:
            status = run(words)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        printed = capsys.readouterr()
        return Ran(status, printed.out, printed.err)

    return call
