"""Find the uncommitted checkpoints of an attempt that has ended, and which of them to keep."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from ktrdr.checkpoints.history import read_history
from ktrdr.checkpoints.layout import CHECKPOINT_PREFIX, announced, attempt_folder
from ktrdr.checkpoints.manifest import Manifest, encode
from ktrdr.checkpoints.read import read_manifest
from ktrdr.checkpoints.verify import read_checkpoint
from ktrdr.errors import CheckpointCorrupted, Unreachable
from ktrdr.operations.service import OperationsService
from ktrdr.operations.types import Adoption, HistoryRow, NewCheckpoint, Operation
from ktrdr.storage.posix import DISK, Files, io_errors
from ktrdr.storage.root import Storage

STACKS = "stacks.txt"

log = logging.getLogger(__name__)


def uncommitted(service: OperationsService, operation: Operation, files: Files = DISK) -> Adoption:
    """Return the checkpoints whose driver was gone before their rows were written.

    With them comes the history that the newest one holds: its rows may never have been reported.
    """
    name, attempt = operation.operation_id, operation.attempt
    rows = service.checkpoints(name) + service.checkpoints(name, doomed=True)
    last = max((row.number for row in rows if row.attempt == attempt), default=0)
    try:
        storage = Storage(Path(operation.plan.storage), files)
        good = list(_good(storage, name, attempt, last))
    except Unreachable as error:
        log.warning("%s: no checkpoint is adopted: %s", name, error)
        return Adoption()
    return Adoption(tuple(new for new, _ in good), good[-1][1] if good else ())


def keep_stacks(operation: Operation, text: str, files: Files = DISK) -> str:
    """Write what a hung driver was doing beside its checkpoints; where that is, in words."""
    storage = Storage(Path(operation.plan.storage), files)
    try:
        storage.marked_by()
        folder = attempt_folder(storage, operation.operation_id, operation.attempt)
        with io_errors("write the stacks to", folder):
            storage.make_folders(folder)
            with contextlib.suppress(FileExistsError):  # an owner before this one got so far
                storage.files.write(folder / STACKS, text.encode())
            storage.files.sync_folder(folder)
        return f"its stacks are in {storage.relative(folder / STACKS)}"
    except Unreachable as error:
        return f"its stacks could not be kept: {error}"


def found(
    storage: Storage, operation_id: str, attempt: int, after: int = 0
) -> tuple[NewCheckpoint, ...]:
    """Return the good checkpoints that lie in an attempt's folder, oldest first, rows or not.

    Only those with a higher number than `after`. Raises StorageUnavailable.
    """
    return tuple(new for new, _ in _good(storage, operation_id, attempt, after))


def listed(storage: Storage, operation_id: str, attempt: int) -> tuple[NewCheckpoint, ...]:
    """Return the checkpoints in an attempt's folder by their manifests, oldest first.

    Their files are not read, as those of rows are not before a resume. Raises StorageUnavailable.
    """
    folder = attempt_folder(storage, operation_id, attempt)
    rows: list[NewCheckpoint] = []
    for name in _names(storage, folder, 0):
        try:
            with io_errors("read", folder / name):
                manifest = read_manifest(folder / name, Manifest, storage.files)
        except CheckpointCorrupted:
            continue
        if _lies_where_it_belongs(manifest, operation_id, attempt, name):
            rows.append(_new(storage, folder / name, manifest))
    return tuple(rows)


def _good(
    storage: Storage, operation_id: str, attempt: int, after: int
) -> Iterator[tuple[NewCheckpoint, tuple[HistoryRow, ...]]]:
    """Read and verify each checkpoint once; yield what its row says, and its history."""
    folder = attempt_folder(storage, operation_id, attempt)
    for name in _names(storage, folder, after):
        try:
            manifest, contents = read_checkpoint(folder / name, storage.files)
            history = read_history(contents)
        except CheckpointCorrupted:
            continue
        if _lies_where_it_belongs(manifest, operation_id, attempt, name):
            yield _new(storage, folder / name, manifest), history


def _new(storage: Storage, directory: Path, manifest: Manifest) -> NewCheckpoint:
    size = sum(entry.size for entry in manifest.files.values()) + len(encode(manifest))
    return announced(manifest, storage.relative(directory), size)


def _names(storage: Storage, folder: Path, after: int) -> list[str]:
    with io_errors("list", folder):
        present = storage.files.is_folder(folder)
        names = storage.files.names(folder) if present else []
    numbers = {name: name.removeprefix(CHECKPOINT_PREFIX) for name in names}
    return [
        name
        for name, number in numbers.items()
        if number != name and number.isdecimal() and int(number) > after
    ]


def _lies_where_it_belongs(manifest: Manifest, operation_id: str, attempt: int, name: str) -> bool:
    place = (manifest.operation_id, manifest.attempt, f"{CHECKPOINT_PREFIX}{manifest.number:06d}")
    return place == (operation_id, attempt, name)
