"""A driver's way to the service without an actor between: it can be away, and lose answers."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from ktrdr.errors import StoreUnavailable
from ktrdr.operations.service import OperationsService
from ktrdr.operations.types import Operation


class ServiceCall:
    """Calls the real service for one attempt.

    `there`: cleared while the actor is away. `faults`: for the next calls, `away` is not carried
    out and `lost` is, without an answer. `errors`: by verb, what a call of it raises.
    """

    def __init__(self, service: OperationsService, operation: Operation) -> None:
        self.service = service
        self.operation_id, self.attempt = operation.operation_id, operation.attempt
        self.there = threading.Event()
        self.there.set()
        self.faults: deque[str | None] = deque()
        self.errors: dict[str, BaseException] = {}
        self.called: list[tuple[str, Any]] = []
        """(verb, first argument) of every call that was carried out."""

    def __call__(self, verb: str, *arguments: Any) -> Any:
        fault = self.faults.popleft() if self.faults else None
        if fault == "away" or not self.there.is_set():
            raise StoreUnavailable("the operations actor is away")
        if verb in self.errors:
            raise self.errors[verb]
        answer = getattr(self.service, verb)(self.operation_id, self.attempt, *arguments)
        self.called.append((verb, arguments[0] if arguments else None))
        if fault == "lost":
            raise StoreUnavailable("the answer was lost")
        return answer
