"""What a driver must get into the store, in order, however long the operations actor is away."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

Send = Callable[[str, Any, float], Any]
"""(verb, argument, seconds to try) -> answer; raises StoreUnavailable when they are over."""


class Outbox:
    """Keeps checkpoints and warnings until they are acknowledged. Safe to use from any thread.

    Their directories are durable meanwhile: what dies with this process is adopted from them in
    the transaction that ends the attempt.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._waiting: deque[tuple[str, Any]] = deque()
        self._delivering = threading.Lock()
        self._answer: Any = None

    def put(self, verb: str, argument: Any) -> None:
        self._waiting.append((verb, argument))

    def deliver(self, deadline_s: float) -> Any:
        """Deliver all that waits; the answer to the last one, also when another thread got it.

        Raises StoreUnavailable when the store did not answer in time: the rest waits on. What
        the service raises comes out too.
        """
        with self._delivering:
            while self._waiting:
                verb, argument = self._waiting[0]
                self._answer = self._send(verb, argument, deadline_s)
                self._waiting.popleft()
            return self._answer
