"""Whether an operation has a live owner, as far as this process can see."""

from __future__ import annotations

import socket
from datetime import datetime

from ktrdr.operations.lease import lease_expired
from ktrdr.operations.types import Operation, Owner, OwnerKind
from ktrdr.processes import lives


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
