"""When a local cluster ends: told to, or idle for long enough. No Ray in here."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import psutil

from ktrdr import processes
from ktrdr.operations.service import OperationsService
from ktrdr.operations.types import Owner, OwnerKind

LOOK_EVERY_S = 0.5


class Ending:
    """Watches one owner's row and operations."""

    def __init__(
        self,
        service: OperationsService,
        owner: Owner,
        idle_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service = service
        self._owner = owner
        self._idle_s = idle_s
        self._clock = clock
        self._looked_at = -LOOK_EVERY_S
        self._idle_since: float | None = None

    def look(self, shut_down: Callable[[], None]) -> bool:
        """Return whether a local cluster has been closed and is to end; called at every tick.

        `shut_down` is called when the row says that everything is to stop. The end is a guarded
        write: it fails while something of this owner has not ended.
        """
        now = self._clock()
        if self._owner.kind is not OwnerKind.LOCAL or now - self._looked_at < LOOK_EVERY_S:
            return False
        self._looked_at = now
        row = self._service.owner(self._owner.id)
        if row is None:
            return False
        if row.shutdown_requested_at is not None:
            shut_down()
        elif row.persistent or not self._idle_for_long(now):
            return False
        return self._service.close_owner(self._owner.id)

    def _idle_for_long(self, now: float) -> bool:
        if self._service.owned(self._owner.id):
            self._idle_since = None
            return False
        self._idle_since = now if self._idle_since is None else self._idle_since
        return now - self._idle_since >= self._idle_s


def end_cluster(owner: Owner) -> None:
    """Tell the process that holds the local cluster together to end it."""
    if owner.pid is None or not processes.lives(owner.pid, owner.process_started_at):
        return
    with contextlib.suppress(psutil.Error):
        psutil.Process(owner.pid).terminate()
