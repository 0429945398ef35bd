"""The names under which the actors find each other."""

from __future__ import annotations

import secrets

NAMESPACE = "ktrdr"
OPERATIONS = "operations"

AttemptKey = tuple[str, int]  # operation id, attempt

_OF_AN_ATTEMPT = "training:"
_SPARE = "spare:"


def driver_name(key: AttemptKey) -> str:
    """Return the name of a driver that is made for an attempt."""
    return f"{_OF_AN_ATTEMPT}{key[0]}:{key[1]}"


def spare_name() -> str:
    """Return a name for a driver that is made before its attempt is known."""
    return f"{_SPARE}{secrets.token_hex(4)}"


def is_spare_name(name: str) -> bool:
    return name.startswith(_SPARE)


def is_driver_name(name: str) -> bool:
    return name.startswith((_OF_AN_ATTEMPT, _SPARE))
