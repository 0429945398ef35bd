"""What a driver answers when asked how it is, on another thread than the one that trains."""

from __future__ import annotations

import faulthandler
import os
import socket
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from ktrdr.operations.types import Phase

if TYPE_CHECKING:
    from ktrdr.driver.delivery import Delivery
    from ktrdr.training.context import LiveProgress


@dataclass(frozen=True)
class Heartbeat:
    """A driver's answer: which process it is, and where it stands."""

    host: str
    pid: int
    process_started_at: float
    """As psutil's `create_time`: a pid alone is reused."""
    phase: Phase
    step: int = 0
    """Batches done since the beginning."""
    batches: int = 0
    """Batches per epoch; 0 until the data are there."""


class HeartbeatSource:
    """Reads what the training thread leaves behind; never waits for it."""

    def __init__(self) -> None:
        self._process = socket.gethostname(), os.getpid(), psutil.Process().create_time()
        self._source: tuple[LiveProgress, Delivery] | None = None

    def follow(self, progress: LiveProgress, delivery: Delivery) -> None:
        """Take phase and position from these: an attempt is under way."""
        self._source = progress, delivery

    def heartbeat(self) -> Heartbeat:
        if self._source is None:
            return Heartbeat(*self._process, Phase.STARTING)
        progress, delivery = self._source
        return Heartbeat(*self._process, delivery.phase, progress.step, progress.batches)


def stacks() -> str:
    """Return what every thread of this process is doing, the most recent call first."""
    with tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file)
        file.seek(0)
        return file.read().decode(errors="replace")
