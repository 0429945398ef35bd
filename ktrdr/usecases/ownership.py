"""The owner of an operation: whether it is alive, and retries when it just ends."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from ktrdr.errors import OwnerClosing
from ktrdr.operations.lease import lease_expired
from ktrdr.operations.types import Operation, Owner, OwnerKind
from ktrdr.processes import lives

T = TypeVar("T")

_TRIES = 5
"""A cluster that ends just now is followed by a new one, which stays for a while."""
_PAUSE_S = 0.1


def retried_when_closing(write: Callable[[], T]) -> T:
    """Do a guarded write that names an owner, anew when that one ends just now.

    Raises:
        OwnerClosing: one owner after the other ended.
    """
    for _ in range(_TRIES - 1):
        try:
            return write()
        except OwnerClosing:
            time.sleep(_PAUSE_S)
    return write()


def seen_dead(owner: Owner) -> bool:
    """Whether the process of an owner on this very host is certainly gone.

    Of a cluster of many nodes no single process can tell.
    """
    if owner.kind is OwnerKind.CLUSTER or owner.host != socket.gethostname():
        return False
    return owner.pid is not None and not lives(owner.pid, owner.process_started_at)


def looked_after(operation: Operation, now: datetime) -> bool:
    """Whether the owner of a pending or running operation lives; `now` is the store's."""
    return not (seen_dead(operation.owner) or lease_expired(operation, now))
