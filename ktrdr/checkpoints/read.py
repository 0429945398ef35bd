"""Read a sealed directory, every file verified against the manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from ktrdr.checkpoints.manifest import (
    MANIFEST,
    MANIFEST_LIMIT,
    FileEntry,
    NotAManifest,
    Sealed,
    decode,
)
from ktrdr.errors import CheckpointCorrupted
from ktrdr.storage.posix import DISK, Files, io_errors

OK, MISSING = "ok", "missing"


M = TypeVar("M", bound=Sealed)


def read_directory(
    directory: Path, kind: type[M], files: Files = DISK
) -> tuple[M, dict[str, bytes]]:
    """Read a directory's manifest and files, every digest checked.

    Raises CheckpointCorrupted naming each file that is missing or wrong (details: `files`), and
    StorageUnavailable when the directory cannot be read.
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
    StorageUnavailable when the directory cannot be read.
    """
    try:
        manifest, contents, findings = _examine(directory, kind, files)
    except CheckpointCorrupted as error:
        return None, dict(error.details["files"])
    return manifest, {MANIFEST: OK, **dict.fromkeys(contents, OK), **findings}


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
        manifest = read_manifest(directory, kind, files)
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


def read_manifest(directory: Path, kind: type[M], files: Files = DISK) -> M:
    """Read a directory's manifest alone: nothing is known of the files that it lists.

    Raises CheckpointCorrupted when it is missing or cannot be trusted, OSError.
    """
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
