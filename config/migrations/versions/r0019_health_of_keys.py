"""Whether what was wrong with a provider when it was checked last is the fault of the platform's key."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """Add the column; of what was checked before, nobody says so."""
    op.add_column("health", sa.Column("of_the_key", sa.Boolean, nullable=False, server_default=sa.false()))


def downgrade() -> None:
    """Drop the column."""
    with op.batch_alter_table("health") as changed:
        changed.drop_column("of_the_key")
