"""Directories that appear whole or not at all: files first, manifest last, then one rename."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from ktrdr.checkpoints.layout import CHECKPOINT_PREFIX, TEMPORARY_PREFIX, announced, attempt_folder
from ktrdr.checkpoints.manifest import (
    MANIFEST,
    Header,
    Manifest,
    Sealed,
    encode,
    list_files,
)
from ktrdr.operations.types import NewCheckpoint
from ktrdr.storage.posix import Files, io_errors
from ktrdr.storage.root import Storage

TRASH_PREFIX = ".trash-"


def write_directory(
    storage: Storage, staging: Path, final: Path, files: Mapping[str, bytes], manifest: Sealed
) -> int:
    """Make `final` hold the files and their manifest, durable on return; its size in bytes.

    Raises StorageUnavailable when the disk refuses, and then leaves nothing of it behind as far
    as the disk allows.
    """
    if not all(files.values()):
        raise ValueError(f"no file of {final} may be empty: {sorted(files)}")
    contents = {**files, MANIFEST: encode(manifest)}
    storage.marked_by()  # else an unmounted share's empty mount point would take the write
    with io_errors("write", final):
        storage.make_folders(final.parent)
        with _removed_on_error(storage.files, staging, final):
            if storage.files.is_folder(staging):
                storage.files.remove_tree(staging)
            storage.files.make_folder(staging)
            for name, data in contents.items():
                storage.files.write(staging / name, data)
            storage.files.sync_folder(staging)
            storage.files.rename(staging, final)
            storage.files.sync_folder(final.parent)
    return sum(map(len, contents.values()))


def remove_directory(files: Files, directory: Path) -> None:
    """Remove one, or what an earlier removal left of it; nothing happens when all is gone.

    It is renamed first: a crash while removing leaves trash, never half a directory. Raises
    StorageUnavailable when the disk refuses.
    """
    trash = directory.with_name(TRASH_PREFIX + directory.name)
    with io_errors("remove", directory):
        if files.is_folder(trash):
            files.remove_tree(trash)
        if files.is_folder(directory):
            files.rename(directory, trash)
            files.sync_folder(directory.parent)
            files.remove_tree(trash)


@contextlib.contextmanager
def _removed_on_error(files: Files, staging: Path, final: Path) -> Iterator[None]:
    """After an error remove what was made; a `final` of before this write is not touched."""
    existed = files.is_folder(final)
    try:
        yield
    except OSError:
        for path in (staging,) if existed else (staging, final):
            with contextlib.suppress(OSError):
                if files.is_folder(path):
                    files.remove_tree(path)
        raise


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
