"""How an operation may be named: its id, a unique part of it, or its place among the newest."""

from __future__ import annotations

import re

from ktrdr.errors import AmbiguousId, InvalidId, OperationNotFound
from ktrdr.operations.service import OperationsService
from ktrdr.operations.types import OPERATION_ID, short_echo

SHORTEST_PART = 4
_LISTED = 10
_ANY_ID = "op_training_00000000_000000_00000000"
_NEWEST = re.compile(r"@(?:last|([1-9][0-9]{0,8}))")


def resolve(service: OperationsService, text: str) -> str:
    """Return the id of the operation that `text` names.

    It is an id, a unique prefix or ending of one, `@last`, or `@2` for the second newest.

    Raises:
        InvalidId: no operation can be named so.
        AmbiguousId: several begin or end with it.
        OperationNotFound: none does.
    """
    newest = _NEWEST.fullmatch(text)
    if newest is not None:
        return _newest(service, int(newest[1] or 1))
    if OPERATION_ID.fullmatch(text):
        return service.get(text).operation_id
    if not _is_part(text):
        raise InvalidId(
            f"{short_echo(text)} is not an operation id (op_training_YYYYMMDD_HHMMSS_xxxxxxxx),"
            f" nor {SHORTEST_PART} or more characters of its beginning or end, nor @last or @2:"
            " see `ktrdr operations list`"
        )
    return _only_match(service, text)


def short_id(operation_id: str) -> str:
    """Return the part of an id that lists show."""
    return operation_id.rpartition("_")[2]


def _is_part(text: str) -> bool:
    """Say whether an id can begin or end with it."""
    if not SHORTEST_PART <= len(text) < len(_ANY_ID):
        return False
    whole = (text + _ANY_ID[len(text) :], _ANY_ID[: -len(text)] + text)
    return any(OPERATION_ID.fullmatch(candidate) for candidate in whole)


def _newest(service: OperationsService, place: int) -> str:
    found, total = service.list(limit=1, offset=place - 1)
    if not found:
        raise OperationNotFound(
            f"there is no operation @{place}: the store has {total}, see `ktrdr operations list`"
        )
    return found[0].operation_id


def _only_match(service: OperationsService, text: str) -> str:
    matches = service.ids_with(text, _LISTED + 1)
    if not matches:
        raise OperationNotFound(
            f"no operation's id begins or ends with {text}: see `ktrdr operations list`"
        )
    if len(matches) > 1:
        more = " and more" if len(matches) > _LISTED else ""
        listed = matches[:_LISTED]
        raise AmbiguousId(
            f"{text} is not unique, write more of the id: {', '.join(listed)}{more}",
            matches=list(listed),
        )
    return matches[0]
