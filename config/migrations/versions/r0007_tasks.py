"""The named tasks of the registry."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "tasks",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("definition", sa.Text, nullable=False),
    )


def downgrade() -> None:
    """Drop the table, and with it the tasks that are in no file."""
    op.drop_table("tasks")
