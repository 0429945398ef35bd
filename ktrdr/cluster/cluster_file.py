"""`cluster.json` in a home: the one local cluster that serves it, and the lock around a change."""

from __future__ import annotations

import contextlib
import fcntl
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ktrdr import processes
from ktrdr.errors import ClusterUnavailable, StorageUnavailable
from ktrdr.files import replacement

CLUSTER_FILE = "cluster.json"
LOG_FILE = "cluster.log"
OWNER_PREFIX = "local-"
_LOCK_DEADLINE_S = 120.0


@dataclass(frozen=True)
class Cluster:
    """The local cluster of a home; nothing of it is secret."""

    owner_id: str
    host: str
    pid: int
    """Of the process that holds Ray together."""
    process_started_at: float | None
    version: str
    address: str | None = None
    """Of its Ray, once that has started."""
    processes: tuple[tuple[int, float], ...] = ()
    """(pid, start time) of Ray's own processes."""

    @property
    def of_earlier_version(self) -> bool:
        """Whether a version wrote it that started Ray itself, and noted of it the head alone."""
        return not self.owner_id.startswith(OWNER_PREFIX)

    @property
    def here(self) -> bool:
        """Whether it runs on this host."""
        return self.host == socket.gethostname()

    @property
    def alive(self) -> bool:
        """Whether its process is there; one of another host is taken to be."""
        return not self.here or processes.lives(self.pid, self.process_started_at)


def read_cluster(home: Path) -> Cluster | None:
    """Return the cluster that the file names; None without a file.

    Raises:
        ClusterUnavailable: the file cannot be read.
    """
    try:
        return _cluster(json.loads((home / CLUSTER_FILE).read_text()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ClusterUnavailable(
            f"{home / CLUSTER_FILE} cannot be read ({error}): remove it and try again"
        ) from None


def write_cluster(home: Path, cluster: Cluster) -> None:
    """Replace the file as a whole."""
    with replacement(home / CLUSTER_FILE, 0o600) as file:
        file.write((json.dumps(asdict(cluster), indent=1) + "\n").encode())


def forget_cluster(home: Path, owner_id: str) -> None:
    """Remove the file when it names this owner."""
    with contextlib.suppress(ClusterUnavailable, FileNotFoundError):
        cluster = read_cluster(home)
        if cluster is not None and cluster.owner_id == owner_id:
            (home / CLUSTER_FILE).unlink()


@contextlib.contextmanager
def locked(home: Path) -> Iterator[None]:
    """Let one process at a time start or end the cluster of a home.

    Raises:
        StorageUnavailable: the home cannot be written.
        ClusterUnavailable: another process holds the lock for too long.
    """
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = (home / "cluster.lock").open("w")
    except OSError as error:
        raise StorageUnavailable(
            f"the home {home} cannot be written ({error.strerror}): set KTRDR_HOME to a folder"
            " that can"
        ) from None
    with file:
        _lock(file.fileno())
        yield


def _lock(descriptor: int) -> None:
    deadline = time.monotonic() + _LOCK_DEADLINE_S
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise ClusterUnavailable(
                    "another command still starts or ends the cluster of this home: try again"
                ) from None
            time.sleep(0.02)


def _cluster(document: dict[str, Any]) -> Cluster:
    """Fields that other versions wrote are not read; of an older one's, all processes are kept."""
    known = {field.name for field in fields(Cluster)}
    values = {name: value for name, value in document.items() if name in known}
    noted = tuple((int(pid), float(at)) for pid, at in values.get("processes", ()))
    return Cluster(**{**values, "processes": noted})
