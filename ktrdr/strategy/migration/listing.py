"""Migration of indicators: lists, other type names, other parameter names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ktrdr.strategy.indicators import INDICATORS, IndicatorGrammar, canonical_type
from ktrdr.strategy.migration import names as known
from ktrdr.strategy.migration.aliases import respelt, squeezed
from ktrdr.strategy.migration.comments import Path
from ktrdr.strategy.migration.document import mapping, plain
from ktrdr.strategy.migration.draft import Draft
from ktrdr.strategy.migration.names import first_in

INDICATORS_AT: Path = ("indicators",)
_NAME_KEYS = ("type", "name", "indicator")
_ID_KEYS = ("feature_id", "id")
_LONGEST_ID = 64


def rewrite_indicators(draft: Draft) -> None:
    """Indicators by id, with the grammar's types and parameter names."""
    if isinstance(draft.at(INDICATORS_AT), list):
        _list_to_mapping(draft)
    for key in draft.keys(INDICATORS_AT):
        path = (*INDICATORS_AT, key)
        if isinstance(draft.at(path), str):
            made = mapping({"type": draft.at(path)}, flow=True)
            draft.set(path, made, "an indicator is a mapping")
        if isinstance(draft.at(path), Mapping):
            _rewrite_type(draft, path)
            _rewrite_parameters(draft, path)
            _rewrite_source(draft, path)
    _remove_context(draft)


def table_type(name: Any) -> str | None:
    """The grammar's name of an indicator type, also for those that older files call otherwise."""
    if not isinstance(name, str):
        return None
    word = squeezed(name)
    return canonical_type(name) or canonical_type(word) or known.INDICATOR_TYPES.get(word)


def fitting_id(name: str) -> str:
    """A name as ids and file names of the grammar allow it."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_-")[:_LONGEST_ID]


def _list_to_mapping(draft: Draft) -> None:
    """Each item under its `feature_id`, or under its type and numbers where it has none."""
    items = draft.at(INDICATORS_AT)
    made = mapping()
    for number, item in enumerate(items):
        path = (*INDICATORS_AT, number)
        if not isinstance(item, Mapping | str):
            draft.problem(path, "an indicator is a mapping with a type: write one")
            continue
        for key, value in _named(item, made):
            made[key] = value
            draft.carry_notes(path, (*INDICATORS_AT, key), item)
            for old in _NAME_KEYS:
                draft.carry_notes((*INDICATORS_AT, key, old), (*INDICATORS_AT, key, "type"), None)
    draft.set(INDICATORS_AT, made, "each has an id, which fuzzy sets name")


def _named(item: Any, taken: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The ids and values of one item; a list of periods is one indicator for each."""
    if isinstance(item, str):
        item = {"type": item}
    name_key = first_in(_NAME_KEYS, item)
    pairs = {"type": item[name_key]} if name_key else {}
    pairs |= {k: v for k, v in item.items() if k not in (name_key, *_ID_KEYS)}
    periods = item.get("periods")
    variants = periods if isinstance(periods, list) and periods else [None]
    for period in variants:
        own = dict(pairs)
        if period is not None:
            own = {("period" if k == "periods" else k): v for k, v in own.items()}
            own["period"] = period
        wanted = _id_of(item) if len(variants) == 1 else None
        key = fitting_id(wanted or _made_id(own)) or "indicator"
        yield _free(key, taken), mapping(own)


def _id_of(item: Any) -> str | None:
    key = first_in(_ID_KEYS, item) if isinstance(item, Mapping) else None
    return str(item[key]) if key and isinstance(item[key], str | int) else None


def _made_id(pairs: Mapping[str, Any]) -> str:
    """`macd_12_26_9`: the type and its numbers, in the order of the table where it has the type."""
    grammar = INDICATORS.get(table_type(pairs.get("type")) or "")
    order = [p.name for p in grammar.parameters] if grammar else []

    def place(key: str) -> int:
        name = first_in(_parameter_names(key), order)
        return order.index(name) if name else len(order)

    numbers = [plain(pairs[k]) for k in sorted(pairs, key=lambda k: place(str(k)))]
    shown = [f"{n:g}" for n in numbers if isinstance(n, int | float) and abs(n) < 1e9]
    return "_".join([respelt(str(pairs.get("type", "indicator"))), *shown])


def _parameter_names(key: str) -> tuple[str, ...]:
    """The names that a parameter may have in the grammar, as it is written first."""
    word = respelt(key)
    return (word, *known.PARAMETERS.get(word, ()))


def _free(key: str, taken: Mapping[str, Any]) -> str:
    number = 2
    free = key
    while free in taken:
        free = f"{key[: _LONGEST_ID - 8]}_{number}"
        number += 1
    return free


def _rewrite_type(draft: Draft, path: Path) -> None:
    name_key = first_in(_NAME_KEYS, draft.keys(path))
    if name_key not in (None, "type"):
        draft.rename((*path, str(name_key)), "type", "the grammar's name for it")
    for key in _ID_KEYS:
        if draft.has((*path, key)):
            draft.remove((*path, key), f"its id is {path[-1]}")
    name = draft.at((*path, "type"))
    if isinstance(name, str) and canonical_type(name) is None:
        fitting = table_type(name)
        if fitting is not None and fitting != name.lower():
            draft.set((*path, "type"), fitting, "the grammar's name of that indicator")


def _rewrite_parameters(draft: Draft, path: Path) -> None:
    for nested in ("params", "parameters"):
        for key in draft.keys((*path, nested)):
            target = (*path, key)
            draft.move((*path, nested, key), target, "parameters stand beside the type")
        if draft.has((*path, nested)) and draft.at((*path, nested)) in ({}, None):
            draft.drop((*path, nested))
    grammar = INDICATORS.get(table_type(draft.at((*path, "type"))) or "")
    if grammar is None:
        return
    names = {parameter.name for parameter in grammar.parameters}
    for key in draft.keys(path):
        if isinstance(key, str) and key not in names | {"type", "source", "data_source"}:
            _rewrite_parameter(draft, (*path, key), names, grammar)


def _rewrite_parameter(
    draft: Draft, path: Path, names: set[str], grammar: IndicatorGrammar
) -> None:
    word = respelt(str(path[-1]))
    target = first_in(_parameter_names(word), names)
    if target is not None:
        value = draft.at(path)
        draft.rename(path, target, f"the name that {grammar.type} has for it")
        twin = target.replace("bb_period", "kc_period")  # a squeeze has two channels
        if twin in names - {target} and not draft.has((*path[:-1], twin)):
            draft.set((*path[:-1], twin), value, f"{path[-1]} meant both channels")
    elif word.endswith("_source") or (word == "period" and not _has_period(names)):
        draft.remove(path, f"{grammar.type} is computed from the bars and has no such parameter")


def _has_period(names: set[str]) -> bool:
    return any(name.endswith("period") for name in names)


def _rewrite_source(draft: Draft, path: Path) -> None:
    other = (*path, "data_source")
    value = draft.at(other)
    of_ours = isinstance(value, str) and value.partition(".")[0] in draft.keys(INDICATORS_AT)
    if of_ours or (isinstance(value, str) and value.lower() in known.PRICES):
        draft.move(other, (*path, "source"), "the series that it is computed from has this name")
    elif draft.has(other):
        draft.problem(
            other,
            f"{str(value)[:64]!r} is no series of the strategy's own bars, and no other data is"
            " read: remove this indicator and the fuzzy sets over it",
        )
    source = draft.at((*path, "source"))
    grammar = INDICATORS.get(table_type(draft.at((*path, "type"))) or "")
    if isinstance(source, str) and source.lower() in known.PRICES and grammar is not None:
        if not grammar.takes_source:
            draft.remove((*path, "source"), f"{grammar.type} takes no single series")
        else:
            draft.set((*path, "source"), source.lower(), "as the grammar writes it")


def _remove_context(draft: Draft) -> None:
    """External series: harmless where no indicator reads them."""
    for key in ("context_data", "external_data"):
        if draft.has((key,)):
            used = [d for d in draft.problems if d[0].endswith(".data_source")]
            why = "no other data than bars is read"
            draft.remove((key,), why if used else f"{why}, and no indicator asks for it")
