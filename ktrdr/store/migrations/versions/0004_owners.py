"""Owners as rows, kills, queues, warnings and sweeps; whether early stopping ended a training."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
KINDS_BEFORE = "owner_kind IN ('embedded', 'cluster')"
KINDS = "owner_kind IN ('local', 'cluster', 'embedded')"


def upgrade() -> None:
    op.create_table(
        "owners",
        sa.Column("id", KEY, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=True),
        sa.Column("pid", sa.Integer(), nullable=True),
        sa.Column("process_started_at", sa.Float(), nullable=True),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("address", sa.Text(), nullable=True),
        sa.Column("dashboard", sa.Text(), nullable=True),
        sa.Column("persistent", sa.Boolean(), nullable=False),
        sa.Column("shutdown_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("closing_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("nodes", sa.Text(), nullable=False),
        sa.CheckConstraint("kind IN ('local', 'cluster')", name=op.f("ck_owners_kind_known")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_owners")),
    )
    op.add_column(
        "operations", sa.Column("kill_requested_at", sa.DateTime(timezone=True), nullable=True)
    )
    op.add_column("operations", sa.Column("waiting_for", sa.Text(), nullable=True))
    op.add_column("operations", sa.Column("driver", sa.Text(), nullable=True))
    op.add_column(
        "operations", sa.Column("warnings", sa.Text(), nullable=False, server_default="[]")
    )
    op.add_column(
        "operations", sa.Column("swept_attempt", sa.Integer(), nullable=False, server_default="0")
    )
    _index("ix_operations_unswept", "operations", "owner_id", "swept_attempt < attempt")
    _index("ix_checkpoints_doomed", "checkpoints", "operation_id", "doomed_at IS NOT NULL")
    _admit_local_owners()
    _say_what_stopped_early()


def _index(name: str, table: str, column: str, where: str) -> None:
    condition = sa.text(where)
    op.create_index(name, table, [column], sqlite_where=condition, postgresql_where=condition)


def _admit_local_owners() -> None:
    if op.get_bind().dialect.name != "sqlite":
        op.drop_constraint(op.f("ck_operations_owner_kind_known"), "operations", type_="check")
        op.create_check_constraint(op.f("ck_operations_owner_kind_known"), "operations", KINDS)
        return
    # Making the table anew would delete the rows that refer to it. A CHECK is nothing but text in
    # the schema, and SQLite documents this way to change it (lang_altertable, section 8).
    connection = op.get_bind()
    version = connection.exec_driver_sql("PRAGMA schema_version").scalar_one()
    connection.exec_driver_sql("PRAGMA writable_schema = ON")
    connection.exec_driver_sql(
        "UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE type = 'table'"
        " AND name = 'operations' AND instr(sql, ?) > 0",
        (KINDS_BEFORE, KINDS, KINDS_BEFORE),
    )
    connection.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")
    connection.exec_driver_sql("PRAGMA writable_schema = OFF")


def _say_what_stopped_early() -> None:
    table = sa.table(
        "operations",
        sa.column("operation_id", sa.Text),
        sa.column("request", sa.Text),
        sa.column("result", sa.Text),
    )
    connection = op.get_bind()
    query = sa.select(table.c.operation_id, table.c.request, table.c.result)
    for operation_id, request, result in connection.execute(
        query.where(table.c.result.is_not(None))
    ).all():
        document = json.loads(result)
        document["stopped_early"] = document["epochs"] < json.loads(request)["epochs"]
        own = sa.update(table).where(table.c.operation_id == operation_id)
        connection.execute(own.values(result=json.dumps(document)))
