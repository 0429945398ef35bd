"""`ktrdr down` ends what is surely of its cluster, and nothing else: seen without a Ray."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from ktrdr.cli.main import run
from ktrdr.processes import lives

DEAD = 2**22 - 7  # no process has it
ADDRESS = "127.0.0.1:1"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("KTRDR_DATABASE_URL", "KTRDR_STORAGE", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KTRDR_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def sleeper() -> Iterator[psutil.Process]:
    """A process that leads a session of its own."""
    process = subprocess.Popen(["sleep", "300"], start_new_session=True)
    yield psutil.Process(process.pid)
    process.kill()
    process.wait()


def write_cluster(home: Path, **changes: Any) -> None:
    """As the version before wrote it."""
    document = {
        "address": ADDRESS,
        "owner_id": "cluster-1",
        "host": socket.gethostname(),
        "version": "0.1.0",
        "store_id": "s",
        "dashboard": None,
        "pid": DEAD,
        "process_started_at": 1.0,
    }
    (home / "cluster.json").write_text(json.dumps(document | changes))


def test_a_strangers_process_with_a_stored_session_or_pid_survives(
    home: Path, sleeper: psutil.Process
) -> None:
    before = sleeper.create_time()
    write_cluster(home, session=sleeper.pid)  # as earlier versions wrote it
    assert run(["down"]) == 0
    assert lives(sleeper.pid, before)
    write_cluster(home, processes=[[sleeper.pid, before - 60.0]])  # the pid was given away since
    assert run(["down"]) == 0
    assert lives(sleeper.pid, before)
    assert not (home / "cluster.json").exists()


def test_a_cluster_of_another_host_is_taken_down_there(
    home: Path, sleeper: psutil.Process, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cluster(home, host="elsewhere", processes=[[sleeper.pid, sleeper.create_time()]])
    assert run(["down"]) == 6
    assert "runs on elsewhere: run `ktrdr down` there" in capsys.readouterr().err
    assert lives(sleeper.pid, sleeper.create_time())
    assert (home / "cluster.json").exists()


def test_what_a_cluster_of_an_earlier_version_has_started_ends_with_it(
    home: Path, sleeper: psutil.Process
) -> None:
    """It noted its head alone; Ray's monitors stay for ever when that has gone."""
    with working_in(home) as monitor, working_in(home.with_name("home2")) as stranger:
        write_cluster(home, pid=sleeper.pid, process_started_at=sleeper.create_time())
        assert run(["down"]) == 0
        assert not lives(sleeper.pid, None)
        assert not lives(monitor.pid, None)
        assert stranger.poll() is None


@contextmanager
def working_in(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that names a Ray's folder in a home, as Ray's own do, and ignores SIGTERM."""
    code = (
        "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(300)"
    )
    words = [sys.executable, "-c", code, f"--session-dir={home}/ray/session_1"]
    process = subprocess.Popen(words, start_new_session=True, stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        process.stdout.readline()  # it has begun to ignore the signal
        try:
            yield process
        finally:
            process.kill()


def test_a_store_that_does_not_answer_leaves_nothing_running(
    home: Path,
    sleeper: psutil.Process,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("KTRDR_DATABASE_URL", f"sqlite:///{home}/cluster.json/no.db")
    identity = [sleeper.pid, sleeper.create_time()]
    write_cluster(home, pid=identity[0], process_started_at=identity[1], processes=[identity])
    assert run(["down", "--json"]) == 0
    assert not lives(sleeper.pid, identity[1])
    said = capsys.readouterr()
    assert json.loads(said.out) == {"stopped": True, "address": ADDRESS}
    assert "the store does not answer" in said.err
    assert "can be resumed" in said.err


def test_the_database_is_readable_by_its_owner_only_whatever_the_umask(home: Path) -> None:
    before = os.umask(0)
    try:
        assert run(["operations", "list"]) == 0
    finally:
        os.umask(before)
    files = list(home.glob("ktrdr.db*"))
    assert files
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
