"""Which process is which: a pid alone is reused, a pid and its start time are not."""

from __future__ import annotations

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
