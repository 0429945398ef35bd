"""Alembic's entry: runs migrations on the connection handed over by `migrations.config`."""

from __future__ import annotations

from alembic import context

from ktrdr.store.tables import metadata

# The caller's transaction is the one that commits: a schema is upgraded whole or not at all.
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
