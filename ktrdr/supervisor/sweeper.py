"""Sweeping what operations left on storage, one at a time and again when it was away."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ktrdr.checkpoints.cleanup import sweep_operation
from ktrdr.errors import OperationNotFound, Unreachable
from ktrdr.operations.service import OperationsService

AGAIN_S = 60.0
"""After a storage that was away."""

log = logging.getLogger(__name__)


class Sweeper:
    """Keeps a list of what is to be swept; oldest wish first."""

    def __init__(self, service: OperationsService, clock: Callable[[], float]) -> None:
        self._service = service
        self._clock = clock
        self._not_before: dict[str, float] = {}

    def later(self, operation_id: str, delay_s: float = 0.0) -> None:
        self._not_before[operation_id] = self._clock() + delay_s

    def sweep_next(self) -> None:
        """Sweep at most one operation: the leases must not wait for a slow storage."""
        now = self._clock()
        due = [name for name, not_before in self._not_before.items() if not_before <= now]
        for operation_id in due[:1]:
            del self._not_before[operation_id]
            self._sweep(operation_id)

    def _sweep(self, operation_id: str) -> None:
        try:
            sweep_operation(self._service, operation_id)
        except OperationNotFound:
            return  # deleted, and all of it with it
        except Unreachable as error:
            log.warning("%s is not swept yet: %s", operation_id, error)
            self.later(operation_id, AGAIN_S)
