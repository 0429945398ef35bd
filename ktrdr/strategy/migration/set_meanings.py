"""The indicators that the name of a fuzzy set can mean."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ktrdr.strategy.indicators import INDICATORS, IndicatorGrammar
from ktrdr.strategy.migration import names as known
from ktrdr.strategy.migration.aliases import squeezed
from ktrdr.strategy.migration.listing import table_type
from ktrdr.strategy.migration.names import first_in

_NUMBER = re.compile(r"(?<![A-Za-z0-9.])-?[0-9]{1,9}(?:\.[0-9]{1,9})?")
_NUMBERS_BEHIND = re.compile(r"(?:[_\s.]-?[0-9]{1,9})+$")


@dataclass(frozen=True)
class Known:
    """One indicator: its id, the grammar of its type where the table has it, its numbers."""

    key: str
    grammar: IndicatorGrammar | None
    numbers: list[float]


@dataclass
class Index:
    """The indicators of a strategy by all that a set's name may hold of them."""

    by_id: dict[str, Known] = field(default_factory=dict)
    by_word: dict[str, list[Known]] = field(default_factory=lambda: defaultdict(list))
    by_type: dict[str, list[Known]] = field(default_factory=lambda: defaultdict(list))
    by_column: dict[str, list[tuple[Known, str]]] = field(default_factory=lambda: defaultdict(list))


def index_of(indicators: Any) -> Index:
    """The index over the `indicators` of a file; what is no mapping of ids counts as none."""
    index = Index()
    for key, given in indicators.items() if isinstance(indicators, Mapping) else ():
        if not isinstance(key, str):
            continue
        given = given if isinstance(given, Mapping) else {}
        kind = table_type(given.get("type")) or ""
        one = Known(key, INDICATORS.get(kind), _numbers_of(given, INDICATORS.get(kind)))
        index.by_id[key] = one
        index.by_word[squeezed(key)].append(one)
        index.by_type[kind].append(one)
        for word, output in _columns(one.grammar):
            index.by_column[word].append((one, output))
    return index


def meanings(index: Index, name: str) -> list[str]:
    """The references that a name can mean, by the surest way of reading it that finds any."""
    for reading in (_by_id, _by_column, _by_type):
        found = list(dict.fromkeys(reading(index, name)))
        if found:
            return found
    return []


def _by_id(index: Index, name: str) -> Iterator[str]:
    """`rsi_14`, `bbands_20_2.upper`, without regard to case and punctuation."""
    if name in index.by_id:
        yield name
        return
    head, _, output = name.partition(".")
    alike = index.by_word.get(squeezed(name), [])
    yield from (one.key for one in alike)
    if not alike and output and not output[0].isdigit():
        for one in index.by_word.get(squeezed(head), []):
            yield f"{one.key}.{_output(one, output)}"


def _by_column(index: Index, name: str) -> Iterator[str]:
    """`DI_Plus_14`, `MACD_signal_12_26_9`: a column of an indicator with several outputs."""
    bare = _NUMBERS_BEHIND.sub("", name)
    for one, output in index.by_column.get(squeezed(bare), []):
        if _fit(name[len(bare) :], one):
            yield f"{one.key}.{output}"


def _by_type(index: Index, name: str) -> Iterator[str]:
    """`rsi`, `macd_12_26_9`, `bollingerbands_20_2.0`: a type, and maybe its numbers."""
    bare = _NUMBERS_BEHIND.sub("", name)
    for one in index.by_type.get(table_type(bare) or "-", []):
        if _fit(name[len(bare) :], one):
            yield one.key


def _fit(behind: str, one: Known) -> bool:
    """Whether the numbers in a name are the first of an indicator's."""
    numbers = [float(number) for number in _NUMBER.findall(behind.replace("_", " "))]
    return numbers == one.numbers[: len(numbers)]


def _output(one: Known, output: str) -> str:
    if one.grammar is None or output in one.grammar.outputs:
        return output
    choice = (output.lower(), squeezed(output), *known.OUTPUTS.get(squeezed(output), ()))
    return first_in(choice, one.grammar.outputs) or output


def _columns(grammar: IndicatorGrammar | None) -> Iterator[tuple[str, str]]:
    """The words that name one output of a type with several; the type's own name is none."""
    outputs = grammar.outputs if grammar and len(grammar.outputs) > 1 else ()
    for output in outputs:
        kind = grammar.type if grammar else ""
        aliases = {alias for alias, to in known.OUTPUTS.items() if output in to}
        for word in {squeezed(output), kind + squeezed(output), *aliases} - {kind}:
            yield word, output


def _numbers_of(given: Mapping[Any, Any], grammar: IndicatorGrammar | None) -> list[float]:
    """An indicator's parameters in the order of the table, defaults filled in."""
    values = list(given.values())
    if grammar is not None:
        values = [given.get(p.name, p.default) for p in grammar.parameters]
    return [float(v) for v in values if isinstance(v, int | float) and abs(v) < 1e15]
