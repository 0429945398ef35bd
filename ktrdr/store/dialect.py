"""What differs between databases: how a connection is set up, how the clock is asked.

SQLite only so far. Everything else in the store is portable SQL.
"""

from __future__ import annotations

import sqlite3
import time
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL
from sqlalchemy.pool import QueuePool

BUSY_TIMEOUT_S = 10.0
_POLL_S = 0.01
_WRITES = "ktrdr_writes"


def sqlite_engine(url: URL) -> Engine:
    """Return an engine whose transactions are SQLite's own: explicit, durable, serialised."""
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


def for_writing(engine: Engine) -> Engine:
    """Return the engine with transactions that take the write lock when they begin."""
    return engine.execution_options(**{_WRITES: True})


def clock(connection: Connection) -> datetime:
    """Return the database's time, aware UTC."""
    now = connection.execute(_NOW).scalar_one()
    return datetime.fromisoformat(now).replace(tzinfo=UTC)


_NOW = text("SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')")


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
