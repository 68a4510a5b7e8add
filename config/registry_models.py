"""The tables of the registry (SQLAlchemy): providers, models, routes and tasks, their health, and who changed what."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, Index, Integer, String, Table, Text, false, text

from config.models import METADATA

#: SQLite counts up by itself only what is declared INTEGER (https://sqlite.org/autoinc.html).
COUNTED = BigInteger().with_variant(Integer, "sqlite")
DOCUMENT = JSON(none_as_null=True)

#: One row a provider; the columns of this table and the next three are the fields of the types in `core.registry`.
PROVIDERS = Table(
    "providers",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("base_url", String(2048)),
    Column("region", String(64)),
    Column("enabled", Boolean, nullable=False),
    Column("default", Boolean, nullable=False),
    Column("concurrency", Integer),
)

#: One row a model at a provider; `price_override` holds USD per million tokens as text, by token class.
MODELS = Table(
    "models",
    METADATA,
    Column("provider", String(64), primary_key=True),
    Column("name", String(256), primary_key=True),
    Column("aliases", DOCUMENT, nullable=False),
    Column("capabilities", DOCUMENT, nullable=False),
    Column("context_tokens", Integer),
    Column("tier", String(16), nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("weight", Integer, nullable=False),
    Column("price_override", DOCUMENT),
    Column("default_output_tokens", Integer),
)

#: One row a route; `share` is a decimal number as text, which both databases keep exactly.
ROUTES = Table(
    "routes",
    METADATA,
    Column("name", String(128), primary_key=True),
    Column("targets", DOCUMENT, nullable=False),
    Column("plan", String(256), nullable=False),
    Column("task", String(256), nullable=False),
    Column("tenant", String(256), nullable=False),
    Column("model", String(321)),
    Column("precedence", Integer, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("valid_from", BigInteger),
    Column("valid_until", BigInteger),
    Column("share", String(32), nullable=False),
    Column("sticky", String(16), nullable=False),
    Column("order", String(16), nullable=False),
    Column("strategies", DOCUMENT, nullable=False),
    Column("quality_floor", String(16)),
    Column("fall_back_on", DOCUMENT, nullable=False),
    Column("max_attempts", Integer),
    Column("cache_seconds", Integer),
    Column("cache_shared", Boolean, nullable=False),
    Column("hedge", Boolean, nullable=False, default=False, server_default=false()),
    Column("degrade_from", Integer),
    Column("degrade_to", DOCUMENT, nullable=False, server_default=text("'[]'")),
)

#: One row a named task; `definition` is JSON as text, because the order of a schema's properties counts.
TASKS = Table(
    "tasks",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("definition", Text, nullable=False),
)

#: One row a provider or `provider/model` that the health checker has looked at; times in microseconds since 1970.
HEALTH = Table(
    "health",
    METADATA,
    Column("subject", String(321), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("good_in_a_row", Integer, nullable=False),
    Column("failed_in_a_row", Integer, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
    Column("checked_at", BigInteger, nullable=False),
    Column("last_error", String(1024)),
    Column("of_the_key", Boolean, nullable=False, server_default=false()),
)

#: One row an entry that a change touched; `version` is the registry's after it. `before` is null for what was added.
REGISTRY_AUDIT = Table(
    "registry_audit",
    METADATA,
    Column("id", COUNTED, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
    Column("changed_by", String(256), nullable=False),
    Column("action", String(16), nullable=False),
    Column("subject", String(400), nullable=False),
    Column("before", DOCUMENT),
    Column("after", DOCUMENT),
    Index("registry_audit_changed_at", "changed_at"),
)

#: One row, made by the first change: how many changes there have been.
REGISTRY_VERSION = Table(
    "registry_version",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("version", BigInteger, nullable=False),
)
