"""The metrics in the progress of a running training."""

from __future__ import annotations

import math
from typing import Any

from ktrdr.operations.types import HistoryRow
from ktrdr.training.context import LiveProgress
from ktrdr.training.learner import Learner

_INTERVAL_S = 0.5


class LiveMetrics:
    """Keeps `progress.metrics` current; asks the device for losses at most twice a second.

    It only reads what the learner sums up anyway: no bit of the training depends on it.
    """

    def __init__(self, learner: Learner, progress: LiveProgress, now: float) -> None:
        """`now` is the training's clock, in seconds."""
        self._learner = learner
        self._progress = progress
        self._due = self._measured_at = now
        self._measured_steps = learner.steps
        history = learner.loop.history
        self._of_epochs = self._after(history[-1]) if history else {}
        self._running: dict[str, Any] = {}
        self._measure_loss()
        self._show()

    def update(self, now: float) -> None:
        """Show the running loss and rate when due; called before every batch."""
        if now < self._due:
            return
        steps = self._progress.step
        if steps == self._measured_steps:
            return
        if now > self._measured_at:
            rate = (steps - self._measured_steps) / (now - self._measured_at)
            self._running["batches_per_s"] = rate
        self._measured_at, self._measured_steps = now, steps
        self._due = now + _INTERVAL_S
        self._measure_loss()
        self._show()

    def epoch_finished(self, row: HistoryRow) -> None:
        """Show the metrics of a finished epoch; its loss runs on until the next has one."""
        self._of_epochs = self._after(row)
        self._running["running_loss"] = row.metrics["train_loss"]
        self._show()

    def _measure_loss(self) -> None:
        loss = self._learner.running_loss()
        if loss is not None and math.isfinite(loss):  # else the epoch's end reports it
            self._running["running_loss"] = loss

    def _after(self, row: HistoryRow) -> dict[str, Any]:
        loop = self._learner.loop
        return {
            **row.metrics,
            "best_epoch": loop.best_epoch,
            "best_score": loop.best_score,
            "monitor": self._learner.monitor,
        }

    def _show(self) -> None:
        self._progress.metrics = {**self._of_epochs, **self._running} or None
