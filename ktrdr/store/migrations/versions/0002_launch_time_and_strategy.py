"""When a restart may be launched, and the strategy's name as a column to list by.

Columns are added in place: making the table anew, as SQLite needs for more than that, would take
the rows that refer to it along.
"""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column(
        "operations", sa.Column("launch_not_before", sa.DateTime(timezone=True), nullable=True)
    )
    op.add_column(
        "operations", sa.Column("strategy_name", KEY, nullable=False, server_default="")
    )
    op.create_index(
        op.f("ix_operations_strategy_name_created_at_operation_id"),
        "operations",
        ["strategy_name", "created_at", "operation_id"],
        unique=False,
    )
    _fill_strategy_names()


def _fill_strategy_names() -> None:
    table = sa.table(
        "operations",
        sa.column("operation_id", sa.Text),
        sa.column("request", sa.Text),
        sa.column("strategy_name", sa.Text),
    )
    connection = op.get_bind()
    for operation_id, request in connection.execute(
        sa.select(table.c.operation_id, table.c.request)
    ).all():
        name = json.loads(request)["strategy_name"]
        own = sa.update(table).where(table.c.operation_id == operation_id)
        connection.execute(own.values(strategy_name=name))
