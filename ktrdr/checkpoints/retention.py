"""Remove superseded checkpoints: only those that a committed transaction has marked."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable

from ktrdr.checkpoints.layout import TEMPORARY_PREFIX, attempt_folder
from ktrdr.checkpoints.write import TRASH_PREFIX, remove_directory
from ktrdr.errors import StorageUnavailable
from ktrdr.operations.types import Checkpoint
from ktrdr.storage.posix import io_errors
from ktrdr.storage.root import Storage


def remove_doomed(storage: Storage, rows: Iterable[Checkpoint]) -> tuple[int, ...]:
    """Remove the directories of doomed rows; the ids of those that are gone, for good or already.

    A row whose directory cannot be removed is left out, to be tried again later. Raises
    StorageUnavailable when the storage is not there: then nothing counts as gone.
    """
    doomed = [row for row in rows if row.doomed_at is not None]
    if not doomed:
        return ()
    storage.marked_by()
    removed: list[int] = []
    for row in doomed:
        try:
            remove_directory(storage.files, storage.at(row.path))
        except StorageUnavailable:
            continue
        removed.append(row.id)
    return tuple(removed)


def sweep(storage: Storage, operation_id: str, ended_attempts: Collection[int]) -> None:
    """Remove what crashes left half written or half removed in attempts that are over.

    Folders that are empty then go too. Never call it with an attempt that may still write: its
    temporary folder would be taken away. Raises StorageUnavailable when the disk refuses.
    """
    for attempt in ended_attempts:
        folder = attempt_folder(storage, operation_id, attempt)
        with io_errors("sweep", folder):
            if not storage.files.is_folder(folder):
                continue
            for name in storage.files.names(folder):
                if name.startswith((TEMPORARY_PREFIX, TRASH_PREFIX)):
                    storage.files.remove_tree(folder / name)
            with contextlib.suppress(OSError):  # checkpoints are in it
                storage.files.remove_empty_folder(folder)
