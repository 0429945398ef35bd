"""Slow or hung: what a driver shows of itself, and how long it may show nothing. No Ray in here.

Time counts only while somebody looks: a machine that slept, or an owner that was away or frozen
itself, makes no driver look hung.
"""

from __future__ import annotations

from dataclasses import dataclass

from ktrdr.driver.heartbeat import Heartbeat
from ktrdr.operations.types import Phase

NUM_BATCH_TIMES = 10
"""A batch may take so many times as long as the longest one seen."""


SILENCE_S = 5.0
"""From here on silence is its own matter: what the batches do meanwhile is not known."""


@dataclass(frozen=True)
class LivenessLimits:
    """How long a driver may show no progress, in seconds."""

    training_s: float = 60.0
    """Without any answer; and without a batch, once the end of an epoch was seen: evaluation is
    between two batches too."""
    otherwise_s: float = 600.0
    """While it starts, prepares data or saves, and without a batch in the first epoch."""


class Liveness:
    """What is known of one driver by looking at it again and again."""

    def __init__(self) -> None:
        self.last: Heartbeat | None = None
        self.silent_s = 0.0
        self._idle_s = 0.0
        self._slowest_s = 0.0
        self._epoch_seen = False

    def look(self, heartbeat: Heartbeat | None, passed_s: float) -> None:
        """Take what came in (None: nothing) in the time since the look before."""
        if self.silent_s < SILENCE_S:
            self._idle_s += passed_s
        if heartbeat is None:
            self.silent_s += passed_s
            return
        self.silent_s = 0.0
        if self.last is not None and self.last.phase is heartbeat.phase:
            self._learn(self.last, heartbeat)
        else:
            self._idle_s = 0.0
        self.last = heartbeat

    def excuse(self) -> None:
        """Count its silence so far as none: it had a good reason."""
        self.silent_s = 0.0

    def hung(self, limits: LivenessLimits) -> str | None:
        """Say why it counts as hung; None while it may just be slow."""
        training = self.last is not None and self.last.phase is Phase.TRAINING
        if self.silent_s > (limits.training_s if training else limits.otherwise_s):
            return f"hung: its process has not answered for {self.silent_s:.0f} s"
        learned = training and self._epoch_seen
        floor_s = limits.training_s if learned else limits.otherwise_s
        limit_s = max(floor_s, NUM_BATCH_TIMES * self._slowest_s)
        if self.last is None or self._idle_s <= limit_s:
            return None
        if self.last.phase is not Phase.TRAINING:
            return f"hung: {self.last.phase} for {self._idle_s:.0f} s"
        return (
            f"hung: no batch for {self._idle_s:.0f} s, where the longest before took"
            f" {self._slowest_s:.2g} s"
        )

    def _learn(self, before: Heartbeat, now: Heartbeat) -> None:
        done = now.step - before.step
        if not done:
            return
        self._slowest_s = max(self._slowest_s, self._idle_s / done)
        self._idle_s = 0.0
        if now.batches and now.step // now.batches > before.step // now.batches:
            self._epoch_seen = True
