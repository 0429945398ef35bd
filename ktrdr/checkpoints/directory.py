"""Directories that appear whole or not at all, and reading one without trusting a byte of it."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from ktrdr.checkpoints.manifest import (
    MANIFEST,
    MANIFEST_LIMIT,
    FileEntry,
    NotAManifest,
    Sealed,
    decode,
    encode,
)
from ktrdr.checkpoints.storage import DISK, Files, Storage, io_errors
from ktrdr.errors import CheckpointCorrupted

TRASH_PREFIX = ".trash-"
OK, MISSING = "ok", "missing"

M = TypeVar("M", bound=Sealed)


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


def read_directory(
    directory: Path, kind: type[M], files: Files = DISK
) -> tuple[M, dict[str, bytes]]:
    """Read a directory's manifest and files, every digest checked.

    Raises CheckpointCorrupted naming each file that is missing or wrong (details: `files`), and
    StorageUnavailable when the operating system does not let us see.
    """
    manifest, contents, findings = _examine(directory, kind, files)
    if findings:
        raise damaged(directory, findings)
    return manifest, contents


def inspect_directory(
    directory: Path, kind: type[M], files: Files = DISK
) -> tuple[M | None, dict[str, str]]:
    """Look at every file of a directory: OK, MISSING, or what is wrong with it, by name.

    Without a manifest that can be trusted (None) nothing is known of the other files. Raises
    StorageUnavailable when the operating system does not let us see.
    """
    try:
        manifest, contents, findings = _examine(directory, kind, files)
    except CheckpointCorrupted as error:
        return None, dict(error.details["files"])
    return manifest, {MANIFEST: OK, **dict.fromkeys(contents, OK), **findings}


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


def damaged(directory: Path, findings: Mapping[str, str]) -> CheckpointCorrupted:
    named = ", ".join(f"{name}: {why}" for name, why in sorted(findings.items())[:8])
    return CheckpointCorrupted(
        f"{directory} is damaged ({named}): restore it from a backup, or use an older one",
        files=dict(findings),
    )


class _Wrong(Exception):
    """What is the matter with one file."""


def _examine(
    directory: Path, kind: type[M], files: Files
) -> tuple[M, dict[str, bytes], dict[str, str]]:
    """The manifest, the files that are as it says, and what is the matter with the others."""
    with io_errors("read", directory):
        if not files.is_folder(directory):
            raise damaged(directory, {".": MISSING})
        manifest = _read_manifest(directory, kind, files)
        findings = {
            name: "not in the manifest"
            for name in files.names(directory)
            if name != MANIFEST and name not in manifest.files
        }
        contents: dict[str, bytes] = {}
        for name, entry in manifest.files.items():
            try:
                contents[name] = _read_entry(directory / name, entry, files)
            except _Wrong as why:
                findings[name] = str(why)
    return manifest, contents, findings


def _read_manifest(directory: Path, kind: type[M], files: Files) -> M:
    try:
        size = _regular_size(directory / MANIFEST, files)
        if size > MANIFEST_LIMIT:
            raise _Wrong(f"{size} bytes long")
        return decode(kind, files.read(directory / MANIFEST, MANIFEST_LIMIT))
    except (_Wrong, NotAManifest) as why:
        raise damaged(directory, {MANIFEST: str(why)}) from None


def _read_entry(path: Path, entry: FileEntry, files: Files) -> bytes:
    size = _regular_size(path, files)
    if size != entry.size:
        raise _Wrong(f"{size} bytes instead of {entry.size}")
    data = files.read(path, entry.size)
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise _Wrong("content differs from its digest")
    return data


def _regular_size(path: Path, files: Files) -> int:
    try:
        size = files.regular_size(path)
    except FileNotFoundError:
        raise _Wrong(MISSING) from None
    if size is None:
        raise _Wrong("not a regular file")
    return size


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
