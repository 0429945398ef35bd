"""Paths and folder names of checkpoints on storage."""

from __future__ import annotations

from pathlib import Path

from ktrdr.checkpoints.manifest import Manifest
from ktrdr.operations.types import NewCheckpoint
from ktrdr.storage.root import Storage

CHECKPOINT_PREFIX = "checkpoint-"


TEMPORARY_PREFIX = ".tmp-"


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
