"""The local cluster of a home, as a command sees it: found, started in the background, ended.

No Ray in here: the cluster is another process, and what is asked of it are rows.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import psutil

from ktrdr import processes
from ktrdr.cluster.cluster_file import (
    LOG_FILE,
    OWNER_PREFIX,
    Cluster,
    forget_cluster,
    locked,
    read_cluster,
    write_cluster,
)
from ktrdr.errors import (
    ClusterUnavailable,
    Conflict,
    KtrdrError,
    StoreMismatch,
    Unreachable,
    VersionMismatch,
)
from ktrdr.operations.service import OperationsService
from ktrdr.operations.types import Owner, OwnerKind, OwnerRow
from ktrdr.settings import Settings, read_settings
from ktrdr.version import version

RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",
    "RAY_worker_niceness": "0",  # by default a training comes after everything else (15)
}
START_DEADLINE_S = 90.0
END_DEADLINE_S = 60.0
"""How long a cluster may take to save every training and to end."""
LEFTOVER_S = 1.0
"""How long what a dead cluster left may take to end by itself."""
_POLL_S = 0.05
_CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_ENDPOINT_URL",
)

Notice = Callable[[str], None]


@dataclass(frozen=True)
class Stopped:
    """What `stop` has ended; `unsaved` says why the store could not be told of it."""

    cluster: Cluster
    unsaved: str | None


def find(settings: Settings) -> Cluster | None:
    """Return the cluster that serves this home; None when there is none that lives."""
    cluster = read_cluster(settings.home)
    return cluster if cluster is not None and cluster.alive else None


def ensure(settings: Settings, service: OperationsService, notice: Notice) -> Owner:
    """Return the owner that operations of this home are given to.

    Without a living cluster one is started in the background: this does not wait for its Ray.

    Raises:
        StoreMismatch, VersionMismatch: there is another one, which is busy.
        ClusterUnavailable: it runs on another host, or none can be started.
        StorageUnavailable: the home cannot be written.
    """
    owner = _serving(settings, service)
    if owner is not None:
        return owner
    with locked(settings.home):
        owner = _serving(settings, service)  # somebody else may have started it meanwhile
        if owner is None:
            _end_leftovers(settings)
            owner = _start(settings, service)
            notice(
                "starting the local cluster in the background (it ends"
                f" {settings.idle_s:.0f} s after its last use; `ktrdr down` ends it at once)"
            )
        return owner


def wait_until_up(service: OperationsService, owner: Owner) -> OwnerRow:
    """Return the row of an owner once its Ray serves.

    Raises:
        ClusterUnavailable: it did not start.
    """
    deadline = time.monotonic() + START_DEADLINE_S
    while time.monotonic() < deadline:
        row = service.owner(owner.id)
        if row is not None and row.address is not None:
            return row
        if row is None or row.closing_at is not None or not _lives(owner):
            break
        time.sleep(_POLL_S)
    raise ClusterUnavailable("Ray did not start")


def stop(settings: Settings, service: Callable[[], OperationsService]) -> Stopped | None:
    """Save every training with a last checkpoint and end the cluster; None without one.

    Also without a store that answers. Only processes that are surely of this cluster are ended:
    by pid and start time, on the host where they run.

    Raises:
        ClusterUnavailable: it runs on another host.
    """
    with locked(settings.home):
        cluster = read_cluster(settings.home)
        if cluster is None:
            return None
        if not cluster.here:
            raise ClusterUnavailable(
                f"the cluster of this home runs on {cluster.host}: run `ktrdr down` there"
            )
        unsaved = None
        if cluster.alive:
            try:
                _save(cluster, service())
            except Unreachable as error:
                unsaved = error.message
            except KtrdrError:
                pass  # its row is gone: there is nothing to save
            if not cluster.of_earlier_version:
                _terminate(cluster)
                _wait_for_end(cluster, END_DEADLINE_S)
        _end_processes(settings, cluster)
        forget_cluster(settings.home, cluster.owner_id)
        return Stopped(cluster, unsaved)


def _save(cluster: Cluster, service: OperationsService) -> None:
    """Let every training write a last checkpoint; a cluster of this version then ends."""
    if not cluster.of_earlier_version:
        service.request_shutdown(cluster.owner_id)
        return _wait_for_end(cluster, END_DEADLINE_S)
    for row in service.owned(cluster.owner_id):
        with contextlib.suppress(Conflict):  # it ended meanwhile
            service.request_cancel(row.operation_id, row.attempt, secrets.token_hex(16))
    deadline = time.monotonic() + END_DEADLINE_S
    while service.owned(cluster.owner_id) and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def _serving(settings: Settings, service: OperationsService) -> Owner | None:
    """Return the owner of a cluster that lives and takes operations of these settings."""
    cluster = find(settings)
    if cluster is None:
        return None
    if not cluster.here:
        raise ClusterUnavailable(
            f"the cluster of this home runs on {cluster.host}: use it there, or `ktrdr down` there"
        )
    refusal = _refusal(cluster, settings)
    if refusal is not None:
        if not _close(cluster):
            raise refusal
        _terminate(cluster)
        return None
    row = service.owner(cluster.owner_id)
    return row.owner if row is not None and row.accepting else None


def _refusal(cluster: Cluster, settings: Settings) -> Unreachable | None:
    """Say why a cluster cannot serve this command."""
    if cluster.version != version():
        return VersionMismatch(
            f"the cluster of this home runs ktrdr {cluster.version}, this is {version()}, and"
            " trainings run there: let them end, or stop them with `ktrdr down`"
        )
    started_with = _environment(cluster)
    if started_with is None or _compared(started_with) == _compared(
        os.environ | settings.environment()
    ):
        return None
    return StoreMismatch(
        "the cluster of this home was started with another database, storage or credentials, and"
        " trainings run there: let them end, or stop them with `ktrdr down`"
    )


def _compared(environ: Mapping[str, str]) -> tuple[object, ...]:
    settings = read_settings(environ)
    places = settings.database_url, settings.storage
    return *places, *(environ.get(name) for name in _CREDENTIALS)


def _environment(cluster: Cluster) -> Mapping[str, str] | None:
    """Return the environment that a cluster was started with; None when it has just ended."""
    try:
        return psutil.Process(cluster.pid).environ()
    except psutil.NoSuchProcess:
        return None
    except psutil.AccessDenied:
        raise ClusterUnavailable(
            f"the cluster of this home, process {cluster.pid}, belongs to somebody else"
        ) from None


def _close(cluster: Cluster) -> bool:
    """Let an idle cluster end, in the store that it serves; False when it is busy."""
    from ktrdr.store import open_store

    try:
        store = open_store(read_settings(_environment(cluster) or {}).database_url)
    except Unreachable:
        return False
    try:
        return OperationsService(store).close_owner(cluster.owner_id)
    except Unreachable:
        return False
    finally:
        store.close()


def _start(settings: Settings, service: OperationsService) -> Owner:
    """Start the process that holds Ray together; the lock is held."""
    owner_id = f"{OWNER_PREFIX}{secrets.token_hex(8)}"
    pid = _spawn(settings, owner_id)
    started_at = psutil.Process(pid).create_time()
    owner = Owner(owner_id, OwnerKind.LOCAL, socket.gethostname(), pid, started_at)
    cluster = Cluster(owner_id, socket.gethostname(), pid, started_at, version())
    try:
        service.register_owner(owner, version())
        write_cluster(settings.home, cluster)
    except BaseException:
        _end_processes(settings, cluster)
        raise
    return owner


def _spawn(settings: Settings, owner_id: str) -> int:
    """Start a process that inherits no terminal, no signal mask and no output of ours."""
    environ = os.environ | settings.environment() | RAY_ENVIRONMENT | {"RAY_AUTH_MODE": "token"}
    environ.pop("RAY_ADDRESS", None)
    log = os.open(settings.home / LOG_FILE, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        return os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "ktrdr.cluster.host", owner_id],
            environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, log, 1),
                (os.POSIX_SPAWN_DUP2, log, 2),
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE),
        )
    finally:
        os.close(log)


def _end_leftovers(settings: Settings) -> None:
    """End what a cluster whose process is gone has left on this host; the lock is held.

    One of an earlier version, replaced because it is idle, does not end by itself.
    """
    cluster = read_cluster(settings.home)
    if cluster is None or not cluster.here:
        return
    if cluster.of_earlier_version or not cluster.alive:
        _end_processes(settings, cluster)
        forget_cluster(settings.home, cluster.owner_id)


def _end_processes(settings: Settings, cluster: Cluster) -> None:
    noted = [*cluster.processes]
    if cluster.process_started_at is not None:
        noted.append((cluster.pid, cluster.process_started_at))
    found = processes.with_descendants(processes.living(noted))
    if cluster.of_earlier_version:
        found += processes.told_of(settings.home / "ray")
    processes.end(found, LEFTOVER_S)


def _terminate(cluster: Cluster) -> None:
    if cluster.process_started_at is not None:
        for process in processes.living([(cluster.pid, cluster.process_started_at)]):
            with contextlib.suppress(psutil.Error):
                process.terminate()


def _wait_for_end(cluster: Cluster, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while cluster.alive and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def _lives(owner: Owner) -> bool:
    return owner.pid is not None and processes.lives(owner.pid, owner.process_started_at)
