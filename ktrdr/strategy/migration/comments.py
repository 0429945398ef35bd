"""The comments and blank lines of a YAML text, by the path of the key or item they stand before.

They are read from the text and set into another text, so that a key may be renamed, moved or
removed in between: whoever changes paths changes the keys of this mapping with them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

Path = tuple[str | int, ...]

_AFTER_KEY = re.compile(r"\s*:(?:\s+[&!][^\s,]+)*\s+(#.*)$")
_AFTER_BLOCK = re.compile(r"[|>][+\-0-9]*\s+(#.*)$")
_AFTER_VALUE = re.compile(r"\s*(#.*)$")
_ALONE = re.compile(r"\s*(#.*)$")
_INNER = re.compile(r"(?:^|\s)(#.*)$")


@dataclass
class Note:
    """What stands around one key or item: whole lines before it, a comment behind it."""

    before: list[str] = field(default_factory=list)
    """Lines with the indentation that they had below their key; blank ones are empty."""
    behind: str = ""
    column: int = 0


Notes = dict[Path, Note]
TAIL: Path = ("", "")  # no path of a document ends in an empty key below an empty one


@dataclass(frozen=True)
class Place:
    """One key or item of block style: where it starts and where its own words end."""

    path: Path
    line: int
    column: int
    key: yaml.Node | None
    value: yaml.Node

    @property
    def holds_places(self) -> bool:
        return isinstance(self.value, yaml.CollectionNode) and not self.value.flow_style

    @property
    def is_folded(self) -> bool:
        """Whether the value is text in lines of its own, below a `|` or `>`."""
        return isinstance(self.value, yaml.ScalarNode) and self.value.style in ("|", ">")

    def last_line(self, lines: list[str]) -> int:
        """The last line of its value where that is no block collection; else the key's own."""
        if self.holds_places:
            return self.key.end_mark.line if self.key else self.line
        end = min(self.value.end_mark.line, len(lines) - 1)
        if self.is_folded:
            end = min(self.value.end_mark.line, len(lines)) - 1
            while end > self.line and not lines[end].strip():
                end -= 1
        return max(self.line, end)


def find_places(text: str) -> list[Place]:
    """Every key and item of block style, in the order of the text; an aliased part only once."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    return list(_places(root, (), set())) if root is not None else []


def read_notes(text: str, places: list[Place]) -> Notes:
    """The comments and blank lines of a valid YAML text."""
    lines = _lines(text)
    notes: Notes = {}
    done = 0
    for place in places:
        note = Note()
        if place.line >= done:
            note.before = [_indented(line, place.column) for line in _loose(lines, done, place)]
        end = place.last_line(lines)
        note.before += _within(lines, place, end)
        if end < len(lines) and (found := _behind(lines, place)):
            note.behind, note.column = found
        if note.before or note.behind:
            notes.setdefault(place.path, note)
        done = max(done, end + 1)
    tail = [line for line in lines[done:] if not line.strip() or line.lstrip().startswith("#")]
    if any(tail):
        notes[TAIL] = Note(before=[line.rstrip() for line in tail])
    return notes


def with_notes(text: str, notes: Notes) -> str:
    """A text without comments, with them set in by path."""
    lines = _lines(text)
    before: dict[int, list[str]] = {}
    for place in find_places(text):
        note = notes.get(place.path)
        if note is None:
            continue
        margin = " " * place.column
        before.setdefault(place.line, []).extend(
            (margin + line).rstrip() if line else "" for line in note.before
        )
        if note.behind:
            end = _line_for_behind(lines, place)
            lines[end] = f"{lines[end]}  ".ljust(note.column) + note.behind
    written = [line for i, own in enumerate(lines) for line in (*before.get(i, ()), own)]
    return "\n".join([*written, *notes.get(TAIL, Note()).before]) + "\n"


def _lines(text: str) -> list[str]:
    """The lines as YAML counts them."""
    return re.split("\r\n|[\n\r\x85\u2028\u2029]", text.removesuffix("\n").removesuffix("\r"))


def _places(node: yaml.Node, path: Path, seen: set[int]) -> Iterator[Place]:
    if id(node) in seen or not isinstance(node, yaml.CollectionNode) or node.flow_style:
        return
    seen.add(id(node))
    column = node.start_mark.column
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*path, str(key.value) if isinstance(key, yaml.ScalarNode) else "")
            start = key.start_mark
            yield Place(inner, start.line, start.column, key, value)
            yield from _places(value, inner, seen)
    else:
        for number, value in enumerate(node.value):
            inner = (*path, number)
            yield Place(inner, value.start_mark.line, column, None, value)
            yield from _places(value, inner, seen)


def _loose(lines: list[str], done: int, place: Place) -> list[str]:
    """The lines before a place that hold nothing but comments and blanks."""
    found = [line.rstrip() for line in lines[done : place.line]]
    return [line for line in found if not line or line.lstrip().startswith("#")]


def _indented(line: str, column: int) -> str:
    """A line with only the indentation that goes beyond its key's."""
    bare = line.lstrip()
    return " " * max(0, len(line) - len(bare) - column) + bare


def _within(lines: list[str], place: Place, end: int) -> list[str]:
    """Comments between a key and the end of its value: they will stand before the key.

    What looks like a comment inside the lines of a scalar is text.
    """
    start = place.value.start_mark.line
    found: list[re.Match[str] | None] = []
    if place.key and start > place.line and not place.holds_places:
        found.append(_AFTER_KEY.match(lines[place.line], place.key.end_mark.column))
        found += [_ALONE.match(line) for line in lines[place.line + 1 : start]]
    if isinstance(place.value, yaml.CollectionNode):
        found += [_INNER.search(line) for line in lines[start:end]]
    return [match[1].rstrip() for match in found if match]


def _behind(lines: list[str], place: Place) -> tuple[str, int] | None:
    value = place.value
    if place.holds_places:
        line = place.line
        end = place.key.end_mark.column if place.key else len(lines[line])
        match = _AFTER_KEY.match(lines[line], end)
    elif place.is_folded:
        line = value.start_mark.line
        match = _AFTER_BLOCK.match(lines[line], value.start_mark.column)
    else:
        line = place.last_line(lines)
        match = _AFTER_VALUE.match(lines[line], value.end_mark.column)
    return (match[1].rstrip(), match.start(1)) if match else None


def _line_for_behind(lines: list[str], place: Place) -> int:
    """The line that can bear a comment at its end."""
    if place.is_folded:
        return place.value.start_mark.line
    return place.last_line(lines)
