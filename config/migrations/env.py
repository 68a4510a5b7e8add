"""What Alembic runs to migrate: on the connection that `config.upgrade` hands over, inside its transaction."""

from __future__ import annotations

from alembic import context

from config.models import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
with context.begin_transaction():
    context.run_migrations()
