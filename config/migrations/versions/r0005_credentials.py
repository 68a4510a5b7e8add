"""The table of credentials."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "credentials",
        sa.Column("credential_id", sa.String(40), primary_key=True),
        sa.Column("provider", sa.String(64), nullable=False),
        sa.Column("tenant", sa.String(256)),
        sa.Column("label", sa.String(256), nullable=False),
        sa.Column("last_four", sa.String(4), nullable=False),
        sa.Column("weight", sa.Integer, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("rotated_at", sa.BigInteger),
        sa.Column("revoked_at", sa.BigInteger),
        sa.Column("key_version", sa.Integer, nullable=False),
        sa.Column("kek_id", sa.String(512)),
        sa.Column("wrapped_key", sa.LargeBinary),
        sa.Column("nonce", sa.LargeBinary),
        sa.Column("ciphertext", sa.LargeBinary),
    )
    op.create_index("credentials_provider", "credentials", ["provider", "tenant"])


def downgrade() -> None:
    """Drop the table, and with it every stored key."""
    op.drop_table("credentials")
