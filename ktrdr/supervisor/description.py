"""What an owner's row says of its cluster: version, address, dashboard, machines."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from ktrdr.operations.service import OperationsService

RENEW_EVERY_S = 5.0


class Description:
    """Writes the row when something has changed."""

    def __init__(
        self,
        service: OperationsService,
        owner_id: str,
        facts: Mapping[str, Any],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service = service
        self._owner_id = owner_id
        self._facts = facts
        self._clock = clock
        self._written: tuple[dict[str, Any], ...] | None = None
        self._due_at = clock()

    def renew(self, observe: Callable[[], list[dict[str, Any]]]) -> None:
        """Write the machines that `observe` sees now; called at every tick, mostly idle."""
        if self._clock() < self._due_at:
            return
        nodes = tuple(observe())
        if nodes != self._written:
            self._service.describe_owner(self._owner_id, nodes=nodes, **self._facts)
            self._written = nodes
        self._due_at = self._clock() + RENEW_EVERY_S
