"""The local cluster of a test's home: what runs of it, and its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from ktrdr.client import Client
from ktrdr.cluster import local
from ktrdr.cluster.cluster_file import read_cluster
from ktrdr.operations.types import Owner, OwnerKind
from ktrdr.settings import read_settings

DEADLINE_S = 90.0


class RowsClient(Client):
    """A client whose operations nobody starts: its owner is this very process."""

    def owner(self) -> Owner:
        this = psutil.Process()
        return Owner("tests", OwnerKind.LOCAL, "elsewhere", this.pid, this.create_time())


def host_process(home: Path) -> psutil.Process:
    """The process that holds the cluster of a home together."""
    cluster = read_cluster(home)
    assert cluster is not None
    return psutil.Process(cluster.pid)


def ray_processes(home: Path, name: str) -> list[psutil.Process]:
    """The actors of a class on the cluster of a home, such as `Driver`; Ray's own by their name."""
    found = []
    for process in host_process(home).children(recursive=True):
        try:
            title = (process.cmdline() or [""])[0]
            if process.status() != psutil.STATUS_ZOMBIE and (
                title == f"ray::{name}"
                or title.startswith(f"ray::{name}.")
                or process.name() == name
            ):
                found.append(process)
        except psutil.Error:
            continue
    return found


def driver_process(home: Path) -> psutil.Process:
    """The driver of the one operation that runs: the one that is kept ready is younger."""
    return min(ray_processes(home, "Driver"), key=lambda process: process.create_time())


def end_cluster(home: Path) -> None:
    """End the cluster of a home, when there is one, with what runs on it."""
    if read_cluster(home) is None:
        return
    with Client(read_settings({}, home=home)) as client:
        local.stop(client.settings, lambda: client.service)


def until(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Wait for a condition; what it returned."""
    deadline = time.monotonic() + deadline_s
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {deadline_s} s: {what}")
