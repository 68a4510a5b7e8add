"""Who may do what in the store, as SQL: a reader confined to one tenant, and a writer for the sink.

https://clickhouse.com/docs/operations/access-rights
"""

from __future__ import annotations

from sinks import bodies
from sinks.rows import FACTS

#: What a reader sees, row by row of its own tenant; prompts and answers only where that is asked for.
READ_TABLES = (
    *("requests", "responses", "usage", "alerts"),
    *("usage_by_minute", "usage_by_hour", "usage_by_day", "latency_by_hour"),
)
READ_VIEWS = (
    *("provider_calls", "ai_provider_usage_logs", "ai_usage_logs", "weekly_ai_costs", "usage_tracking"),
    *("provider_latency", "cost_by_model", "cost_by_tenant", "top_users", "error_rate_by_task", "spend_today"),
    *("slowest_requests", "unpriced_usage", "cache_savings"),
)
WRITER = "millstream_writer"


def reader_statements(database: str, tenant: str, user: str | None = None, with_bodies: bool = False) -> list[str]:
    """The statements of a role that reads this tenant's rows, granted to `user` if one is named; safe to run again.

    The policy comes before the grants, so that a role that exists half-way sees too little, never too much.
    """
    role = _identifier(f"millstream_reader_{tenant}")
    tables = (*READ_TABLES, bodies.TABLE)
    statements = [
        f"CREATE ROLE IF NOT EXISTS {role}",
        f"CREATE ROW POLICY OR REPLACE {role} ON {', '.join(_names(database, tables))} "
        f"FOR SELECT USING tenant = {_literal(tenant)} TO {role}",
    ]
    granted = (*(tables if with_bodies else READ_TABLES), *READ_VIEWS)
    statements += [f"GRANT SELECT ON {name} TO {role}" for name in _names(database, granted)]
    if user is not None:
        statements.append(f"GRANT {role} TO {_identifier(user)}")
    return statements


def writer_statements(database: str) -> list[str]:
    """The statements of the role that the sink needs, and no more; safe to run again."""
    tables = (*(fact.table for fact in FACTS), bodies.TABLE)
    return [
        f"CREATE ROLE IF NOT EXISTS {WRITER}",
        *(f"GRANT INSERT ON {name} TO {WRITER}" for name in _names(database, tables)),
        f"GRANT SELECT ON {_identifier(database)}.`schema_migrations` TO {WRITER}",
    ]


def _names(database: str, tables: tuple[str, ...]) -> list[str]:
    return [f"{_identifier(database)}.{_identifier(table)}" for table in tables]


def _escaped(text: str) -> str:
    # https://clickhouse.com/docs/sql-reference/syntax#string
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\0", "\\0")


def _identifier(name: str) -> str:
    return "`" + _escaped(name).replace("`", "\\`") + "`"


def _literal(value: str) -> str:
    return "'" + _escaped(value).replace("'", "\\'") + "'"
