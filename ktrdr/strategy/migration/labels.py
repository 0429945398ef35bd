"""Migration of label settings to the names that each source has."""

from __future__ import annotations

from collections.abc import Mapping

from ktrdr.strategy.migration import aliases
from ktrdr.strategy.migration.aliases import (
    LABEL_KEYS,
    LABEL_NAMES,
    LABEL_SOURCES,
    respelt,
    squeezed,
)
from ktrdr.strategy.migration.comments import Path
from ktrdr.strategy.migration.document import mapping
from ktrdr.strategy.migration.draft import Draft

LABELS: Path = ("training", "labels")


def rewrite_labels(draft: Draft) -> None:
    """The source of the labels, and its parameters by their names."""
    if isinstance(draft.at(LABELS), str):
        source = draft.at(LABELS)
        draft.set(LABELS, mapping({"source": source}, flow=True), "labels are a mapping")
    if not isinstance(draft.at(LABELS), Mapping):
        return
    _name_source(draft)
    _flatten(draft)
    _infer_source(draft)
    for key in draft.keys(LABELS):
        if isinstance(key, str) and key != "source":
            _rewrite_key(draft, key)


def _name_source(draft: Draft) -> None:
    path = (*LABELS, "source")
    for key in draft.keys(LABELS):
        if isinstance(key, str) and respelt(key) in aliases.LABEL_SOURCE_KEYS | {"source"}:
            value = draft.at((*LABELS, key))
            if key != "source" and isinstance(value, str) and squeezed(value) in LABEL_SOURCES:
                draft.rename((*LABELS, key), "source", "the grammar's name for it")
    source = draft.at(path)
    if isinstance(source, str) and source not in LABEL_KEYS:
        fitting = LABEL_SOURCES.get(squeezed(source))
        if fitting is not None:
            draft.set(path, fitting, "the grammar's word for it")


def _flatten(draft: Draft) -> None:
    """`zigzag: {threshold: 0.02}` below labels: its keys are those of the labels."""
    for key in draft.keys(LABELS):
        inner = (*LABELS, key)
        source = LABEL_SOURCES.get(squeezed(key)) if isinstance(key, str) else None
        nested = "parameters" if key in ("parameters", "params") else source
        if nested is None or not isinstance(draft.at(inner), Mapping):
            continue
        if source is not None and not draft.has((*LABELS, "source")):
            draft.set((*LABELS, "source"), source, f"{key} is a source of labels")
        if source not in (None, draft.at((*LABELS, "source"))):
            draft.remove(inner, f"the labels' source is {draft.at((*LABELS, 'source'))}")
            continue
        for parameter in draft.keys(inner):
            target = (*LABELS, parameter)
            draft.move((*inner, parameter), target, "a parameter stands beside its source")
        if not draft.at(inner):
            draft.drop(inner)


def _infer_source(draft: Draft) -> None:
    """Labels without a source are zigzag labels, unless their keys are another source's alone."""
    if draft.has((*LABELS, "source")):
        return
    given = {respelt(key) for key in draft.keys(LABELS) if isinstance(key, str)}
    fitting = [
        source
        for source, known in LABEL_KEYS.items()
        if given & (known | set(LABEL_NAMES[source])) and source != "zigzag"
    ]
    if len(fitting) == 1 and not given & LABEL_KEYS["zigzag"]:
        draft.set((*LABELS, "source"), fitting[0], "its parameters are given")


def _rewrite_key(draft: Draft, key: str) -> None:
    path = (*LABELS, key)
    source = draft.at((*LABELS, "source")) or "zigzag"
    known = LABEL_KEYS.get(source) if isinstance(source, str) else None
    if known is None or key in known or not draft.has(path):
        return
    word = respelt(key)
    target = word if word in known else LABEL_NAMES[source].get(word)
    if target is not None:
        draft.rename(path, target, f"the name that {source} labels have for it")
    elif word in aliases.LABEL_IGNORED:
        draft.remove(path, aliases.LABEL_IGNORED[word])
    elif any(word in other or word in LABEL_NAMES[name] for name, other in LABEL_KEYS.items()):
        draft.remove(path, f"{source} labels have no such parameter")
