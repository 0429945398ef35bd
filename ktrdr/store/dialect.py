"""What differs between SQLite and PostgreSQL: connections, locks, the clock.

Everything else in the store is portable SQL. On SQLite a write transaction has the whole database
from its beginning (BEGIN IMMEDIATE). On PostgreSQL it locks the rows that it reads to change them,
and, by a name, what has no row yet; a read is one snapshot on both.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import QueuePool

from ktrdr.operations.retry import back_off

BUSY_TIMEOUT_S = 10.0
"""How long a transaction waits for another one's lock, on both."""
AWAY_S = 5.0
"""How long a server that went away may take to be back."""
POSTGRESQL = "postgresql"

_POLL_S = 0.01
_WRITES = "ktrdr_writes"
_TAKEN_BACK = ("40001", "40P01")
"""Serialization failure and deadlock: the server undid this transaction for another's sake."""

# A line that is dead without a word is noticed in half a minute.
_LINE = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
    "application_name": "ktrdr",
}
# A process that was frozen inside a transaction gives its locks back before others stop waiting.
_SESSION = f"""
SET TIME ZONE 'UTC';
SET lock_timeout = '{BUSY_TIMEOUT_S:.0f}s';
SET statement_timeout = '30s';
SET idle_in_transaction_session_timeout = '5s';
SELECT set_config('synchronous_commit', 'on', false)
 WHERE current_setting('synchronous_commit') = 'off'
"""
_PATIENT = """
SET LOCAL lock_timeout = '5min';
SET LOCAL statement_timeout = '5min';
SET LOCAL idle_in_transaction_session_timeout = '5min'
"""


def engine_for(url: URL) -> Engine:
    """Return an engine; what its transactions are for is said by the next two."""
    return _postgresql(url) if url.get_backend_name() == POSTGRESQL else _sqlite(url)


def for_reading(engine: Engine) -> Engine:
    """Return the engine with transactions that see one moment and block nobody."""
    if engine.dialect.name == POSTGRESQL:
        return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    return engine


def for_writing(engine: Engine) -> Engine:
    """Return the engine with transactions that write, and lock what they write before reading."""
    if engine.dialect.name == POSTGRESQL:
        return engine.execution_options(isolation_level="READ COMMITTED", postgresql_readonly=False)
    return engine.execution_options(**{_WRITES: True})


def connected(engine: Engine) -> Connection:
    """Take a connection; a server that went away is given time to be back."""
    deadline = time.monotonic() + AWAY_S
    pauses_s = back_off()
    while True:
        try:
            return engine.connect()
        except OperationalError:
            pause_s = next(pauses_s)
            if engine.dialect.name != POSTGRESQL or time.monotonic() + pause_s > deadline:
                raise
            time.sleep(pause_s)


def clock(connection: Connection) -> datetime:
    """Return the database's time, aware UTC; it moves on within a transaction."""
    if connection.dialect.name == POSTGRESQL:
        now: datetime = connection.execute(_POSTGRESQL_NOW).scalar_one()
        return now.astimezone(UTC)
    written: str = connection.execute(_SQLITE_NOW).scalar_one()
    return datetime.fromisoformat(written).replace(tzinfo=UTC)


_POSTGRESQL_NOW = text("SELECT clock_timestamp()")
_SQLITE_NOW = text("SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')")


def hold(connection: Connection, what: str) -> None:
    """Wait until no other transaction holds what goes by this name, and hold it to the end."""
    if connection.dialect.name == POSTGRESQL:
        key = int.from_bytes(hashlib.sha256(what.encode()).digest()[:8], "big", signed=True)
        connection.execute(_HOLD, {"key": key})


_HOLD = text("SELECT pg_advisory_xact_lock(:key)")


def hold_schema(connection: Connection) -> None:
    """Be the only one who upgrades, however long others took and this will take."""
    if connection.dialect.name == POSTGRESQL:
        connection.exec_driver_sql(_PATIENT)
        hold(connection, "ktrdr schema")


def taken_back(error: DBAPIError) -> bool:
    """Say whether the database undid the transaction, which may succeed when it is run again."""
    return error.connection_invalidated or getattr(error.orig, "pgcode", None) in _TAKEN_BACK


def _postgresql(url: URL) -> Engine:
    engine = create_engine(
        url.set(drivername="postgresql+psycopg2"),
        # Made when needed and kept: to connect costs as much as ten transitions.
        pool_size=8,
        max_overflow=0,
        pool_timeout=BUSY_TIMEOUT_S,
        pool_pre_ping=True,
        pool_recycle=1800,
        connect_args={key: value for key, value in _LINE.items() if key not in url.query},
    )
    event.listen(engine, "connect", _set_up_session)
    return engine


def _set_up_session(connection: Any, _record: Any) -> None:
    # Outside a transaction: settings made inside one that fails would be lost with it.
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(_SESSION)
    connection.autocommit = False


def _sqlite(url: URL) -> Engine:
    """Transactions are SQLite's own: explicit, durable, serialised."""
    in_memory = url.database in (None, "", ":memory:")
    # A database in memory lives in one connection: whoever needs it waits for it.
    size = 1 if in_memory else 4
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=size,
        max_overflow=0 if in_memory else 12,
        pool_timeout=BUSY_TIMEOUT_S,
        connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_S},
    )
    event.listen(engine, "connect", _set_up)
    event.listen(engine, "begin", _begin)
    return engine


def _set_up(connection: sqlite3.Connection, _record: Any) -> None:
    # The module's own transaction handling begins late and commits early: do it ourselves.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT_S * 1000)}")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")
    _set_wal(connection)


def _set_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL, which the file remembers; SQLite does not wait for others there."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            if connection.execute("PRAGMA journal_mode").fetchone()[0] not in ("wal", "memory"):
                connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(_POLL_S)


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
