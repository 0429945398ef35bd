"""The first schema: operations, events, history, checkpoints, models, requests."""

from __future__ import annotations

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "checkpoints",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("operation_id", KEY, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("batch", sa.Integer(), nullable=False),
        sa.Column("checkpoint_type", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("weights_digest", sa.Text(), nullable=False),
        sa.Column("is_best", sa.Boolean(), nullable=False),
        sa.Column("doomed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("unusable", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_checkpoints")),
        sa.UniqueConstraint(
            "operation_id",
            "attempt",
            "number",
            name=op.f("uq_checkpoints_operation_id_attempt_number"),
        ),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "meta",
        sa.Column("key", KEY, nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_meta")),
    )
    op.create_table(
        "models",
        sa.Column("strategy_name", KEY, nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("operation_id", KEY, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("storage", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("weights_digest", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(completed_at IS NULL) = (weights_digest IS NULL)",
            name=op.f("ck_models_digest_when_completed"),
        ),
        sa.PrimaryKeyConstraint("strategy_name", "version", name=op.f("pk_models")),
        sa.UniqueConstraint("operation_id", "attempt", name=op.f("uq_models_operation_id_attempt")),
    )
    op.create_table(
        "operations",
        sa.Column("operation_id", KEY, nullable=False),
        sa.Column("operation_type", sa.Text(), nullable=False),
        sa.Column("status", KEY, nullable=False),
        sa.Column("phase", sa.Text(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("owner_id", KEY, nullable=False),
        sa.Column("owner_kind", sa.Text(), nullable=False),
        sa.Column("owner_host", sa.Text(), nullable=True),
        sa.Column("owner_pid", sa.Integer(), nullable=True),
        sa.Column("owner_process_started_at", sa.Float(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("plan", sa.Text(), nullable=False),
        sa.Column("progress", sa.Text(), nullable=True),
        sa.Column("report_sequence", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancel_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("seed_checkpoint_id", sa.Integer(), nullable=True),
        sa.Column("resumed_from", sa.Text(), nullable=True),
        sa.Column("resumed_attempt", sa.Integer(), nullable=False),
        sa.Column("result", sa.Text(), nullable=True),
        sa.Column("restarts", sa.Integer(), nullable=False),
        sa.Column("memory_restarts", sa.Integer(), nullable=False),
        sa.Column("last_failure", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(status = 'cancelled') <= (cancel_requested_at IS NOT NULL)",
            name=op.f("ck_operations_cancelled_was_requested"),
        ),
        sa.CheckConstraint(
            "(status = 'completed') = (result IS NOT NULL)",
            name=op.f("ck_operations_result_when_completed"),
        ),
        sa.CheckConstraint(
            "(status = 'failed') = (error IS NOT NULL)",
            name=op.f("ck_operations_error_when_failed"),
        ),
        sa.CheckConstraint(
            "(status = 'pending') <= (attempt = 0)",
            name=op.f("ck_operations_no_attempt_when_pending"),
        ),
        sa.CheckConstraint(
            "(status = 'running') <= (attempt >= 1)",
            name=op.f("ck_operations_attempt_when_running"),
        ),
        sa.CheckConstraint(
            "(status = 'running') = (phase IS NOT NULL)",
            name=op.f("ck_operations_phase_when_running"),
        ),
        sa.CheckConstraint(
            "(status IN ('completed', 'failed', 'cancelled')) = (completed_at IS NOT NULL)",
            name=op.f("ck_operations_completed_at_when_terminal"),
        ),
        sa.CheckConstraint(
            "(status IN ('pending', 'running')) = (lease_expires_at IS NOT NULL)",
            name=op.f("ck_operations_lease_when_owned"),
        ),
        sa.CheckConstraint(
            "owner_kind IN ('embedded', 'cluster')", name=op.f("ck_operations_owner_kind_known")
        ),
        sa.CheckConstraint(
            "phase IN ('starting', 'waiting_for_resources', 'preparing_data', 'training', 'saving', 'stopping', 'restarting')",
            name=op.f("ck_operations_phase_known"),
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'running', 'completed', 'failed', 'cancelled')",
            name=op.f("ck_operations_status_known"),
        ),
        sa.PrimaryKeyConstraint("operation_id", name=op.f("pk_operations")),
    )
    op.create_index(
        op.f("ix_operations_created_at_operation_id"),
        "operations",
        ["created_at", "operation_id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_operations_owner_id_status"), "operations", ["owner_id", "status"], unique=False
    )
    op.create_index(
        op.f("ix_operations_status_created_at_operation_id"),
        "operations",
        ["status", "created_at", "operation_id"],
        unique=False,
    )
    op.create_table(
        "events",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("operation_id", KEY, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("status", KEY, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "status IN ('pending', 'running', 'completed', 'failed', 'cancelled')",
            name=op.f("ck_events_status_known"),
        ),
        sa.ForeignKeyConstraint(
            ["operation_id"],
            ["operations.operation_id"],
            name=op.f("fk_events_operation_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_events_operation_id_id"), "events", ["operation_id", "id"], unique=False
    )
    op.create_table(
        "history",
        sa.Column("operation_id", KEY, nullable=False),
        sa.Column("epoch", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("metrics", sa.Text(), nullable=False),
        sa.CheckConstraint("epoch >= 1", name=op.f("ck_history_epoch_from_one")),
        sa.ForeignKeyConstraint(
            ["operation_id"],
            ["operations.operation_id"],
            name=op.f("fk_history_operation_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("operation_id", "epoch", name=op.f("pk_history")),
    )
    op.create_table(
        "requests",
        sa.Column("request_id", KEY, nullable=False),
        sa.Column("operation_id", KEY, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["operation_id"],
            ["operations.operation_id"],
            name=op.f("fk_requests_operation_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("request_id", name=op.f("pk_requests")),
    )
    op.create_index(op.f("ix_requests_operation_id"), "requests", ["operation_id"], unique=False)
    meta = sa.table("meta", sa.column("key", sa.Text), sa.column("value", sa.Text))
    op.bulk_insert(meta, [{"key": "store_id", "value": uuid.uuid4().hex}])
