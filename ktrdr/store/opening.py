"""Opening a store: find it, make or upgrade it once, refuse what cannot be trusted.

An up-to-date store is recognised by one query; Alembic is imported only to upgrade, and the
driver of PostgreSQL only for a store that is on it.
"""

from __future__ import annotations

import os
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, select, text

from ktrdr.errors import StoreTooNew, StoreUnavailable
from ktrdr.store import tables
from ktrdr.store.addresses import Address, address
from ktrdr.store.dialect import engine_for, for_writing, hold_schema
from ktrdr.store.errors import translated
from ktrdr.store.filesystems import mount_table, network_filesystem
from ktrdr.store.sql import SqlStore

REVISIONS = ("0001", "0002", "0003", "0004")
"""Every schema revision, oldest first; a test compares it with migrations/versions."""


def open_store(url: str) -> SqlStore:
    """Open the store at a database URL, making or upgrading it when needed.

    Raise StoreUnavailable when it cannot be opened, StoreTooNew when a newer ktrdr made it.
    """
    place = address(url)
    if not place.on_server:
        _prepare_folder(place)
    with translated(place):
        engine = engine_for(place.url)
    try:
        with translated(place):
            return SqlStore(engine, place, _ready(engine, place.shown))
    except BaseException:
        engine.dispose()
        raise


def _prepare_folder(place: Address) -> None:
    """Make the folder of a database file, readable by its owner only; refuse a network's."""
    name, file = place.shown, place.url.database
    if not file or file == ":memory:":
        return
    folder = Path(os.path.realpath(file)).parent
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
        # The lock is taken first: whoever waited for it finds the work done.
        with for_writing(engine).begin() as connection:
            hold_schema(connection)
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
