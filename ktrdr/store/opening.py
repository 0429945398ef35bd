"""Opening a store: find it, make or upgrade it once, refuse what cannot be trusted.

An up-to-date store is recognised by one query; Alembic is imported only to upgrade.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from ktrdr.errors import StoreTooNew, StoreUnavailable
from ktrdr.store import tables
from ktrdr.store.dialect import for_writing, sqlite_engine
from ktrdr.store.filesystems import mount_table, network_filesystem
from ktrdr.store.sql import SqlStore, translated

REVISIONS = ("0001",)
"""Every schema revision, oldest first; a test compares it with migrations/versions."""


def open_store(url: str) -> SqlStore:
    """Open the store at a database URL, making or upgrading it when needed.

    Raise StoreUnavailable when it cannot be opened, StoreTooNew when a newer ktrdr made it.
    """
    name = masked(url)
    parsed = _parsed(url, name)
    _prepare_folder(parsed, name)
    engine = sqlite_engine(parsed)
    try:
        with translated(name):
            return SqlStore(engine, name, _ready(engine, name))
    except BaseException:
        engine.dispose()
        raise


def masked(url: str) -> str:
    """Return a database URL that may be shown: every password in it is replaced."""
    url = re.sub(r"(?<=://)([^/?#:]*):[^/?#]*@", r"\1:***@", url)
    return re.sub(r"(?i)([?&][^=&]*password=)[^&]*", r"\1***", url)


def _parsed(url: str, name: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise StoreUnavailable(
            f"{name!a} is not a database URL: set KTRDR_DATABASE_URL to sqlite:////path/to/file"
        ) from None
    if parsed.drivername not in ("sqlite", "sqlite+pysqlite"):
        raise StoreUnavailable(
            f"the store {name} is on a database that is not supported:"
            " set KTRDR_DATABASE_URL to sqlite:////path/to/file"
        )
    return parsed


def _prepare_folder(url: URL, name: str) -> None:
    """Make the folder of a database file, readable by its owner only; refuse a network's."""
    if url.database in (None, "", ":memory:"):
        return
    folder = Path(os.path.realpath(url.database)).parent
    kind = network_filesystem(folder, mount_table())
    if kind is not None:
        raise StoreUnavailable(
            f"the store {name} lies on a network filesystem ({kind}), where SQLite can lose data:"
            " set KTRDR_DATABASE_URL to a file on a local disk"
        )
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnavailable(
            f"the folder of the store {name} cannot be made ({error.strerror}): {folder}"
        ) from None


def _ready(engine: Engine, name: str) -> str:
    """Bring the schema up to date, once among all processes, and return the store's id."""
    with engine.begin() as connection:
        current = _revision(connection)
    _check_known(current, name)
    if current != REVISIONS[-1]:
        # The write lock is taken first: whoever waited for it finds the work done.
        with for_writing(engine).begin() as connection:
            current = _revision(connection)
            _check_known(current, name)
            if current != REVISIONS[-1]:
                from ktrdr.store.migrations import upgrade

                upgrade(connection)
    query = select(tables.meta.c.value).where(tables.meta.c.key == "store_id")
    with engine.begin() as connection:
        return str(connection.execute(query).scalar_one())


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision = connection.execute(text("SELECT version_num FROM alembic_version"))
    return revision.scalar_one_or_none()


def _check_known(revision: str | None, name: str) -> None:
    if revision is None or revision in REVISIONS:
        return
    raise StoreTooNew(
        f"the store {name} was made by a newer ktrdr (schema {revision}, this one knows"
        f" {REVISIONS[-1]}): upgrade ktrdr"
    )
