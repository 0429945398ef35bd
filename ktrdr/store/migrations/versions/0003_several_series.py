"""A plan names every series that it uses, and its options list symbols and timeframes."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    table = sa.table(
        "operations",
        sa.column("operation_id", sa.Text),
        sa.column("request", sa.Text),
        sa.column("plan", sa.Text),
    )
    connection = op.get_bind()
    for operation_id, request, plan in connection.execute(
        sa.select(table.c.operation_id, table.c.request, table.c.plan)
    ).all():
        changed = json.dumps(_several(json.loads(request), json.loads(plan)))
        own = sa.update(table).where(table.c.operation_id == operation_id)
        connection.execute(own.values(plan=changed))


def _several(request: dict[str, Any], plan: dict[str, Any]) -> dict[str, Any]:
    if "span" not in plan:
        return plan
    series = {"symbol": request["symbols"][0], "timeframe": request["timeframes"][0]}
    spans = [series | plan.pop("span")]
    overrides = plan["overrides"]
    for one, several in (("symbol", "symbols"), ("timeframe", "timeframes")):
        if one in overrides:
            overrides[several] = [overrides.pop(one)]
    return {**plan, "spans": spans}
