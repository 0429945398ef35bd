"""Leases: for how long an owner's word on its operations stands."""

from __future__ import annotations

from datetime import datetime, timedelta

from ktrdr.operations.types import (
    Operation,
    OwnerKind,
)

LEASE_S = 20.0


def lease_expired(operation: Operation, now: datetime) -> bool:
    lease = operation.lease_expires_at
    return not operation.status.terminal and lease is not None and lease <= now


def ownerless(operation: Operation, presumed_dead: str | None, now: datetime) -> bool:
    """Say whether nobody looks after a pending or running operation any more."""
    if operation.status.terminal:
        return False
    owner = operation.owner
    dead = owner.kind is not OwnerKind.CLUSTER and owner.id == presumed_dead
    return dead or lease_expired(operation, now)


def lease_from(now: datetime) -> datetime:
    return now + timedelta(seconds=LEASE_S)
