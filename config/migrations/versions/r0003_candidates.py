"""The plan of a request, and whose turn it is among its candidates."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the columns."""
    op.add_column("requests", sa.Column("candidate", sa.Integer, nullable=False, server_default="0"))
    op.add_column("requests", sa.Column("plan", sa.LargeBinary))
    op.add_column("attempts", sa.Column("candidate", sa.Integer, nullable=False, server_default="0"))


def downgrade() -> None:
    """Drop the columns."""
    op.drop_column("attempts", "candidate")
    op.drop_column("requests", "plan")
    op.drop_column("requests", "candidate")
