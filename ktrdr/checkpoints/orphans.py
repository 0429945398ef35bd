"""Folders on storage that belong to no row of the store; removed only at a user's request.

The storage is listed before the store is read: whatever a training makes meanwhile has its row
first, so it is never taken for an orphan.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ktrdr.checkpoints.layout import CHECKPOINT_PREFIX
from ktrdr.checkpoints.write import remove_directory
from ktrdr.errors import InvalidId, OperationNotFound, StorageUnavailable
from ktrdr.operations.service import OperationsService
from ktrdr.operations.types import OPERATION_ID, Operation
from ktrdr.storage.posix import io_errors
from ktrdr.storage.root import Storage

UNKNOWN_OPERATION = "an operation that this store does not know"
UNKNOWN_MODEL = "a model that this store does not know"
NO_ROW = "a checkpoint that was never committed, of an attempt that is over"

_ATTEMPT = re.compile(r"attempt-([0-9]{4,})")
_VERSION = re.compile(r"(?:\.trash-)?v([1-9][0-9]*)")


@dataclass(frozen=True)
class Orphan:
    path: str
    """Relative to the storage root."""
    what: str


def find_orphans(service: OperationsService, storage: Storage) -> tuple[Orphan, ...]:
    """What lies below operations/ and models/ and belongs to nothing that this store knows.

    Raises StorageUnavailable, StoreMismatch.
    """
    storage.check(service.store_id())
    with io_errors("list", storage.root):
        operations = {
            name: [
                (attempt, checkpoint)
                for attempt in _folders(storage, folder)
                for checkpoint in _folders(storage, folder / attempt)
                if checkpoint.startswith(CHECKPOINT_PREFIX)
            ]
            for name, folder in _children(storage, storage.path("operations"))
        }
        models = {
            name: _folders(storage, folder)
            for name, folder in _children(storage, storage.path("models"))
        }
    found = [o for name, inside in operations.items() for o in _operation(service, name, inside)]
    found += [o for name, inside in models.items() for o in _models(service, name, inside)]
    return tuple(found)


def remove_orphans(storage: Storage, orphans: Iterable[Orphan]) -> tuple[Orphan, ...]:
    """Remove them; those that are gone now. The disk may refuse some: they are left out."""
    removed: list[Orphan] = []
    for orphan in orphans:
        try:
            remove_directory(storage.files, storage.root / orphan.path)
        except StorageUnavailable:
            continue
        removed.append(orphan)
    return tuple(removed)


def _operation(
    service: OperationsService, name: str, inside: list[tuple[str, str]]
) -> Iterator[Orphan]:
    operation = _known_operation(service, name)
    if operation is None:
        yield Orphan(f"operations/{name}", UNKNOWN_OPERATION)
        return
    rows = {c.path for doomed in (False, True) for c in service.checkpoints(name, doomed)}
    for attempt, checkpoint in inside:
        path = f"operations/{name}/{attempt}/{checkpoint}"
        if path not in rows and not _may_write(operation, attempt):
            yield Orphan(path, NO_ROW)


def _models(service: OperationsService, name: str, inside: list[str]) -> Iterator[Orphan]:
    versions = {row.version for row in service.reserved_models(strategy_name=name)}
    if not versions:
        yield Orphan(f"models/{name}", UNKNOWN_MODEL)
        return
    for entry in inside:
        version, operation_id = _VERSION.fullmatch(entry), OPERATION_ID.search(entry)
        known = version is not None and int(version[1]) in versions
        if not known and operation_id is not None:  # a staging folder
            known = _known_operation(service, operation_id[0]) is not None
        if not known:
            yield Orphan(f"models/{name}/{entry}", UNKNOWN_MODEL)


def _known_operation(service: OperationsService, name: str) -> Operation | None:
    try:
        return service.get(name)
    except (InvalidId, OperationNotFound):
        return None


def _may_write(operation: Operation, folder: str) -> bool:
    match = _ATTEMPT.fullmatch(folder)
    current = not operation.status.terminal and operation.attempt
    return match is not None and int(match[1]) == current


def _children(storage: Storage, folder: Path) -> Iterator[tuple[str, Path]]:
    if storage.files.is_folder(folder):
        for name in _folders(storage, folder):
            yield name, folder / name


def _folders(storage: Storage, folder: Path) -> list[str]:
    """Names of the folders in one; it may vanish while it is listed."""
    try:
        names = storage.files.names(folder)
    except FileNotFoundError:
        return []
    return [name for name in names if storage.files.is_folder(folder / name)]
