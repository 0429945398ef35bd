"""One driver kept ready with the imports done: used once, replaced a moment later."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import psutil
import ray
from ray.exceptions import GetTimeoutError, RayError

log = logging.getLogger(__name__)

AGAIN_AFTER_S = 1.5
"""The training that has just begun imports and prepares undisturbed."""
NEEDED_BYTES = 2 * 10**9
"""It takes some 0.3 GB: where less than this is free, none is kept."""
ANSWER_S = 0.5


class Spare:
    """Holds at most one driver that has no attempt yet; it has its CPU already, or waits for it.

    As long as one is held no other driver may be made: it might wait for ever for that CPU.
    """

    def __init__(self, make: Callable[[], tuple[str, Any]]) -> None:
        self._make = make
        self._held: tuple[str, Any] | None = None
        self._answer: Any = None
        self._due_at = 0.0

    @property
    def name(self) -> str | None:
        return self._held[0] if self._held is not None else None

    @property
    def held(self) -> bool:
        return self._held is not None

    @property
    def ready(self) -> bool:
        """Whether it is held and its process runs."""
        if self._held is None:
            return False
        return bool(ray.wait([self._answer], timeout=0)[0])

    def renew(self) -> None:
        """Make one when none is held and there is memory for it; called at every tick."""
        if self._held is not None or time.monotonic() < self._due_at:
            return
        self._due_at = time.monotonic() + AGAIN_AFTER_S
        if not memory_allows():
            return
        try:
            self.hold(*self._make())
        except Exception:
            log.exception("no driver could be made ahead")

    def hold(self, name: str, driver: Any) -> bool:
        """Keep a driver that has no attempt, also one that another process made; False: one is."""
        if self._held is not None:
            return False
        self._held = name, driver
        self._answer = driver.pulse.remote(0.0)
        return True

    def take(self) -> Any | None:
        """Return the one that is held; None when there is none that lives."""
        taken, self._held = self._held, None
        self._due_at = time.monotonic() + AGAIN_AFTER_S
        return taken[1] if taken is not None and _lives(taken[1]) else None


def memory_allows() -> bool:
    """Whether there is memory for a driver that nobody may need."""
    return psutil.virtual_memory().available >= NEEDED_BYTES


def _lives(driver: Any) -> bool:
    """Ask it; one that does not answer in time may be busy with its imports, and lives."""
    try:
        ray.get(driver.pulse.remote(0.0), timeout=ANSWER_S)
    except GetTimeoutError:
        return True
    except RayError:
        return False
    return True
