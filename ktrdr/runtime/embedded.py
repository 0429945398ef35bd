"""A Ray of our own, on this machine, for as long as this process needs it."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from ktrdr.errors import ClusterUnavailable
from ktrdr.operations.model import Owner
from ktrdr.operations.service import OperationsService
from ktrdr.runtime.caretaker import GRACE_S, RENEW_EVERY_S, describe
from ktrdr.runtime.names import NAMESPACE, OPERATIONS
from ktrdr.settings import Settings

READY_DEADLINE_S = 60.0


class EmbeddedRay:
    """A local Ray with an operations actor that looks after what `owner` owns."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    @classmethod
    def start(
        cls, settings: Settings, owner: Owner, on_started: Callable[[], None] | None = None
    ) -> EmbeddedRay:
        """Start Ray and wait until the actor serves (some 5 s).

        Raises:
            ClusterUnavailable: Ray did not start, or runs in this process already.
        """
        import ray

        if ray.is_initialized():
            raise ClusterUnavailable(
                "Ray runs in this process already: call ray.shutdown() first, ktrdr starts its own"
            )
        try:
            with _environment(settings.environment() | _RAY_ENVIRONMENT):
                ray.init(
                    address="local",
                    namespace=NAMESPACE,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
            if on_started is not None:
                on_started()
            return cls(_start_actor(owner))
        except Exception as error:
            ray.shutdown()
            raise ClusterUnavailable(f"no local Ray could be started: {describe(error)}") from error

    def kill(self, operation_id: str) -> None:
        """End an operation's driver at once."""
        import ray

        with contextlib.suppress(ray.exceptions.RayError):
            ray.get(self._actor.kill.remote(operation_id), timeout=10.0)

    def stop(self, service: OperationsService, owner: Owner) -> None:
        """Let every driver write a last checkpoint, then end Ray."""
        import ray

        with contextlib.suppress(ray.exceptions.RayError):
            if service.owned(owner.id):
                ray.get(self._actor.shut_down.remote(), timeout=10.0)
            deadline = time.monotonic() + GRACE_S
            while service.owned(owner.id) and time.monotonic() < deadline:
                time.sleep(0.1)
        ray.shutdown()


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


_RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


def _start_actor(owner: Owner) -> Any:
    import ray

    from ktrdr.runtime.actor import OperationsActor

    actor: Any = (
        ray.remote(OperationsActor)
        .options(
            name=OPERATIONS,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            max_restarts=-1,
            max_concurrency=8,
            num_cpus=0,
        )
        .remote(owner)
    )
    deadline = time.monotonic() + READY_DEADLINE_S
    while not ray.get(actor.ready.remote(), timeout=READY_DEADLINE_S):
        if time.monotonic() > deadline:
            raise ClusterUnavailable("the operations actor could not open its store")
        time.sleep(0.02)
    return actor


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Ray's processes inherit these; this process keeps its own."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
