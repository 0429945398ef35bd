"""Opening, making, upgrading and refusing stores; and what a kill leaves of one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import CheckConstraint
from store_bench import OWNER, Bench, opened, plan, request, resumption

from ktrdr.errors import KtrdrError, StoreTooNew, StoreUnavailable
from ktrdr.operations.model import HistoryRow, Report, Status, StopKind
from ktrdr.operations.service import OperationsService
from ktrdr.store import masked, open_store
from ktrdr.store.filesystems import network_filesystem
from ktrdr.store.migrations import config
from ktrdr.store.opening import REVISIONS
from ktrdr.store.tables import metadata

FORK = multiprocessing.get_context("fork")
DEADLINE_S = 30.0


@pytest.fixture
def file_bench(tmp_path: Path) -> Iterator[Bench]:
    """For what only several processes can show."""
    with opened("sqlite", tmp_path) as bench:
        yield bench


def url(path: Path) -> str:
    return f"sqlite:///{path}"


def in_processes(n: int, work: Callable[[int], str]) -> list[str]:
    """Return what `work(0..n-1)` returned in as many processes started at once."""

    def child(pipe: Connection, index: int) -> None:
        try:
            pipe.send(work(index))
        except KtrdrError as error:
            pipe.send(error.code)

    pairs = [FORK.Pipe(duplex=False) for _ in range(n)]
    processes = [FORK.Process(target=child, args=(p[1], i)) for i, p in enumerate(pairs)]
    for process in processes:
        process.start()
    answers = [p[0].recv() if p[0].poll(DEADLINE_S) else "no answer" for p in pairs]
    for process in processes:
        process.join(DEADLINE_S)
    return answers


def test_a_new_store_is_private_durable_and_keeps_its_id(tmp_path: Path) -> None:
    path = tmp_path / "home" / "ktrdr.db"
    store = open_store(url(path))
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with store._engine.connect() as connection:
        pragmas = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        ]
    assert pragmas == ["wal", 2, 1, 10_000]
    store.close()
    again = open_store(url(path))
    assert again.store_id() == store.store_id()
    assert len(store.store_id()) == 32
    again.close()


def test_the_schema_made_by_migrations_equals_the_tables(tmp_path: Path) -> None:
    store = open_store(url(tmp_path / "a.db"))
    with store._engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        made = connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE sql NOT NULL")
        schema = {" ".join(str(sql).split()) for sql in made.scalars()}
    store.close()
    # Alembic does not compare CHECK constraints: the names that hold the rules must be there.
    for table in metadata.tables.values():
        for check in (c for c in table.constraints if isinstance(c, CheckConstraint)):
            rule = f"CONSTRAINT {check.name} CHECK ({check.sqltext})"
            assert any(rule in sql for sql in schema), rule


def test_the_known_revisions_are_those_of_the_migrations() -> None:
    scripts = ScriptDirectory.from_config(config()).walk_revisions()
    assert tuple(reversed([script.revision for script in scripts])) == REVISIONS


def test_processes_that_make_a_store_at_once_all_open_the_same_one(tmp_path: Path) -> None:
    path = tmp_path / "home" / "ktrdr.db"

    def make(_index: int) -> str:
        store = open_store(url(path))
        try:
            return store.store_id()
        finally:
            store.close()

    ids = in_processes(8, make)
    assert len(set(ids)) == 1
    assert len(ids[0]) == 32


def test_of_sixteen_processes_resuming_exactly_one_wins(file_bench: Bench, tmp_path: Path) -> None:
    row = file_bench.running()
    checkpoint_id = file_bench.commit(row, 1)
    file_bench.service.finish_stopped(row.operation_id, 1, StopKind.SHUTDOWN)
    file_bench.store.close()

    def resume(index: int) -> str:
        store = open_store(url(tmp_path / "home" / "ktrdr.db"))
        try:
            asked = resumption(checkpoint_id, f"r{index}", f"owner-{index}")
            return OperationsService(store).try_resume(row.operation_id, 1, asked).owner.id
        finally:
            store.close()

    answers = sorted(in_processes(16, resume))
    assert answers[:15] == ["OPERATION_NOT_RESUMABLE"] * 15
    assert file_bench.service.get(row.operation_id).owner.id == answers[15]
    assert [e.event for e in file_bench.service.events(row.operation_id)].count("resumed") == 1


def write_until_killed(database: str) -> None:
    """Bring operations through a short life, for ever."""
    service = OperationsService(open_store(database))
    n = 0
    while True:
        n += 1
        row = service.submit(request(), plan(), OWNER, f"{os.getpid()}-{n}")
        service.start(row.operation_id, OWNER.id)
        history = tuple(HistoryRow(epoch, {"n": n}) for epoch in (1, 2, 3))
        service.report(row.operation_id, 1, Report(1, history=history))
        service.finish_stopped(row.operation_id, 1, StopKind.USER)


def test_a_killed_writer_leaves_whole_transitions_only(file_bench: Bench, tmp_path: Path) -> None:
    service = file_bench.service
    for _ in range(3):
        _, before = service.list()
        writer = FORK.Process(
            target=write_until_killed, args=(url(tmp_path / "home" / "ktrdr.db"),)
        )
        writer.start()
        assert writer.pid is not None
        deadline = time.monotonic() + DEADLINE_S
        while service.list(limit=1)[1] < before + 5:
            assert time.monotonic() < deadline, "the writer wrote nothing"
        os.kill(writer.pid, signal.SIGKILL)
        writer.join(DEADLINE_S)
    for row in service.list()[0]:
        events = service.events(row.operation_id)
        assert events[-1].status is row.status
        assert events[-1].attempt == row.attempt
        epochs = [h.epoch for h in service.history(row.operation_id)]
        assert epochs == ([1, 2, 3] if row.report_sequence else [])
        assert (row.status is Status.CANCELLED) == (events[-1].event == "stopped")


def test_a_store_of_a_newer_ktrdr_is_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    open_store(url(path)).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(StoreTooNew, match=r"9999.*upgrade ktrdr"):
        open_store(url(path))


def test_an_interrupted_upgrade_is_done_again(tmp_path: Path) -> None:
    """An empty file, as a process killed before its first commit leaves it."""
    path = tmp_path / "a.db"
    path.touch()
    store = open_store(url(path))
    assert store.store_id()
    store.close()


@pytest.mark.parametrize("text", [b"not a database, but long enough to look like one" * 50])
def test_a_file_that_is_no_database_is_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(text)
    with pytest.raises(StoreUnavailable, match="not a database") as caught:
        open_store(url(path))
    assert "\n" not in caught.value.message
    assert path.read_bytes() == text


def test_a_damaged_database_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    open_store(url(path)).close()
    content = path.read_bytes()
    path.write_bytes(content[:100] + b"\xff" * (len(content) - 100))
    with pytest.raises(StoreUnavailable, match=r"malformed|not a database"):
        open_store(url(path))


def test_a_place_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable, match="cannot be made"):
        open_store(url(tmp_path / "file" / "a.db"))
    with pytest.raises(StoreUnavailable):
        open_store(url(tmp_path))


def test_a_locked_store_is_unavailable_in_the_end(
    file_bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("ktrdr.store.dialect.BUSY_TIMEOUT_S", 0.05)
    store = open_store(url(tmp_path / "home" / "ktrdr.db"))
    with file_bench.store.transaction(), pytest.raises(StoreUnavailable, match="locked"):
        OperationsService(store).submit(request(), plan(), OWNER, "r")
    assert OperationsService(store).list() == ((), 0)
    OperationsService(store).submit(request(), plan(), OWNER, "r")
    store.close()


@pytest.mark.parametrize(
    "text", ["", "nonsense", "postgresql+nope://u:secret@h/d", "mysql://u:secret@h/d", "x://[:p"]
)
def test_an_unusable_url_is_refused_without_its_password(text: str) -> None:
    with pytest.raises(StoreUnavailable, match="KTRDR_DATABASE_URL") as caught:
        open_store(text)
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        ("sqlite:////a/b.db", "sqlite:////a/b.db"),
        ("postgresql://u:***@h:5/d", "postgresql://u:p@s:w@h:5/d"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("postgresql:///d?host=h&password=***&x=1", "postgresql:///d?host=h&password=pw&x=1"),
        ("postgresql:///d?sslpassword=***", "postgresql:///d?sslpassword=pw"),
    ],
)
def test_passwords_are_masked(shown: str, text: str) -> None:
    assert masked(text) == shown


MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb1 /home/me/my\\040disk xfs rw 0 0
bucket /mnt/s3 fuse.s3fs rw 0 0
portal /run/user/1 fuse.portal rw 0 0
//nas/x /srv cifs rw 0 0
/dev/sdc1 /srv ext4 rw 0 0
broken
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib/ktrdr", None),
        ("/home/me/.ktrdr", "nfs4"),
        ("/homework", None),
        ("/home/me/my disk/x", None),
        ("/mnt/s3", "fuse.s3fs"),
        ("/run/user/1/x", None),
        ("/srv/x", None),
    ],
)
def test_network_filesystems_are_recognised(path: str, kind: str | None) -> None:
    assert network_filesystem(Path(path), MOUNTS) == kind


def test_sqlite_on_a_network_filesystem_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"nas:/x {tmp_path} nfs rw 0 0\n", encoding="utf-8")
    monkeypatch.setattr("ktrdr.store.filesystems.MOUNT_TABLE", mounts)
    with pytest.raises(StoreUnavailable, match=r"network filesystem \(nfs\)"):
        open_store(url(tmp_path / "home" / "a.db"))
    assert not (tmp_path / "home").exists()


def test_listing_loads_no_heavy_library(file_bench: Bench, tmp_path: Path) -> None:
    file_bench.submit()
    code = f"""
import sys
from ktrdr.operations.service import OperationsService
from ktrdr.store import open_store
print(OperationsService(open_store({url(tmp_path / "home" / "ktrdr.db")!r})).list()[1])
print([name for name in ("alembic", "torch", "ray", "polars", "pyarrow") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split("\n")[:2] == ["1", "[]"]
