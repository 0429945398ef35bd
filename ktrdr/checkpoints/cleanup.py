"""Remove from storage what ended operations and crashes left, as far as the rows allow it.

Whoever runs it may be killed at any step, and several may run it at once: it is finished by
running it again.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from ktrdr.checkpoints.layout import CHECKPOINT_PREFIX, attempt_folder, operation_folder
from ktrdr.checkpoints.model_store import sweep_models, sweep_staging
from ktrdr.checkpoints.retention import remove_doomed, sweep
from ktrdr.checkpoints.write import remove_directory
from ktrdr.errors import OperationNotFound, StorageUnavailable, Unreachable
from ktrdr.operations.service import OperationsService
from ktrdr.operations.types import Operation
from ktrdr.storage.posix import DISK, Files, io_errors
from ktrdr.storage.root import Storage


def sweep_operation(service: OperationsService, operation_id: str, files: Files = DISK) -> int:
    """Remove what an operation left behind; how many checkpoints that were.

    That is: the directories of doomed rows, and of attempts that are over what is half written
    or half removed, and models that were never marked completed; folders that are empty then.
    Raises StorageUnavailable, StoreMismatch.
    """
    operation = service.get(operation_id)
    storage = _storage(service, operation, files)
    removed = remove_doomed(storage, service.checkpoints(operation_id, doomed=True))
    if removed:
        service.forget_checkpoints(operation_id, removed)
    over = ended_attempts(operation)
    if over:
        _sweep_attempts(service, operation, storage, over)
        service.mark_swept(operation_id, over[-1])
    return len(removed)


def _sweep_attempts(
    service: OperationsService, operation: Operation, storage: Storage, over: range
) -> None:
    """Remove what attempts left half written, durably: they are not looked at again."""
    operation_id, strategy_name = operation.operation_id, operation.request.strategy_name
    folder = operation_folder(storage, operation_id)
    attempts = [attempt_folder(storage, operation_id, attempt) for attempt in over]
    sweep(storage, operation_id, over)
    sweep_staging(storage, strategy_name, operation_id, over)
    reserved = service.reserved_models(operation_id=operation_id)
    sweep_models(storage, [row for row in reserved if row.attempt in over])
    if operation.status.terminal:
        with contextlib.suppress(OSError):  # checkpoints are in it, or it never was
            storage.files.remove_empty_folder(folder)
    for path in (*attempts, folder, folder.parent, storage.path("models", strategy_name)):
        with io_errors("sweep", path):
            if storage.files.is_folder(path):
                storage.files.sync_folder(path)


def delete_checkpoints(service: OperationsService, operation_id: str, files: Files = DISK) -> int:
    """Remove all checkpoints of an operation that has ended; how many rows that were.

    Raises OperationRunning, and StorageUnavailable or StoreMismatch when the storage is not
    there: then nothing has changed. StorageUnavailable too when directories could not be
    removed: they are doomed then, and a cleanup goes on with them.
    """
    storage = _storage(service, service.get(operation_id), files)
    doomed = service.delete_checkpoints(operation_id)
    _remove_rowless(storage, service.get(operation_id))
    removed = sweep_operation(service, operation_id, files)
    left = service.checkpoints(operation_id, doomed=True)
    if left:
        raise StorageUnavailable(
            f"{len(left)} checkpoints of {operation_id} could not be removed from {storage.root}:"
            " make it writable and run `ktrdr checkpoints cleanup`",
            left=[row.path for row in left],
        )
    return max(len(doomed), removed)


def delete_operation(service: OperationsService, operation_id: str, files: Files = DISK) -> None:
    """Remove an operation that has ended, and everything of it on storage; its model stays.

    Its checkpoints go first: a kill meanwhile leaves an operation without them, to be
    deleted again, or a folder that this store does not know. Raises OperationRunning, and
    StorageUnavailable or StoreMismatch when the storage is not there: then nothing has changed.
    """
    storage = _storage(service, service.get(operation_id), files)
    delete_checkpoints(service, operation_id, files)
    doomed = service.delete(operation_id)
    remove_directory(storage.files, operation_folder(storage, operation_id))
    service.forget_checkpoints(operation_id, tuple(row.id for row in doomed))


@dataclass(frozen=True)
class Cleanup:
    """What a cleanup did."""

    expired: tuple[str, ...]
    """Operations whose checkpoints were too old."""
    removed: int
    """Checkpoints removed, also those that an earlier end had left."""
    left: tuple[tuple[str, str], ...]
    """(operation id, why) where the storage is out of reach."""


def clean_up(service: OperationsService, older_than: timedelta | None) -> Cleanup:
    """Sweep everything that has ended; first doom what failed or was cancelled longer ago."""
    expired = service.expire_checkpoints(older_than) if older_than is not None else ()
    removed, left = 0, []
    for operation_id in service.sweepable():
        try:
            removed += sweep_operation(service, operation_id)
        except OperationNotFound:
            continue  # deleted meanwhile
        except Unreachable as error:
            left.append((operation_id, error.message))
    return Cleanup(expired, removed, tuple(left))


def ended_attempts(operation: Operation) -> range:
    """Return the attempts that have ended: no process writes for them any more."""
    last = operation.attempt if operation.status.terminal else operation.attempt - 1
    return range(1, last + 1)


def _storage(service: OperationsService, operation: Operation, files: Files = DISK) -> Storage:
    storage = Storage(Path(operation.plan.storage), files)
    storage.check(service.store_id())
    return storage


def _remove_rowless(storage: Storage, operation: Operation) -> None:
    """Checkpoints whose rows were never written, after those with rows are doomed.

    They can no longer be adopted: that happens only in the transaction that ends their attempt.
    """
    for attempt in ended_attempts(operation):
        folder = attempt_folder(storage, operation.operation_id, attempt)
        with io_errors("list", folder):
            present = storage.files.is_folder(folder)
            names = storage.files.names(folder) if present else []
        for name in names:
            if name.startswith(CHECKPOINT_PREFIX):
                remove_directory(storage.files, folder / name)
