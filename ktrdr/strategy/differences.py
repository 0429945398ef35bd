"""Differences between two strategies, and which of them `--allow-changes` accepts.

Accepted is what leaves the checkpoint loadable, the data and the network as they are, and the
epochs so far comparable with those to come. The rules are data; docs/resume.md is made from them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ktrdr.strategy.training import Training

INFORMATIVE_KEYS = ("description", "scope")  # they change no number
_LONGEST_VALUE = 60


@dataclass(frozen=True)
class Difference:
    """One key that says something else; `key` is dotted."""

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.key} {_shown(self.old)} -> {_shown(self.new)}"


@dataclass(frozen=True)
class Progressed:
    """What a resume's rules look at: both training sections, and how far the checkpoint is."""

    old: Training
    new: Training
    epochs_begun: int


@dataclass(frozen=True)
class Rule:
    """What `--allow-changes` makes of a key and all keys below it."""

    key: str
    accepted: bool
    words: str
    """From where an accepted change takes effect, and on what condition; why others are refused."""
    refusal: Callable[[Progressed], str | None] = lambda _: None
    """Why an accepted key's change is refused after all."""


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Difference]:
    """Where two effective configurations differ, by key; informative keys do not count."""
    found = [
        difference
        for difference in _differing(old, new, "")
        if difference.key.partition(".")[0] not in INFORMATIVE_KEYS
    ]
    return sorted(found, key=lambda difference: difference.key)


def refusal(difference: Difference, progressed: Progressed) -> str | None:
    """Why `--allow-changes` does not accept a difference; None when it does."""
    rule = _rule_for(difference.key)
    if rule is None:
        return "it may change the model or the data"
    return rule.refusal(progressed) if rule.accepted else rule.words


def _epochs_refusal(progressed: Progressed) -> str | None:
    begun = progressed.epochs_begun
    return f"{begun} have begun already" if progressed.new.epochs < begun else None


def _momentum_refusal(progressed: Progressed) -> str | None:
    if progressed.old.momentum and progressed.new.momentum:
        return None
    return "switching momentum on or off needs an optimizer state that the checkpoint has not"


def _monitor_refusal(progressed: Progressed) -> str | None:
    old, new = progressed.old.monitor, progressed.new.monitor
    return None if old == new else f"the best epoch by {new} was not kept, only that by {old}"


def _measure_refusal(progressed: Progressed) -> str | None:
    return _OTHER_MEASURE if progressed.old.monitor == "val_loss" else None


_OTHER_DATA = "other bars, features or labels: the data must be those of the checkpoint"
_OTHER_NETWORK = "the checkpoint's weights belong to the network as it was"
_OTHER_MEASURE = "losses before and after could not be compared, and they choose the best epoch"

RULES = (
    Rule(
        "training.epochs",
        True,
        "not below the epochs that have begun; a cosine schedule ends with the new number",
        _epochs_refusal,
    ),
    Rule(
        "training.learning_rate",
        True,
        "from the next batch, as the schedule makes it of the new rate",
    ),
    Rule(
        "training.lr_scheduler",
        True,
        "any change, also switching it on or off; it stands where the epochs done bring it",
    ),
    Rule("training.weight_decay", True, "from the next batch"),
    Rule(
        "training.momentum",
        True,
        "from the next batch; both values above 0",
        _momentum_refusal,
    ),
    Rule("training.gradient_clip", True, "from the next batch"),
    Rule(
        "training.focal_gamma",
        True,
        "from the next batch; only where `val_loss` does not choose the best epoch",
        _measure_refusal,
    ),
    Rule(
        "training.early_stopping",
        True,
        "counted anew over all epochs done; not `monitor`",
        _monitor_refusal,
    ),
    Rule("training.checkpoint", True, "at once"),
    Rule("model.architecture.dropout", True, "from the next batch"),
    Rule("decisions.output_format", False, _OTHER_NETWORK),
    Rule("decisions", True, "stored with the model"),
    Rule("name", False, "it names the folder of the models"),
    Rule("training_data", False, _OTHER_DATA),
    Rule("indicators", False, _OTHER_DATA),
    Rule("fuzzy_sets", False, _OTHER_DATA),
    Rule("nn_inputs", False, _OTHER_DATA),
    Rule("training.labels", False, _OTHER_DATA),
    Rule("training.data_split", False, _OTHER_DATA),
    Rule("model", False, _OTHER_NETWORK),
    Rule("training.optimizer", False, "its state cannot become that of another optimizer"),
    Rule("training.batch_size", False, "the checkpoint's position is counted in batches"),
    Rule("training.seed", False, "every shuffle and random choice so far came from it"),
    Rule("training.loss", False, _OTHER_MEASURE),
    Rule("training.huber_delta", False, _OTHER_MEASURE),
)


def rules_markdown() -> tuple[str, str]:
    """The tables of what is accepted and what is refused, as they stand in docs/resume.md."""
    return _table("accepted key", "takes effect", True), _table("refused key", "why", False)


def _table(head: str, words: str, accepted: bool) -> str:
    lines = [f"| `{rule.key}` | {rule.words} |" for rule in RULES if rule.accepted is accepted]
    return "\n".join([f"| {head} | {words} |", "| --- | --- |", *lines]) + "\n"


def _rule_for(key: str) -> Rule | None:
    """The rule of the longest part of a key that has one."""
    fitting = [rule for rule in RULES if f"{key}.".startswith(f"{rule.key}.")]
    return max(fitting, key=lambda rule: len(rule.key), default=None)


def _differing(old: Any, new: Any, path: str) -> Iterator[Difference]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in {**old, **new}:
            inner = f"{path}.{key}" if path else str(key)
            yield from _differing(old.get(key), new.get(key), inner)
    elif _are_entries(old, new):
        for place, pair in enumerate(zip(old, new, strict=True)):
            yield from _differing(*pair, f"{path}.{place}")
    elif old != new:
        yield Difference(path, old, new)


def _are_entries(old: Any, new: Any) -> bool:
    """Lists of as many mappings: what differs is told entry by entry."""
    if not isinstance(old, list) or not isinstance(new, list) or len(old) != len(new):
        return False
    return all(isinstance(entry, Mapping) for entry in (*old, *new))


def _shown(value: Any) -> str:
    """A value in a few characters: a section may be long."""
    text = "none" if value is None else json.dumps(value, default=str)
    text = text.strip('"') if isinstance(value, str) else text
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."
