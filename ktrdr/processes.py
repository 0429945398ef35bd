"""Which process is which: a pid alone is reused, a pid and its start time are not."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterable
from pathlib import Path

import psutil

_CLOCK_TOLERANCE_S = 1.0


def lives(pid: int, started_at: float | None) -> bool:
    """Whether the very process that had this pid and start time is still there."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        created = float(process.create_time())
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
    return started_at is None or abs(created - started_at) <= _CLOCK_TOLERANCE_S


def living(identities: Iterable[tuple[int, float]]) -> list[psutil.Process]:
    """Return those of the processes with these pids and start times that are still there."""
    found = []
    for pid, started_at in identities:
        if lives(pid, started_at):
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(pid))
    return found


def with_descendants(roots: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Return processes and all that they started, each once."""
    found = {root.pid: root for root in roots}
    for root in tuple(found.values()):
        with contextlib.suppress(psutil.Error):
            found |= {child.pid: child for child in root.children(recursive=True)}
    return list(found.values())


def told_of(folder: Path) -> list[psutil.Process]:
    """Return the processes that were started with an option that names something in a folder."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(
            word.startswith("-") and Path(word.partition("=")[2]).is_relative_to(folder)
            for word in process.info["cmdline"] or ()
        )
    ]


def end(processes: Iterable[psutil.Process], patience_s: float = 5.0) -> None:
    """End processes, politely and then not; one whose pid was given away since is spared."""
    left = list(processes)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)  # psutil compares the start time first
        _, left = psutil.wait_procs(left, timeout=patience_s)


def seen_from_outside(pid: int) -> str:
    """What the operating system says of a process that does not answer itself."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            return (
                f"process {pid} does not answer; it is {process.status()}, has"
                f" {process.num_threads()} threads and has used {process.cpu_times().user:.1f} s of"
                f" processor time; it waits in: {_kernel_place(pid)}"
            )
    except psutil.Error as error:
        return f"process {pid} does not answer: {error}"


def _kernel_place(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/wchan").read_text().strip() or "-"
    except OSError:
        return "unknown"
