"""The operations actor: hosts the service for the drivers, and the supervisor of its owner.

Its `__init__` never raises and does nothing that can fail: Ray would not restart it. The store is
opened with back-off on a thread of its own; calls meanwhile answer StoreUnavailable.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from ktrdr.errors import KtrdrError, StoreUnavailable
from ktrdr.operations.retry import back_off
from ktrdr.operations.service import OperationsService
from ktrdr.operations.types import Owner, OwnerKind
from ktrdr.settings import Settings, read_settings
from ktrdr.store import open_store
from ktrdr.supervisor.description import Description
from ktrdr.supervisor.ending import Ending, end_cluster
from ktrdr.supervisor.lease_renewal import LeaseRenewal
from ktrdr.supervisor.liveness import LivenessLimits
from ktrdr.supervisor.nodes import nodes
from ktrdr.supervisor.ray_drivers import RayDrivers
from ktrdr.supervisor.supervisor import Supervisor
from ktrdr.supervisor.sweeper import StorageWorker
from ktrdr.version import version

T = TypeVar("T")

TICK_S = 0.1
VERBS = frozenset(
    {
        "read_attempt",
        "report",
        "commit_checkpoint",
        "reserve_model",
        "finish_completed",
        "finish_stopped",
        "finish_failed",
    }
)
"""What a driver may ask of the service; each is fenced by its attempt."""

log = logging.getLogger(__name__)


class OperationsActor:
    """Detached, restarted by Ray whenever it dies; keeps nothing but what the store holds."""

    def __init__(
        self, owner: Owner, address: str | None = None, dashboard: str | None = None
    ) -> None:
        """`address` and `dashboard` of its Ray are written into the owner's row."""
        self._owner = owner
        self._facts = {"version": version(), "address": address, "dashboard": dashboard}
        self._service: OperationsService | None = None
        self._supervisor: Supervisor | None = None
        threading.Thread(target=self._supervise, name="supervisor", daemon=True).start()

    def version(self) -> str:
        """Return which ktrdr this is."""
        return version()

    def ready(self) -> bool:
        """Say whether the store is open and the rows are reconciled."""
        return self._supervisor is not None

    def ask(self, verb: str, arguments: tuple[Any, ...]) -> Any:
        """Run one of the service's verbs for a driver."""
        if verb not in VERBS:
            raise ValueError(f"{verb} is no verb of a driver")
        return getattr(self._open_service(), verb)(*arguments)

    def shut_down(self) -> None:
        """Stop every driver with a last checkpoint."""
        if self._supervisor is not None:
            self._supervisor.shut_down()

    def idle(self) -> bool:
        """Say whether nothing of this owner is pending or running."""
        return not self._open_service().owned(self._owner.id)

    def _open_service(self) -> OperationsService:
        if self._service is None:
            raise StoreUnavailable("the operations actor is still opening its store: try again")
        return self._service

    def _supervise(self) -> None:
        drivers = RayDrivers(keep_spare=self._owner.kind is OwnerKind.LOCAL)
        settings = _retried(read_settings)
        self._service = service = _retried(lambda: _open(settings))
        _retried(lambda: service.register_owner(self._owner, version()))
        LeaseRenewal(service, self._owner.id).start()
        storage = StorageWorker(service)
        storage.start()
        limits = LivenessLimits(settings.hang_after_s, 10 * settings.hang_after_s)
        supervisor = Supervisor(service, self._owner, drivers, storage, limits=limits)
        description = Description(service, self._owner.id, self._facts)
        ending = Ending(service, self._owner, settings.idle_s)
        _retried(supervisor.reconcile)
        self._supervisor = supervisor
        while True:
            drivers.keep_ready()
            _retried(supervisor.tick)
            _retried(lambda: description.renew(nodes))
            if _retried(lambda: ending.look(supervisor.shut_down)):
                end_cluster(self._owner)
            time.sleep(TICK_S)


def _open(settings: Settings) -> OperationsService:
    return OperationsService(open_store(settings.database_url))


def _retried(work: Callable[[], T]) -> T:
    """Do it until it succeeds, at growing intervals."""
    pauses = back_off()
    while True:
        try:
            return work()
        except Exception as error:
            foreseen = isinstance(error, KtrdrError)
            log.warning("the supervisor tries again: %s", error, exc_info=not foreseen)
        time.sleep(next(pauses))
