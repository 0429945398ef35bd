"""Work that cannot look at a stop request itself, left alone as soon as one comes."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from ktrdr.operations.types import StopKind

LOOK_EVERY_S = 0.1

T = TypeVar("T")


class Interrupted(Exception):
    """A stop was requested before the work was done."""

    def __init__(self, kind: StopKind) -> None:
        super().__init__(kind)
        self.kind = kind


def interruptible(work: Callable[[], T], stop_requested: Callable[[], StopKind | None]) -> T:
    """Work on a thread of its own, which nobody waits for once a stop is requested.

    Raises Interrupted, and what the work or `stop_requested` raise.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, name="interruptible", daemon=True).start()
    while not outcome.done():
        kind = stop_requested()
        if kind is not None:
            raise Interrupted(kind)
        concurrent.futures.wait([outcome], LOOK_EVERY_S)
    return outcome.result()
