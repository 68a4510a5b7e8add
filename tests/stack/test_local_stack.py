"""The whole local stack starts together and leaves nothing behind."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import psutil
import pytest
from confluent_kafka.admin import AdminClient
from sqlalchemy import create_engine, text

from local.stack import Stack, local_stack


def test_a_stack_starts_serves_and_leaves_nothing_behind() -> None:
    """Every address works inside the block; after it, even by Ctrl-C, no process and no folder is left."""
    lines: list[str] = []
    with (
        pytest.raises(KeyboardInterrupt),
        local_stack(postgres=True, progress=lines.append) as stack,
    ):
        assert AdminClient({"bootstrap.servers": stack.kafka_bootstrap}).list_topics(timeout=30).brokers
        with urllib.request.urlopen(f"{stack.clickhouse_url}/?query=SELECT+1") as reply:
            assert reply.read() == b"1\n"
        with urllib.request.urlopen(f"{stack.simulator_url}/_sim/ledger") as reply:
            assert reply.status == 200
        with create_engine(stack.database_url).connect() as connection:
            assert connection.execute(text("SELECT 1")).scalar_one() == 1
        assert set(stack.processes) == {"kafka", "clickhouse", "postgres", "simulator"}
        assert all(psutil.pid_exists(pid) for pid in stack.processes.values())
        raise KeyboardInterrupt
    assert not any(psutil.pid_exists(pid) for pid in stack.processes.values())
    assert not Path(stack.data_dir).exists()
    assert {line.split()[0] for line in lines if "is up" in line} == set(stack.processes)


def test_a_given_folder_is_kept_and_used_again(tmp_path: Path) -> None:
    """A second stack on the same folder has the data of the first."""
    for query in ("CREATE TABLE kept ENGINE = MergeTree ORDER BY n AS SELECT 1 AS n", "SELECT n FROM kept"):
        with local_stack(tmp_path, simulator=False) as stack:
            with urllib.request.urlopen(f"{stack.clickhouse_url}/", query.encode()) as reply:
                said = reply.read()
            assert stack.database_url == f"sqlite:///{tmp_path}/ledger.db"
    assert said == b"1\n"


def test_a_server_that_fails_takes_the_others_down(tmp_path: Path) -> None:
    """When one server cannot start, the error is its own and no other process stays."""
    (tmp_path / "clickhouse").mkdir()
    (tmp_path / "clickhouse" / "data").write_text("a file where a folder must be")
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with (
        pytest.raises(RuntimeError, match="ClickHouse ended with status"),
        local_stack(tmp_path, simulator=False),
    ):
        pytest.fail("The stack came up.")
    assert {child.pid for child in psutil.Process().children(recursive=True)} == before


def test_the_stack_file_round_trips(tmp_path: Path) -> None:
    """What write wrote, read reads; a missing or broken file says what to do."""
    stack = Stack("k:1", "http://c", "sqlite:///x", "http://s", None, "/d", {"kafka": 1})
    path = tmp_path / ".millstream" / "stack.json"
    with pytest.raises(FileNotFoundError, match="millstream up"):
        Stack.read(path)
    stack.write(path)
    assert Stack.read(path) == stack
    path.write_text('{"kafka_bootstrap": 1}')
    with pytest.raises(ValueError, match="millstream up"):
        Stack.read(path)


def test_the_environment_points_workers_and_sdks_at_the_stack() -> None:
    """Each variable is there exactly when its server is."""
    full = Stack("k:1", "http://c", "sqlite:///x", "http://s", "http://r", "/d").environment()
    assert full["MILLSTREAM_KAFKA_BOOTSTRAP"] == "k:1"
    assert full["MILLSTREAM_SCHEMA_REGISTRY_URL"] == "http://r"
    assert full["OPENAI_BASE_URL"] == "http://s/openai/v1"
    assert full["ANTHROPIC_BASE_URL"] == "http://s/anthropic"
    bare = Stack("k:1", "http://c", "sqlite:///x", None, None, "/d").environment()
    kafka = {"MILLSTREAM_KAFKA_BOOTSTRAP", "MILLSTREAM_KAFKA_SECURITY_PROTOCOL"}
    assert set(bare) == {*kafka, "MILLSTREAM_CLICKHOUSE_URL", "MILLSTREAM_DATABASE_URL"}
