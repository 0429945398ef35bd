"""Migration of a strategy file: the changes, and the problems left for the user."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ktrdr.errors import InvalidStrategy, Usage
from ktrdr.files import new_file
from ktrdr.strategy.loading import parse_strategy, parse_yaml, read_text
from ktrdr.strategy.migration.document import read_document
from ktrdr.strategy.migration.draft import Change, Draft
from ktrdr.strategy.migration.labels import rewrite_labels
from ktrdr.strategy.migration.listing import rewrite_indicators
from ktrdr.strategy.migration.sections import (
    rewrite_data,
    rewrite_decisions,
    rewrite_identity,
    rewrite_model,
    rewrite_training,
)
from ktrdr.strategy.migration.sets import rewrite_sets
from ktrdr.strategy.references import Problem

_TAKEN = "{} exists already: give another name to --out, or remove it first"
_RULES = (
    rewrite_identity,
    rewrite_data,
    rewrite_model,
    rewrite_training,
    rewrite_labels,
    rewrite_decisions,
    rewrite_indicators,
    rewrite_sets,
)


@dataclass(frozen=True)
class Migration:
    """A file's text in the grammar of today. Without changes it is the text as it was, byte for
    byte; with problems it is as far as the rules go, and not valid."""

    text: str
    changes: tuple[Change, ...]
    problems: tuple[Problem, ...]

    @property
    def valid(self) -> bool:
        return not self.problems


def migrate(path: Path) -> Migration:
    """Rewrite a strategy file; the file itself is left alone.

    Raises:
        StrategyNotFound: there is no such file.
        InvalidStrategy: it is no YAML, or no mapping: nothing to start from.
    """
    read_text(path)  # for what it refuses; it does not keep the ends of lines
    return migrate_text(path.read_bytes().decode("utf-8"), str(path))


def migrate_text(text: str, origin: str) -> Migration:
    """Rewrite a strategy's YAML text; `origin` names it in messages."""
    if not isinstance(parse_yaml(text, origin), dict):
        raise InvalidStrategy(f"{origin}: a strategy is a mapping of keys such as name, indicators")
    draft = Draft(read_document(text, origin))
    for rule in _RULES:
        rule(draft)
    written = draft.document.text() if draft.changes else text
    if draft.changes and "\r\n" in text:
        written = written.replace("\n", "\r\n")
    problems = dict(_remaining(written, origin))
    for path, said in draft.problems:  # they know more than the schema does of the same place
        steps = path.split(".")
        for depth in range(1, len(steps) + 1):
            problems.pop(".".join(steps[:depth]), None)
        problems[path] = said
    return Migration(written, tuple(draft.changes), tuple(problems.items()))


def facts(migration: Migration) -> dict[str, Any]:
    """A migration as plain JSON."""
    return {
        "changes": [dataclasses.asdict(change) for change in migration.changes],
        "problems": [{"path": path, "message": said} for path, said in migration.problems],
        "text": migration.text,
    }


def refusal(migration: Migration, origin: str) -> str:
    """One line with all that is left to decide."""
    lines = [f"{path}: {said}" if path else said for path, said in migration.problems]
    shown = "; ".join(line.replace("; ", ", ") for line in lines[:20])
    more = f"; and {len(lines) - 20} more" if len(lines) > 20 else ""
    return f"{origin}: not yet valid when migrated, correct it there and repeat: {shown}{more}"


def refuse_taken(path: Path) -> None:
    """Raise Usage where a file stands already: nothing is ever written over."""
    if os.path.lexists(path):
        raise Usage(_TAKEN.format(path))


def write_new(path: Path, text: str) -> None:
    """Write a file that was not there: whole and durable, or not at all.

    Raises Usage where it exists already, or cannot be written.
    """
    try:
        with new_file(path) as file:
            file.write(text.encode("utf-8"))
    except FileExistsError:
        raise Usage(_TAKEN.format(path)) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise Usage(f"cannot write {str(path)[:200]}: {reason}") from None


def _remaining(text: str, origin: str) -> list[Problem]:
    """What the project's own schema refuses in the result."""
    try:
        parse_strategy(text, origin)
    except InvalidStrategy as error:
        found: list[dict[str, Any]] = error.details.get("problems", [])
        return [(item["path"], item["message"]) for item in found] or [("", error.message)]
    return []
