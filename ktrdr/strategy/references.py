"""What must fit together inside a strategy: set -> indicator output, input -> set, and whatever
only one of the output formats can use."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ktrdr.strategy.indicators import (
    INDICATORS,
    PRICE_SERIES,
    IndicatorGrammar,
    canonical_type,
)

Problem = tuple[str, str]  # path, message

# Of the keys whose values depend on decisions.output_format: the values that each format can use.
_USABLE: dict[str, dict[str, tuple[str, ...]]] = {
    "classification": {
        "training.loss": ("cross_entropy", "focal"),
        "training.labels.source": ("zigzag", "triple_barrier", "context", "regime"),
        "training.early_stopping.monitor": ("val_loss", "val_accuracy"),
    },
    "regression": {
        "training.loss": ("huber", "mse"),
        "training.labels.source": ("forward_return",),
        "training.early_stopping.monitor": ("val_loss",),
    },
}
_UNLESS_GIVEN = {"training.labels.source": "zigzag"}


def reference_problems(data: Mapping[str, Any]) -> list[Problem]:
    """Every name that leads nowhere, and every value that is of use to the other output format
    only. Parts of another shape are passed over: they are reported as what they are by the
    schema."""
    indicators = _mapping(data.get("indicators"))
    fuzzy_sets = _mapping(data.get("fuzzy_sets"))
    problems = list(_source_problems(indicators))
    problems += _indicator_problems(indicators, fuzzy_sets)
    problems += _input_problems(data, indicators, fuzzy_sets)
    problems += _format_problems(data)
    problems += _rule_problems(data, fuzzy_sets)
    return problems


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean X?`, or the choices where nothing is near."""
    known = [str(k) for k in known]
    close = difflib.get_close_matches(str(name)[:64], known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; known: {', '.join(known[:12])}" if known else ""


def _source_problems(indicators: Mapping[str, Any]) -> Iterator[Problem]:
    """Of the indicators among themselves: ids that read like a price, sources that lead nowhere
    or in a circle."""
    sources = {indicator_id: _source(part) for indicator_id, part in indicators.items()}
    for indicator_id, source in sources.items():
        if indicator_id in PRICE_SERIES:
            yield (
                f"indicators.{indicator_id}",
                f"{indicator_id} is the name of a price series; give the indicator another id",
            )
        if source is not None and source not in PRICE_SERIES:
            key = "source" if "source" in indicators[indicator_id] else "data_source"
            path = f"indicators.{indicator_id}.{key}"
            message = _reference_problem(source, indicators, PRICE_SERIES)
            if message:
                yield path, message
            elif _leads_back(indicator_id, sources):
                yield path, f"{indicator_id} is computed from itself by way of {source[:64]}"


def _leads_back(indicator_id: str, sources: Mapping[str, str | None]) -> bool:
    at, steps = indicator_id, 0
    while (source := sources.get(at)) is not None and steps <= len(sources):
        at, steps = source.partition(".")[0], steps + 1
        if at == indicator_id:
            return True
    return False


def _indicator_problems(
    indicators: Mapping[str, Any], fuzzy_sets: Mapping[str, Any]
) -> Iterator[Problem]:
    for set_id, fuzzy_set in fuzzy_sets.items():
        reference = _mapping(fuzzy_set).get("indicator")
        if isinstance(reference, str):
            message = _reference_problem(reference, indicators)
            if message:
                yield f"fuzzy_sets.{set_id}.indicator", message


def _reference_problem(
    reference: str, indicators: Mapping[str, Any], also: Iterable[str] = ()
) -> str | None:
    """What is wrong with `id` or `id.output`, or None."""
    indicator_id, dot, output = reference.partition(".")
    if indicator_id not in indicators:
        known = [*indicators, *also]
        return f"no indicator {indicator_id[:64]!r}{nearest(indicator_id, known)}"
    outputs = _outputs(indicators[indicator_id])
    if dot and outputs is not None and output not in outputs:
        return f"{indicator_id} has no output {output[:64]!r}{nearest(output, outputs)}"
    return None


def _input_problems(
    data: Mapping[str, Any], indicators: Mapping[str, Any], fuzzy_sets: Mapping[str, Any]
) -> Iterator[Problem]:
    timeframes, seen = _timeframes(data), set[tuple[str, str]]()
    inputs = data.get("nn_inputs")
    for place, item in enumerate(inputs if isinstance(inputs, list | tuple) else ()):
        path, item = f"nn_inputs.{place}", _mapping(item)
        set_id, raw = item.get("fuzzy_set"), item.get("raw_indicator")
        if isinstance(set_id, str) and set_id not in fuzzy_sets:
            yield f"{path}.fuzzy_set", f"no fuzzy set {set_id[:64]!r}{nearest(set_id, fuzzy_sets)}"
        if isinstance(raw, str):
            message = _reference_problem(raw, indicators)
            if message:
                yield f"{path}.raw_indicator", message
        wanted = item.get("timeframes", "all")
        listed = wanted if isinstance(wanted, list | tuple) else timeframes
        for timeframe in listed:
            if timeframes and timeframe not in timeframes:
                yield (
                    f"{path}.timeframes",
                    f"{str(timeframe)[:20]} is not among the strategy's timeframes"
                    f" ({', '.join(name[:20] for name in timeframes[:12])}): name one of them, or"
                    " say all",
                )
        shown = _shown(set_id or raw, listed)
        if len(set(shown)) < len(shown) or seen.intersection(shown):
            yield path, f"{shown[0][0][:64]} is an input of that timeframe already"
        seen.update(shown)


def _shown(name: Any, timeframes: Iterable[Any]) -> list[tuple[str, str]]:
    return [(name, str(timeframe)) for timeframe in timeframes] if isinstance(name, str) else []


def _format_problems(data: Mapping[str, Any]) -> Iterator[Problem]:
    wanted = _mapping(data.get("decisions")).get("output_format", "classification")
    other = {"classification": "regression", "regression": "classification"}.get(str(wanted))
    if other is None:
        return
    for path, usable in _USABLE[str(wanted)].items():
        value = _value_at(data, path)
        if value in _USABLE[other][path] and value not in usable:
            yield (
                path,
                f"{value} is for {other}, but decisions.output_format is {wanted}: "
                f"say {_either(usable)} here, or {other} there",
            )


def _either(words: tuple[str, ...]) -> str:
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _rule_problems(data: Mapping[str, Any], fuzzy_sets: Mapping[str, Any]) -> Iterator[Problem]:
    """What leaves a neuro_fuzzy without two rules: a rule is one membership of each fuzzy input."""
    inputs = data.get("nn_inputs")
    if _mapping(data.get("model")).get("type") != "neuro_fuzzy" or not isinstance(inputs, list):
        return
    named = [_mapping(item).get("fuzzy_set") for item in inputs]
    used = [_mapping(fuzzy_sets.get(name)) for name in named if isinstance(name, str)]
    if inputs and not used:
        yield (
            "nn_inputs",
            "a neuro_fuzzy makes its rules of fuzzy sets: name one as {fuzzy_set: <id>}, "
            "or choose another model.type",
        )
    elif used and all(map(_has_one_membership, used)):
        yield (
            "nn_inputs",
            "a neuro_fuzzy needs two rules: give one of its fuzzy sets a second membership, "
            "or choose another model.type",
        )


def _has_one_membership(fuzzy_set: Mapping[str, Any]) -> bool:
    written_out = {"memberships", "order"} <= fuzzy_set.keys()
    curves = _mapping(fuzzy_set.get("memberships")) if written_out else fuzzy_set
    return fuzzy_set.get("auto") is None and len(curves.keys() - {"indicator", "auto"}) == 1


def _value_at(data: Mapping[str, Any], path: str) -> Any:
    *steps, key = path.split(".")
    part: Any = data
    for step in steps:
        part = _mapping(_mapping(part).get(step))
    return part.get(key, _UNLESS_GIVEN.get(path))


def _source(indicator: Any) -> str | None:
    """The source that an indicator names, where its type takes one."""
    part = _mapping(indicator)
    grammar = _grammar(part)
    source = part.get("source", part.get("data_source"))
    return source if grammar and grammar.takes_source and isinstance(source, str) else None


def _outputs(indicator: Any) -> tuple[str, ...] | None:
    grammar = _grammar(_mapping(indicator))
    return grammar.outputs if grammar else None


def _grammar(indicator: Mapping[str, Any]) -> IndicatorGrammar | None:
    name = indicator.get("type")
    kind = canonical_type(name) if isinstance(name, str) else None
    return INDICATORS[kind] if kind else None


def _timeframes(data: Mapping[str, Any]) -> list[str]:
    """Those of the strategy, as far as they can be read."""
    part = _mapping(_mapping(data.get("training_data")).get("timeframes"))
    listed = part.get("list", [part.get("timeframe")])
    listed = listed if isinstance(listed, list | tuple) else []
    return list(dict.fromkeys(name for name in listed if isinstance(name, str)))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
