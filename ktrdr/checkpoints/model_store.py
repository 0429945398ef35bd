"""The model store: versions of a strategy's model, each a directory that appears whole.

A version that is there is not yet one that counts: that is its row, marked in the transaction
that completes its operation.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from ktrdr.checkpoints.manifest import ModelHeader, ModelManifest, list_files
from ktrdr.checkpoints.read import read_directory
from ktrdr.checkpoints.write import remove_directory, write_directory
from ktrdr.errors import CheckpointCorrupted, ModelNotFound, StorageUnavailable
from ktrdr.operations.types import ModelRow
from ktrdr.storage.posix import Files, io_errors
from ktrdr.storage.root import Storage


def write_model(storage: Storage, header: ModelHeader, files: Mapping[str, bytes]) -> str:
    """Write a reserved version, durable on return; its path relative to the root.

    Repeated for the same operation and attempt it returns the same. Raises
    StorageUnavailable when the disk refuses or something else lies there.
    """
    folder = storage.path("models", header.strategy_name)
    final = folder / f"v{header.version}"
    with io_errors("read", final):
        already = storage.files.is_folder(final)
    if already:
        _refuse_foreign_version(storage, header)
    else:
        staging = folder / _staging_name(header.operation_id, header.attempt)
        manifest = ModelManifest(**header.model_dump(), files=list_files(files))
        write_directory(storage, staging, final, files, manifest)
    return storage.relative(final)


def read_model(
    storage: Storage, strategy_name: str, version: int
) -> tuple[ModelManifest, dict[str, bytes]]:
    """Read a stored model, every digest checked.

    Raises ModelNotFound, CheckpointCorrupted (damaged), StorageUnavailable.
    """
    directory = storage.path("models", strategy_name, f"v{version}")
    with io_errors("read", directory):
        present = storage.files.is_folder(directory)
    if not present:
        storage.marked_by()
        raise ModelNotFound(
            f"no model {strategy_name}@v{version} at {directory}: see `ktrdr models list`"
        )
    manifest, files = read_directory(directory, ModelManifest, storage.files)
    if (manifest.strategy_name, manifest.version) != (strategy_name, version):
        raise CheckpointCorrupted(
            f"{directory} holds {manifest.strategy_name}@v{manifest.version}, not"
            f" {strategy_name}@v{version}: restore it from a backup"
        )
    return manifest, files


def sweep_models(storage: Storage, rows: Iterable[ModelRow]) -> None:
    """Remove the versions that were never marked completed.

    `rows` are of attempts that are over. Raises StorageUnavailable when the disk refuses.
    """
    for row in rows:
        directory = storage.path("models", row.strategy_name, f"v{row.version}")
        if row.completed_at is None and not _is_foreign(directory, row, storage.files):
            remove_directory(storage.files, directory)


def sweep_staging(
    storage: Storage, strategy_name: str, operation_id: str, ended_attempts: Collection[int]
) -> None:
    """Remove models that crashes left half written, of attempts that are over."""
    folder = storage.path("models", strategy_name)
    with io_errors("sweep", folder):
        for attempt in ended_attempts:
            staging = folder / _staging_name(operation_id, attempt)
            if storage.files.is_folder(staging):
                storage.files.remove_tree(staging)


def _is_foreign(directory: Path, row: ModelRow, files: Files) -> bool:
    """Return whether the model of another attempt lies there, complete."""
    try:
        manifest, _ = read_directory(directory, ModelManifest, files)
    except CheckpointCorrupted:
        return False
    return (manifest.operation_id, manifest.attempt) != (row.operation_id, row.attempt)


def _staging_name(operation_id: str, attempt: int) -> str:
    return f".staging-{operation_id}-{attempt:04d}"


def _refuse_foreign_version(storage: Storage, header: ModelHeader) -> None:
    manifest, _ = read_model(storage, header.strategy_name, header.version)
    if (manifest.operation_id, manifest.attempt) != (header.operation_id, header.attempt):
        raise StorageUnavailable(
            f"models/{header.strategy_name}/v{header.version} in {storage.root} already holds"
            f" the model of {manifest.operation_id}: move that folder away and resume"
        )
