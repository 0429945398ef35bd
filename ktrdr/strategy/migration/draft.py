"""A strategy file while it is migrated: all changes are made and recorded here."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ktrdr.strategy.migration.comments import TAIL, Note, Path
from ktrdr.strategy.migration.document import Document, like, mapping, plain
from ktrdr.strategy.references import Problem

_LONGEST_VALUE = 60


@dataclass(frozen=True)
class Change:
    """One change: `what` is moved, renamed, set, added or removed; `new` of a moved key is the
    path where it stands now."""

    path: str
    what: str
    old: Any
    new: Any
    why: str

    def __str__(self) -> str:
        said = {
            "moved": f"moved to {self.new}",
            "renamed": f"renamed to {self.new}",
            "removed": f"removed, was {_shown(self.old)}",
            "added": f"added, {_shown(self.new)}",
            "set": f"{_shown(self.old)} -> {_shown(self.new)}",
        }
        return f"{self.path}: {said[self.what]}: {self.why}"


def dotted(path: Path) -> str:
    return ".".join(str(step)[:64] for step in path)


@dataclass
class Draft:
    """The document, its changes so far, and the problems that only the user can decide."""

    document: Document
    changes: list[Change] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def at(self, path: Path) -> Any:
        """The value at a path; None where there is none."""
        part: Any = self.document.root
        for step in path:
            if isinstance(part, Mapping):
                part = part.get(step)
            elif isinstance(part, list) and isinstance(step, int) and step < len(part):
                part = part[step]
            else:
                return None
        return part

    def has(self, path: Path) -> bool:
        above = self.at(path[:-1])
        if isinstance(above, list):
            return isinstance(path[-1], int) and path[-1] < len(above)
        return isinstance(above, Mapping) and path[-1] in above

    def keys(self, path: Path) -> list[Any]:
        """The keys of a mapping, to walk over while it changes; none where it is no mapping."""
        found = self.at(path)
        return list(found) if isinstance(found, Mapping) else []

    def problem(self, path: Path, message: str) -> None:
        self.problems.append((dotted(path), message))

    def set(self, path: Path, value: Any, why: str) -> None:
        """Give a key another value, or add a key at the end of its mapping."""
        existed, old = self.has(path), self.at(path)
        if existed and plain(old) == plain(value) and type(plain(old)) is type(plain(value)):
            return
        self._parent(path)[path[-1]] = like(old, value)
        self._say(path, "set" if existed else "added", plain(old), plain(value), why)

    def insert(self, path: Path, value: Any, after: str | None, why: str) -> None:
        """Add a key behind another of its mapping, or before all of them."""
        above = self.at(path[:-1])
        place = 0 if after is None else list(above).index(after) + 1
        above.insert(place, path[-1], value)
        if after is not None and self._is_airy(path[:-1]):
            self.document.notes[path] = Note(before=[""])
        self._say(path, "added", None, plain(value), why)

    def remove(self, path: Path, why: str) -> None:
        """Take a key out; the comment lines before it stay, those inside it go."""
        old = plain(self.at(path))
        self.drop(path)
        self._say(path, "removed", old, None, why)

    def comment_out(self, path: Path, why: str) -> None:
        """Take a text out of the data, and leave it to read as a comment at its place."""
        said = f"{path[-1]}: {' '.join(str(self.at(path)).split())}"
        lines = textwrap.wrap(said, 96, initial_indent="# ", subsequent_indent="#   ")
        self.document.notes.setdefault(path, Note()).before += lines
        self.remove(path, why)

    def rename(self, path: Path, key: str, why: str, value: Any = None) -> None:
        """Another key at the same place of the same mapping, and another value where given."""
        target = (*path[:-1], key)
        if self.has(target):
            self._meet(path, target, why)
            return
        above = self.at(path[:-1])
        place, old = list(above).index(path[-1]), above.pop(path[-1])
        above.insert(place, key, old if value is None else value)
        self.carry_notes(path, target, old)
        new = key if value is None else f"{key}: {_shown(value)}"
        self._say(path, "renamed", plain(old), new, why)

    def move(self, path: Path, target: Path, why: str) -> None:
        """Put a key elsewhere; where both are mappings, key by key."""
        if path[:-1] == target[:-1]:
            self.rename(path, str(target[-1]), why)
        elif self.has(target):
            self._meet(path, target, why)
        elif not self.can_hold(target):
            self.problem(path, f"belongs to {dotted(target)}, which is no mapping: write it there")
        else:
            parent = self._parent(target)
            parent[target[-1]] = self.at(path)
            self.carry_notes(path, target, parent[target[-1]])
            self.drop(path)
            self._say(path, "moved", dotted(path), dotted(target), why)

    def drop(self, path: Path) -> None:
        """Take a key out without saying so: for containers that are empty by then."""
        note = self.document.notes.get(path)
        if note is not None and note.behind and self.at(path) == {}:
            note.before.append(note.behind)
        self.hand_on(path)
        for below in [(), *_paths_in(self.at(path))]:
            self.document.notes.pop((*path, *below), None)
        del self.at(path[:-1])[path[-1]]

    def carry_notes(self, path: Path, target: Path, value: Any) -> None:
        """Let the comments of a place follow the value that stood there, with all in it."""
        notes = self.document.notes
        for below in [(), *_paths_in(value)]:
            note = notes.pop((*path, *below), None)
            if note is None:
                continue
            there = notes.setdefault((*target, *below), Note())
            there.before += note.before
            if note.behind and not there.behind:
                there.behind = note.behind
                there.column = note.column - self._columns(path, target)

    def nest_notes(self, path: Path, key: str) -> None:
        """What stands below a path will stand below a key of it."""
        notes = self.document.notes
        for below in list(_paths_in(self.at(path))):
            if (*path, *below) in notes:
                notes[(*path, key, *below)] = notes.pop((*path, *below))

    def _meet(self, path: Path, target: Path, why: str) -> None:
        """Two places say the same thing: well where they agree, else the user must choose."""
        ours, theirs = self.at(path), self.at(target)
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            for key in list(ours):
                self.move((*path, key), (*target, key), why)
            if not self.at(path):
                self.drop(path)
        elif plain(ours) == plain(theirs):
            self.remove(path, f"{dotted(target)} says the same")
        else:
            there = f"{dotted(target)} {_shown(theirs)}"
            self.problem(path, f"says {_shown(ours)}, but {there}: keep one of them")

    def can_hold(self, target: Path) -> bool:
        """Whether all that is above a path is a mapping, or not there yet."""
        return all(
            isinstance(self.at(target[:n]), Mapping)
            for n in range(len(target))
            if n == 0 or self.has(target[:n])
        )

    def _parent(self, path: Path) -> Any:
        """The mapping or list above a path; missing mappings are made."""
        part: Any = self.document.root
        for step in path[:-1]:
            if isinstance(part, dict) and step not in part:
                part[step] = mapping()
            part = part[step]
        return part

    def hand_on(self, path: Path, heir: Path | None = None) -> None:
        """Give the comment lines before a place to another, or to what follows it."""
        note = self.document.notes.get(path)
        if note is None or not note.before:
            return
        heir = heir or self._following(path)
        other = self.document.notes.setdefault(heir, Note())
        margin = " " * self._columns(path, heir if heir != TAIL else heir[:1])
        lines = [*(margin + line if line else "" for line in note.before), *other.before]
        other.before = [line for i, line in enumerate(lines) if line or i == 0 or lines[i - 1]]
        note.before = []

    def _columns(self, path: Path, other: Path) -> int:
        """How much farther to the right a path stands than another, about."""
        return self.document.indentation.mapping * (len(path) - len(other))

    def _following(self, path: Path) -> Path:
        """The next place of the document that is not below a path."""
        for length in range(len(path), 0, -1):
            above = self.at(path[: length - 1])
            siblings = list(range(len(above))) if isinstance(above, list) else list(above)
            later = siblings[siblings.index(path[length - 1]) + 1 :]
            if later:
                return (*path[: length - 1], later[0])
        return TAIL

    def _is_airy(self, path: Path) -> bool:
        """Whether the keys of a mapping have blank lines between them."""
        notes = self.document.notes
        return any("" in note.before for p, note in notes.items() if p[:-1] == path and p != TAIL)

    def _say(self, path: Path, what: str, old: Any, new: Any, why: str) -> None:
        self.changes.append(Change(dotted(path), what, old, new, why))


def _paths_in(value: Any) -> Iterator[Path]:
    """Every path below a value, relative to it."""
    inner: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    for step, part in inner:
        yield (step,)
        yield from ((step, *below) for below in _paths_in(part))


def _shown(value: Any) -> str:
    """A value in a few characters: a section may be long."""
    given = plain(value)
    text = given if isinstance(given, str) else json.dumps(given, default=str)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."
