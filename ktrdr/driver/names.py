"""The names under which the actors find each other."""

from __future__ import annotations

import re

NAMESPACE = "ktrdr"
OPERATIONS = "operations"

AttemptKey = tuple[str, int]  # operation id, attempt

_DRIVER = re.compile(r"training:(op_training_\d{8}_\d{6}_[0-9a-f]{8}):(\d+)")


def driver_name(key: AttemptKey) -> str:
    return f"training:{key[0]}:{key[1]}"


def driver_key(name: str) -> AttemptKey | None:
    """The attempt that a driver of this name runs; None for another actor."""
    match = _DRIVER.fullmatch(name)
    return (match[1], int(match[2])) if match else None
