"""Models that say how much they may write where a request does not."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Add the column; every model has the deployment's default yet."""
    op.add_column("models", sa.Column("default_output_tokens", sa.Integer))


def downgrade() -> None:
    """Drop the column."""
    with op.batch_alter_table("models") as changed:
        changed.drop_column("default_output_tokens")
