"""Checks at the service's edge: nothing that becomes part of a path comes in unchecked."""

from __future__ import annotations

import re

from ktrdr.errors import InvalidId, InvalidInput
from ktrdr.operations.types import Plan, Request, short_echo

_STRATEGY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_MODEL = re.compile(rf"({_STRATEGY_NAME.pattern})(?:@v([1-9][0-9]{{0,8}}))?")
_STORAGE_ROOT = re.compile(r"/|[a-z][a-z0-9+.-]*://.", re.DOTALL)
_CHECKPOINT_FOLDERS = re.compile(r"attempt-[0-9]{4,}/checkpoint-[0-9]{6,}")


def check_submission(request: Request, plan: Plan) -> None:
    """Raise InvalidId or InvalidInput for a strategy name or storage root that names no folder."""
    check_strategy_name(request.strategy_name)
    if not _STORAGE_ROOT.match(plan.storage):
        raise InvalidInput(
            f"storage {short_echo(plan.storage)} is neither an absolute path nor a URL:"
            " set KTRDR_STORAGE to one"
        )


def check_strategy_name(name: str) -> str:
    if _STRATEGY_NAME.fullmatch(name):
        return name
    raise InvalidId(
        f"{short_echo(name)} is not a strategy name: letters, digits, '_' and '-',"
        " beginning with a letter or digit, 64 at most"
    )


def parse_model_name(text: str) -> tuple[str, int | None]:
    """The strategy and the version (None: the newest) of NAME or NAME@vN."""
    match = _MODEL.fullmatch(text)
    if match is None:
        raise InvalidId(
            f"{text[:60]!a} is not the name of a model: write NAME or NAME@vN; see"
            " `ktrdr models list`"
        )
    return match[1], None if match[2] is None else int(match[2])


def check_checkpoint_path(operation_id: str, path: str) -> None:
    """Raise InvalidInput unless the path is a checkpoint folder of this very operation."""
    prefix = f"operations/{operation_id}/"
    if not path.startswith(prefix) or not _CHECKPOINT_FOLDERS.fullmatch(path[len(prefix) :]):
        raise InvalidInput(
            f"{short_echo(path)} is not a checkpoint folder of {operation_id}:"
            " expected operations/<id>/attempt-<nnnn>/checkpoint-<nnnnnn> below the storage root"
        )
