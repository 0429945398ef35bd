"""How often a user is told of one trouble."""

from __future__ import annotations

import math

from ktrdr.operations.types import TrainingWarning

WARN_EVERY_S = 60.0


class WarningRate:
    """At most one warning per code and minute; those in between are counted into the next."""

    def __init__(self) -> None:
        self._held: dict[str, TrainingWarning] = {}
        self._not_before: dict[str, float] = {}

    def add(self, code: str, message: str) -> None:
        before = self._held.get(code)
        self._held[code] = TrainingWarning(code, message, 1 + (before.count if before else 0))

    def take(self, now: float) -> tuple[TrainingWarning, ...]:
        """Return what is due, and hold back the next of its code for a minute.

        At infinity everything is due.
        """
        due = [code for code in self._held if now >= self._not_before.get(code, -math.inf)]
        self._not_before |= dict.fromkeys(due, now + WARN_EVERY_S)
        return tuple(self._held.pop(code) for code in due)
