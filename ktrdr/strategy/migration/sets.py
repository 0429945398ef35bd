"""Migration of fuzzy sets and network inputs."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from ktrdr.strategy.migration import names as known
from ktrdr.strategy.migration.aliases import respelt, squeezed
from ktrdr.strategy.migration.comments import Path
from ktrdr.strategy.migration.document import mapping, sequence
from ktrdr.strategy.migration.draft import Draft
from ktrdr.strategy.migration.listing import fitting_id
from ktrdr.strategy.migration.names import first_in
from ktrdr.strategy.migration.set_meanings import Index, index_of, meanings
from ktrdr.strategy.migration.timeframes import timeframe

SETS: Path = ("fuzzy_sets",)
INPUTS: Path = ("nn_inputs",)
_GROUPS = ("memberships", "membership_functions", "sets")
_INPUT_NAMES = {
    **dict.fromkeys(("fuzzy", "set", "name", "id"), "fuzzy_set"),
    **dict.fromkeys(("raw", "indicator"), "raw_indicator"),
    **dict.fromkeys(("timeframe", "tf", "timeframes"), "timeframes"),
    **dict.fromkeys(("normalize", "normalisation", "scaling", "scale"), "normalization"),
}


def rewrite_sets(draft: Draft) -> None:
    """Fuzzy sets that name their indicator's output, with curves of the grammar's shapes."""
    renamed: dict[str, str] = {}
    index = index_of(draft.at(("indicators",)))
    for key in draft.keys(SETS):
        path = (*SETS, key)
        if not isinstance(draft.at(path), Mapping):
            continue
        _remove_transform(draft, path)
        _ungroup(draft, path)
        _refer(draft, path, index)
        for name in draft.keys(path):
            if name != "indicator":
                _rewrite_curve(draft, (*path, name))
        fitting = fitting_id(str(key))
        if fitting and fitting != key and not draft.has((*SETS, fitting)):
            draft.rename(path, fitting, "a set's name holds letters, digits, _ and -")
            renamed[str(key)] = fitting
    _rewrite_inputs(draft, renamed, index)


def _remove_transform(draft: Draft, path: Path) -> None:
    if draft.has((*path, "input_transform")):
        draft.remove(
            (*path, "input_transform"),
            "there is no such step: the memberships see the indicator's own values, so look at"
            " their numbers",
        )


def _ungroup(draft: Draft, path: Path) -> None:
    """Move memberships below a key of their own to beside `indicator`."""
    if draft.has((*path, "order")):  # as `strategies show` writes them
        return
    for group in _GROUPS:
        inner = draft.at((*path, group))
        if isinstance(inner, Mapping) and not _is_curve(inner):
            for name in draft.keys((*path, group)):
                draft.move((*path, group, name), (*path, name), "memberships stand in the set")
            if not draft.at((*path, group)):
                draft.drop((*path, group))


def _is_curve(value: Any) -> bool:
    """Whether a mapping describes one membership; its own type may still be unknown here."""
    return isinstance(value, Mapping) and not {"type", "shape"}.isdisjoint(map(str, value))


def _refer(draft: Draft, path: Path, index: Index) -> None:
    """Say which output the set reads, where its name or another key says it."""
    reference = draft.at((*path, "indicator"))
    output = draft.at((*path, "output"))
    if isinstance(reference, str):
        joined = f"{reference}.{output}" if isinstance(output, str) else reference
        if isinstance(output, str):
            draft.remove((*path, "output"), "the reference says it: <indicator>.<output>")
        found = next(iter(meanings(index, joined)), joined)
        draft.set((*path, "indicator"), found, "the grammar's name of that output")
    elif not draft.has((*path, "indicator")):
        _refer_by_name(draft, path, index)


def _refer_by_name(draft: Draft, path: Path, index: Index) -> None:
    found = meanings(index, str(path[-1]))
    if len(found) == 1:
        draft.insert((*path, "indicator"), found[0], None, "a set names what it reads")
        return
    choice = list(islice(found or index.by_id, 12))
    listed = ", ".join(key[:64] for key in choice)
    draft.problem(
        (*path, "indicator"),
        f"{'several fit' if found else 'no indicator has'} the set's name: name the one that it"
        f" reads{f' ({listed})' if listed else ''}, or remove the set",
    )


def _rewrite_curve(draft: Draft, path: Path) -> None:
    """A membership's shape and numbers: `[a, b, c]` or `{type, parameters}`."""
    if not isinstance(draft.at(path), Mapping):
        return
    for key in draft.keys(path):
        word = respelt(key) if isinstance(key, str) else ""
        target = {"shape": "type", "kind": "type", "params": "parameters", "points": "parameters"}
        if word in target and not draft.has((*path, target[word])):
            draft.rename((*path, key), target[word], "the grammar's name for it")
    shape = draft.at((*path, "type"))
    fitting = known.SHAPES.get(squeezed(shape)) if isinstance(shape, str) else None
    if fitting is not None and fitting != shape:
        draft.set((*path, "type"), fitting, "the grammar's word for it")
    if fitting in known.SHAPE_PARAMETERS:
        _list_parameters(draft, path, known.SHAPE_PARAMETERS[fitting])


def _list_parameters(draft: Draft, path: Path, names: tuple[tuple[str, ...], ...]) -> None:
    """Parameters by name, below `parameters` or beside the type, as the list that they are."""
    below = (*path, "parameters")
    named = draft.at(below) if draft.has(below) else draft.at(path)
    if not isinstance(named, Mapping):
        return
    keys = [first_in(choice, map(str, named)) for choice in names]
    if not all(keys):
        return
    values = sequence([named[key] for key in keys])
    if not draft.has(below):
        for key in keys:
            draft.drop((*path, key or ""))
    draft.set(below, values, "in the order " + ", ".join(choice[0] for choice in names))


def _rewrite_inputs(draft: Draft, renamed: Mapping[str, str], index: Index) -> None:
    """Inputs by their names; where a file has none, every fuzzy set is one, as it was then."""
    if not draft.has(INPUTS) and draft.keys(SETS):
        made = [mapping({"fuzzy_set": key, "timeframes": "all"}) for key in draft.keys(SETS)]
        draft.insert(
            INPUTS, sequence(made, flow=False), "fuzzy_sets", "every fuzzy set was an input"
        )
    items = draft.at(INPUTS)
    for place, item in enumerate(items if isinstance(items, list) else ()):
        path = (*INPUTS, place)
        if isinstance(item, str):
            made_one = mapping({"fuzzy_set": item, "timeframes": "all"}, flow=True)
            draft.set(path, made_one, "an input is a mapping")
        _rewrite_input(draft, path, renamed, index)


def _rewrite_input(draft: Draft, path: Path, renamed: Mapping[str, str], index: Index) -> None:
    for key in draft.keys(path):
        target = _INPUT_NAMES.get(respelt(key)) if isinstance(key, str) else None
        if target not in (None, key) and not draft.has((*path, target or "")):
            draft.rename((*path, key), str(target), "the grammar's name for it")
    name = draft.at((*path, "fuzzy_set"))
    if isinstance(name, str) and name in renamed:
        draft.set((*path, "fuzzy_set"), renamed[name], "the set has this name now")
    _rewrite_timeframes(draft, (*path, "timeframes"))
    scale = draft.at((*path, "normalization"))
    fitting = known.NORMALIZATIONS.get(squeezed(scale)) if isinstance(scale, str) else None
    if fitting is not None:
        draft.set((*path, "normalization"), fitting, "the grammar's word for it")
    raw = draft.at((*path, "raw_indicator"))
    if isinstance(raw, str):
        found = next(iter(meanings(index, raw)), raw)
        draft.set((*path, "raw_indicator"), found, "the grammar's name of that output")


def _rewrite_timeframes(draft: Draft, path: Path) -> None:
    wanted = draft.at(path)
    if isinstance(wanted, str) and wanted != "all":
        value = "all" if wanted.lower() == "all" else sequence([timeframe(wanted)])
        draft.set(path, value, "a list of timeframes, or all")
    for place, name in enumerate(wanted if isinstance(wanted, list) else ()):
        if isinstance(name, str):
            draft.set((*path, place), timeframe(name), "as the grammar writes it")
