"""What only a server can do: go away, come back, undo a transaction, freeze with its client."""

from __future__ import annotations

import os
import select
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from postgres_server import PASSWORD, execute, own_server, schema, within
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from store_bench import DEADLINE_S, FORK, OWNER, Bench, plan, request

from ktrdr.errors import Conflict, KtrdrError, StoreUnavailable
from ktrdr.operations import transitions
from ktrdr.operations.service import OperationsService
from ktrdr.operations.types import HistoryRow, Report, Status, StopKind
from ktrdr.store import open_store
from ktrdr.store.tables import metadata

T = TypeVar("T")
SOCKET = ".s.PGSQL.5432"
COMMIT = b"COMMIT\0"


@pytest.fixture
def server_url() -> Iterator[str]:
    """A schema of the tests' own server: only that one may be stopped."""
    with schema(own_server().url()) as url:
        yield url


@contextmanager
def served(url: str) -> Iterator[Bench]:
    store = open_store(url)
    try:
        yield Bench(store, OperationsService(store), url)
    finally:
        store.close()


@pytest.fixture
def bench(server_url: str) -> Iterator[Bench]:
    with served(server_url) as bench:
        yield bench


def test_the_schema_made_by_migrations_equals_the_tables(bench: Bench) -> None:
    """Also what Alembic does not compare: checks, collations, defaults."""
    with bench.store._writer.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    with schema(own_server().url()) as made:
        engine = create_engine(make_url(made).set(drivername="postgresql+psycopg2"))
        metadata.create_all(engine)
        engine.dispose()
        expected = catalog(made)
    found = catalog(bench.url)
    nothing: dict[str, set[Any]] = {name: set() for name in found}
    assert {name: found[name] - expected[name] for name in found} == nothing
    assert {name: expected[name] - found[name] for name in found} == nothing


def catalog(url: str) -> dict[str, set[tuple[Any, ...]]]:
    asked = {
        "columns": "SELECT table_name, column_name, data_type, is_nullable, column_default,"
        " collation_name FROM information_schema.columns WHERE table_schema = current_schema()",
        "constraints": "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)"
        " FROM pg_constraint WHERE connamespace = current_schema()::regnamespace",
        "indexes": "SELECT tablename, indexname, replace(indexdef, current_schema(), '')"
        " FROM pg_indexes WHERE schemaname = current_schema()",
    }
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg2"))
    with engine.begin() as connection:
        found = {
            name: {tuple(row) for row in connection.execute(text(sql)) if "alembic" not in row[0]}
            for name, sql in asked.items()
        }
    engine.dispose()
    return found


@pytest.mark.parametrize(("theirs", "ours"), [("off", "on"), ("remote_apply", "remote_apply")])
def test_what_is_acknowledged_is_on_disk_and_nothing_waits_for_ever(
    server_url: str, theirs: str, ours: str
) -> None:
    url = make_url(server_url)
    options = f"{url.query['options']} -csynchronous_commit={theirs}"
    url = url.update_query_dict({"options": options})
    names = (
        "synchronous_commit",
        "lock_timeout",
        "statement_timeout",
        "idle_in_transaction_session_timeout",
        "transaction_isolation",
    )
    with served(url.render_as_string(hide_password=False)) as bench:
        found = []
        for engine in (bench.store._writer, bench.store._reader):
            with engine.begin() as connection:
                ask = [connection.exec_driver_sql(f"SHOW {name}").scalar_one() for name in names]
                found.append(ask)
    limits = [ours, "10s", "30s", "5s"]
    assert found == [[*limits, "read committed"], [*limits, "repeatable read"]]


class Cutting:
    """Stands between client and server, and cuts the line once, where it is told to."""

    def __init__(self, folder: Path) -> None:
        self._word: bytes | None = None
        self._delivers = False
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / SOCKET))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_at(self, word: bytes, delivers: bool) -> None:
        """`delivers`: the server gets and answers what holds the word; the answer is lost."""
        self._word, self._delivers = word, delivers

    @property
    def has_cut(self) -> bool:
        return self._word is None

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX)
        server.connect(str(own_server().folder / SOCKET))
        with client, server:
            while True:
                for side in select.select([client, server], [], [])[0]:
                    data = side.recv(2**16)
                    if not data or (side is client and self._cuts(data, server)):
                        return
                    (server if side is client else client).sendall(data)

    def _cuts(self, data: bytes, server: socket.socket) -> bool:
        if self._word is None or self._word not in data:
            return False
        if self._delivers:
            server.sendall(data)
            server.recv(2**16)
        self._word = None
        return True


@pytest.fixture
def cut_bench(server_url: str) -> Iterator[tuple[Bench, Cutting]]:
    with tempfile.TemporaryDirectory() as folder:
        line = Cutting(Path(folder))
        name = make_url(server_url).query["options"]
        assert isinstance(name, str)
        with served(within(own_server().url(Path(folder)), name.partition("=")[2])) as bench:
            yield bench, line
        line.close()


@pytest.mark.parametrize("word", [b"FOR UPDATE", b"UPDATE operations", b"INSERT INTO events"])
def test_a_transition_whose_line_is_cut_is_made_once(
    cut_bench: tuple[Bench, Cutting], word: bytes
) -> None:
    bench, line = cut_bench
    row = bench.submit()
    line.cut_at(word, delivers=True)
    started = bench.service.start(row.operation_id, OWNER.id)
    assert line.has_cut
    assert bench.service.get(row.operation_id) == started
    assert [e.event for e in bench.service.events(row.operation_id)] == ["submitted", "started"]


def test_a_read_whose_line_is_cut_is_read_again(cut_bench: tuple[Bench, Cutting]) -> None:
    bench, line = cut_bench
    row = bench.submit()
    line.cut_at(b"SELECT operations", delivers=False)
    assert bench.service.get(row.operation_id) == row
    assert line.has_cut


def test_a_commit_whose_answer_is_lost_is_not_made_twice(
    cut_bench: tuple[Bench, Cutting],
) -> None:
    bench, line = cut_bench
    service = bench.service
    line.cut_at(COMMIT, delivers=True)
    with pytest.raises(StoreUnavailable):
        bench.submit("r")
    row = bench.submit("r")
    assert service.list()[1] == 1
    line.cut_at(COMMIT, delivers=True)
    with pytest.raises(StoreUnavailable):
        service.start(row.operation_id, OWNER.id)
    assert service.get(row.operation_id).status is Status.RUNNING
    assert [e.event for e in service.events(row.operation_id)] == ["submitted", "started"]
    line.cut_at(COMMIT, delivers=False)
    report = Report(1, history=(HistoryRow(1, {}),))
    with pytest.raises(StoreUnavailable):
        service.report(row.operation_id, 1, report)
    assert service.history(row.operation_id) == ()
    service.report(row.operation_id, 1, report)
    assert service.history(row.operation_id) == report.history


@pytest.mark.parametrize("code", ["40001", "40P01"])
@pytest.mark.parametrize(("failures", "succeeds"), [(2, True), (1_000, False)])
def test_what_the_server_undid_for_others_is_run_again_some_times(
    bench: Bench, code: str, failures: int, succeeds: bool
) -> None:
    row = bench.submit()
    bench.execute("CREATE SEQUENCE failures")
    bench.execute(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF nextval('failures') <= {failures} THEN"
        f"  RAISE EXCEPTION 'undone' USING ERRCODE = '{code}';"
        " END IF; RETURN NEW; END $$"
    )
    bench.execute(
        "CREATE TRIGGER fail BEFORE UPDATE ON operations FOR EACH ROW EXECUTE FUNCTION fail()"
    )
    if succeeds:
        assert bench.service.start(row.operation_id, OWNER.id).status is Status.RUNNING
    else:
        with pytest.raises(StoreUnavailable, match="undone"):
            bench.service.start(row.operation_id, OWNER.id)
    events = [e.event for e in bench.service.events(row.operation_id)]
    assert events == ["submitted", "started"][: 2 if succeeds else 1]


@dataclass
class Lives:
    """Operations brought through their lives by several threads, and what was acknowledged."""

    service: OperationsService
    over: threading.Event = field(default_factory=threading.Event)
    acknowledged: list[tuple[str, str]] = field(default_factory=list)
    troubles: list[BaseException] = field(default_factory=list)

    def lead(self, thread: int) -> None:
        n = 0
        try:
            while not self.over.is_set():
                n += 1
                self._one(f"{thread}-{n}")
        except BaseException as error:
            self.troubles.append(error)

    def _one(self, request_id: str) -> None:
        row = insist(lambda: self.service.submit(request(), plan(), OWNER, request_id))
        assert row is not None
        name = row.operation_id
        self.acknowledged.append((name, "submitted"))
        insist(lambda: self.service.start(name, OWNER.id))
        self.acknowledged.append((name, "started"))
        history = tuple(HistoryRow(epoch, {"n": epoch}) for epoch in (1, 2, 3))
        insist(lambda: self.service.report(name, 1, Report(1, history=history)))
        insist(lambda: self.service.finish_stopped(name, 1, StopKind.USER))
        self.acknowledged.append((name, "stopped"))

    def wait_for(self, num: int) -> None:
        deadline, wanted = time.monotonic() + DEADLINE_S, len(self.acknowledged) + num
        while len(self.acknowledged) < wanted:
            assert not self.troubles, self.troubles
            assert time.monotonic() < deadline
            time.sleep(0.01)


def insist(verb: Callable[[], T]) -> T | None:
    """Call until the store answers, as a driver does; None: an earlier call had done it."""
    deadline, unsure = time.monotonic() + DEADLINE_S, False
    while True:
        try:
            return verb()
        except StoreUnavailable:
            unsure = True
            assert time.monotonic() < deadline
        except Conflict:
            assert unsure, "a conflict out of nothing"
            return None


def test_a_server_that_is_shut_down_at_once_and_started_again_loses_nothing(bench: Bench) -> None:
    lives, service = Lives(bench.service), bench.service
    threads = [threading.Thread(target=lives.lead, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            lives.wait_for(20)
            own_server().crash()
            own_server().start()
        lives.wait_for(20)
    finally:
        lives.over.set()
        for thread in threads:
            thread.join(DEADLINE_S)
    assert lives.troubles == []
    seen = set()
    for row in service.list()[0]:
        events = service.events(row.operation_id)
        names = [event.event for event in events]
        assert names == ["submitted", "started", "stopped"][: len(names)]
        assert (events[-1].status, events[-1].attempt) == (row.status, row.attempt)
        epochs = [h.epoch for h in service.history(row.operation_id)]
        assert epochs == ([1, 2, 3] if row.report_sequence else [])
        seen |= {(row.operation_id, name) for name in names}
    assert set(lives.acknowledged) <= seen


def test_a_server_that_is_away_for_a_moment_is_waited_for(bench: Bench) -> None:
    row, answers = bench.submit(), []
    own_server().crash()
    start = threading.Thread(
        target=lambda: answers.append(bench.service.start(row.operation_id, OWNER.id))
    )
    start.start()
    start.join(0.3)
    waited = start.is_alive()
    own_server().start()
    start.join(DEADLINE_S)
    assert waited
    assert answers == [bench.service.get(row.operation_id)]


def test_a_server_that_stays_away_is_unavailable_until_it_is_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ktrdr.store.dialect.AWAY_S", 0.3)
    row = bench.submit()
    own_server().crash()
    started = time.monotonic()
    try:
        with pytest.raises(StoreUnavailable, match="is the server up") as caught:
            bench.service.start(row.operation_id, OWNER.id)
        with pytest.raises(StoreUnavailable):
            open_store(bench.url)
    finally:
        own_server().start()
    assert time.monotonic() - started < 10
    assert caught.value.exit_status == 6
    assert_hidden(caught.value)
    assert bench.service.start(row.operation_id, OWNER.id).status is Status.RUNNING


def test_a_wrong_password_is_not_shown(server_url: str) -> None:
    url = make_url(server_url).set(password=PASSWORD + "x")
    with pytest.raises(StoreUnavailable, match="password authentication failed") as caught:
        open_store(url.render_as_string(hide_password=False))
    assert_hidden(caught.value)


def assert_hidden(error: KtrdrError) -> None:
    assert PASSWORD not in error.message
    assert make_url(own_server().url()).render_as_string(False).split("@")[0] not in error.message
    assert "\n" not in error.message


def test_a_row_that_a_frozen_process_has_locked_is_free_again(bench: Bench) -> None:
    row, service = bench.running(), bench.service
    reader, writer = FORK.Pipe(duplex=False)

    def lock_and_freeze() -> None:
        try:
            with open_store(bench.url).transaction() as tx:
                locked = tx.lock(row.operation_id)
                assert locked is not None
                step = transitions.request_cancel(locked, 1, "r-frozen", tx.now())
                assert step is not None
                tx._connection.exec_driver_sql("SET idle_in_transaction_session_timeout = '200ms'")
                tx.apply(step)
                os.kill(os.getpid(), signal.SIGSTOP)
            writer.send("committed")
        except KtrdrError as error:
            writer.send(error.code)

    process = FORK.Process(target=lock_and_freeze)
    process.start()
    try:
        assert process.pid is not None
        assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
        ended = service.finish_stopped(row.operation_id, 1, StopKind.SHUTDOWN)
        os.kill(process.pid, signal.SIGCONT)
        assert reader.poll(DEADLINE_S)
        assert reader.recv() == "STORE_UNAVAILABLE"
    finally:
        process.kill()
        process.join(DEADLINE_S)
    assert service.get(row.operation_id) == ended


def test_nobody_waits_for_ever_for_a_lock(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    row = bench.submit()
    monkeypatch.setattr("ktrdr.store.dialect._SESSION", "SET lock_timeout = '100ms'")
    with served(bench.url) as other, bench.store.transaction() as tx:
        tx.lock(row.operation_id)
        with pytest.raises(StoreUnavailable, match="lock timeout"):
            other.service.start(row.operation_id, OWNER.id)
    assert bench.service.get(row.operation_id) == row


def test_a_schema_is_a_store_of_its_own(bench: Bench) -> None:
    bench.submit()
    with schema(own_server().url()) as url, served(url) as other:
        assert other.service.list() == ((), 0)
        assert other.store.store_id() != bench.store.store_id()


def test_what_may_not_be_made_is_said(server_url: str) -> None:
    execute(server_url, "CREATE ROLE reader LOGIN PASSWORD 'secret'")
    execute(
        server_url,
        "DO $$ BEGIN EXECUTE format('GRANT USAGE ON SCHEMA %I TO reader',"
        " current_schema()); END $$",
    )
    url = make_url(server_url).set(username="reader", password="secret")
    try:
        with pytest.raises(StoreUnavailable, match="permission denied") as caught:
            open_store(url.render_as_string(hide_password=False))
    finally:
        execute(server_url, "DROP OWNED BY reader; DROP ROLE reader")
    assert "secret" not in caught.value.message
