"""The storage root: confined paths, and the marker of the store that it belongs to."""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path

from ktrdr.errors import StorageUnavailable, StoreMismatch
from ktrdr.storage.posix import DISK, Files, io_errors

MARKER = ".ktrdr-storage.json"


_MARKER_FORMAT = "ktrdr-storage"


_MARKER_LIMIT = 64 * 1024


_PART = re.compile(r"\.?[A-Za-z0-9^][A-Za-z0-9._=^-]{0,127}")


_BARS_AND_FEATURES = frozenset({"bars", "features"})
"""What may lie in a root before its first use by a store: it belongs to no operation."""


class Storage:
    """A storage root and the paths below it; holds no open files."""

    def __init__(self, root: Path, files: Files = DISK) -> None:
        if not root.is_absolute():
            raise ValueError(f"a storage root is absolute: {root}")
        self.root = root
        self.files = files

    def path(self, *parts: str) -> Path:
        """Join checked parts to the root; a link that leads out of it is refused."""
        for part in parts:
            if not _PART.fullmatch(part) or ".." in part:
                raise StorageUnavailable(
                    f"{part[:80]!a} is no name for a file or folder of the storage at"
                    f" {self.root}: the row or the call that named it is damaged"
                )
        path = self.root.joinpath(*parts)
        with io_errors("resolve", path):
            if not path.resolve().is_relative_to(self.root.resolve()):
                raise StorageUnavailable(
                    f"{path} leads out of the storage at {self.root}: remove the link"
                )
        return path

    def at(self, relative: str) -> Path:
        """The path of a row, which is kept relative to the root with forward slashes."""
        return self.path(*relative.split("/"))

    def relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def make_folders(self, path: Path) -> None:
        """Make a folder and what is missing above it, each durably named in its parent."""
        if self.files.is_folder(path):
            return
        if path != self.root:
            self.make_folders(path.parent)
        with contextlib.suppress(FileExistsError):
            self.files.make_folder(path)
        self.files.sync_folder(path.parent)

    def claim(self, store_id: str) -> None:
        """Mark an absent or empty root as this store's; a root marked so already is fine.

        Raises StoreMismatch when another store marked it, and StorageUnavailable when it holds
        other things without a marker: a wrong folder, or a share whose marker was lost.
        """
        with io_errors("prepare the storage at", self.root):
            self.root.parent.mkdir(parents=True, exist_ok=True)
            self.make_folders(self.root)
            if self._marked_by() is None:
                self._refuse_foreign_content()
                self._mark(store_id)
        self.check(store_id)

    def check(self, store_id: str) -> None:
        """Raise unless this store marked the root; creates nothing."""
        owner = self.marked_by()
        if owner != store_id:
            raise StoreMismatch(
                f"the storage at {self.root} belongs to another store ({owner}, this one is"
                f" {store_id}): use the database that goes with it, or another storage folder"
            )

    def marked_by(self) -> str:
        """Id of the store that marked the root; StorageUnavailable when there is no marker."""
        with io_errors("read the storage at", self.root):
            owner = self._marked_by()
        if owner is None:
            raise StorageUnavailable(
                f"the storage at {self.root} carries no {MARKER}: is it mounted?"
                " Mount it, or set KTRDR_STORAGE to the folder that the operations were made in"
            )
        return owner

    def _marked_by(self) -> str | None:
        path = self.root / MARKER
        try:
            content = json.loads(self.files.read(path, _MARKER_LIMIT))
            if content["format"] == _MARKER_FORMAT and isinstance(content["store_id"], str):
                return content["store_id"]
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, KeyError, TypeError):
            pass
        raise StorageUnavailable(
            f"{path} is no storage marker of ktrdr: restore it from a backup, or use another folder"
        )

    def _refuse_foreign_content(self) -> None:
        names = [n for n in self.files.names(self.root) if not n.startswith(MARKER)]
        foreign = [name for name in names if name not in _BARS_AND_FEATURES]
        if foreign:
            raise StorageUnavailable(
                f"{self.root} is not empty ({foreign[0][:80]!a}) and carries no {MARKER}:"
                " set KTRDR_STORAGE to an empty folder, or restore the marker if this is a storage"
            )

    def _mark(self, store_id: str) -> None:
        """Write beside and link: of N processes at once one wins, and no marker is half there."""
        content = {"format": _MARKER_FORMAT, "version": 1, "store_id": store_id}
        draft = self.root / f"{MARKER}.{os.urandom(8).hex()}"
        self.files.write(draft, json.dumps(content).encode())
        try:
            with contextlib.suppress(FileExistsError):
                self.files.link(draft, self.root / MARKER)
        finally:
            self.files.remove_file(draft)
        self.files.sync_folder(self.root)
