"""Alembic's entry: runs inside the transaction that `pacs_cbir.store.schema` opened."""

from alembic import context

from pacs_cbir.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
