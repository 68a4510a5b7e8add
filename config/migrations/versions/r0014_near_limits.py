"""Which limits were nearly used up when a request was admitted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Add the column."""
    op.add_column("requests", sa.Column("near", sa.LargeBinary))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("requests", "near")
