"""Ctrl-C and SIGTERM of a command that follows a training: counted here, acted on by the follower.

First: cancel, and wait for the last checkpoint. Second: kill the driver, the last commit stands.
Third: leave at once. The handler itself does nothing but count (and leave), so that it may come at
any moment, in the middle of a write too.
"""

from __future__ import annotations

import contextlib
import os
import signal
from types import FrameType

from ktrdr.errors import KtrdrError

SIGNALS = (signal.SIGINT, signal.SIGTERM)
EXIT_STATUS = 130


def disregard_signals() -> None:
    """The outcome stands: a late Ctrl-C must not kill the interpreter while it tidies up."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


class Interrupted(KtrdrError):
    """A signal came before anything was recorded."""

    code = "CANCELLED"
    exit_status = EXIT_STATUS


class Interrupts:
    """How often the user asked to stop."""

    def __init__(self, last_words: str = "") -> None:
        """`last_words` go to stdout when the third signal ends the process at once."""
        self.count = 0
        self._last_words = last_words.encode()

    def install(self) -> None:
        """Put the handlers in place, whatever stands there: a script's background job starts with
        SIGINT ignored, importing polars and ray.init set handlers of their own."""
        for number in SIGNALS:
            signal.signal(number, self._count)

    def leave_if_asked(self) -> None:
        """Raise Interrupted after a signal, as long as nothing is recorded."""
        if self.count:
            raise Interrupted("stopped before anything was recorded")

    def _count(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1
        if self.count >= 3:
            with contextlib.suppress(OSError):
                os.write(1, self._last_words)
            os._exit(EXIT_STATUS)
