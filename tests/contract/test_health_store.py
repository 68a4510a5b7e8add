"""What workers share about health, the same on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, insert, inspect, text

from config import health
from config.credential_models import CREDENTIALS
from config.database import create_tables, open_database
from core.health import ProviderHealth
from core.signals import Signal

NOW = 1_795_258_680_000_000
SECOND = 1_000_000


def hold(engine: Engine, owner: str, at: int, seconds: int = 30) -> bool:
    with engine.begin() as db:
        return health.hold(db, "health", owner, at, at + seconds * SECOND)


def test_a_lease_is_one_workers_until_it_runs_out(engine: Engine) -> None:
    """Its holder may keep it, another gets it from the moment it ends, and the first then no longer has it."""
    assert hold(engine, "w1", NOW)
    assert not hold(engine, "w2", NOW + 29 * SECOND)
    assert hold(engine, "w1", NOW + 29 * SECOND)
    assert not hold(engine, "w2", NOW + 30 * SECOND)
    assert hold(engine, "w2", NOW + 59 * SECOND)
    assert not hold(engine, "w1", NOW + 60 * SECOND)


def test_of_many_that_ask_at_once_one_gets_it(engine: Engine) -> None:
    """Eight workers race for a lease that is free, twenty times over."""
    for turn in range(20):
        got: list[str] = []
        start = threading.Barrier(8)

        def ask(owner: str, at: int, got: list[str] = got, start: threading.Barrier = start) -> None:
            start.wait()
            if hold(engine, owner, at):
                got.append(owner)

        at = NOW + turn * 31 * SECOND
        racers = [threading.Thread(target=ask, args=(f"w{number}", at)) for number in range(8)]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()
        assert len(got) == 1


def test_a_lease_let_go_is_free_and_only_its_holder_lets_it_go(engine: Engine) -> None:
    """Leaving hands over at once; a worker that lost its lease cannot take it from its successor."""
    assert hold(engine, "w1", NOW)
    with engine.begin() as db:
        health.let_go(db, "health", "w2")
    assert not hold(engine, "w2", NOW)
    with engine.begin() as db:
        health.let_go(db, "health", "w1")
    assert hold(engine, "w2", NOW)


def test_health_comes_back_as_it_was_written(engine: Engine) -> None:
    """The latest word about each provider stands, a long error shortened."""
    first = {
        "openai": ProviderHealth("suspect", 0, 1, NOW, NOW, "x" * 5_000),
        "google": ProviderHealth("healthy", 7, 0, 1, 2),
    }
    then = {"openai": ProviderHealth("healthy", 1, 0, NOW + 1, NOW + 1)}
    with engine.begin() as db:
        health.record(db, first)
    with engine.begin() as db:
        assert health.health_of(db)["openai"] == replace(first["openai"], last_error="x" * 1_024)
        health.record(db, then)
        assert health.health_of(db) == {**first, **then}


def test_signals_are_kept_by_worker_model_and_key_and_grow_old(engine: Engine) -> None:
    """A worker's next word replaces its last, others' stay, and what is too old is neither heard nor kept."""
    one = Signal("openai", "gpt-5", "", "w1", 1, 2, None, None, None, NOW)
    other, key = (
        replace(one, owner="w2", p50_us=5),
        replace(one, credential_id="k", open_until=NOW, resting_until=NOW + 1),
    )
    with engine.begin() as db:
        health.tell(db, [one, other, key])
        health.tell(db, [])
        newer = replace(one, good=9, at=NOW + 5)
        assert health.exchange(db, [newer], NOW)["openai/gpt-5"].success_rate == 11 / 17
        assert set(health.signals_since(db, NOW)) == {newer, other, key}
        assert health.signals_since(db, NOW + 1) == [newer]
        turn = health.take_turn(db, "health", "w1", NOW, NOW + 1, NOW + 1)
        assert turn == ({}, [newer])
        assert health.signals_since(db, 0) == [newer]
        assert health.take_turn(db, "health", "w2", NOW, NOW + 1, NOW) is None


def test_a_model_is_out_only_when_every_credential_of_its_provider_is(engine: Engine) -> None:
    """Keys that are disabled, revoked or a tenant's own do not count; one that nobody has used yet is free."""
    with engine.begin() as db:
        limited = Signal("openai", "gpt-5", "k1", "w1", 1, 0, None, None, NOW + 5, NOW)
        for credential_id, changes in (
            ("k1", {}), ("off", {"enabled": False}), ("gone", {"revoked_at": NOW}), ("theirs", {"tenant": "acme"}),
        ):  # fmt: skip
            _add_key(db, credential_id, **changes)
        assert health.exchange(db, [limited], NOW)["openai/gpt-5"].resting_until == NOW + 5
        _add_key(db, "k2")
        assert health.exchange(db, [limited], NOW)["openai/gpt-5"].resting_until is None


def _add_key(db: Connection, credential_id: str, **changes: Any) -> None:
    row = {
        "credential_id": credential_id, "provider": "openai", "label": "", "last_four": "", "weight": 1, "enabled": True,
        "created_at": NOW, "key_version": 1,
    }  # fmt: skip
    db.execute(insert(CREDENTIALS).values({**row, **changes}))


def test_a_checker_without_its_turn_writes_nothing(engine: Engine) -> None:
    """What was found counts only while the lease is its finder's."""
    found = {"openai": ProviderHealth("healthy", 1, 0, NOW, NOW)}
    assert hold(engine, "w1", NOW)
    with engine.begin() as db:
        assert not health.record_turn(db, "health", "w2", NOW, NOW + 1, found)
        assert health.health_of(db) == {}
        assert health.record_turn(db, "health", "w1", NOW, NOW + 1, found)
        assert health.health_of(db) == found


def test_the_revisions_make_the_tables_as_they_are_declared(tmp_path: Path) -> None:
    """A database that grew revision by revision has the same columns as one made at once."""
    columns = []
    for old in (True, False):
        engine = open_database(f"sqlite:///{tmp_path}/{old}.db")
        if old:
            with engine.begin() as db:
                # Taken for the tables of a time before there were revisions.
                db.execute(text("CREATE TABLE workers (owner VARCHAR(36) PRIMARY KEY, alive_until BIGINT NOT NULL)"))
                db.execute(text("CREATE TABLE requests (request_id VARCHAR(64) PRIMARY KEY, done_at BIGINT)"))
        create_tables(engine)
        found = inspect(engine)
        columns.append({
            table: [(c["name"], str(c["type"]), c["nullable"]) for c in found.get_columns(table)]
            for table in ("leases", "signals", "health")
        })  # fmt: skip
        engine.dispose()
    assert columns[0] == columns[1]
