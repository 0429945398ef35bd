"""What a disk may hold after a crash: calls recorded, and every legal image of them rebuilt.

The rules are those of a disk that promises as little as POSIX does. Content that was not synced
may be absent, partial or there; a name that was made, changed or removed in a folder since that
folder was last synced may be so or not, each independently of the others. A rename is one change.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ktrdr.storage.posix import Files

Kind = Literal[
    "make folder", "make file", "fill", "sync file", "sync folder", "rename", "remove", "store"
]


@dataclass(frozen=True)
class Call:
    """One step that the disk, or the store, was asked for."""

    kind: Kind
    path: Path = Path()
    target: Path = Path()
    data: bytes = b""
    """What a file was filled with, or the whole store after a transaction."""

    def __str__(self) -> str:
        return f"{self.kind} {'/'.join(self.path.parts[-2:])}"


class RecordingFiles(Files):
    """Does what it is asked for, and writes down what a disk is told by it."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def make_folder(self, path: Path) -> None:
        super().make_folder(path)
        self.calls.append(Call("make folder", path))

    def write(self, path: Path, data: bytes) -> None:
        super().write(path, data)
        self.calls += [Call("make file", path), Call("fill", path, data=data)]
        self.calls.append(Call("sync file", path))

    def sync_folder(self, path: Path) -> None:
        self.calls.append(Call("sync folder", path))

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        self.calls.append(Call("rename", source, target))

    def remove_file(self, path: Path) -> None:
        super().remove_file(path)
        self.calls.append(Call("remove", path))

    def remove_tree(self, path: Path) -> None:
        for folder, folders, files in os.walk(path, topdown=False):
            self.calls += [Call("remove", Path(folder) / name) for name in files + folders]
        super().remove_tree(path)
        self.calls.append(Call("remove", path))

    def remove_empty_folder(self, path: Path) -> None:
        super().remove_empty_folder(path)
        self.calls.append(Call("remove", path))

    def link(self, source: Path, target: Path) -> None:
        raise NotImplementedError(f"{source} -> {target}")


@dataclass
class File:
    content: bytes = b""
    synced: bool = False


@dataclass
class Folder:
    names: dict[str, Node] = field(default_factory=dict)
    """As running programs see them."""
    durable: dict[str, Node] = field(default_factory=dict)
    pending: list[Change] = field(default_factory=list)
    """Since the last sync, in order."""


@dataclass(frozen=True, eq=False)
class Change:
    """`name` now means `node` (None: nothing), and `gone` means nothing."""

    name: str
    node: Node | None
    gone: str | None = None

    def apply(self, names: dict[str, Node]) -> None:
        if self.gone is not None:
            names.pop(self.gone, None)
        if self.node is None:
            names.pop(self.name, None)
        else:
            names[self.name] = self.node


Node = File | Folder

Image = tuple[tuple[Path, bytes | None], ...]
"""Relative paths, parents first, with their contents; None for a folder."""


class Disk:
    """Everything below `root`, which is empty and durable at first."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.top = Folder()

    def run(self, call: Call) -> None:
        parent = self._folder(call.path.parent) if call.path != self.root else self.top
        name = call.path.name
        if call.kind == "make folder":
            _change(parent, Change(name, Folder()))
        elif call.kind == "make file":
            _change(parent, Change(name, File()))
        elif call.kind == "rename":
            _change(parent, Change(call.target.name, parent.names[name], gone=name))
        elif call.kind == "remove":
            _change(parent, Change(name, None))
        elif call.kind == "sync folder":
            folder = self._folder(call.path)
            folder.durable, folder.pending = dict(folder.names), []
        else:
            self._touch(parent.names[name], call)

    def image(self, choice: Choice) -> Image:
        """One of what a crash now leaves."""
        return tuple(self._image(self.top, Path(), choice))

    def _touch(self, file: Node, call: Call) -> None:
        assert isinstance(file, File)
        if call.kind == "fill":
            file.content, file.synced = call.data, False
        elif call.kind == "sync file":
            file.synced = True

    def _folder(self, path: Path) -> Folder:
        folder = self.top
        for part in path.relative_to(self.root).parts:
            inner = folder.names[part]
            assert isinstance(inner, Folder)
            folder = inner
        return folder

    def _image(
        self, folder: Folder, path: Path, choice: Choice
    ) -> Iterator[tuple[Path, bytes | None]]:
        names = dict(folder.durable)
        for change in folder.pending:
            if choice.happened():
                change.apply(names)
        for name, node in names.items():
            if isinstance(node, Folder):
                yield path / name, None
                yield from self._image(node, path / name, choice)
            else:
                yield path / name, node.content if node.synced else choice.part_of(node.content)


@dataclass(frozen=True)
class Choice:
    """Decides about everything that was not synced."""

    happened: Callable[[], bool]
    part_of: Callable[[bytes], bytes]


def choices(seed: str, number: int) -> Iterator[tuple[str, Choice]]:
    """Nothing happened, all did, names without content, and so many at random."""
    yield "nothing unsynced is there", Choice(lambda: False, lambda _: b"")
    yield "everything is there", Choice(lambda: True, lambda content: content)
    yield "names without content", Choice(lambda: True, lambda _: b"")
    for index in range(number):
        chosen = random.Random(f"{seed} {index}")
        yield f"random {index}", _at_random(chosen)


def _at_random(chosen: random.Random) -> Choice:
    bias = chosen.random()
    return Choice(
        lambda: chosen.random() < bias,
        lambda content: content[: chosen.choice((0, len(content) // 2, len(content)))],
    )


def _change(folder: Folder, change: Change) -> None:
    folder.pending.append(change)
    change.apply(folder.names)


def lay_out(image: Image, root: Path) -> None:
    """Make `root` hold the image and nothing else."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for path, content in image:
        if content is None:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(content)


def without(calls: Sequence[Call], dropped: Callable[[Call], bool]) -> list[Call]:
    """The same life with some calls forgotten."""
    return [call for call in calls if not dropped(call)]


def moved_before(
    calls: Sequence[Call], moved: Callable[[Call], bool], before: Callable[[Call], bool]
) -> list[Call]:
    """The same life with each of some calls made before the last one of another kind."""
    done: list[Call] = []
    for call in calls:
        place = len(done)
        if moved(call):
            place = max((i for i, other in enumerate(done) if before(other)), default=place)
        done.insert(place, call)
    return done
