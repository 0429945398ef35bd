"""A YAML document that is edited in place: ruamel's round trip."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.anchor import Anchor
from ruamel.yaml.comments import Comment, CommentedMap, CommentedSeq

from ktrdr.errors import InvalidStrategy
from ktrdr.strategy.migration.comments import Notes, Place, find_places, read_notes, with_notes

_WIDEST = 1 << 20  # never fold a line that was not folded


@dataclass(frozen=True)
class Indentation:
    """Columns from a key to the key below it, to an item's dash, and from there to its words."""

    mapping: int = 2
    dash: int = 0
    item: int = 2


@dataclass
class Document:
    """A file's content without its comments, which are beside it."""

    root: CommentedMap
    notes: Notes
    indentation: Indentation

    def text(self) -> str:
        """The document as YAML, ending in a newline."""
        return with_notes(_dumped(self.root, self.indentation), self.notes)


def read_document(text: str, origin: str) -> Document:
    """Read a text that plain YAML has accepted already.

    Aliases and merged keys are written out, so that a change of one place is a change of one only.

    Raises InvalidStrategy where it cannot be written again as it was.
    """
    try:
        root = _yaml(Indentation()).load(text)
        places = find_places(text)
        notes = read_notes(text, places)
        return Document(_plain(root, set()), notes, _indentation(places))
    except (
        Exception
    ) as error:  # ruamel promises no set of exceptions for YAML that only others read
        reason = str(error).splitlines() or [type(error).__name__]
        raise InvalidStrategy(
            f"{origin}: cannot be rewritten: {reason[0][:200]}; write it in plain YAML"
        ) from None


def mapping(pairs: dict[Any, Any] | None = None, flow: bool = False) -> CommentedMap:
    """A new mapping of the document, in block style unless `flow`."""
    made = CommentedMap(pairs or {})
    if flow:
        made.fa.set_flow_style()
    return made


def sequence(items: list[Any], flow: bool = True) -> CommentedSeq:
    made = CommentedSeq(items)
    if flow:
        made.fa.set_flow_style()
    return made


def like(old: Any, new: Any) -> Any:
    """A new text in the quotes of the old one."""
    return type(old)(new) if isinstance(old, str) and isinstance(new, str) else new


def plain(value: Any) -> Any:
    """The same as plain JSON values, to be shown."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return None if value is None else str(value)


def _yaml(indentation: Indentation) -> YAML:
    made = YAML()
    made.preserve_quotes = True
    made.width = _WIDEST
    made.indent(
        mapping=indentation.mapping,
        sequence=indentation.dash + indentation.item,
        offset=indentation.dash,
    )
    return made


def _dumped(root: CommentedMap, indentation: Indentation) -> str:
    stream = io.StringIO()
    _yaml(indentation).dump(root, stream)
    return stream.getvalue()


def _plain(node: Any, seen: set[int]) -> Any:
    """A node without ruamel's own comments, anchors and merged keys; what is shared, copied."""
    if isinstance(node, CommentedMap) and node.merge:
        node = CommentedMap(dict(node.items()))
    if isinstance(node, CommentedMap | CommentedSeq):
        if id(node) in seen:
            node = copy.deepcopy(node)
        seen.add(id(node))
        for place, inner in list(node.items() if isinstance(node, dict) else enumerate(node)):
            node[place] = _plain(inner, seen)
    for attribute in (Comment.attrib, Anchor.attrib, "comment"):
        if hasattr(node, attribute):
            delattr(node, attribute)
    return node


def _indentation(places: list[Place]) -> Indentation:
    """As the first nested mapping and the first block list of the text have it."""
    mappings = (_step(p) for p in places if p.key and isinstance(p.value, yaml.MappingNode))
    lists = (_step(p) for p in places if p.key and isinstance(p.value, yaml.SequenceNode))
    items = (_step(p) for p in places if p.key is None)
    nested, dash = _first(mappings, 2), _first(lists, 0)
    return Indentation(nested, dash, max(2, _first(items, 2)))


def _step(place: Place) -> int | None:
    """Columns from a key or dash to what is in it; None where that has no lines of its own."""
    holds = place.holds_places or place.key is None
    return place.value.start_mark.column - place.column if holds else None


def _first(steps: Iterable[int | None], otherwise: int) -> int:
    return next((step for step in steps if step is not None and step >= 0), otherwise)
