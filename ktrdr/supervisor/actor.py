"""The operations actor: hosts the service for the drivers, and the caretaker of its owner.

Its `__init__` never raises and does nothing that can fail: Ray would not restart it. The store is
opened with back-off on a thread of its own; calls meanwhile answer StoreUnavailable.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from ktrdr.errors import KtrdrError, StoreUnavailable
from ktrdr.operations.service import OperationsService
from ktrdr.operations.types import Checkpoint, Operation, Owner, OwnerKind
from ktrdr.settings import read_settings
from ktrdr.store import open_store
from ktrdr.supervisor.ending import Ending, end_cluster
from ktrdr.supervisor.liveness import LivenessLimits
from ktrdr.supervisor.nodes import nodes
from ktrdr.supervisor.ray_drivers import RayFleet
from ktrdr.supervisor.supervisor import Caretaker
from ktrdr.version import version

TICK_S = 0.1
NODES_EVERY_S = 5.0
_BACK_OFF_S = (0.1, 0.2, 0.5, 1.0, 2.0)
VERBS = frozenset(
    {
        "report",
        "warn",
        "commit_checkpoint",
        "forget_checkpoints",
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
        self._facts = {"address": address, "dashboard": dashboard, "version": version()}
        self._service: OperationsService | None = None
        self._caretaker: Caretaker | None = None
        threading.Thread(target=self._look_after_everything, daemon=True).start()

    def version(self) -> str:
        """Which ktrdr this is."""
        return version()

    def ready(self) -> bool:
        """Whether the store is open and the rows are reconciled."""
        return self._caretaker is not None

    def ask(self, verb: str, arguments: tuple[Any, ...]) -> Any:
        """Run one of the service's verbs for a driver."""
        if verb not in VERBS:
            raise ValueError(f"{verb} is no verb of a driver")
        return getattr(self._open_service(), verb)(*arguments)

    def brief(self, operation_id: str) -> tuple[Operation, tuple[Checkpoint, ...]]:
        """An operation's row and its checkpoints, doomed ones among them."""
        service = self._open_service()
        rows = service.checkpoints(operation_id), service.checkpoints(operation_id, doomed=True)
        return service.get(operation_id), rows[0] + rows[1]

    def shut_down(self) -> None:
        """Stop every driver with a last checkpoint."""
        if self._caretaker is not None:
            self._caretaker.shut_down()

    def idle(self) -> bool:
        """Whether nothing of this owner is pending or running."""
        return not self._open_service().owned(self._owner.id)

    def _open_service(self) -> OperationsService:
        if self._service is None:
            raise StoreUnavailable("the operations actor is still opening its store: try again")
        return self._service

    def _look_after_everything(self) -> None:
        caretaker = self._start()
        service = self._open_service()
        ending = Ending(service, self._owner, read_settings().idle_s, time.monotonic)
        nodes_written_at = 0.0
        while True:
            try:
                if time.monotonic() - nodes_written_at > NODES_EVERY_S:
                    nodes_written_at = time.monotonic()
                    service.describe_owner(self._owner.id, nodes=tuple(nodes()), **self._facts)
                caretaker.tick()
                if self._owner.kind is OwnerKind.LOCAL and ending.look(caretaker.shut_down):
                    end_cluster(self._owner)
            except Exception:
                log.exception("looking after the operations of %s failed", self._owner.id)
                time.sleep(1.0)
            time.sleep(TICK_S)

    def _start(self) -> Caretaker:
        attempts = 0
        while True:
            try:
                settings = read_settings()
                self._service = self._service or OperationsService(
                    open_store(settings.database_url)
                )
                self._service.register_owner(self._owner, version())
                patience = LivenessLimits(settings.hang_after_s, 10 * settings.hang_after_s)
                caretaker = Caretaker(self._service, self._owner, RayFleet(), patience)
                caretaker.reconcile()
                self._caretaker = caretaker
                return caretaker
            except Exception as error:
                quiet = isinstance(error, KtrdrError)
                log.warning("cannot start yet: %s", error, exc_info=not quiet)
                time.sleep(_BACK_OFF_S[min(attempts, len(_BACK_OFF_S) - 1)])
                attempts += 1
