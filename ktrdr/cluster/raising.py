"""`ktrdr up` and `ktrdr down`: a Ray on this machine that stays until it is taken down."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from ktrdr import processes
from ktrdr.cluster import local, remote
from ktrdr.cluster.local import Cluster
from ktrdr.errors import ClusterUnavailable, Unreachable
from ktrdr.operations.service import OperationsService
from ktrdr.operations.types import Status
from ktrdr.settings import Settings
from ktrdr.supervisor.decisions import GRACE_S

START_DEADLINE_S = 90.0
UNSAVED_S = 10.0
"""How long drivers may take for a last checkpoint when the store does not answer."""
_LOCK_DEADLINE_S = 120.0
_LONGEST_FOLDER = 40  # a socket's path has room for little more than what Ray adds to it
_PORTS = range(20_000, 30_000)  # Ray's workers use 10002 to 19999


@dataclass(frozen=True)
class Stopped:
    """What `down` has stopped; `unsaved` says why the store could not be told of it."""

    cluster: Cluster
    unsaved: str | None


def up(settings: Settings) -> tuple[Cluster, bool]:
    """Raise a Ray that stays, its dashboard on loopback; the cluster, and whether it is new.

    Raises:
        ClusterUnavailable: it did not start; nothing of it is left.
    """
    remote.expect_token()
    with _alone(settings.home):
        cluster = local.read_cluster(settings.home)
        if cluster is not None and local.head_lives(cluster):
            return cluster, False
        local.forget_cluster(settings.home)
        address, started = _start_head(settings)
        try:
            cluster = _complete(address, started)
            local.write_cluster(settings.home, cluster)
        except BaseException:
            started.end()
            raise
        return cluster, True


def down(settings: Settings, service: Callable[[], OperationsService]) -> Stopped | None:
    """Stop every driver with a last checkpoint, then Ray; None when there was nothing to stop.

    Without a store that answers Ray is ended all the same. Only processes that are surely of this
    cluster are ended: by pid and start time, on the host that raised it.

    Raises:
        ClusterUnavailable: it was raised on another host.
    """
    with _alone(settings.home):
        cluster = local.read_cluster(settings.home)
        if cluster is None:
            return None
        if cluster.host is not None and cluster.host != socket.gethostname():
            raise ClusterUnavailable(
                f"the cluster at {cluster.address} was raised on {cluster.host}: run `ktrdr down`"
                " there"
            )
        unsaved = None
        if local.head_lives(cluster):
            try:
                _stop_drivers(cluster, service())
            except Unreachable as error:
                unsaved = error.message
                _terminate_drivers(cluster)
        processes.end(_processes_of(cluster))
        local.forget_cluster(settings.home)
        return Stopped(cluster, unsaved)


def _processes_of(cluster: Cluster) -> list[psutil.Process]:
    """Return what lives of a cluster: what was noted when it was raised, and what that started."""
    noted = list(cluster.processes)
    if cluster.pid is not None and cluster.process_started_at is not None:
        noted.append((cluster.pid, cluster.process_started_at))
    return processes.with_descendants(processes.living(noted))


def _terminate_drivers(cluster: Cluster) -> None:
    """Let drivers write a last checkpoint whose row follows when the operation is resumed."""
    drivers = [p for p in _processes_of(cluster) if _is_driver(p)]
    for driver in drivers:
        with contextlib.suppress(psutil.Error):
            driver.terminate()
    psutil.wait_procs(drivers, timeout=UNSAVED_S)


def _is_driver(process: psutil.Process) -> bool:
    try:
        return process.cmdline()[:1] in (["ray::Driver"], ["ray::Driver.pulse"])
    except psutil.Error:
        return False


def _stop_drivers(cluster: Cluster, service: OperationsService) -> None:
    """Wait out the grace period, also when Ray itself is in trouble."""
    remote.expect_token()
    import ray

    try:
        remote.join(cluster.address)
        actor = remote.start_actor(local.joined_owner())
        ray.get(actor.shut_down.remote(), timeout=remote.CALL_TIMEOUT_S)
    except (ClusterUnavailable, ray.exceptions.RayError):
        return
    deadline = time.monotonic() + GRACE_S
    while time.monotonic() < deadline and any(
        row.status is Status.RUNNING for row in service.owned(cluster.owner_id)
    ):
        time.sleep(0.1)
    ray.shutdown()


@dataclass(frozen=True)
class Started:
    """The processes that this very call of `ray start` has left: in its session, and younger.

    The number of the session is used while this process knows whose it is, and never stored.
    """

    session: int
    since: float

    def members(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                young = process.create_time() >= self.since - 1.0
                if young and os.getsid(process.pid) == self.session:
                    found.append(process)
        return found

    def end(self) -> None:
        processes.end(self.members())


def _start_head(settings: Settings) -> tuple[str, Started]:
    """Run `ray start --head`; the address, and the processes it leaves."""
    port = _free_port()
    address = f"{_own_address()}:{port}"
    words = [
        str(Path(sys.executable).with_name("ray")), "start", "--head",
        f"--port={port}", f"--node-ip-address={_own_address()}",
        "--dashboard-host=127.0.0.1", f"--dashboard-port={_free_port()}",
        f"--temp-dir={_folder(settings.home)}", "--disable-usage-stats",
        f"--object-store-memory={remote.OBJECT_STORE_BYTES}",
    ]  # fmt: skip
    environ = os.environ | settings.environment() | remote.RAY_ENVIRONMENT
    environ |= {"RAY_AUTH_MODE": "token"}
    environ.pop("RAY_ADDRESS", None)
    _make_token(environ)
    since = time.time()
    process = subprocess.Popen(
        words,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        umask=0o077,
    )
    started = Started(process.pid, since)
    try:
        said, _ = process.communicate(timeout=START_DEADLINE_S)
    except BaseException as error:
        started.end()
        if isinstance(error, subprocess.TimeoutExpired):
            raise ClusterUnavailable(f"Ray did not start within {START_DEADLINE_S:.0f} s") from None
        raise
    if process.returncode != 0:
        started.end()
        last = [line for line in said.splitlines() if line.strip()][-1:]
        raise ClusterUnavailable(f"Ray did not start: {''.join(last)[:300]}")
    return address, started


def _complete(address: str, started: Started) -> Cluster:
    remote.join(address)
    owner = local.joined_owner()
    actor = remote.start_actor(owner, {local.HEAD_RESOURCE: 0.001})
    members = started.members()
    head = _head(members)
    return replace(
        local.describe_cluster(address, owner, actor),
        host=socket.gethostname(),
        dashboard=_dashboard(),
        pid=head.pid,
        process_started_at=head.create_time(),
        processes=tuple((p.pid, p.create_time()) for p in members if p.is_running()),
    )


def _dashboard() -> str | None:
    from ray._private.worker import global_worker

    where = global_worker.node.webui_url if global_worker.node else None
    return f"http://{where}" if where else None


def _make_token(environ: dict[str, str]) -> None:
    """Ray's token file, made when there is none: `ray start` does not make it by itself."""
    subprocess.run(
        [str(Path(sys.executable).with_name("ray")), "get-auth-token", "--generate"],
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=START_DEADLINE_S,
        umask=0o077,
        check=False,  # `ray start` itself says what is wrong
    )


def _head(members: Sequence[psutil.Process]) -> psutil.Process:
    for process in members:
        with contextlib.suppress(psutil.Error):
            if "gcs_server" in process.name():
                return process
    raise ClusterUnavailable("Ray ended right after its start: see its logs below the home")


def _folder(home: Path) -> Path:
    """Where Ray keeps sockets and logs: in the home, unless its path is too long for a socket."""
    folder = home / "ray"
    if len(str(folder)) > _LONGEST_FOLDER:
        name = hashlib.sha256(str(home).encode()).hexdigest()[:12]
        folder = Path("/tmp") / f"ktrdr-{os.getuid()}-{name}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise ClusterUnavailable(f"{folder} belongs to somebody else: set a shorter KTRDR_HOME")
    return folder


def _free_port() -> int:
    for _ in range(100):
        port = secrets.choice(_PORTS)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise ClusterUnavailable("no free port between 20000 and 29999")


def _own_address() -> str:
    import ray.util

    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return address


@contextlib.contextmanager
def _alone(home: Path) -> Iterator[None]:
    """One `up` or `down` of a home at a time."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    deadline = time.monotonic() + _LOCK_DEADLINE_S
    with (home / "cluster.lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ClusterUnavailable(
                        "another `ktrdr up` or `ktrdr down` has not ended yet: try again"
                    ) from None
                time.sleep(0.1)
        yield
