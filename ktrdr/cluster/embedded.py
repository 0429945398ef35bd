"""A Ray of our own, on this machine, for as long as this process needs it."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil

from ktrdr.cluster import remote
from ktrdr.driver.names import NAMESPACE
from ktrdr.errors import ClusterUnavailable, Conflict, describe
from ktrdr.operations.service import OperationsService
from ktrdr.operations.types import FailureReason, Owner, OwnerKind, Status
from ktrdr.settings import Settings
from ktrdr.supervisor.decisions import GRACE_S
from ktrdr.supervisor.lease_renewal import RENEW_EVERY_S


class EmbeddedRay:
    """A local Ray, started when something is launched; this process owns what runs on it."""

    def __init__(self, settings: Settings, on_started: Callable[[], None] | None = None) -> None:
        self.owner: Owner = embedded_owner()
        self._settings = settings
        self._on_started = on_started
        self._actor: Any = None

    @property
    def standing(self) -> bool:
        """Whether it outlives this process."""
        return False

    def launch(self, service: OperationsService, operation_id: str) -> None:
        """Start Ray and an actor (some 5 s); one that serves sees the row by itself.

        When that fails the operation ends `failed (launch_failed)`.
        """
        if self._actor is not None:
            return
        try:
            with renewing(service, self.owner):
                self._actor = self._start()
        except ClusterUnavailable as error:
            _launch_failed(service, self.owner, operation_id, error.message)

    def close(self, service: OperationsService) -> bool:
        """Let every driver write a last checkpoint, then end Ray; whether there was one."""
        if self._actor is None:
            return False
        import ray

        actor, self._actor = self._actor, None
        with contextlib.suppress(ray.exceptions.RayError):
            if service.owned(self.owner.id):
                ray.get(actor.shut_down.remote(), timeout=remote.CALL_TIMEOUT_S)
            deadline = time.monotonic() + GRACE_S
            while service.owned(self.owner.id) and time.monotonic() < deadline:
                time.sleep(0.1)
        ray.shutdown()
        return True

    def _start(self) -> Any:
        import ray

        if ray.is_initialized():
            raise ClusterUnavailable(
                "Ray runs in this process already: call ray.shutdown() first, ktrdr starts its own"
            )
        try:
            with remote.exported(self._settings.environment() | remote.RAY_ENVIRONMENT):
                ray.init(
                    address="local",
                    namespace=NAMESPACE,
                    include_dashboard=False,
                    log_to_driver=False,
                    object_store_memory=remote.OBJECT_STORE_BYTES,
                    logging_level=logging.ERROR,
                )
            if self._on_started is not None:
                self._on_started()
            return remote.start_actor(self.owner)
        except Exception as error:
            ray.shutdown()
            raise ClusterUnavailable(f"no local Ray could be started: {describe(error)}") from error


@contextlib.contextmanager
def renewing(service: OperationsService, owner: Owner) -> Iterator[None]:
    """Keep the lease of an owner whose actor does not serve yet."""
    done = threading.Event()

    def renew() -> None:
        while not done.wait(RENEW_EVERY_S):
            with contextlib.suppress(Exception):  # the next one may succeed; the lease is 20 s
                service.renew(owner.id)

    thread = threading.Thread(target=renew, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _launch_failed(
    service: OperationsService, owner: Owner, operation_id: str, message: str
) -> None:
    with contextlib.suppress(Conflict):  # somebody else has ended it meanwhile
        row = service.get(operation_id)
        if row.status is Status.PENDING:
            row = service.start(operation_id, owner.id)
        service.lose(operation_id, row.attempt, FailureReason.LAUNCH_FAILED, message)


def embedded_owner() -> Owner:
    """A new owner: this process, for as long as it lives."""
    return Owner(
        id=f"embedded-{secrets.token_hex(8)}",
        kind=OwnerKind.EMBEDDED,
        host=socket.gethostname(),
        pid=os.getpid(),
        process_started_at=psutil.Process().create_time(),
    )
