"""Verify checkpoints: every digest is checked before any content is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

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

PassedOver = tuple[tuple[Checkpoint, str], ...]
"""Newer rows whose directories did not verify, with the reason."""

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class VerifiedCheckpoint:
    """A checkpoint in memory: the very bytes that were verified, so that none is read twice."""

    row: Checkpoint
    directory: Path
    manifest: Manifest
    files: Mapping[str, bytes]
    passed_over: PassedOver = ()


def read_checkpoint(directory: Path, files: Files = DISK) -> tuple[Manifest, dict[str, bytes]]:
    """Check manifest and digests of a checkpoint, and return the very bytes that were verified.

    Raises CheckpointCorrupted naming each missing or wrong file, StorageUnavailable when the
    directory cannot be read.
    """
    return read_directory(directory, Manifest, files)


def verify_row(storage: Storage, row: Checkpoint) -> Manifest:
    """Verify the directory of a row, and that it holds this checkpoint and no other."""
    return open_row(storage, row).manifest


def open_row(storage: Storage, row: Checkpoint) -> VerifiedCheckpoint:
    """Read and verify the directory of a row, each file once.

    Raises CheckpointCorrupted naming what is missing or wrong, also when it holds another
    checkpoint than the row says, and StorageUnavailable when it cannot be read.
    """
    directory = storage.at(row.path)
    try:
        manifest, files = read_checkpoint(directory, storage.files)
        if not _describes(manifest, row):
            raise damaged(directory, {MANIFEST: _FOREIGN})
    except CheckpointCorrupted:
        storage.marked_by()  # an unmounted share is not a corrupt checkpoint
        raise
    return VerifiedCheckpoint(row, directory, manifest, files)


def inspect_rows(
    storage: Storage, rows: Sequence[Checkpoint]
) -> list[tuple[Checkpoint, dict[str, str]]]:
    """Look at every file of each row's directory: `OK`, or what is the matter, by name.

    Raises StorageUnavailable when the storage cannot be read.
    """
    return [(row, _inspect(storage, row)) for row in rows]


def latest_good(
    storage: Storage, rows: Sequence[Checkpoint]
) -> tuple[Checkpoint, Manifest, PassedOver]:
    """Return the newest row whose directory verifies, and the newer ones passed over.

    Raises as `open_latest_good` does, which keeps the files as well.
    """
    manifest, row, passed_over = _latest(rows, lambda row: verify_row(storage, row))
    return row, manifest, passed_over


def open_latest_good(storage: Storage, rows: Sequence[Checkpoint]) -> VerifiedCheckpoint:
    """Return the newest checkpoint that verifies, with its files.

    Raises CheckpointNotFound without rows (superseded ones do not count), CheckpointCorrupted
    when none verifies, and StorageUnavailable when the storage cannot be read.
    """
    opened, _, passed_over = _latest(rows, lambda row: open_row(storage, row))
    return replace(opened, passed_over=passed_over)


def _latest(
    rows: Sequence[Checkpoint], verify: Callable[[Checkpoint], T]
) -> tuple[T, Checkpoint, PassedOver]:
    candidates = sorted((r for r in rows if r.doomed_at is None), key=_key, reverse=True)
    if not candidates:
        raise CheckpointNotFound(
            "no checkpoint of this operation was kept: start the training anew with `ktrdr train`"
        )
    passed_over: list[tuple[Checkpoint, str]] = []
    for row in candidates:
        try:
            return verify(row), row, tuple(passed_over)
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
