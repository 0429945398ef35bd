"""Durable file calls of a POSIX file system.

Everything that a checkpoint, a model or a removal does to the disk goes through one `Files`
object, so that a test can record the calls and rebuild what any crash would have left.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from ktrdr import files
from ktrdr.errors import StorageUnavailable


class Files:
    """The file calls themselves; each is durable, or undone, only as far as its name says."""

    def make_folder(self, path: Path) -> None:
        path.mkdir(mode=0o700)

    def write(self, path: Path, data: bytes) -> None:
        """Create a new file whose content (not yet its name) is durable on return."""
        with files.synced(path, 0o600) as file:
            file.write(data)

    def sync_folder(self, path: Path) -> None:
        """Make the names in a folder durable."""
        files.sync_folder(path)

    def rename(self, source: Path, target: Path) -> None:
        os.rename(source, target)

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name; FileExistsError when the name is taken."""
        os.link(source, target)

    def remove_file(self, path: Path) -> None:
        path.unlink()

    def remove_tree(self, path: Path) -> None:
        shutil.rmtree(path)

    def remove_empty_folder(self, path: Path) -> None:
        """Remove a folder; OSError when something is in it."""
        path.rmdir()

    def read(self, path: Path, limit: int) -> bytes:
        """Read a regular file of at most `limit` bytes; OSError (EFBIG) when it is longer."""
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
        return data

    def regular_size(self, path: Path) -> int | None:
        """Size of a regular file; None for a folder, a link or a device."""
        status = path.lstat()
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def is_folder(self, path: Path) -> bool:
        """Whether it is there and is a folder itself, not a link to one."""
        try:
            return stat.S_ISDIR(path.lstat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def names(self, path: Path) -> list[str]:
        return sorted(os.listdir(path))


DISK = Files()


@contextlib.contextmanager
def io_errors(action: str, path: Path) -> Iterator[None]:
    """Turn what the operating system refuses into StorageUnavailable."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageUnavailable(
            f"cannot {action} {path}: {reason}: check that the storage is mounted, writable"
            " and not full",
            errno=error.errno,
        ) from error
