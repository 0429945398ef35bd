"""Opening, making, upgrading and refusing stores; and what a kill leaves of one."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import CheckConstraint, Column, MetaData, Table, insert, select
from store_bench import (
    DEADLINE_S,
    FORK,
    OWNER,
    SHARED_STORES,
    Bench,
    database,
    in_processes,
    opened,
    plan,
    request,
    result,
    resumption,
)

from ktrdr.errors import StoreTooNew, StoreUnavailable
from ktrdr.operations import transitions
from ktrdr.operations.service import OperationsService
from ktrdr.operations.types import HistoryRow, Operation, Phase, Report, Status, StopKind
from ktrdr.store import open_store
from ktrdr.store.addresses import address
from ktrdr.store.dialect import engine_for, for_writing
from ktrdr.store.filesystems import network_filesystem
from ktrdr.store.migrations import config
from ktrdr.store.opening import REVISIONS
from ktrdr.store.tables import metadata


@pytest.fixture
def file_bench(tmp_path: Path) -> Iterator[Bench]:
    with opened("sqlite", tmp_path) as bench:
        yield bench


@pytest.fixture(params=SHARED_STORES)
def shared_bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """For what only several processes can show."""
    with opened(request.param, tmp_path) as bench:
        yield bench


@pytest.fixture(params=SHARED_STORES)
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database in which there is nothing yet."""
    with database(request.param, tmp_path) as url:
        yield url


def url(path: Path) -> str:
    return f"sqlite:///{path}"


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


def test_processes_that_make_a_store_at_once_all_open_the_same_one(empty: str) -> None:
    ids = in_processes(8, lambda _index: opened_id(empty))
    assert len(set(ids)) == 1
    assert len(ids[0]) == 32


def opened_id(database_url: str) -> str:
    store = open_store(database_url)
    try:
        return store.store_id()
    finally:
        store.close()


def test_a_store_of_the_first_schema_is_upgraded_once_and_loses_nothing(
    empty: str, tmp_path: Path
) -> None:
    store_id, filled = make_first_schema(empty, tmp_path)
    assert in_processes(8, lambda _index: opened_id(empty)) == [store_id] * 8
    store = open_store(empty)
    service = OperationsService(store)
    assert {row.operation_id: row for row in service.list()[0]} == filled
    assert service.list(strategy_name="demo")[1] == len(filled)
    for name in filled:
        assert [event.event for event in service.events(name)][:2] == ["submitted", "started"]
        assert [h.metrics for h in service.history(name)] == [{"loss": 0.1}, {"loss": None}]
        assert len(service.checkpoints(name) + service.checkpoints(name, doomed=True)) == 3
    assert service.model("demo").version == 2
    store.close()


def test_plans_of_one_series_are_upgraded_to_plans_of_several(shared_bench: Bench) -> None:
    before = [shared_bench.running(f"r{n}") for n in (1, 2)]
    old = {
        "symbols": ["EURUSD"],
        "timeframes": ["5m"],
        "span": {"first": 1, "last": 2, "rows": 2},
        "overrides": {"symbol": "EURUSD", "timeframe": "5m", "epochs": 4},
    }
    plan_text = {
        key: value for key, value in vars(before[0].plan).items() if key not in ("spans", *old)
    }
    request_text = {k: v for k, v in vars(before[0].request).items() if k not in ("fold", *old)}
    replace_json(
        shared_bench,
        before[0].operation_id,
        plan={**plan_text, "span": old["span"], "overrides": old["overrides"]},
        request={**request_text, "symbols": old["symbols"], "timeframes": old["timeframes"]},
    )
    for index in ("ix_operations_unswept", "ix_checkpoints_doomed"):
        shared_bench.execute(f"DROP INDEX {index}")
    for column in ("kill_requested_at", "waiting_for", "driver", "warnings", "swept_attempt"):
        shared_bench.execute(f"ALTER TABLE operations DROP COLUMN {column}")
    shared_bench.execute("DROP TABLE owners")
    shared_bench.execute("UPDATE alembic_version SET version_num = '0002'")
    shared_bench.store.close()
    assert len(set(in_processes(4, lambda _index: opened_id(shared_bench.url)))) == 1
    store = open_store(shared_bench.url)
    service = OperationsService(store)
    upgraded = service.get(before[0].operation_id)
    span = {"symbol": "EURUSD", "timeframe": "5m", "first": 1, "last": 2, "rows": 2}
    assert upgraded.plan.spans == [span]
    assert upgraded.plan.overrides == {"symbols": ["EURUSD"], "timeframes": ["5m"], "epochs": 4}
    assert upgraded.plan.config == before[0].plan.config
    assert upgraded.request.fold is None
    assert (upgraded.status, upgraded.owner) == (before[0].status, before[0].owner)
    assert service.get(before[1].operation_id) == before[1]  # one of several already
    store.close()


def replace_json(bench: Bench, operation_id: str, **documents: Any) -> None:
    """Write columns of an operation as an older ktrdr wrote them."""
    table = metadata.tables["operations"]
    with bench.store._writer.begin() as connection:
        for name, document in documents.items():
            change = table.update().where(table.c.operation_id == operation_id)
            connection.execute(change.values({name: document}))


def make_first_schema(database_url: str, folder: Path) -> tuple[str, dict[str, Operation]]:
    """Fill a database as the first ktrdr left it; return the store's id and the operations."""
    (folder / "home").mkdir()
    engine = engine_for(address(database_url).url)
    with opened("sqlite", folder / "today") as bench:
        for n in (1, 2, 3):
            live_a_life(bench, n)
        filled = {row.operation_id: row for row in bench.service.list()[0]}
        with for_writing(engine).begin() as connection, bench.store._engine.begin() as source:
            command.upgrade(config(connection), REVISIONS[0])
            first = MetaData()
            first.reflect(connection)
            for table in metadata.sorted_tables:
                if table.name == "meta" or table.name not in first.tables:
                    continue
                known = [table.c[column.name] for column in first.tables[table.name].c]
                values = [row._asdict() for row in source.execute(select(*known))]
                old = Table(table.name, MetaData(), *[Column(c.name, c.type) for c in known])
                connection.execute(insert(old), values)
            store_id = connection.execute(select(metadata.tables["meta"].c.value)).scalar_one()
    engine.dispose()
    return str(store_id), filled


def live_a_life(bench: Bench, n: int) -> None:
    """Leave something in every table; 1 ends cancelled, 2 completed, 3 runs on."""
    row, service = bench.running(f"r{n}"), bench.service
    history = (HistoryRow(1, {"loss": 0.1}), HistoryRow(2, {"loss": float("nan")}))
    service.report(row.operation_id, 1, Report(1, Phase.TRAINING, history=history))
    for number in (1, 2, 3):
        bench.commit(row, number, epoch=2)
    version = service.reserve_model(row.operation_id, 1).version
    if n == 1:
        service.finish_stopped(row.operation_id, 1, StopKind.USER)
    elif n == 2:
        service.finish_completed(row.operation_id, 1, result(), ("demo", version))


def test_of_sixteen_processes_resuming_exactly_one_wins(shared_bench: Bench) -> None:
    row = shared_bench.running()
    checkpoint_id = shared_bench.commit(row, 1)
    shared_bench.service.finish_stopped(row.operation_id, 1, StopKind.SHUTDOWN)
    shared_bench.store.close()

    together = FORK.Barrier(16)

    def resume(index: int) -> str:
        store = open_store(shared_bench.url)
        together.wait(DEADLINE_S)
        try:
            asked = resumption(checkpoint_id, f"r{index}", f"owner-{index}")
            return OperationsService(store).try_resume(row.operation_id, 1, asked).owner.id
        finally:
            store.close()

    answers = sorted(in_processes(16, resume))
    assert answers[:15] == ["OPERATION_NOT_RESUMABLE"] * 15
    assert shared_bench.service.get(row.operation_id).owner.id == answers[15]
    assert [e.event for e in shared_bench.service.events(row.operation_id)].count("resumed") == 1


def test_what_is_read_in_one_view_is_of_one_moment(shared_bench: Bench) -> None:
    row, service = shared_bench.running(), shared_bench.service
    with shared_bench.store.read() as view:
        before = view.operation(row.operation_id)
        shared_bench.commit(row, 1)
        service.finish_stopped(row.operation_id, 1, StopKind.USER)
        assert view.operation(row.operation_id) == before
        assert view.checkpoints(row.operation_id) == ()
    assert service.get(row.operation_id).status is Status.CANCELLED


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


def test_a_killed_writer_leaves_whole_transitions_only(shared_bench: Bench) -> None:
    service = shared_bench.service
    for _ in range(3):
        _, before = service.list()
        writer = FORK.Process(target=write_until_killed, args=(shared_bench.url,))
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


def test_a_writer_killed_inside_a_transition_leaves_nothing_of_it(shared_bench: Bench) -> None:
    row, service = shared_bench.running(), shared_bench.service
    before = service.get(row.operation_id), service.events(row.operation_id)
    reader, writer = FORK.Pipe(duplex=False)

    def write_and_hang() -> None:
        with open_store(shared_bench.url).transaction() as tx:
            locked = tx.lock(row.operation_id)
            assert locked is not None
            step = transitions.request_cancel(locked, 1, "r-cancel", tx.now())
            assert step is not None
            tx.apply(step)
            writer.send("written")
            signal.pause()

    process = FORK.Process(target=write_and_hang)
    process.start()
    try:
        assert reader.poll(DEADLINE_S)
    finally:
        process.kill()
        process.join(DEADLINE_S)
    assert (service.get(row.operation_id), service.events(row.operation_id)) == before
    assert service.request_cancel(row.operation_id, 1, "r-cancel").cancel_requested_at


def test_a_store_of_a_newer_ktrdr_is_refused_and_untouched(shared_bench: Bench) -> None:
    shared_bench.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreTooNew, match=r"9999.*upgrade ktrdr"):
        open_store(shared_bench.url)


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
heavy = ("alembic", "psycopg2", "torch", "ray", "polars", "pyarrow")
print([name for name in heavy if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split("\n")[:2] == ["1", "[]"]
