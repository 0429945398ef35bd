"""What an attempt that is to be given up has on storage, and what is kept of it there."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

from ktrdr.checkpoints.history import read_history
from ktrdr.checkpoints.layout import CHECKPOINT_PREFIX, announced, attempt_folder
from ktrdr.checkpoints.manifest import Manifest, encode
from ktrdr.checkpoints.verify import read_checkpoint, verify_checkpoint
from ktrdr.errors import CheckpointCorrupted, Unreachable
from ktrdr.operations.service import OperationsService
from ktrdr.operations.types import Adoption, HistoryRow, NewCheckpoint, Operation
from ktrdr.storage.posix import io_errors
from ktrdr.storage.root import Storage

STACKS = "stacks.txt"

log = logging.getLogger(__name__)


def uncommitted(service: OperationsService, operation: Operation) -> Adoption:
    """Return the checkpoints whose driver was gone before their rows were written."""
    name, attempt = operation.operation_id, operation.attempt
    rows = service.checkpoints(name) + service.checkpoints(name, doomed=True)
    last = max((row.number for row in rows if row.attempt == attempt), default=0)
    try:
        storage = Storage(Path(operation.plan.storage))
        checkpoints = found(storage, name, attempt, last)
        return Adoption(checkpoints, _history(storage, checkpoints))
    except (Unreachable, CheckpointCorrupted) as error:
        log.warning("%s: no checkpoint is adopted: %s", name, error)
        return Adoption()


def _history(storage: Storage, adopted: tuple[NewCheckpoint, ...]) -> tuple[HistoryRow, ...]:
    """Return the history that the newest one holds: its rows may never have been reported."""
    if not adopted:
        return ()
    return read_history(read_checkpoint(storage.at(adopted[-1].path), storage.files)[1])


def keep_stacks(operation: Operation, text: str) -> str:
    """Write what a hung driver was doing beside its checkpoints; where that is, in words."""
    storage = Storage(Path(operation.plan.storage))
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
    """The good checkpoints that lie in an attempt's folder, oldest first, rows or not.

    Only those with a higher number than `after`. Raises StorageUnavailable.
    """
    folder = attempt_folder(storage, operation_id, attempt)
    with io_errors("list", folder):
        present = storage.files.is_folder(folder)
        names = storage.files.names(folder) if present else []
    good: list[NewCheckpoint] = []
    for name in names:
        number = name.removeprefix(CHECKPOINT_PREFIX)
        if number == name or not number.isdecimal() or int(number) <= after:
            continue
        try:
            manifest = verify_checkpoint(folder / name, storage.files)
        except CheckpointCorrupted:
            continue
        if _lies_where_it_belongs(manifest, operation_id, attempt, name):
            size = sum(e.size for e in manifest.files.values()) + len(encode(manifest))
            good.append(announced(manifest, storage.relative(folder / name), size))
    return tuple(good)


def _lies_where_it_belongs(manifest: Manifest, operation_id: str, attempt: int, name: str) -> bool:
    place = (manifest.operation_id, manifest.attempt, f"{CHECKPOINT_PREFIX}{manifest.number:06d}")
    return place == (operation_id, attempt, name)
