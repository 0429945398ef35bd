"""Migration of the sections for data, model, decisions and training."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ktrdr.strategy.field_types import NAME_PATTERN
from ktrdr.strategy.migration import aliases
from ktrdr.strategy.migration.aliases import Section, respelt
from ktrdr.strategy.migration.comments import Path
from ktrdr.strategy.migration.document import mapping
from ktrdr.strategy.migration.draft import Draft
from ktrdr.strategy.migration.names import VALUES, first_in, nearest_value
from ktrdr.strategy.migration.timeframes import timeframe

ARCHITECTURE: Path = ("model", "architecture")
DATA: Path = ("training_data",)
_NAMED_HERE = "the grammar's name for it"
_PLACED_HERE = "the grammar says it there"


def rewrite_identity(draft: Draft) -> None:
    """The keys of the root, the name and the version."""
    for key in draft.keys(()):
        if key in aliases.INFORMATIVE and isinstance(draft.at((key,)), str):
            draft.comment_out((key,), "it informs only; it is a comment now")
    respell(draft, (), aliases.ROOT)
    name = draft.at(("name",))
    if isinstance(name, str) and not re.match(NAME_PATTERN, name):
        fitting = re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_-")[:64]
        if fitting:
            draft.set(("name",), fitting, "it names the model's folder")
    version = draft.at(("version",))
    if version is not None and str(version) not in ("3.0", "3"):
        draft.set(("version",), "3.0", "the grammar that this file is written in now")


def rewrite_data(draft: Draft) -> None:
    """Symbols, timeframes and dates."""
    for section, single in (("symbols", "symbol"), ("timeframes", "timeframe")):
        if isinstance(draft.at((*DATA, section)), list):
            _open_names(draft, (*DATA, section), single, f"multi_{single}")
    respell(draft, DATA, aliases.TRAINING_DATA)
    _split_date_range(draft, (*DATA, "date_range"))
    _set_mode(draft, "symbols", "symbol", "multi_symbol")
    _set_mode(draft, "timeframes", "timeframe", "multi_timeframe")


def rewrite_model(draft: Draft) -> None:
    """The network; what was said of its training goes to `training`."""
    if isinstance(draft.at(("model",)), str):
        kind = draft.at(("model",))
        draft.set(("model",), mapping({"type": kind}, flow=True), "a model is a mapping")
    for key in draft.keys(("model",)):
        if isinstance(key, str) and draft.has((*ARCHITECTURE, key)):
            draft.remove(("model", key), f"model.architecture.{key} was the one that counted")
    respell(draft, ("model",), aliases.MODEL)
    respell(draft, ARCHITECTURE, aliases.ARCHITECTURE)
    _respell_value(draft, "model.type")
    _respell_value(draft, "model.architecture.activation")
    _move_training(draft)


def rewrite_training(draft: Draft) -> None:
    """Optimizer, loss, schedule, early stopping and splits."""
    _split_date_range(draft, ("training", "date_range"))
    respell(draft, ("training",), aliases.TRAINING)
    _open_named(draft, ("training", "optimizer"), "training", {"lr": "learning_rate"})
    _open_named(
        draft, ("training", "loss"), "training", {"gamma": "focal_gamma", "delta": "huber_delta"}
    )
    for path in ("training.optimizer", "training.loss"):
        _respell_value(draft, path)
    _rewrite_stopping(draft)
    _rewrite_schedule(draft)
    _rewrite_split(draft)


def rewrite_decisions(draft: Draft) -> None:
    respell(draft, ("decisions",), aliases.DECISIONS)
    _respell_value(draft, "decisions.output_format")
    path: Path = ("decisions", "output_format")
    regression = draft.at(("training", "labels", "source")) == "forward_return"
    if regression and not draft.has(path) and draft.can_hold(path):
        draft.set(path, "regression", "forward_return labels are numbers")


def respell(draft: Draft, path: Path, section: Section) -> None:
    """Give the keys of a mapping the grammar's names and places; take out the useless ones."""
    for key in draft.keys(path):
        if not isinstance(key, str) or not draft.has((*path, key)):
            continue
        word = respelt(key)
        if key in section.known:
            continue
        here = ".".join((*map(str, path), word))
        target = here if word in section.known else section.renamed.get(word)
        if target is not None:
            _bring(draft, (*path, key), tuple(target.split(".")))
        elif word in section.ignored:
            draft.remove((*path, key), section.ignored[word])


def _bring(draft: Draft, path: Path, target: Path) -> None:
    """Move a key to its place; a bare value of a mapping's place opens into it later."""
    draft.move(path, target, _NAMED_HERE if path[:-1] == target[:-1] else _PLACED_HERE)


def _move_training(draft: Draft) -> None:
    older: Path = ("model", "training")
    if not isinstance(draft.at(older), Mapping):
        return
    respell(draft, older, Section(frozenset(), {}, aliases.TRAINING.ignored))
    for key in draft.keys(older):
        word = respelt(key) if isinstance(key, str) else key
        known = word in aliases.TRAINING.known or word not in aliases.TRAINING.renamed
        target = ("training", word if known else key)
        draft.move((*older, key), target, "training has a section of its own")
        draft.hand_on(older, target)
    if not draft.at(older):
        draft.drop(older)


def _respell_value(draft: Draft, dotted: str) -> None:
    path = tuple(dotted.split("."))
    value = draft.at(path)
    if not isinstance(value, str) or value in VALUES[dotted].values():
        return
    fitting = nearest_value(dotted, value)
    if fitting is not None:
        draft.set(path, fitting, "the grammar's word for it")


def _open_named(draft: Draft, path: Path, section: str, parts: Mapping[str, str]) -> None:
    """`{type: adam, lr: 0.001}` as the type, and each of the rest as a key of the section."""
    if not isinstance(draft.at(path), Mapping):
        return
    for key in draft.keys(path):
        word = respelt(key) if isinstance(key, str) else ""
        target = parts.get(word, word)
        if target in aliases.TRAINING.known and target != path[-1]:
            draft.move((*path, key), (section, target), _PLACED_HERE)
    name = first_in(("type", "name"), map(str, draft.keys(path)))
    if name is not None and len(draft.keys(path)) == 1:
        draft.set(path, draft.at((*path, name)), "it is named by a word")


def _split_date_range(draft: Draft, path: Path) -> None:
    found = draft.at(path)
    if isinstance(found, list) and len(found) == 2:
        draft.set(path, mapping({"start": found[0], "end": found[1]}), "a range has two ends")
    if isinstance(draft.at(path), Mapping):
        respell(draft, path, aliases.DATE_RANGE)
        if not draft.at(path):
            draft.drop(path)


def _open_names(draft: Draft, path: Path, single: str, several: str) -> None:
    """`symbols: X` and `symbols: [X, Y]` as the mapping that says which of the two it is."""
    value = draft.at(path)
    one = value[0] if isinstance(value, list) and len(value) == 1 else value
    if isinstance(one, str):
        made = mapping({"mode": "single", single: one}, flow=True)
        draft.set(path, made, f"{path[-1]} is a mapping")
    elif isinstance(value, list):
        draft.nest_notes(path, "list")
        made = mapping({"mode": several, "list": value})
        draft.set(path, made, f"{path[-1]} is a mapping")


def _set_mode(draft: Draft, section: str, single: str, several: str) -> None:
    """One name is `single`, more are the mode for several; each as the grammar writes it."""
    path = (*DATA, section)
    _open_names(draft, path, single, several)
    for other in (f"{single}s", "names", "values"):
        if draft.has((*path, other)):
            draft.rename((*path, other), "list", _NAMED_HERE)
    if draft.has((*path, "base")):
        draft.rename((*path, "base"), "base_timeframe", _NAMED_HERE)
    names = draft.at((*path, "list"))
    if isinstance(names, list) and names:
        _fit_mode(draft, path, single, several)
    elif draft.has((*path, single)) and isinstance(draft.at((*path, "mode")), str):
        draft.set((*path, "mode"), "single", f"it names one {single}")
    if draft.has((*path, single)) and draft.has((*path, "base_timeframe")):
        draft.remove((*path, "base_timeframe"), "one timeframe is its own base")
    _respell_names(draft, path, section)


def _fit_mode(draft: Draft, path: Path, single: str, several: str) -> None:
    names = draft.at((*path, "list"))
    if len(names) > 1:
        draft.set((*path, "mode"), several, f"the list names {len(names)}")
        return
    if draft.has((*path, "mode")):
        draft.set((*path, "mode"), "single", f"the list names one {single}")
    if not draft.has((*path, single)):
        draft.carry_notes((*path, "list", 0), (*path, "list"), None)
        draft.rename((*path, "list"), single, f"the list names one {single}", names[0])


def _respell_names(draft: Draft, path: Path, section: str) -> None:
    places: list[Path] = [(*path, section[:-1]), (*path, "base_timeframe")]
    names = draft.at((*path, "list"))
    if isinstance(names, list):
        places += [(*path, "list", place) for place in range(len(names))]
    for place in places:
        if isinstance(draft.at(place), str):
            draft.set(place, _name_of(section, draft.at(place)), "as the grammar writes it")


def _name_of(section: str, name: str) -> str:
    return name.replace("/", "") if section == "symbols" else timeframe(name)


def _rewrite_stopping(draft: Draft) -> None:
    path: Path = ("training", "early_stopping")
    value = draft.at(path)
    if isinstance(value, bool):
        draft.set(path, mapping({"enabled": value}, flow=True), "early stopping is a mapping")
    elif isinstance(value, int):
        draft.set(path, mapping({"patience": value}, flow=True), "a number is its patience")
    respell(draft, path, aliases.EARLY_STOPPING)
    _respell_value(draft, "training.early_stopping.monitor")


def _rewrite_schedule(draft: Draft) -> None:
    path: Path = ("training", "lr_scheduler")
    value = draft.at(path)
    off = isinstance(value, Mapping) and value.get("enabled") is False
    if draft.has(path) and (value is False or value is None or off or value in ("none", "None")):
        draft.remove(path, "without this key the learning rate stays as it is")
    elif value is True:
        made = mapping({"type": "reduce_on_plateau"}, flow=True)
        draft.set(path, made, "true names no schedule: this one needs no number")
    elif isinstance(value, str):
        draft.set(path, mapping({"type": value}, flow=True), "a schedule is a mapping")
    respell(draft, path, aliases.LR_SCHEDULER)
    _respell_value(draft, "training.lr_scheduler.type")
    for kind, key, number in (("step", "step_size", 30), ("exponential", "gamma", 0.95)):
        if draft.at((*path, "type")) == kind and not draft.has((*path, key)):
            draft.set((*path, key), number, "what older versions took unless it was said")


def _rewrite_split(draft: Draft) -> None:
    path: Path = ("training", "data_split")
    value = draft.at(path)
    if isinstance(value, list) and 2 <= len(value) <= 3:
        shares = dict(zip(("train", "validation", "test"), value, strict=False))
        draft.set(path, mapping(shares, flow=True), "the shares have names")
    elif isinstance(value, float) and 0 < value < 1:
        draft.set(path, mapping({"train": value}, flow=True), "the shares have names")
    respell(draft, path, aliases.DATA_SPLIT)
    if not aliases.SPLIT_MODES & set(map(str, draft.keys(path))):
        _complete_split(draft, path)


def _complete_split(draft: Draft, path: Path) -> None:
    """Percentages as shares, and what is left out as what is left over."""
    given = {key: draft.at((*path, key)) for key in ("train", "validation", "test")}
    shares = {key: share for key, share in given.items() if share is not None}
    if not shares or not all(_is_number(share) and share >= 0 for share in shares.values()):
        return
    if abs(sum(shares.values()) - 100) < 1e-6 and max(shares.values()) > 1:
        for key, share in shares.items():
            shares[key] = share / 100
            draft.set((*path, key), shares[key], "shares are fractions, not percentages")
    rest = round(1 - sum(shares.values()), 10)
    if len(shares) < 3 and rest >= 0:
        _share_out(draft, path, shares, rest)


def _share_out(draft: Draft, path: Path, shares: Mapping[str, float], rest: float) -> None:
    """Give what is left to what was not named: the test part first, as little as can be."""
    why = "the three shares must sum to 1"
    missing = [key for key in ("train", "validation", "test") if key not in shares]
    parts = dict.fromkeys(missing, 0.0)
    if "train" in missing:
        parts["train"] = rest
    elif len(missing) == 2:
        parts = {key: round(rest / 2, 10) for key in missing}
    else:
        parts[missing[0]] = rest
    for key, share in parts.items():
        draft.set((*path, key), share, why)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
