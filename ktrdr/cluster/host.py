"""The process of a local cluster: `python -m ktrdr.cluster.host OWNER_ID`.

It starts Ray with the dashboard on loopback and makes the operations actor, which does the work.
It ends, and everything with it, on SIGTERM, when Ray breaks, and when `cluster.json` no longer
names it (its home was deleted, or another cluster has taken its place).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import psutil

from ktrdr import processes
from ktrdr.cluster import cluster_file
from ktrdr.driver.names import NAMESPACE
from ktrdr.errors import ClusterUnavailable, Conflict, KtrdrError, describe
from ktrdr.operations.service import OperationsService
from ktrdr.operations.types import FailureReason, Operation, Owner, OwnerKind, Status, StopKind
from ktrdr.settings import Settings, read_settings

WATCH_EVERY_S = 0.5
GONE_AFTER_S = 5.0
"""How long `cluster.json` may not name this cluster before it ends."""
SAVE_S = 40.0
"""How long trainings may take for a last checkpoint."""
END_S = 0.5
"""How long Ray's processes, which have nothing to save, may take to end by themselves."""
_LONGEST_FOLDER = 40  # a socket's path has room for little more than what Ray adds to it
_ESSENTIAL = ("gcs_server", "raylet")

log = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> None:
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # nobody waits for a descriptor that we hold
    os.chdir("/")
    os.umask(0o077)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    Host(read_settings(), arguments[0]).run()


class _ToldToEnd(BaseException):
    """SIGTERM came before Ray served."""


class Host:
    """Holds one Ray together from its start to its end."""

    def __init__(self, settings: Settings, owner_id: str) -> None:
        this = psutil.Process()
        self._settings = settings
        self.owner = Owner(
            owner_id, OwnerKind.LOCAL, socket.gethostname(), this.pid, this.create_time()
        )
        self._told_to_end = threading.Event()
        self._named_at = time.monotonic()
        self._actor: Any = None
        self._essential: list[psutil.Process] = []
        """Ray's processes without which it serves nobody."""

    def run(self) -> None:
        """Start, watch, and end."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._stop_starting)
        started = threading.Event()
        threading.Thread(target=self._renew_until, args=(started,), daemon=True).start()
        try:
            self._start()
        except BaseException as error:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            log.exception("Ray did not start")
            self._give_up(error)
            os._exit(1)
        started.set()
        while not self._told_to_end.wait(WATCH_EVERY_S):
            if self._broken():
                self._end()  # nobody can be told of a last checkpoint any more
            if self._forgotten():
                break
        self._save()
        self._end()

    def _stop_starting(self, *_: object) -> None:
        raise _ToldToEnd

    def _start(self) -> None:
        import ray

        from ktrdr.cluster import ray_actor

        folder = ray_folder(self._settings.home)
        context = ray.init(
            address="local",
            namespace=NAMESPACE,
            include_dashboard=True,
            log_to_driver=False,
            object_store_memory=ray_actor.OBJECT_STORE_BYTES,
            logging_level=logging.ERROR,
            _temp_dir=str(folder),
        )
        # Ray has set a handler of its own
        signal.signal(signal.SIGTERM, lambda *_: self._told_to_end.set())
        address = ray.get_runtime_context().gcs_address
        dashboard = f"http://{context.dashboard_url}" if context.dashboard_url else None
        self._actor = ray_actor.make(self.owner, address, dashboard)
        ray_actor.make_spare()
        self._essential = [p for p in psutil.Process().children() if p.name() in _ESSENTIAL]
        self._note(address)
        ray_actor.wait_until_ready(self._actor)

    def _note(self, address: str) -> None:
        """Write down what a command needs to end this cluster when this process cannot."""
        cluster = cluster_file.read_cluster(self._settings.home)
        if cluster is None or cluster.owner_id != self.owner.id:
            return
        noted = tuple((p.pid, p.create_time()) for p in self._members() if _lives(p))
        cluster = replace(cluster, address=address, processes=noted)
        cluster_file.write_cluster(self._settings.home, cluster)

    def _broken(self) -> bool:
        gone = [process.pid for process in self._essential if not _lives(process)]
        if gone:
            log.error("Ray has broken down: its process %d is gone", gone[0])
        return bool(gone)

    def _forgotten(self) -> bool:
        """Whether `cluster.json` has named no cluster, or another one, for a while."""
        if self._named() or time.monotonic() - self._named_at <= GONE_AFTER_S:
            return False
        log.info("%s no longer names this cluster", cluster_file.CLUSTER_FILE)
        return True

    def _named(self) -> bool:
        with contextlib.suppress(ClusterUnavailable):
            cluster = cluster_file.read_cluster(self._settings.home)
            if cluster is not None and cluster.owner_id == self.owner.id:
                self._named_at = time.monotonic()
                return True
        return False

    def _end(self) -> NoReturn:
        """End every process of this cluster."""
        members = self._members()
        cluster_file.forget_cluster(self._settings.home, self.owner.id)
        processes.end(members, END_S)
        if not self._settings.home.exists():
            shutil.rmtree(ray_folder_name(self._settings.home), ignore_errors=True)
        os._exit(0)  # Ray's own way out waits for what has just been ended

    def _save(self) -> None:
        """Let every training write a last checkpoint."""
        from ktrdr.cluster import ray_actor

        deadline = time.monotonic() + SAVE_S
        ray_actor.shut_down(self._actor)
        drivers = [p for p in self._members() if ray_actor.is_driver(p)]
        for driver in drivers:
            with contextlib.suppress(psutil.Error):
                driver.terminate()
        while time.monotonic() < deadline and any(map(_lives, drivers)):
            time.sleep(0.05)
        while time.monotonic() < deadline and not ray_actor.nothing_left(self._actor):
            time.sleep(0.05)

    def _members(self) -> list[psutil.Process]:
        return psutil.Process().children(recursive=True)

    def _renew_until(self, started: threading.Event) -> None:
        """Keep the lease until the actor does."""
        from ktrdr.supervisor.lease_renewal import RENEW_EVERY_S

        while not started.wait(RENEW_EVERY_S):
            with contextlib.suppress(KtrdrError), self._service() as service:
                service.renew(self.owner.id)

    def _give_up(self, error: BaseException) -> None:
        """End what waits for this cluster, and leave nothing running."""
        with contextlib.suppress(KtrdrError), self._service() as service:
            while not service.close_owner(self.owner.id):
                for row in service.owned(self.owner.id):
                    with contextlib.suppress(Conflict):  # it has moved on meanwhile
                        _end_row(service, row, error)
        processes.end(self._members(), END_S)
        cluster_file.forget_cluster(self._settings.home, self.owner.id)

    @contextlib.contextmanager
    def _service(self) -> Iterator[OperationsService]:
        from ktrdr.store import open_store

        store = open_store(self._settings.database_url)
        try:
            yield OperationsService(store)
        finally:
            store.close()


def _end_row(service: OperationsService, row: Operation, error: BaseException) -> None:
    """Cancel what was pending when the cluster was told to end; else its launch has failed."""
    name, owner_id = row.operation_id, row.owner.id
    if isinstance(error, _ToldToEnd):
        row = service.request_cancel(name, row.attempt, secrets.token_hex(16))
        if row.status is Status.RUNNING:
            service.finish_stopped(name, row.attempt, StopKind.SHUTDOWN)
        return
    if row.status is Status.PENDING:
        row = service.start(name, owner_id)
    message = f"Ray did not start: {describe(error)}"
    service.lose(name, row.attempt, FailureReason.LAUNCH_FAILED, message)


def ray_folder_name(home: Path) -> Path:
    """Where Ray's folder lies: in the home, unless its path is too long for a socket."""
    folder = home / "ray"
    if len(str(folder)) > _LONGEST_FOLDER:
        name = hashlib.sha256(str(home).encode()).hexdigest()[:12]
        folder = Path("/tmp") / f"ktrdr-{os.getuid()}-{name}"
    return folder


def ray_folder(home: Path) -> Path:
    """Make the folder of sockets and logs, without the sessions of clusters that are gone.

    Ray opens its folder to everyone: the one around it is closed.
    """
    closed = ray_folder_name(home)
    closed.mkdir(mode=0o700, exist_ok=True)
    if closed.stat().st_uid != os.getuid():
        raise ClusterUnavailable(f"{closed} belongs to somebody else: set a shorter KTRDR_HOME")
    closed.chmod(0o700)
    folder = closed / "s"
    folder.mkdir(exist_ok=True)
    for session in sorted(folder.glob("session_2*"))[:-2]:
        shutil.rmtree(session, ignore_errors=True)
    return folder


def _lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


if __name__ == "__main__":
    main(sys.argv[1:])
