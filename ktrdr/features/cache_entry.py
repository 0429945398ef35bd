"""One dataset of the cache on disk: a folder of `.npy` files whose manifest was written last.

It appears under its name by one rename, never changes, and is verified when it is mapped. A mapped
array holds a shared lock on its file for as long as it lives, wherever it is handed to: what has
no such lock can be removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from pathlib import Path
from typing import IO, Any

import numpy as np

from ktrdr.features.columns import InputColumn
from ktrdr.features.dataset import Dataset, Segment, Splits
from ktrdr.features.transforms import Transform
from ktrdr.files import sync_folder, synced
from ktrdr.storage.posix import io_errors

MANIFEST = "manifest.json"
DRAFT, TRASH = ".tmp-", ".trash-"
LOCK = ".lock"
"""Every writer in the folder holds it shared: with it exclusive, every draft is abandoned."""

_ARRAYS = ("inputs", "labels", "timestamps")
_WEIGHTS = "weights"  # where samples do not all count the same
_DIGESTED_BYTES = 8 << 20  # by one thread at a time
_NOT_THERE = (FileNotFoundError, NotADirectoryError)
_DAMAGED = (ValueError, KeyError, TypeError)


def load_entry(entry: Path) -> Dataset | None:
    """Map a stored dataset read-only, every byte verified; None when absent or damaged.

    Raises StorageUnavailable when it cannot be read.
    """
    with io_errors("read features from", entry):
        try:
            manifest = _read_manifest(entry)
            arrays = {name: _map_array(entry, name, manifest) for name in manifest["arrays"]}
            dataset = _dataset(manifest, arrays)
        except (*_NOT_THERE, *_DAMAGED):
            return None
    _mark_used(entry)
    return dataset


def recorded_digest(entry: Path) -> str | None:
    """Return the digest of a stored dataset as its manifest says; None when absent or damaged.

    Only names and sizes of its files are looked at. Raises StorageUnavailable.
    """
    with io_errors("read features from", entry):
        try:
            manifest = _read_manifest(entry)
            sizes = {name: (entry / name).stat().st_size for name in manifest["files"]}
            digest: str = manifest["digest"]
        except (*_NOT_THERE, *_DAMAGED):
            return None
    if any(size != manifest["files"][name]["size"] for name, size in sizes.items()):
        return None
    _mark_used(entry)
    return digest


def store_entry(entry: Path, dataset: Dataset) -> None:
    """Write a dataset beside, sync it, and rename; a good entry of the same name stays.

    Raises StorageUnavailable.
    """
    with io_errors("write features to", entry.parent):
        entry.parent.mkdir(parents=True, exist_ok=True)
        with locked(entry.parent / LOCK, fcntl.LOCK_SH):
            draft = entry.with_name(f"{DRAFT}{entry.name}-{secrets.token_hex(8)}")
            try:
                draft.mkdir()
                _write(draft, dataset)
                if entry.exists() and load_entry(entry) is None:
                    _move_to_trash(entry)
                _rename(draft, entry)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        sync_folder(entry.parent)


def remove_unused(entry: Path) -> bool:
    """Remove an entry, unless a live process has it mapped; whether it is removed."""
    with contextlib.ExitStack() as locks:
        for path in entry.glob("*.npy"):
            if not locks.enter_context(locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB)):
                return False
        try:
            _move_to_trash(entry)
        except OSError:
            return False
    return True


@contextlib.contextmanager
def locked(path: Path, operation: int) -> Iterator[bool]:
    """Hold a lock on a file; False when it is taken, or there is none to be had."""
    with contextlib.ExitStack() as opened:
        try:  # for writing: some file systems give no exclusive lock without
            file = opened.enter_context(path.open("ab"))
        except OSError:
            yield False
        else:
            yield _lock(file, operation)


def _lock(file: IO[bytes], operation: int) -> bool:
    try:
        fcntl.flock(file, operation)
    except OSError:
        return False
    return True


def _read_manifest(entry: Path) -> dict[str, Any]:
    sealed = json.loads((entry / MANIFEST).read_bytes())
    if text_digest(json.dumps(sealed["entry"])) != sealed["sha256"]:
        raise ValueError(f"{entry / MANIFEST} does not verify")
    manifest: dict[str, Any] = sealed["entry"]
    return manifest


def _dataset(manifest: dict[str, Any], arrays: dict[str, Any]) -> Dataset:
    splits = Splits(**{name: range(*manifest["splits"][name]) for name in manifest["splits"]})
    return Dataset(
        **arrays,
        columns=tuple(map(InputColumn.from_json, manifest["columns"])),
        class_names=tuple(manifest["class_names"]),
        splits=splits,
        digest=manifest["digest"],
        segments=tuple(Segment(*part) for part in manifest["segments"]),
        transforms=tuple(map(Transform.from_json, manifest["transforms"])),
    )


def _map_array(entry: Path, name: str, manifest: dict[str, Any]) -> Any:
    """Map one array, verified: a digest of all bytes costs less than any use of them.

    The mapping keeps the file open, and with it the lock.
    """
    path, known = entry / f"{name}.npy", manifest["files"][f"{name}.npy"]
    with path.open("rb") as file:
        _lock(file, fcntl.LOCK_SH)
        if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            raise FileNotFoundError(f"{path} was removed meanwhile")
        size = os.fstat(file.fileno()).st_size
        if size != known["size"] or _file_digest(file) != known["sha256"]:
            raise ValueError(f"{path} does not verify")
        return _mapped(file)


def _mapped(file: IO[bytes]) -> Any:
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("not the format that arrays are stored in")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if fortran:
        raise ValueError("not the order that arrays are stored in")
    return np.memmap(file, dtype=dtype, mode="r", offset=file.tell(), shape=shape)


def text_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _file_digest(file: IO[bytes]) -> str:
    """Return the sha256 over the sha256 of each 8 MiB, which threads can find side by side."""

    def digest(start: int) -> bytes:
        return hashlib.sha256(os.pread(file.fileno(), _DIGESTED_BYTES, start)).digest()

    starts = range(0, os.fstat(file.fileno()).st_size, _DIGESTED_BYTES)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as threads:
        return hashlib.sha256(b"".join(threads.map(digest, starts))).hexdigest()


def _mark_used(entry: Path) -> None:
    """Note the time of use, for the least recently used ones to go first."""
    with contextlib.suppress(OSError):  # read-only storage is storage all the same
        os.utime(entry / MANIFEST)


def _write(folder: Path, dataset: Dataset) -> None:
    arrays = (*_ARRAYS, *(() if dataset.weights is None else (_WEIGHTS,)))
    files = {}
    for path in (folder / f"{name}.npy" for name in arrays):
        with synced(path) as file:
            np.save(file, getattr(dataset, path.stem), allow_pickle=False)
        with path.open("rb") as written:
            files[path.name] = {"size": path.stat().st_size, "sha256": _file_digest(written)}
    manifest = {
        "digest": dataset.digest,
        "arrays": arrays,
        "columns": [column.as_json() for column in dataset.columns],
        "transforms": [transform.as_json() for transform in dataset.transforms],
        "segments": [astuple(part) for part in dataset.segments],
        "class_names": dataset.class_names,
        "splits": {name: [rows.start, rows.stop] for name, rows in vars(dataset.splits).items()},
        "files": files,
    }
    sealed = {"entry": manifest, "sha256": text_digest(json.dumps(manifest))}
    with synced(folder / MANIFEST) as file:
        file.write(json.dumps(sealed).encode("ascii"))
    sync_folder(folder)


def _rename(draft: Path, entry: Path) -> None:
    try:
        draft.rename(entry)
    except OSError:
        if not entry.is_dir():  # else another writer was first
            raise


def _move_to_trash(entry: Path) -> None:
    """Take an entry out of the way and remove it; a process that has it mapped keeps its pages."""
    trash = entry.with_name(f"{TRASH}{entry.name}-{secrets.token_hex(8)}")
    with contextlib.suppress(FileNotFoundError):  # another writer was first
        entry.rename(trash)
        shutil.rmtree(trash, ignore_errors=True)
