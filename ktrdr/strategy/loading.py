"""Loading of strategies: YAML text to a checked `Strategy`, all mistakes at once."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ktrdr.errors import InvalidStrategy, StrategyNotFound
from ktrdr.strategy.candle_patterns import CANDLE_PATTERNS
from ktrdr.strategy.differences import INFORMATIVE_KEYS
from ktrdr.strategy.field_types import SYMBOL_PATTERN
from ktrdr.strategy.indicators import INDICATORS, names_here
from ktrdr.strategy.input_names import name_problems
from ktrdr.strategy.references import Problem, nearest, reference_problems
from ktrdr.strategy.schema import CLASS_OF_TAG, Strategy

MAX_BYTES = 1 << 20
MAX_NODES = 100_000

# Where older or foreign files say something that this grammar says elsewhere.
MOVED = {
    "model.training": "move its keys to training",
    "model.features": "not used; remove it",
    "profit_target_atr": "say pt_multiplier",
    "stop_loss_atr": "say sl_multiplier",
    "max_holding_bars": "say max_holding_period",
    "atr_period": "say vol_span",
}
# Keys of this grammar where they mean nothing: what to do is the user's to decide.
MISPLACED = {
    "training_data.date_range": "not read: date_range takes start and end, both dates",
    "model.architecture.sequence_length": "not for a model of single bars: remove it, or choose"
    " lstm, gru or tcn as model.type",
}


def load_strategy(path: Path) -> Strategy:
    """Read and check a strategy file.

    Raises:
        StrategyNotFound: there is no such file.
        InvalidStrategy: it is no strategy; `details["problems"]` lists every mistake.
    """
    return parse_strategy(read_text(path), str(path))


def parse_strategy(text: str, origin: str) -> Strategy:
    """Check a strategy's YAML text; `origin` names it in messages."""
    return validate_strategy(parse_yaml(text, origin), origin)


def validate_strategy(data: Any, origin: str) -> Strategy:
    """Check a strategy given as plain data."""
    if not isinstance(data, Mapping):
        raise _invalid(origin, [("", "a strategy is a mapping of keys such as name, indicators")])
    problems = reference_problems(data)
    try:
        strategy = Strategy.model_validate(data)
    except ValidationError as error:
        raise _invalid(origin, [*_problems(error, data), *problems]) from None
    problems = problems or name_problems(strategy)
    if problems:
        raise _invalid(origin, problems)
    return strategy


def with_overrides(strategy: Strategy, overrides: Mapping[str, Any]) -> Strategy:
    """The strategy as a request changes it.

    Args:
        overrides: any of symbols, timeframes, start_date, end_date, epochs, seed.

    An input keeps those of its timeframes that are left. One that has none left takes all, or goes
    where another input shows the same.
    """
    data = strategy.model_dump(mode="json", exclude_none=True)
    of_data, of_training = data["training_data"], data["training"]
    for key, value in overrides.items():
        if key == "symbols":
            of_data["symbols"] = _symbols_section(value)
        elif key == "timeframes":
            of_data["timeframes"] = _timeframes_section(value, of_data["timeframes"])
            data["nn_inputs"] = _keep_timeframes(data["nn_inputs"], value)
        else:
            (of_training if key in ("epochs", "seed") else of_data)[key] = value
    return validate_strategy(data, f"{strategy.name} with the options given")


def _symbols_section(names: Sequence[str]) -> dict[str, Any]:
    if len(names) == 1:
        return {"mode": "single", "symbol": names[0]}
    return {"mode": "multi_symbol", "list": list(names)}


def _timeframes_section(names: Sequence[str], before: Mapping[str, Any]) -> dict[str, Any]:
    resample = {"resample": before.get("resample", False)}
    if len(names) == 1:
        return {"mode": "single", "timeframe": names[0]} | resample
    base = before.get("base_timeframe")
    given = {"base_timeframe": base} if base in names else {}
    return {"mode": "multi_timeframe", "list": list(names)} | given | resample


def _keep_timeframes(inputs: list[dict[str, Any]], left: Sequence[str]) -> list[dict[str, Any]]:
    kept = [{**item, "timeframes": _timeframes_left(item["timeframes"], left)} for item in inputs]
    names = [item.get("fuzzy_set") or item.get("raw_indicator") for item in kept]
    shown = {name for name, item in zip(names, kept, strict=True) if item["timeframes"]}
    found = []
    for name, item in zip(names, kept, strict=True):
        if item["timeframes"] or name not in shown:
            found.append({**item, "timeframes": item["timeframes"] or "all"})
            shown.add(name)
    return found


def _timeframes_left(wanted: list[str] | str, left: Sequence[str]) -> list[str] | str:
    return wanted if isinstance(wanted, str) else [name for name in wanted if name in left]


def config(strategy: Strategy) -> dict[str, Any]:
    """The effective configuration, defaults filled in, as plain JSON."""
    return strategy.model_dump(mode="json")


def fingerprint(strategy: Strategy) -> str:
    """sha256 of all that has an effect; descriptions have none."""
    effective = {k: v for k, v in config(strategy).items() if k not in INFORMATIVE_KEYS}
    return hashlib.sha256(json.dumps(effective, sort_keys=True).encode()).hexdigest()


def read_text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InvalidStrategy(
                f"{path}: larger than {MAX_BYTES} bytes: no strategy is that long"
            )
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise StrategyNotFound(
            f"no strategy file {path}: give the path of a YAML file", path=str(path)
        ) from None
    except UnicodeDecodeError as error:
        raise InvalidStrategy(f"{path}: not UTF-8 text (byte {error.start})") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InvalidStrategy(f"{str(path)[:200]}: cannot be read: {reason}") from None


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses repeated keys and texts that unfold without end."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value[:64]} appears twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def parse_yaml(text: str, origin: str) -> Any:
    """The plain data of a YAML text; raises InvalidStrategy for what is not YAML, or too much."""
    try:
        return _construct(_Loader(text), origin)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise _invalid(origin, [(where, f"not valid YAML: {error.problem}")]) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise _invalid(origin, [("", f"not valid YAML: {reason.splitlines()[0]}")]) from None


def _construct(loader: _Loader, origin: str) -> Any:
    try:
        node = loader.get_single_node()
        if node is None:
            raise _invalid(origin, [("", "the file is empty")])
        _unfolded_size(node, {}, ())
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _unfolded_size(node: yaml.Node, sizes: dict[int, int], above: tuple[int, ...]) -> int:
    """Count nodes with every alias written out; an alias of an outer node would have no end."""
    if id(node) in above:
        raise ValueError("an alias refers to what it is part of")
    if id(node) not in sizes:
        inner = (*above, id(node))
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            children = [child for pair in node.value for child in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        sizes[id(node)] = 1 + sum(_unfolded_size(child, sizes, inner) for child in children)
    if sizes[id(node)] > MAX_NODES:
        raise ValueError(f"more than {MAX_NODES} values when its aliases are written out")
    return sizes[id(node)]


def _invalid(origin: str, problems: list[Problem]) -> InvalidStrategy:
    problems = [(_in_one_line(path), _in_one_line(message)) for path, message in problems]
    lines = [f"{path}: {message}" if path else message for path, message in problems]
    count = "" if len(lines) == 1 else f"{len(lines)} mistakes: "
    shown = "; ".join(line.replace("; ", ", ") for line in lines[:20])
    more = f"; and {len(lines) - 20} more" if len(lines) > 20 else ""
    return InvalidStrategy(
        f"{origin}: {count}{shown}{more}",
        problems=[{"path": path, "message": message} for path, message in problems],
    )


# What pydantic calls by the names of Python's types, which are none of a strategy's author.
_SHAPES = {
    "tuple_type": "a list is expected",
    "dict_type": "a mapping of keys to values is expected",
    "model_type": "a mapping of keys to values is expected",
}


def _in_one_line(text: str) -> str:
    """A user's key may hold anything."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _problems(error: ValidationError, data: Mapping[str, Any]) -> Iterator[Problem]:
    items = error.errors(include_url=False)
    broken = {item["loc"][:-1] for item in items}
    for item in items:
        if item["type"] == "too_short" and item["loc"] in broken:
            continue  # only because the entries that are named do not count
        yield _as_written(_path(item["loc"]), data), _message(item)


def _as_written(path: str, data: Mapping[str, Any]) -> str:
    """Without the `parameters` of a membership that is a plain list."""
    above, step, entry = path.partition(".parameters.")
    section, *names = above.split(".")
    part: Any = data.get(section)
    for name in names:
        part = part.get(name) if isinstance(part, Mapping) else None
    return f"{above}.{entry}" if step and isinstance(part, list | tuple) else path


def _path(loc: tuple[int | str, ...]) -> str:
    """The path as the user wrote it: without the steps that only the schema has."""
    steps = [str(step)[:64] for step in loc if not str(step).startswith(("<", "["))]
    if loc[0] == "fuzzy_sets" and steps[2:3] == ["memberships"]:
        del steps[2]
    return ".".join(steps)


def _message(item: ErrorDetails) -> str:
    kind, given = item["type"], item["input"]
    if kind == "extra_forbidden":
        return _unknown_key(item["loc"])
    if kind == "indicator_type":
        return _unknown_indicator(given)
    if kind == "string_pattern_mismatch":
        return _not_matching(str(given), item["ctx"]["pattern"])
    if kind in _SHAPES:
        return _SHAPES[kind]
    if kind == "too_short":
        least = item["ctx"]["min_length"]
        return f"at least {least} {'entry is' if least == 1 else 'entries are'} needed"
    return item["msg"][0].lower() + item["msg"][1:]


def _not_matching(given: str, pattern: str) -> str:
    message = f"{given[:64]!r} is not allowed here (must match {pattern})"
    proposal = re.sub(r"[^A-Za-z0-9^]", "", given)  # what `data.bars.check_symbol` proposes, too
    if pattern == SYMBOL_PATTERN and re.fullmatch(pattern, proposal):
        return f"{message}; write {proposal}"
    return message


def _unknown_key(loc: tuple[int | str, ...]) -> str:
    key, known = str(loc[-1]), _keys_at(loc[:-1])
    if loc[0] == "indicators" and key in ("source", "data_source") and key not in known:
        return f"this type is computed from whole bars and takes no source; remove {key}"
    if loc[0] == "indicators" and names_here(key, known):
        return f"unknown key; say {names_here(key, known)}"
    if _path(loc) in MISPLACED:
        return f"unknown key; {MISPLACED[_path(loc)]}"
    moved = MOVED.get(_path(loc)) or MOVED.get(key)
    if moved and (moved.startswith(("move", "not")) or moved.split()[-1] in known):
        return f"unknown key; {moved} (ktrdr strategies migrate does it)"
    return f"unknown key{nearest(key, known)}"


def _unknown_indicator(given: Any) -> str:
    if isinstance(given, str):
        return f"a mapping is expected, such as {{type: {given[:64]}}}"
    name = given.get("type") if isinstance(given, Mapping) else None
    if not isinstance(name, str):
        return "an indicator needs a type, such as rsi; docs/strategies.md lists them"
    if name.strip().lower() in ("zigzag", "zigzagindicator"):
        return "zigzag repaints (it knows the future) and cannot be an input"
    known = CANDLE_PATTERNS if name.lower().startswith("cdl") else INDICATORS
    return f"unknown indicator type {name[:64]!r}{nearest(name.lower(), known)}"


def _keys_at(loc: tuple[int | str, ...]) -> list[str]:
    """Return the keys of the grammar at a path, to propose the nearest one."""
    model: type[BaseModel] | None = Strategy
    for step in loc:
        if str(step) in CLASS_OF_TAG:
            model = CLASS_OF_TAG[str(step)]
        elif model and step in model.model_fields:
            model = _model_in(model.model_fields[str(step)].annotation)
    return list(model.model_fields) if model else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for m in map(_model_in, get_args(annotation)) if m), None)
