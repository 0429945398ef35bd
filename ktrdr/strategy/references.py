"""What must fit together inside a strategy: set -> indicator output, input -> set, and whatever
only one of the output formats can use."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ktrdr.strategy.indicators import INDICATORS, canonical_type

Problem = tuple[str, str]  # path, message

# Of the keys whose values depend on decisions.output_format: the values that each format can use.
_USABLE: dict[str, dict[str, tuple[str, ...]]] = {
    "classification": {
        "training.loss": ("cross_entropy", "focal"),
        "training.labels.source": ("zigzag", "triple_barrier"),
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
    problems = list(_indicator_problems(indicators, fuzzy_sets))
    problems += _input_problems(fuzzy_sets, data.get("nn_inputs"), _timeframe(data))
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


def _indicator_problems(
    indicators: Mapping[str, Any], fuzzy_sets: Mapping[str, Any]
) -> Iterator[Problem]:
    for set_id, fuzzy_set in fuzzy_sets.items():
        reference = _mapping(fuzzy_set).get("indicator")
        if not isinstance(reference, str):
            continue
        path = f"fuzzy_sets.{set_id}.indicator"
        indicator_id, _, output = reference.partition(".")
        if indicator_id not in indicators:
            yield path, f"no indicator {indicator_id[:64]!r}{nearest(indicator_id, indicators)}"
            continue
        outputs = _outputs(indicators[indicator_id])
        if "." in reference and outputs is not None and output not in outputs:
            yield path, f"{indicator_id} has no output {output[:64]!r}{nearest(output, outputs)}"


def _input_problems(
    fuzzy_sets: Mapping[str, Any], inputs: Any, timeframe: str | None
) -> Iterator[Problem]:
    seen: set[str] = set()
    for place, item in enumerate(inputs if isinstance(inputs, list | tuple) else ()):
        set_id = _mapping(item).get("fuzzy_set")
        if isinstance(set_id, str):
            path = f"nn_inputs.{place}.fuzzy_set"
            if set_id not in fuzzy_sets:
                yield path, f"no fuzzy set {set_id[:64]!r}{nearest(set_id, fuzzy_sets)}"
            elif set_id in seen:
                yield path, f"{set_id} is an input already; name it once"
            seen.add(set_id)
        wanted = _mapping(item).get("timeframes", "all")
        if isinstance(wanted, list | tuple) and timeframe and set(wanted) != {timeframe}:
            yield (
                f"nn_inputs.{place}.timeframes",
                f"must name {timeframe}, the strategy's timeframe, or say all",
            )


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
                f"say {' or '.join(usable)} here, or {other} there",
            )


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


def _outputs(indicator: Any) -> tuple[str, ...] | None:
    name = _mapping(indicator).get("type")
    kind = canonical_type(name) if isinstance(name, str) else None
    return INDICATORS[kind].outputs if kind else None


def _timeframe(data: Mapping[str, Any]) -> str | None:
    timeframes = _mapping(_mapping(data.get("training_data")).get("timeframes"))
    timeframe = timeframes.get("timeframe")
    return timeframe if isinstance(timeframe, str) else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
