"""Leases, extended on a thread of their own: nothing else that takes time can cost one."""

from __future__ import annotations

import logging
import threading
from types import TracebackType

from ktrdr.errors import describe
from ktrdr.operations.service import OperationsService

RENEW_EVERY_S = 5.0
RETRY_S = 1.0

log = logging.getLogger(__name__)


class LeaseRenewal:
    """Extends the lease of an owner and of its operations, from `start` until `close`."""

    def __init__(
        self,
        service: OperationsService,
        owner_id: str,
        every_s: float = RENEW_EVERY_S,
        retry_s: float = RETRY_S,
    ) -> None:
        self._service = service
        self._owner_id = owner_id
        self._every_s = every_s
        self._retry_s = retry_s
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._thread.join()

    def __enter__(self) -> LeaseRenewal:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self) -> None:
        pause_s = 0.0
        while not self._closed.wait(pause_s):
            pause_s = self._every_s if self._renew() else self._retry_s

    def _renew(self) -> bool:
        """Renew once; whatever the store says, the next try may still be in time."""
        try:
            self._service.renew(self._owner_id)
        except Exception as error:
            log.warning("the lease of %s is not renewed: %s", self._owner_id, describe(error))
            return False
        return True
