"""The SQL of `millstream grant-reader`, and what ClickHouse's own access control makes of it.

The engine of the local stack has no store for roles, so the statements are parsed by it, and their grants and row policy are
put to it in the form of a users file: https://clickhouse.com/docs/operations/settings/settings-users
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html import escape
from pathlib import Path
from typing import Any

import pytest

from sinks.grants import READ_TABLES, READ_VIEWS, reader_statements, writer_statements
from sinks.migrations import migrations

HARD_NAMES = ("acme", "a'b", "back\\slash", "back`tick", "'; DROP TABLE usage; --", "new\nline")

ASK = """
import json, sys, chdb
folder, *statements = json.load(sys.stdin)
connection = chdb.connect(f"{folder}/data?config-file={folder}/config.xml")
found = []
for statement in statements:
    try:
        found.append((connection.query(statement, "JSONCompactEachRow").bytes() or b"").decode())
    except Exception as error:
        found.append(str(error))
print(json.dumps(found))
"""
OWNER = ("GRANT ALL ON *.*", "GRANT SET DEFINER ON *")


def users_file(session: tuple[str, ...], filters: dict[str, str]) -> str:
    """A users file in which the session's user has these grants and sees the filtered rows of some tables of `ms`."""

    def user(name: str, grants: tuple[str, ...], tables: str) -> str:
        queries = "".join(f"<query>{escape(grant)}</query>" for grant in grants)
        return (
            f"<{name}><password></password><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota>"
            f"<grants>{queries}</grants><databases><ms>{tables}</ms></databases></{name}>"
        )

    tables = "".join(f"<{table}><filter>{escape(text)}</filter></{table}>" for table, text in filters.items())
    return (
        "<clickhouse><profiles><default/></profiles><quotas><default/></quotas><users>"
        f"{user('default', session, tables)}{user('owner', OWNER, '')}</users></clickhouse>"
    )


def answers(folder: Path, users: str, *statements: str) -> list[str]:
    """What a fresh engine over the same data answers to a user of this file."""
    (folder / "users.xml").write_text(users)
    (folder / "config.xml").write_text(f"<clickhouse><users_config>{folder}/users.xml</users_config></clickhouse>")
    asked = json.dumps([str(folder), *statements])
    done = subprocess.run([sys.executable, "-c", ASK], input=asked, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


def grants_of(statements: list[str]) -> tuple[str, ...]:
    """The grants of a role on tables, as a users file wants them."""
    return tuple(found[1] for each in statements if (found := re.match(r"(GRANT \w+ ON .*) TO ", each, re.DOTALL)))


def filters_of(statements: list[str]) -> dict[str, str]:
    """The row policy's condition by table."""
    (found,) = [re.search(r" ON (.*) FOR SELECT USING (.*) TO ", each) for each in statements if " ROW POLICY " in each]
    assert found
    return {name.split(".")[1].strip("`"): found[2] for name in found[1].split(", ")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database `ms` with rows of two tenants in every table that has tenants."""
    folder = tmp_path_factory.mktemp("grants")
    times = {"requests": "created_at", "responses": "created_at", "alerts": "raised_at", "bodies": "logged_at"}
    rows = [
        statement
        for tenant in ("acme", "globex")
        for statement in (
            *(f"INSERT INTO ms.{table} ({time}, tenant) VALUES (now(), '{tenant}')" for table, time in times.items()),
            "INSERT INTO ms.usage (created_at, tenant, cost_status, reason, adjusts) VALUES "
            f"(now(), '{tenant}', 'unpriced', 'first', ''), (now(), '{tenant}', 'cached', 'cached', 'itself')",
        )
    ]
    texts = [statement for migration in migrations() for statement in migration.statements]
    statements = [text.replace("DEFINER = CURRENT_USER", "DEFINER = owner") for text in texts]
    done = answers(
        folder, users_file(OWNER, {}), "CREATE DATABASE ms", "USE ms",
        "CREATE TABLE schema_migrations (version UInt32) ENGINE = MergeTree ORDER BY version", *statements, *rows,
    )  # fmt: skip
    assert [text for text in done if text] == []
    return folder


def test_a_reader_sees_its_tenant_and_nothing_else(folder: Path) -> None:
    """With the grants and the policy of the SQL, every table and view answers, with rows of the one tenant; the rest is refused."""
    role = reader_statements("ms", "acme")
    users = users_file(grants_of(role), filters_of(role))
    shown = [f"SELECT DISTINCT tenant FROM ms.{table}" for table in READ_TABLES]
    assert answers(folder, users, *shown) == ['["acme"]\n'] * len(READ_TABLES)
    for view, answer in zip(
        READ_VIEWS,
        answers(folder, users, *(f"SELECT * FROM ms.{view}" for view in READ_VIEWS)),
        strict=True,
    ):
        assert "DB::Exception" not in answer and "globex" not in answer, view
        assert len(answer.splitlines()) == 1, view
    refused = (
        "SELECT * FROM ms.bodies", "SELECT * FROM ms.dead_letters", "INSERT INTO ms.usage (tenant) VALUES ('acme')",
        "ALTER TABLE ms.usage DELETE WHERE 1", "DROP VIEW ms.top_users", "SELECT * FROM ms.usage_by_day_view",
    )  # fmt: skip
    for answer in answers(folder, users, *refused):
        assert "ACCESS_DENIED" in answer
    with_bodies = reader_statements("ms", "acme", with_bodies=True)
    users = users_file(grants_of(with_bodies), filters_of(with_bodies))
    assert answers(folder, users, "SELECT tenant FROM ms.bodies") == ['["acme"]\n']


def test_a_writer_can_do_the_sink_s_work_and_no_more(folder: Path) -> None:
    """With the grants of the SQL, a fact can be inserted and reaches the rollups, and nothing can be read or changed."""
    users = users_file(grants_of(writer_statements("ms")), {})
    allowed = (
        "EXISTS TABLE ms.schema_migrations", "SELECT max(version) FROM ms.schema_migrations",
        "INSERT INTO ms.usage (created_at, tenant) VALUES (now(), 'initech')",
        "INSERT INTO ms.bodies (logged_at, tenant) VALUES (now(), 'initech')",
    )  # fmt: skip
    assert [answer for answer in answers(folder, users, *allowed) if "Exception" in answer] == []
    seen = answers(folder, users_file(OWNER, {}), "SELECT sum(calls) FROM ms.usage_by_day WHERE tenant = 'initech'")
    assert [json.loads(text) for text in seen] == [[1]]
    refused = ("SELECT * FROM ms.usage", "SELECT * FROM ms.bodies", "TRUNCATE TABLE ms.usage", "DROP TABLE ms.usage")
    for answer in answers(folder, users, *refused):
        assert "ACCESS_DENIED" in answer


def test_the_sql_parses_and_keeps_every_name(folder: Path) -> None:
    """ClickHouse parses each statement as one of its kind, whatever the tenant and the user are called."""
    owner = users_file(OWNER, {})
    kinds = {"CREATE ROLE": "CreateRoleQuery", "CREATE ROW": "CREATE ROW POLICY or ALTER ROW POLICY query"}
    for name in HARD_NAMES:
        statements = [*reader_statements(name, name, name, with_bodies=True), *writer_statements(name)]
        policy = next(statement for statement in statements if " ROW POLICY " in statement)
        condition = policy.partition(" USING tenant = ")[2].partition(" TO `")[0]
        *parsed, value = answers(folder, owner, *(f"EXPLAIN AST {each}" for each in statements), f"SELECT {condition}")
        for statement, answer in zip(statements, parsed, strict=True):
            wanted = next((kind for words, kind in kinds.items() if statement.startswith(words)), "GrantQuery")
            assert json.loads(answer.splitlines()[0]) == [wanted], statement
        assert json.loads(value) == [name]


def test_every_table_and_view_is_covered(folder: Path) -> None:
    """A table with tenants, or a view, that a migration adds has to be named in `sinks.grants`."""
    tables = "SELECT DISTINCT table FROM system.columns WHERE database = 'ms' AND name = 'tenant' AND table IN "
    views = "SELECT name FROM system.tables WHERE database = 'ms' AND engine = 'View'"
    facts = "(SELECT name FROM system.tables WHERE database = 'ms' AND engine LIKE '%MergeTree')"
    found = answers(folder, users_file(OWNER, {}), tables + facts, views)
    names: list[set[Any]] = [{json.loads(line)[0] for line in answer.splitlines()} for answer in found]
    assert names == [{*READ_TABLES, "bodies"}, set(READ_VIEWS)]
