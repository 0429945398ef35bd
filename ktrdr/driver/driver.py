"""The driver: one detached actor per attempt, which runs the training and answers for it."""

from __future__ import annotations

import logging
import signal
import threading

import ray

from ktrdr.driver.heartbeat import Heartbeat, Vitals, stacks
from ktrdr.operations.types import StopKind

PULSE_S = 0.5

log = logging.getLogger(__name__)


class Driver:
    """Runs its attempt on a thread of its own, so that it can be asked to stop at any time.

    SIGTERM means shutdown: a last checkpoint, then the end. SIGINT is the command's business,
    which shares the terminal with this process.
    """

    def __init__(self, operation_id: str, attempt: int) -> None:
        self._operation_id = operation_id
        self._attempt = attempt
        self._stop_kind: StopKind | None = None
        self._ended = threading.Event()
        self._vitals = Vitals()
        signal.signal(signal.SIGTERM, lambda *_: self.stop(StopKind.SHUTDOWN))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=self._run, name="training").start()

    def stop(self, kind: StopKind) -> None:
        """Stop at the next batch boundary, with a checkpoint; the first one who asks is named."""
        self._stop_kind = self._stop_kind or kind

    def pulse(self, wait_s: float = PULSE_S) -> Heartbeat:
        """Answer after a moment: who waits for this learns of a dead driver at once.

        A moment only, so that askers who died meanwhile do not use up this actor's threads.
        """
        self._ended.wait(wait_s)
        return self._vitals.pulse()

    def stacks(self) -> str:
        return stacks()

    def _run(self) -> None:
        from ktrdr.driver.attempt import run_attempt

        try:
            run_attempt(self._operation_id, self._attempt, lambda: self._stop_kind, self._vitals)
        except Exception:
            log.exception("%s attempt %d", self._operation_id, self._attempt)
        finally:
            self._ended.set()
            ray.kill(ray.get_runtime_context().current_actor)
