"""The table of API keys that applications ask with."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Index, LargeBinary, String, Table

from config.models import METADATA

#: One row a key; the last four columns hold what it signs with, encrypted, and are emptied when it is revoked.
ISSUED_KEYS = Table(
    "issued_keys",
    METADATA,
    Column("key_id", String(40), primary_key=True),
    Column("tenant", String(256), nullable=False),
    Column("user", String(256)),
    Column("project", String(256)),
    Column("models", JSON, nullable=False),
    Column("label", String(256), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
    Column("kek_id", String(512)),
    Column("wrapped_key", LargeBinary),
    Column("nonce", LargeBinary),
    Column("ciphertext", LargeBinary),
    Index("issued_keys_tenant", "tenant"),
)
