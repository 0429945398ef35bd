"""Who looks after an operation, as far as this process can see."""

from __future__ import annotations

import socket
from datetime import datetime

from ktrdr.operations.lease import lease_expired
from ktrdr.operations.types import Operation, Owner, OwnerKind
from ktrdr.processes import lives


def seen_dead(owner: Owner) -> bool:
    """Whether an embedded owner of this very host is certainly gone."""
    if owner.kind is not OwnerKind.EMBEDDED or owner.host != socket.gethostname():
        return False
    return owner.pid is not None and not lives(owner.pid, owner.process_started_at)


def looked_after(operation: Operation, now: datetime) -> bool:
    """Whether somebody renews a pending or running operation's lease; `now` is the store's."""
    return not (seen_dead(operation.owner) or lease_expired(operation, now))
