"""A driver's way to the service without an actor between: it can be away, and lose answers."""

from __future__ import annotations

import threading
from typing import Any

from ktrdr.errors import StoreUnavailable
from ktrdr.operations.service import OperationsService
from ktrdr.operations.types import Operation


class ServiceCall:
    """Calls the real service for one attempt.

    `there`: cleared while the actor is away. `lost_answers`: so many calls are carried out
    without their caller hearing of it. `errors`: by verb, what a call of it raises.
    """

    def __init__(self, service: OperationsService, operation: Operation) -> None:
        self.service = service
        self.operation_id, self.attempt = operation.operation_id, operation.attempt
        self.there = threading.Event()
        self.there.set()
        self.lost_answers = 0
        self.errors: dict[str, BaseException] = {}
        self.called: list[tuple[str, Any]] = []
        """(verb, first argument) of every call that was carried out."""

    def __call__(self, verb: str, *arguments: Any) -> Any:
        if not self.there.is_set():
            raise StoreUnavailable("the operations actor is away")
        if verb in self.errors:
            raise self.errors[verb]
        answer = getattr(self.service, verb)(self.operation_id, self.attempt, *arguments)
        self.called.append((verb, arguments[0] if arguments else None))
        if self.lost_answers:
            self.lost_answers -= 1
            raise StoreUnavailable("the answer was lost")
        return answer
