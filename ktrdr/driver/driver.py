"""The driver: one detached actor per attempt, which runs the training and answers for it."""

from __future__ import annotations

import logging
import signal
import threading

import ray

from ktrdr.driver.actor_call import ActorCall
from ktrdr.driver.heartbeat import Heartbeat, HeartbeatSource, stacks
from ktrdr.operations.types import StopKind

PULSE_S = 0.5

log = logging.getLogger(__name__)


class Driver:
    """Runs its attempt on a thread of its own, so that it can be asked to stop at any time.

    SIGTERM means shutdown: a last checkpoint, then the end. SIGINT is for the commands that follow.
    """

    def __init__(self, operation_id: str, attempt: int) -> None:
        self._key = operation_id, attempt
        self._stop_kind: StopKind | None = None
        self._ended = threading.Event()
        self._heartbeats = HeartbeatSource()
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
        return self._heartbeats.heartbeat()

    def stacks(self) -> str:
        return stacks()

    def _run(self) -> None:
        from ktrdr.driver.attempt import run_attempt

        try:
            call = ActorCall(self._key)
            run_attempt(self._key, call, lambda: self._stop_kind, self._heartbeats)
        except Exception:
            log.exception("%s attempt %d", *self._key)
        finally:
            self._ended.set()
            ray.kill(ray.get_runtime_context().current_actor)
