"""The schema: tables whose constraints refuse what the state machine does not know.

A change here needs a migration in migrations/versions; a test compares the two.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.types import TypeEngine

from ktrdr.operations.types import OwnerKind, Phase, Status


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC times; SQLite keeps no zone, so they are stored without one there."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(DateTime(timezone=dialect.name != "sqlite"))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None or dialect.name != "sqlite":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Json(TypeDecorator[Any]):
    """Plain JSON as text, floats exact; what JSON has no number for (nan, inf) becomes null."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, _dialect: Dialect) -> str | None:
        return None if value is None else json.dumps(_finite(value), allow_nan=False)

    def process_result_value(self, value: str | None, _dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


Key = Text().with_variant(Text(collation="C"), "postgresql")
"""Text that is looked up and sorted: by its bytes, whatever language a server sorts in."""


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def _one_of(column: str, values: type[Status] | type[Phase] | type[OwnerKind]) -> str:
    return f"{column} IN ({', '.join(repr(value.value) for value in values)})"


def _where(condition: str) -> dict[str, Any]:
    """Return what makes an index hold only some rows."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

meta = Table(
    "meta",
    metadata,
    Column("key", Key, primary_key=True),
    Column("value", Text, nullable=False),
)

operations = Table(
    "operations",
    metadata,
    Column("operation_id", Key, primary_key=True),
    Column("operation_type", Text, nullable=False),
    Column("status", Key, nullable=False),
    Column("phase", Text),
    Column("attempt", Integer, nullable=False),
    Column("owner_id", Key, nullable=False),
    Column("owner_kind", Text, nullable=False),
    Column("owner_host", Text),
    Column("owner_pid", Integer),
    Column("owner_process_started_at", Float),
    Column("lease_expires_at", UtcDateTime),
    Column("request", Json, nullable=False),
    Column("plan", Json, nullable=False),
    Column("progress", Json),
    Column("report_sequence", BigInteger, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("started_at", UtcDateTime),
    Column("completed_at", UtcDateTime),
    Column("cancel_requested_at", UtcDateTime),
    Column("error", Json),
    Column("seed_checkpoint_id", Integer),
    Column("resumed_from", Json),
    Column("resumed_attempt", Integer, nullable=False),
    Column("result", Json),
    Column("restarts", Integer, nullable=False),
    Column("memory_restarts", Integer, nullable=False),
    Column("last_failure", Json),
    Column("launch_not_before", UtcDateTime),
    Column("kill_requested_at", UtcDateTime),
    Column("waiting_for", Text),
    Column("driver", Text),
    Column("warnings", Json, nullable=False, server_default="[]"),
    # No part of its state: up to which attempt its storage was swept.
    Column("swept_attempt", Integer, nullable=False, server_default="0"),
    # A copy of what is in the request, to select by; the request is what counts.
    Column("strategy_name", Key, nullable=False, server_default=""),
    CheckConstraint(_one_of("status", Status), "status_known"),
    CheckConstraint(_one_of("phase", Phase), "phase_known"),
    CheckConstraint(_one_of("owner_kind", OwnerKind), "owner_kind_known"),
    CheckConstraint("(status = 'running') = (phase IS NOT NULL)", "phase_when_running"),
    CheckConstraint("(status = 'pending') <= (attempt = 0)", "no_attempt_when_pending"),
    CheckConstraint("(status = 'running') <= (attempt >= 1)", "attempt_when_running"),
    CheckConstraint(
        "(status IN ('completed', 'failed', 'cancelled')) = (completed_at IS NOT NULL)",
        "completed_at_when_terminal",
    ),
    CheckConstraint(
        "(status IN ('pending', 'running')) = (lease_expires_at IS NOT NULL)",
        "lease_when_owned",
    ),
    CheckConstraint(
        "(status = 'cancelled') <= (cancel_requested_at IS NOT NULL)", "cancelled_was_requested"
    ),
    CheckConstraint("(status = 'completed') = (result IS NOT NULL)", "result_when_completed"),
    CheckConstraint("(status = 'failed') = (error IS NOT NULL)", "error_when_failed"),
    Index(None, "created_at", "operation_id"),
    Index(None, "status", "created_at", "operation_id"),
    Index(None, "strategy_name", "created_at", "operation_id"),
    Index(None, "owner_id", "status"),
    Index("ix_operations_unswept", "owner_id", **_where("swept_attempt < attempt")),
)

requests = Table(
    "requests",
    metadata,
    Column("request_id", Key, primary_key=True),
    Column(
        "operation_id",
        Key,
        ForeignKey("operations.operation_id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    Column("at", UtcDateTime, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column(
        "operation_id",
        Key,
        ForeignKey("operations.operation_id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("attempt", Integer, nullable=False),
    Column("event", Text, nullable=False),
    Column("status", Key, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("details", Json, nullable=False),
    CheckConstraint(_one_of("status", Status), "status_known"),
    Index(None, "operation_id", "id"),
    sqlite_autoincrement=True,
)

history = Table(
    "history",
    metadata,
    Column(
        "operation_id",
        Key,
        ForeignKey("operations.operation_id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    Column("metrics", Json, nullable=False),
    CheckConstraint("epoch >= 1", "epoch_from_one"),
)

# No foreign key: an owner's operations outlive it, and rows of earlier versions have none here.
owners = Table(
    "owners",
    metadata,
    Column("id", Key, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("host", Text),
    Column("pid", Integer),
    Column("process_started_at", Float),
    Column("version", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("lease_expires_at", UtcDateTime, nullable=False),
    Column("address", Text),
    Column("dashboard", Text),
    Column("persistent", Boolean, nullable=False),
    Column("shutdown_requested_at", UtcDateTime),
    Column("closing_at", UtcDateTime),
    Column("nodes", Json, nullable=False),
    CheckConstraint("kind IN ('local', 'cluster')", "kind_known"),
)

# No foreign key: the doomed rows of a deleted operation stay until their directories are gone.
checkpoints = Table(
    "checkpoints",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("operation_id", Key, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("number", Integer, nullable=False),
    Column("path", Text, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("batch", Integer, nullable=False),
    Column("checkpoint_type", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("weights_digest", Text, nullable=False),
    Column("is_best", Boolean, nullable=False),
    Column("doomed_at", UtcDateTime),
    Column("unusable", Text),
    UniqueConstraint("operation_id", "attempt", "number"),
    Index("ix_checkpoints_doomed", "operation_id", **_where("doomed_at IS NOT NULL")),
    # An id that was forgotten is never given to another checkpoint.
    sqlite_autoincrement=True,
)

# No foreign key: a model outlives its operation.
models = Table(
    "models",
    metadata,
    Column("strategy_name", Key, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("operation_id", Key, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("storage", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("weights_digest", Text),
    Column("created_at", UtcDateTime, nullable=False),
    Column("completed_at", UtcDateTime),
    UniqueConstraint("operation_id", "attempt"),
    CheckConstraint("(completed_at IS NULL) = (weights_digest IS NULL)", "digest_when_completed"),
)
