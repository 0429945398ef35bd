"""Fuzzy sets and network inputs as older files have them: keyed by what they read, or unnamed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ktrdr.strategy.indicators import INDICATORS, IndicatorGrammar
from ktrdr.strategy.migration import names as known
from ktrdr.strategy.migration.comments import Path
from ktrdr.strategy.migration.document import mapping, sequence
from ktrdr.strategy.migration.draft import Draft
from ktrdr.strategy.migration.listing import fitting_id, table_type
from ktrdr.strategy.migration.names import first_in
from ktrdr.strategy.migration.timeframes import timeframe
from ktrdr.strategy.migration.words import respelt, squeezed

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
    for key in draft.keys(SETS):
        path = (*SETS, key)
        if not isinstance(draft.at(path), Mapping):
            continue
        _remove_transform(draft, path)
        _ungroup(draft, path)
        _refer(draft, path)
        for name in draft.keys(path):
            if name != "indicator":
                _rewrite_curve(draft, (*path, name))
        fitting = fitting_id(str(key))
        if fitting and fitting != key and not draft.has((*SETS, fitting)):
            draft.rename(path, fitting, "a set's name holds letters, digits, _ and -")
            renamed[str(key)] = fitting
    _rewrite_inputs(draft, renamed)


def _remove_transform(draft: Draft, path: Path) -> None:
    if draft.has((*path, "input_transform")):
        draft.remove(
            (*path, "input_transform"),
            "there is no such step: the memberships see the indicator's own values, so look at"
            " their numbers",
        )


def _ungroup(draft: Draft, path: Path) -> None:
    """Memberships below a key of their own stand beside `indicator`."""
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


def _refer(draft: Draft, path: Path) -> None:
    """Say which output the set reads, where its name or another key says it."""
    reference = draft.at((*path, "indicator"))
    output = draft.at((*path, "output"))
    if isinstance(reference, str):
        joined = f"{reference}.{output}" if isinstance(output, str) else reference
        if isinstance(output, str):
            draft.remove((*path, "output"), "the reference says it: <indicator>.<output>")
        found = next(_references(draft, joined), None) or joined
        if joined not in draft.keys(("indicators",)):
            draft.set((*path, "indicator"), found, "the grammar's name of that output")
    elif not draft.has((*path, "indicator")):
        _refer_by_name(draft, path)


def _refer_by_name(draft: Draft, path: Path) -> None:
    found = list(dict.fromkeys(_references(draft, str(path[-1]))))
    if len(found) == 1:
        draft.insert((*path, "indicator"), found[0], None, "a set names what it reads")
        return
    choice = found or [str(key) for key in draft.keys(("indicators",))]
    listed = ", ".join(key[:64] for key in choice[:12])
    draft.problem(
        (*path, "indicator"),
        f"{'several fit' if found else 'no indicator has'} the set's name: name the one that it"
        f" reads{f' ({listed})' if listed else ''}, or remove the set",
    )


def _references(draft: Draft, name: str) -> Iterator[str]:
    """What a set's name can mean, the surest way of reading it only."""
    ids = [key for key in draft.keys(("indicators",)) if isinstance(key, str)]
    for reading in (_by_id, _by_column, _by_type):
        found = list(reading(draft, name, ids))
        if found:
            yield from found
            return


def _by_id(draft: Draft, name: str, ids: list[str]) -> Iterator[str]:
    """`rsi_14`, `bbands_20_2.upper`, without regard to case and punctuation."""
    if name in ids:
        yield name
        return
    head, _, output = name.partition(".")
    for key in ids:
        if squeezed(key) == squeezed(name) or fitting_id(name) == key:
            yield key
        elif output and not output[0].isdigit() and squeezed(key) == squeezed(head):
            yield _with_output(draft, key, output)


def _by_column(draft: Draft, name: str, ids: list[str]) -> Iterator[str]:
    """`DI_Plus_14`, `MACD_signal_12_26_9`: a column of an indicator with several outputs."""
    word = squeezed(re.sub(r"[_.][0-9][0-9_.]*$", "", name))
    numbers = _numbers(name)
    for key in ids:
        grammar = INDICATORS.get(_type_of(draft, key) or "")
        if grammar is None or len(grammar.outputs) == 1 or word == grammar.type:
            continue
        if numbers and numbers != _numbers_of(draft, key)[: len(numbers)]:
            continue
        for output in grammar.outputs:
            if word in _column_words(grammar, output):
                yield f"{key}.{output}"


def _column_words(grammar: IndicatorGrammar, output: str) -> set[str]:
    aliases = {alias for alias, outputs in known.OUTPUTS.items() if output in outputs}
    return {squeezed(output), grammar.type + squeezed(output), *aliases}


def _by_type(draft: Draft, name: str, ids: list[str]) -> Iterator[str]:
    """`rsi`, `macd_12_26_9`, `bollingerbands_20_2.0`: a type, and maybe its numbers."""
    bare = re.sub(r"(?:[_\s]-?[0-9]+(?:\.[0-9]+)?)+$", "", name)
    kind, numbers = table_type(bare), _numbers(name[len(bare) :])
    if kind is None:
        return
    for key in ids:
        own = _numbers_of(draft, key)
        if _type_of(draft, key) == kind and numbers == own[: len(numbers)]:
            yield key


def _with_output(draft: Draft, key: str, output: str) -> str:
    grammar = INDICATORS.get(_type_of(draft, key) or "")
    if grammar is None or output in grammar.outputs:
        return f"{key}.{output}"
    choice = (output.lower(), squeezed(output), *known.OUTPUTS.get(squeezed(output), ()))
    found = first_in(choice, grammar.outputs)
    return f"{key}.{found or output}"


def _type_of(draft: Draft, key: str) -> str | None:
    return table_type(draft.at(("indicators", key, "type")))


def _numbers_of(draft: Draft, key: str) -> list[float]:
    """An indicator's parameters in the order of the table, defaults filled in."""
    grammar = INDICATORS.get(_type_of(draft, key) or "")
    given = draft.at(("indicators", key))
    if not isinstance(given, Mapping):
        return []
    values = list(given.values())
    if grammar is not None:
        values = [given.get(p.name, p.default) for p in grammar.parameters]
    return [float(v) for v in values if isinstance(v, int | float)]


def _numbers(text: str) -> list[float]:
    return [
        float(n)
        for n in re.findall(
            r"(?<![A-Za-z0-9.])-?[0-9]{1,9}(?:\.[0-9]{1,9})?", text.replace("_", " ")
        )
    ]


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


def _rewrite_inputs(draft: Draft, renamed: Mapping[str, str]) -> None:
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
        _rewrite_input(draft, path, renamed)


def _rewrite_input(draft: Draft, path: Path, renamed: Mapping[str, str]) -> None:
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
    if isinstance(raw, str) and raw not in draft.keys(("indicators",)):
        found = next(_references(draft, raw), raw)
        draft.set((*path, "raw_indicator"), found, "the grammar's name of that output")


def _rewrite_timeframes(draft: Draft, path: Path) -> None:
    wanted = draft.at(path)
    if isinstance(wanted, str) and wanted != "all":
        value = "all" if wanted.lower() == "all" else sequence([timeframe(wanted)])
        draft.set(path, value, "a list of timeframes, or all")
    for place, name in enumerate(wanted if isinstance(wanted, list) else ()):
        if isinstance(name, str):
            draft.set((*path, place), timeframe(name), "as the grammar writes it")
