"""All that a driver says: one ordered queue, and one thread that delivers it and tries again.

So a checkpoint's row is never written before the history up to it, and the end comes last.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from ktrdr.driver.warning_rate import WarningRate
from ktrdr.errors import IllegalTransition, OperationNotFound, StaleAttempt, StoreUnavailable
from ktrdr.operations.retry import back_off
from ktrdr.operations.types import (
    HistoryRow,
    NewCheckpoint,
    Phase,
    Progress,
    Report,
    Restored,
    TrainingWarning,
)

REPORT_EVERY_S = 1.0
DEADLINE_S = 3600.0
"""How long a driver tries: an actor that stays away longer has lost its operations anyway."""

OVER = (StaleAttempt, IllegalTransition, OperationNotFound)
"""Raised where the attempt is over for everybody else: there is nothing more to say."""

log = logging.getLogger(__name__)


class Call(Protocol):
    def __call__(self, verb: str, *arguments: Any) -> Any:
        """Run a verb of the service for this attempt, once.

        Raises what the service raises; StoreUnavailable when the same call may be made again.
        """


@dataclass(frozen=True)
class _Said:
    """A part of the next report."""

    phase: Phase | None = None
    history: Sequence[HistoryRow] = ()
    restored: Restored | None = None


@dataclass(frozen=True)
class _Request:
    verb: str
    arguments: tuple[Any, ...]
    answer: Future[Any] = field(default_factory=Future)


class Delivery:
    """Keeps what is said until it is acknowledged. Safe to use from any thread.

    Whatever is said returns at once, and goes out in its order: progress and history about once a
    second, the rest at once. Once a delivery was refused, or failed for any other reason, nothing
    more is sent and every method raises why.
    """

    def __init__(
        self,
        call: Call,
        sample: Callable[[], Progress | None],
        clock: Callable[[], float] = time.monotonic,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self.phase = Phase.STARTING
        """The last one entered."""
        self._call = call
        self._sample = sample
        self._clock = clock
        self._deadline_s = deadline_s
        self._queue: deque[_Said | _Request] = deque()
        self._warnings = WarningRate()
        self._sequence = 0
        self._last_progress: Progress | None = None
        self._last: _Request | None = None
        self._failure: BaseException | None = None
        self._urgent = False
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="delivery", daemon=True)
        self._thread.start()

    def enter(self, phase: Phase) -> None:
        self.phase = phase
        self._put(_Said(phase=phase))

    def epoch_finished(self, row: HistoryRow) -> None:
        self._put(_Said(history=(row,)), urgent=False)

    def restored(self, restored: Restored, history: Sequence[HistoryRow]) -> None:
        """Say what the attempt began from, with all the history that this holds."""
        self._put(_Said(restored=restored, history=history))

    def commit(self, checkpoint: NewCheckpoint) -> None:
        self._put(_Request("commit_checkpoint", (checkpoint,)))

    def warn(self, code: str, message: str) -> None:
        """Tell the user of a trouble that training survives: one of a code per minute."""
        self.check()
        with self._changed:
            self._warnings.add(code, message)

    def check(self) -> None:
        """Raise what has ended the delivery, if anything has."""
        if self._failure is not None:
            raise self._failure

    def ask(self, verb: str, *arguments: Any) -> Any:
        """Deliver all that was said before, then the question; wait for its answer."""
        return self._answer(_Request(verb, arguments))

    def finish(self, verb: str, *arguments: Any) -> None:
        """Deliver all that was said, then the end of the attempt; wait until it is written.

        Raises what refused it, or ended the delivery before.
        """
        self._last = _Request(verb, arguments)
        self._answer(self._last)

    def fail(self, *arguments: Any) -> None:
        """Write that the attempt failed, also when it is the delivery that has."""
        try:
            self.finish("finish_failed", *arguments)
        except Exception as error:
            if error is not self._failure or isinstance(error, (*OVER, StoreUnavailable)):
                raise
            self._send("finish_failed", *arguments)  # by now there is no thread that it overtakes

    def close(self) -> None:
        """End the thread; what is not delivered is dropped."""
        self._closed.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join()

    def _put(self, item: _Said | _Request, urgent: bool = True) -> None:
        with self._changed:
            self.check()
            self._queue.append(item)
            self._urgent = self._urgent or urgent
            self._changed.notify_all()

    def _answer(self, request: _Request) -> Any:
        self._put(request)
        return request.answer.result()

    def _run(self) -> None:
        try:
            while not self._closed.is_set():
                with self._changed:
                    self._changed.wait_for(
                        lambda: self._urgent or self._closed.is_set(), REPORT_EVERY_S
                    )
                    self._urgent = False
                self._deliver_all()
        except BaseException as error:
            self._end(error)

    def _deliver_all(self) -> None:
        while True:
            report, request = self._next()
            if report is not None:
                self._send("report", report)
            if request is None:
                return
            answer = self._send(request.verb, *request.arguments)
            self._queue.popleft()
            request.answer.set_result(answer)

    def _next(self) -> tuple[Report | None, _Request | None]:
        """Return what was said before the next request, and that request, which stays first."""
        said: list[_Said] = []
        with self._changed:
            while self._queue and isinstance(item := self._queue[0], _Said):
                said.append(item)
                self._queue.popleft()
            request = self._queue[0] if self._queue else None
            assert not isinstance(request, _Said)
            return self._report(said, request), request

    def _report(self, said: Sequence[_Said], before: _Request | None) -> Report | None:
        """Return a numbered report, whose content stays the same however often it is sent."""
        warnings = self._due_warnings(before)
        progress = self._sample()
        if not said and not warnings and progress == self._last_progress:
            return None
        self._sequence += 1
        self._last_progress = progress
        phases = [item.phase for item in said if item.phase is not None]
        restored = [item.restored for item in said if item.restored is not None]
        return Report(
            sequence=self._sequence,
            phase=phases[-1] if phases else None,
            progress=progress,
            history=tuple(row for item in said for row in item.history),
            restored=restored[-1] if restored else None,
            warnings=warnings,
        )

    def _due_warnings(self, before: _Request | None) -> tuple[TrainingWarning, ...]:
        """Return them for the end of the queue: all of them when that is the attempt's end."""
        if before is None:
            return self._warnings.take(self._clock())
        return self._warnings.take(math.inf) if before is self._last else ()

    def _send(self, verb: str, *arguments: Any) -> Any:
        """Call until an answer comes; raises StoreUnavailable when none came for too long."""
        give_up_at = self._clock() + self._deadline_s
        pauses_s = back_off()
        while True:
            try:
                return self._call(verb, *arguments)
            except StoreUnavailable:
                if self._clock() > give_up_at or self._closed.wait(next(pauses_s)):
                    raise

    def _end(self, error: BaseException) -> None:
        if not isinstance(error, OVER):
            log.error("what the driver says is not delivered any more", exc_info=error)
        with self._changed:
            self._failure = error
            waiting = [item for item in self._queue if isinstance(item, _Request)]
            self._queue.clear()
        for request in waiting:
            request.answer.set_exception(error)
