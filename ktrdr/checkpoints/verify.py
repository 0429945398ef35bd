"""Which checkpoint can be trusted: every digest is checked before a byte of it is used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ktrdr.checkpoints.manifest import MANIFEST, Manifest
from ktrdr.checkpoints.read import (
    OK,
    damaged,
    inspect_directory,
    read_directory,
)
from ktrdr.errors import CheckpointCorrupted, CheckpointNotFound
from ktrdr.operations.types import Checkpoint
from ktrdr.storage.posix import DISK, Files
from ktrdr.storage.root import Storage

_FOREIGN = "of another checkpoint"


def verify_checkpoint(directory: Path, files: Files = DISK) -> Manifest:
    """Check manifest and digests of a checkpoint's directory.

    Raises CheckpointCorrupted naming each missing or wrong file, StorageUnavailable when the
    directory cannot be read.
    """
    return read_checkpoint(directory, files)[0]


def read_checkpoint(directory: Path, files: Files = DISK) -> tuple[Manifest, dict[str, bytes]]:
    """Verify a checkpoint and return the very bytes that were verified."""
    return read_directory(directory, Manifest, files)


def verify_row(storage: Storage, row: Checkpoint) -> Manifest:
    """Verify the directory of a row, and that it holds this checkpoint and no other."""
    directory = storage.at(row.path)
    try:
        manifest = verify_checkpoint(directory, storage.files)
        if not _describes(manifest, row):
            raise damaged(directory, {MANIFEST: _FOREIGN})
    except CheckpointCorrupted:
        storage.marked_by()  # an unmounted share is not a corrupt checkpoint
        raise
    return manifest


def inspect_rows(
    storage: Storage, rows: Sequence[Checkpoint]
) -> list[tuple[Checkpoint, dict[str, str]]]:
    """Look at every file of each row's directory: `OK`, or what is the matter, by name.

    Raises StorageUnavailable when the storage cannot be read.
    """
    return [(row, _inspect(storage, row)) for row in rows]


def latest_good(
    storage: Storage, rows: Sequence[Checkpoint]
) -> tuple[Checkpoint, Manifest, tuple[tuple[Checkpoint, str], ...]]:
    """The newest row whose directory verifies, and the newer ones passed over with the reason.

    Raises CheckpointNotFound without rows (doomed ones do not count), CheckpointCorrupted when
    none verifies, and StorageUnavailable when the storage cannot be read.
    """
    candidates = sorted((r for r in rows if r.doomed_at is None), key=_key, reverse=True)
    if not candidates:
        raise CheckpointNotFound(
            "no checkpoint of this operation was kept: start the training anew with `ktrdr train`"
        )
    passed_over: list[tuple[Checkpoint, str]] = []
    for row in candidates:
        try:
            return row, verify_row(storage, row), tuple(passed_over)
        except CheckpointCorrupted as error:
            passed_over.append((row, error.message))
    raise CheckpointCorrupted(
        f"none of {len(candidates)} checkpoints is good: {passed_over[0][1]}",
        checkpoints={row.path: why for row, why in passed_over},
    )


def _inspect(storage: Storage, row: Checkpoint) -> dict[str, str]:
    manifest, files = inspect_directory(storage.at(row.path), Manifest, storage.files)
    if manifest is not None and not _describes(manifest, row):
        files[MANIFEST] = _FOREIGN
    if any(finding != OK for finding in files.values()):
        storage.marked_by()  # an unmounted share is not a corrupt checkpoint
    return files


def _describes(manifest: Manifest, row: Checkpoint) -> bool:
    found = (manifest.operation_id, manifest.attempt, manifest.number, manifest.weights_digest)
    return found == (row.operation_id, row.attempt, row.number, row.weights_digest)


def _key(row: Checkpoint) -> tuple[int, int]:
    return row.key
