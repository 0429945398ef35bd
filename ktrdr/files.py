"""Files that appear under their name whole and durable, or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

_OPEN_TO_ALL = 0o666  # as far as the umask lets
_ABANDONED_S = 24 * 3600.0


@contextlib.contextmanager
def replacement(path: Path, mode: int = _OPEN_TO_ALL) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` at the end of the block, durably.

    When the block raises, or the disk does, `path` is as it was and no other file is left.
    """
    with _published(path, mode, os.replace) as file:
        yield file


@contextlib.contextmanager
def new_file(path: Path, mode: int = _OPEN_TO_ALL) -> Iterator[BinaryIO]:
    """Open a file that gets the name `path` at the end of the block, durably.

    Raises FileExistsError when the name is taken then; it is never written over.
    """
    with _published(path, mode, _name_once) as file:
        yield file


@contextlib.contextmanager
def synced(path: Path, mode: int = _OPEN_TO_ALL) -> Iterator[BinaryIO]:
    """Create a file whose content, not yet its name, is durable at the end of the block.

    Raises FileExistsError when the name is taken.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _published(
    path: Path, mode: int, give_name: Callable[[Path, Path], None]
) -> Iterator[BinaryIO]:
    prefix = f".{path.name[:40]}.tmp-"
    draft = path.with_name(prefix + secrets.token_hex(8))
    try:
        with synced(draft, mode) as file:
            yield file
        give_name(draft, path)
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
    _remove_abandoned(path.parent, prefix)
    sync_folder(path.parent)


def _remove_abandoned(folder: Path, prefix: str) -> None:
    """Remove drafts of writers that died: those not written to for a day."""
    for name in os.listdir(folder):
        if name.startswith(prefix):
            with contextlib.suppress(OSError):
                if time.time() - (folder / name).stat().st_mtime > _ABANDONED_S:
                    (folder / name).unlink()


def _name_once(draft: Path, path: Path) -> None:
    """Rename, but refuse a name that is taken: a link does, where the disk has links."""
    try:
        os.link(draft, path)
    except FileExistsError:
        raise
    except OSError:
        if os.path.lexists(path):
            raise FileExistsError(path) from None
        os.replace(draft, path)
