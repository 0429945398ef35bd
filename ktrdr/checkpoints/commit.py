"""Writing a checkpoint: files first, manifest last, then one rename makes it exist."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ktrdr.checkpoints.directory import write_directory
from ktrdr.checkpoints.manifest import Header, Manifest, list_files
from ktrdr.checkpoints.storage import Storage
from ktrdr.operations.model import NewCheckpoint

CHECKPOINT_PREFIX = "checkpoint-"
TEMPORARY_PREFIX = ".tmp-"


def write_checkpoint(storage: Storage, header: Header, files: Mapping[str, bytes]) -> NewCheckpoint:
    """Write a checkpoint that is durable on return, its row still to be committed.

    Raises StorageUnavailable when the disk refuses; older checkpoints are untouched then.
    """
    manifest = Manifest(**header.model_dump(), files=list_files(files))
    folder = attempt_folder(storage, header.operation_id, header.attempt)
    name = f"{CHECKPOINT_PREFIX}{header.number:06d}"
    size = write_directory(
        storage, folder / f"{TEMPORARY_PREFIX}{name}", folder / name, files, manifest
    )
    return announced(manifest, storage.relative(folder / name), size)


def announced(manifest: Manifest, path: str, size_bytes: int) -> NewCheckpoint:
    """The value that a checkpoint's row is made from; `path` is relative to the root."""
    return NewCheckpoint(
        number=manifest.number,
        path=path,
        epoch=manifest.epoch,
        batch=manifest.batch,
        checkpoint_type=manifest.checkpoint_type,
        created_at=manifest.created_at,
        size_bytes=size_bytes,
        weights_digest=manifest.weights_digest,
        is_best=manifest.is_best,
    )


def operation_folder(storage: Storage, operation_id: str) -> Path:
    """Ray Train's `storage_path` for the operation."""
    return storage.path("operations", operation_id)


def attempt_folder(storage: Storage, operation_id: str, attempt: int) -> Path:
    """The folder of one attempt's run: no two runs ever share one."""
    return storage.path("operations", operation_id, f"attempt-{attempt:04d}")
