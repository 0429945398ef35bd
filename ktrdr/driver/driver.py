"""The driver: one detached actor per attempt, which runs the training and answers for it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading

import ray

from ktrdr.driver.actor_call import ActorCall
from ktrdr.driver.heartbeat import Heartbeat, HeartbeatSource, stacks
from ktrdr.driver.names import AttemptKey
from ktrdr.operations.types import StopKind

PULSE_S = 0.5

log = logging.getLogger(__name__)


class Driver:
    """Runs one attempt on a thread of its own, so that it can be asked to stop at any time.

    Made before its attempt is known, it imports meanwhile what a training needs. It runs one
    attempt and then ends: no state passes from one operation to another. SIGTERM means shutdown: a
    last checkpoint, then the end. SIGINT is for the commands that follow.
    """

    def __init__(self) -> None:
        self._key: AttemptKey | None = None
        self._stop_kind: StopKind | None = None
        self._ended = threading.Event()
        self._heartbeats = HeartbeatSource()
        signal.signal(signal.SIGTERM, lambda *_: self._shut_down())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=_import_ahead, name="imports", daemon=True).start()

    def begin(self, operation_id: str, attempt: int) -> bool:
        """Run an attempt; repeated, nothing more happens. False: it runs another one."""
        key = operation_id, attempt
        if self._key is None:
            self._key = key
            threading.Thread(target=self._run, args=(key,), name="training").start()
        return self._key == key

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

    def _shut_down(self) -> None:
        self.stop(StopKind.SHUTDOWN)
        if self._key is None:
            os._exit(0)

    def _run(self, key: AttemptKey) -> None:
        from ktrdr.driver.attempt import run_attempt

        try:
            run_attempt(key, ActorCall(key), lambda: self._stop_kind, self._heartbeats)
        except Exception:
            log.exception("%s attempt %d", *key)
        finally:
            self._ended.set()
            ray.kill(ray.get_runtime_context().current_actor)


def _import_ahead() -> None:
    from ktrdr.driver.attempt import import_ahead

    with contextlib.suppress(Exception):  # it shows again when the attempt needs it
        import_ahead()
