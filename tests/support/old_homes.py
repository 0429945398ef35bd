"""Homes that older versions of ktrdr made, copied to where a test may change them.

`tests/golden/homes/make_home.py` made them elsewhere, and a home is not meant to move: the copy's
rows and files are rewritten as if it had been made on this machine, in the folder where it now is.
"""

from __future__ import annotations

import json
import shutil
import socket
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alembic import command
from processor import processor
from sqlalchemy import MetaData, create_engine, select, text

from ktrdr.client import Client
from ktrdr.settings import Settings, read_settings
from ktrdr.store.addresses import address
from ktrdr.store.dialect import engine_for, for_writing
from ktrdr.store.migrations import config
from ktrdr.training.environment import environment

_DECISIVE = (
    "torch",
    "numpy",
    "polars",
    "TA-Lib",
    "architecture",
    "cpu_capability",
    "processor",
    "threads",
)
HOMES = Path(__file__).parents[1] / "golden" / "homes"


@dataclass(frozen=True)
class OldHome:
    """A home as an older version left it, and what that version said of it."""

    settings: Settings
    expected: dict[str, Any]

    def id(self, name: str) -> str:
        """The id of an operation by what became of it."""
        found: str = self.expected["operations"][name]
        return found

    def opened(self) -> Client:
        """A client of today; its notices (of the cluster that is gone) concern no test."""
        return Client(self.settings, on_notice=lambda _notice: None)

    @property
    def straight(self) -> dict[str, Any]:
        """Result and history of the one that was never stopped; all others ask for the same."""
        name = self.id("completed")
        result = self.expected["records"][name]["result"]
        return {"result": result, "history": self.expected["history"][name]}

    @property
    def mkl_cbwr(self) -> str:
        """How MKL rounded when it was made."""
        rounding: str = self.expected["environment"]["mkl_cbwr"]
        return rounding

    @property
    def made_in_this_environment(self) -> bool:
        """Whether all that decides on bits, besides ktrdr, was the same when it was made."""
        here = environment("cpu", workers=1, threads=1) | {"processor": processor()}
        return all(here[name] == self.expected["environment"][name] for name in _DECISIVE)


def copied(schema: str, home: Path, database_url: str | None = None) -> OldHome:
    """Copy the home of a schema; with a URL its rows go to that empty PostgreSQL."""
    shutil.copytree(HOMES / schema, home)
    expected_text = (home / "expected.json").read_text()
    moved = {json.loads(expected_text)["home"]: str(home)}
    expected = json.loads(_replaced(expected_text, moved))
    host = expected["records"][expected["operations"]["completed"]]["owner"]["host"]
    _rewrite_rows(home / "ktrdr.db", moved, host)
    cluster = json.loads((home / "cluster.json").read_text())
    (home / "cluster.json").write_text(json.dumps(cluster | {"host": socket.gethostname()}))
    if database_url is not None:
        _pour(home / "ktrdr.db", database_url, schema)
        (home / "ktrdr.db").unlink()
    return OldHome(read_settings({}, home=home, database_url=database_url), expected)


def _replaced(written: str, moved: dict[str, str]) -> str:
    for before, now in moved.items():
        written = written.replace(before, now)
    return written


def _rewrite_rows(file: Path, moved: dict[str, str], host: str) -> None:
    """Replace the paths in every column of text, and the host's name."""
    with closing(sqlite3.connect(file)) as connection, connection:
        tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        for (table,) in tables.fetchall():
            columns = connection.execute(f"PRAGMA table_info({table})").fetchall()
            for name in (name for _, name, kind, *_ in columns if kind == "TEXT"):
                for before, now in moved.items():
                    change = f"UPDATE {table} SET {name} = replace({name}, ?, ?)"
                    connection.execute(change, (before, now))
        change = "UPDATE operations SET owner_host = ? WHERE owner_host = ?"
        connection.execute(change, (socket.gethostname(), host))


def _pour(file: Path, database_url: str, schema: str) -> None:
    """Write the rows into an empty PostgreSQL, after the migrations up to a schema."""
    source, target = create_engine(f"sqlite:///{file}"), engine_for(address(database_url).url)
    with source.begin() as rows, for_writing(target).begin() as connection:
        command.upgrade(config(connection), schema)
        old, new = MetaData(), MetaData()
        old.reflect(rows)
        new.reflect(connection)
        connection.execute(new.tables["meta"].delete())
        for table in new.sorted_tables:
            if table.name == "alembic_version":
                continue
            found = [_aware(row._asdict()) for row in rows.execute(select(old.tables[table.name]))]
            if found:
                connection.execute(table.insert(), found)
        for name in ("events", "checkpoints"):
            last = f"(SELECT max(id) FROM {name})"
            sequence = f"pg_get_serial_sequence('{name}', 'id')"
            connection.execute(text(f"SELECT setval({sequence}, {last})"))
    source.dispose()
    target.dispose()


def _aware(row: dict[str, Any]) -> dict[str, Any]:
    """SQLite keeps times without their zone, which is UTC."""
    return {
        name: value.replace(tzinfo=UTC) if isinstance(value, datetime) else value
        for name, value in row.items()
    }
