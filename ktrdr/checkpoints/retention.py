"""Removing checkpoints: only those whose rows an acknowledged transaction has doomed."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from ktrdr.checkpoints.commit import TEMPORARY_PREFIX, attempt_folder
from ktrdr.checkpoints.storage import Storage, io_errors
from ktrdr.errors import StorageUnavailable
from ktrdr.operations.model import Checkpoint

TRASH_PREFIX = ".trash-"


def remove_doomed(storage: Storage, rows: Iterable[Checkpoint]) -> tuple[int, ...]:
    """Remove the directories of doomed rows; the ids of those that are gone, for good or already.

    A row whose directory the disk does not let go is left out, to be tried again later. Raises
    StorageUnavailable when the storage is not there: then nothing counts as gone.
    """
    doomed = [row for row in rows if row.doomed_at is not None]
    if not doomed:
        return ()
    storage.marked_by()
    removed: list[int] = []
    for row in doomed:
        try:
            _remove(storage, storage.at(row.path))
        except StorageUnavailable:
            continue
        removed.append(row.id)
    return tuple(removed)


def sweep(storage: Storage, operation_id: str, ended_attempts: Collection[int]) -> None:
    """Remove what crashes left half written or half removed in attempts that are over.

    Never call it with an attempt that may still write: its temporary folder would be taken away.
    Raises StorageUnavailable when the disk refuses.
    """
    for attempt in ended_attempts:
        folder = attempt_folder(storage, operation_id, attempt)
        with io_errors("sweep", folder):
            if not storage.files.is_folder(folder):
                continue
            for name in storage.files.names(folder):
                if name.startswith((TEMPORARY_PREFIX, TRASH_PREFIX)):
                    storage.files.remove_tree(folder / name)


def _remove(storage: Storage, directory: Path) -> None:
    """Rename first: a crash while removing leaves trash, never half a checkpoint."""
    files = storage.files
    trash = directory.with_name(TRASH_PREFIX + directory.name)
    with io_errors("remove", directory):
        if files.is_folder(trash):
            files.remove_tree(trash)
        if files.is_folder(directory):
            files.rename(directory, trash)
            files.sync_folder(directory.parent)
            files.remove_tree(trash)
