"""Routes that go on with a cheaper model where a limit is nearly used up."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Add the columns; no route degrades yet."""
    op.add_column("routes", sa.Column("degrade_from", sa.Integer))
    op.add_column("routes", sa.Column("degrade_to", sa.JSON, nullable=False, server_default=sa.text("'[]'")))


def downgrade() -> None:
    """Drop the columns."""
    with op.batch_alter_table("routes") as changed:
        changed.drop_column("degrade_to")
        changed.drop_column("degrade_from")
