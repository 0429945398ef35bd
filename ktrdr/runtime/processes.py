"""Which process is which: a pid alone is reused, a pid and its start time are not."""

from __future__ import annotations

import os
import secrets
import socket

import psutil

from ktrdr.operations.model import Owner, OwnerKind

_CLOCK_TOLERANCE_S = 1.0


def embedded_owner() -> Owner:
    """A new owner: this process, for as long as it lives."""
    return Owner(
        id=f"embedded-{secrets.token_hex(8)}",
        kind=OwnerKind.EMBEDDED,
        host=socket.gethostname(),
        pid=os.getpid(),
        process_started_at=psutil.Process().create_time(),
    )


def seen_dead(owner: Owner) -> bool:
    """Whether an embedded owner of this very host is certainly gone."""
    if owner.kind is not OwnerKind.EMBEDDED or owner.host != socket.gethostname():
        return False
    return owner.pid is not None and not _lives(owner.pid, owner.process_started_at)


def _lives(pid: int, started_at: float | None) -> bool:
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
