"""The registry's contract, the same on SQLite and on PostgreSQL: revisions, changes, audit, and the workers' snapshot."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect, select, text, update

from config.database import create_tables
from config.models import METADATA
from config.registry import apply, lane_names
from config.registry_entries import Contents, RegistryInvalid
from config.registry_models import MODELS, PROVIDERS, REGISTRY_AUDIT, ROUTES
from config.registry_store import Changed, contents_of, version_of
from config.settings import PROVIDER_NAMES, SettingsError, settings_in
from config.snapshot import Snapshot, read_registry
from config.upgrade import HEAD, MIGRATIONS, REVISIONS, refuse_other_schema, revision_of
from core.registry import Model, Provider, Registry, Route, Target

NOW = 1_795_258_680_000_000
SETTINGS = settings_in({"MILLSTREAM_CONFIG": "/nonexistent.toml"})
CLAUDE = "anthropic/claude-sonnet-5"


def alembic(engine: Engine, run: Callable[[Config], None]) -> None:
    """Run one of Alembic's commands on the database."""
    with engine.begin() as db:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = db
        run(config)


def shape(engine: Engine) -> dict[str, Any]:
    """Every table as the database describes it."""
    found = inspect(engine)
    return {
        table: {
            "columns": {
                column["name"]: (str(column["type"]), column["nullable"], column["default"])
                for column in found.get_columns(table)
            },
            "key": found.get_pk_constraint(table)["constrained_columns"],
            "indexes": sorted((str(index["name"]), index["column_names"]) for index in found.get_indexes(table)),
        }
        for table in found.get_table_names()
    }


def changed(engine: Engine, edit: Callable[[Contents], Contents], by: str = "ana") -> Changed:
    with engine.begin() as db:
        return apply(db, edit, SETTINGS, by, NOW)


def held(engine: Engine) -> Contents:
    with engine.connect() as db:
        return contents_of(db)


def with_route(name: str, *targets: str, **fields: Any) -> Callable[[Contents], Contents]:
    route = Route(name, tuple(Target(target) for target in targets), **fields)
    return lambda contents: replace(contents, routes={**contents.routes, name: route})


def test_the_revisions_are_those_in_the_folder() -> None:
    """The list that spares a current database Alembic's start is the chain that Alembic finds."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert tuple(r.revision for r in reversed(list(ScriptDirectory.from_config(config).walk_revisions()))) == REVISIONS


def test_both_ways_to_the_newest_tables_end_at_the_same(empty: Engine, tmp_path: Path) -> None:
    """Tables made at once and tables brought up revision by revision are the same, and those of the code."""
    alembic(empty, lambda config: command.upgrade(config, "head"))
    by_revisions = shape(empty)
    with empty.connect() as db:
        assert compare_metadata(MigrationContext.configure(db), METADATA) == []
        assert revision_of(db) == HEAD
    with empty.begin() as db:
        METADATA.drop_all(db)
        db.execute(text("DROP TABLE alembic_version"))
    create_tables(empty)
    at_once = shape(empty)
    with empty.connect() as db:
        assert revision_of(db) == HEAD
        refuse_other_schema(db)
    assert at_once == by_revisions


def test_revisions_go_down_and_up_again(engine: Engine) -> None:
    """From the newest revision to none and back, the tables are the same."""
    before = shape(engine)
    alembic(engine, lambda config: command.downgrade(config, "base"))
    assert set(shape(engine)) == {"alembic_version"}
    create_tables(engine)
    assert shape(engine) == before


def test_a_database_from_before_there_were_revisions_keeps_what_it_holds(empty: Engine) -> None:
    """Tables of the first revision that nobody stamped, one of them missing, are taken for what they are and brought up."""
    alembic(empty, lambda config: command.upgrade(config, "0001"))
    with empty.begin() as db:
        db.execute(text("DROP TABLE alembic_version"))
        db.execute(text("DROP TABLE adjustments"))
        db.execute(text("INSERT INTO accounts VALUES ('acme', '2026-11', 7, 0, 0)"))
        with pytest.raises(SettingsError, match=r"the tables of no revision, not of .*run `millstream migrate`"):
            refuse_other_schema(db)
    create_tables(empty)
    with empty.connect() as db:
        assert revision_of(db) == HEAD
        assert db.execute(text("SELECT spent_nano FROM accounts")).scalar() == 7
        assert compare_metadata(MigrationContext.configure(db), METADATA) == []


def test_a_database_of_a_newer_version_is_refused(engine: Engine) -> None:
    """An unknown revision stops the migration, and keeps a running worker at what it read before; nothing is changed."""
    before = shape(engine)
    with engine.begin() as db:
        db.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SettingsError, match="written by a newer version of Millstream \\(revision 9999"):
        create_tables(engine)
    with pytest.raises(RegistryInvalid, match="newer version"):
        read_registry(engine, SETTINGS)
    assert shape(engine) == before


def test_several_may_migrate_at_once(empty: Engine) -> None:
    """Workers and commands that find an empty database together make its tables once."""
    failed: list[BaseException] = []

    def migrate() -> None:
        try:
            create_tables(empty)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=migrate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    with empty.connect() as db:
        assert revision_of(db) == HEAD


FULL = Contents(
    {
        "eu": Provider("eu", "openai", "https://eu.example/v1", "eu-west-1", False, False, 12),
        "anthropic": Provider("anthropic", "anthropic", default=True),
    },
    {
        "eu/org/model": Model(
            "eu", "org/model", ("a", "b"), frozenset({"tools", "text"}), 8_192, "cheap", False, 3,
            {"output_text": Decimal("0.30"), "input_uncached": Decimal(1)}, 2_000,
        )
    },
    {
        "r": Route(
            "r", (Target("eu/org/model", 3), Target(CLAUDE)), "pro", "cv_*", "acme", "gpt-*", -5, True,
            NOW, NOW + 1, Decimal("12.5"), "tenant", "weighted", ("cost", "latency"), "balanced",
            frozenset({"provider_invalid_request", "provider_auth"}), 4, 60, True,
        )
    },
)  # fmt: skip


def test_every_field_is_kept(engine: Engine) -> None:
    """What is written is read back equal, with every field at something other than its default."""
    changed(engine, lambda _: FULL)
    assert held(engine) == FULL
    changed(engine, lambda _: Contents())
    assert held(engine) == Contents()


def test_every_change_is_audited(engine: Engine) -> None:
    """An entry added, updated and removed leaves who, when, and what stood before and after; each change is one version on."""
    changed(engine, with_route("chat", CLAUDE))
    done = changed(engine, with_route("chat", CLAUDE, share=Decimal("12.5")), "ben")
    assert done.version == 2 and [d.fields() for d in done.differences] == [{"share": ("100", "12.5")}]
    changed(engine, lambda contents: replace(contents, routes={}), "eve")
    with engine.connect() as db:
        rows = db.execute(select(REGISTRY_AUDIT).order_by(REGISTRY_AUDIT.c.id)).all()
        assert version_of(db) == 3
    assert [(r.version, r.changed_by, r.action, r.subject, r.changed_at) for r in rows] == [
        (1, "ana", "add", "route chat", NOW), (2, "ben", "update", "route chat", NOW), (3, "eve", "remove", "route chat", NOW),
    ]  # fmt: skip
    added, updated, removed = rows
    assert added.before is None and added.after["share"] == "100"
    assert (updated.before["share"], updated.after["share"]) == ("100", "12.5")
    assert removed.before == updated.after and removed.after is None


def test_a_change_of_nothing_is_no_change(engine: Engine) -> None:
    """What is the same already is neither audited nor counted."""
    changed(engine, with_route("chat", CLAUDE))
    assert changed(engine, with_route("chat", CLAUDE)) == Changed(1, ())
    with engine.connect() as db:
        assert len(db.execute(select(REGISTRY_AUDIT)).all()) == 1


def test_a_refused_change_leaves_nothing_behind(engine: Engine) -> None:
    """A change whose result cannot be used is refused with its reason; no row, no audit, no version comes of it."""
    with pytest.raises(RegistryInvalid, match="openai/nobody is unknown"):
        changed(engine, with_route("chat", "openai/nobody"))
    with pytest.raises(RegistryInvalid, match="keep keys out of it") as refused:
        key = Provider("eu", "openai", "https://sk-secret@eu.example/v1")
        changed(engine, lambda contents: replace(contents, providers={"eu": key}))
    assert "sk-secret" not in str(refused.value)
    with engine.connect() as db:
        assert (contents_of(db), version_of(db)) == (Contents(), 0)
        assert db.execute(select(REGISTRY_AUDIT)).all() == []


def test_what_is_broken_can_be_mended_in_steps(engine: Engine) -> None:
    """With two faults written by hand, a change that mends one is taken, and one that adds a third is not."""
    for name in ("a", "b"):
        changed(engine, with_route(name, CLAUDE, task=name))
    with engine.begin() as db:
        db.execute(update(ROUTES).values(targets=[{"model": "openai/nobody", "weight": 1}]))
    with pytest.raises(RegistryInvalid, match="Route c has"):
        changed(engine, with_route("c", "openai/nobody"))
    with pytest.raises(RegistryInvalid) as refused:
        read_registry(engine, SETTINGS)
    assert len(refused.value.problems) == 2
    changed(engine, with_route("a", CLAUDE, task="a"))
    changed(engine, with_route("b", CLAUDE, task="b"))
    assert read_registry(engine, SETTINGS).version == 4


def test_a_row_that_cannot_be_read_is_named(engine: Engine) -> None:
    """Values of no known kind, written by hand, are refused with the row's name and the field's."""
    changed(engine, lambda _: FULL)
    with engine.begin() as db:
        db.execute(update(MODELS).values(capabilities=["sight"], tier="huge"))
        db.execute(update(ROUTES).values(share="lots"))
    with pytest.raises(RegistryInvalid) as refused:
        read_registry(engine, SETTINGS)
    said = str(refused.value)
    assert "Model eu/org/model has a capabilities" in said and "Model eu/org/model has a tier" in said
    assert "Route r has a share" in said


def test_changes_at_the_same_time_are_one_after_the_other(engine: Engine) -> None:
    """Changes made by many at once are all there, each with a version of its own."""

    def add(number: int) -> None:
        changed(engine, with_route(f"r{number}", CLAUDE, task=f"t{number}"))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(held(engine).routes) == [f"r{number}" for number in range(8)]
    with engine.connect() as db:
        versions = db.execute(select(REGISTRY_AUDIT.c.version).order_by(REGISTRY_AUDIT.c.version)).scalars().all()
    assert versions == list(range(1, 9))


def test_lanes_are_the_built_in_providers_and_those_registered(engine: Engine) -> None:
    """Every provider has its lane, a disabled one too."""
    changed(engine, lambda _: FULL)
    with engine.connect() as db:
        assert lane_names(db) == (*PROVIDER_NAMES, "eu")


def test_an_empty_database_serves_the_environment(engine: Engine) -> None:
    """Without a provider the environment's serve; the first one registered takes their place."""
    assert list(read_registry(engine, SETTINGS).providers) == list(SETTINGS.served())
    changed(engine, lambda contents: replace(contents, providers={"eu": FULL.providers["eu"]}))
    registry = read_registry(engine, SETTINGS)
    assert (list(registry.providers), registry.routes, registry.version) == (["eu"], (), 1)


def test_a_snapshot_is_read_at_once_when_told(engine: Engine) -> None:
    """After `refresh_now` the snapshot is what was committed before it; until then the one before serves."""

    async def scene() -> None:
        snapshot = Snapshot(lambda: read_registry(engine, SETTINGS), 3_600)
        await snapshot.start()
        before = snapshot.registry
        changed(engine, with_route("chat", CLAUDE))
        assert snapshot.registry is before
        assert await snapshot.refresh_now()
        assert [route.name for route in snapshot.registry.routes] == ["chat"]
        await snapshot.close()

    asyncio.run(scene())


def test_a_snapshot_that_cannot_be_used_is_refused_and_the_old_one_kept(engine: Engine) -> None:
    """Broken content is reported once with its problems and changes nothing; once mended it serves."""
    told: list[Any] = []

    async def scene() -> None:
        snapshot = Snapshot(lambda: read_registry(engine, SETTINGS), 3_600, told.append)
        changed(engine, with_route("chat", CLAUDE))
        await snapshot.start()
        before = snapshot.registry
        with engine.begin() as db:
            db.execute(update(ROUTES).values(share="250"))
        assert not await snapshot.refresh_now()
        assert not await snapshot.refresh_now()
        assert snapshot.registry is before
        assert told == [("Route chat has a share of 250 percent; it needs 0 to 100.",)]
        with engine.begin() as db:
            db.execute(update(ROUTES).values(share="50"))
        assert await snapshot.refresh_now()
        assert snapshot.registry.routes[0].share == 50
        await snapshot.close()

    asyncio.run(scene())


def test_a_snapshot_outlives_its_database(engine: Engine) -> None:
    """While the database is away the last snapshot serves and its age grows; the first one is waited for."""

    async def scene() -> None:
        away = True

        def read() -> Registry:
            with engine.connect() as db:
                # A real failure of the database, on both.
                db.execute(text("SELECT * FROM not_there") if away else select(PROVIDERS))
            return read_registry(engine, SETTINGS)

        snapshot = Snapshot(read, 3_600)
        starting = asyncio.create_task(snapshot.start())
        assert not await snapshot.refresh_now()
        assert not starting.done()
        with pytest.raises(RuntimeError, match="not read yet"):
            _ = snapshot.registry
        away = False
        await starting
        before, young = snapshot.registry, snapshot.age()
        away = True
        assert not await snapshot.refresh_now()
        assert snapshot.registry is before and snapshot.age() > young
        await snapshot.close()

    asyncio.run(scene())


def test_a_snapshot_is_read_again_now_and_then(engine: Engine) -> None:
    """Without being told, a change is seen after the refresh time."""

    async def scene() -> None:
        snapshot = Snapshot(lambda: read_registry(engine, SETTINGS), 0.01)
        await snapshot.start()
        changed(engine, with_route("chat", CLAUDE))
        async with asyncio.timeout(60):
            while [route.name for route in snapshot.registry.routes] != ["chat"]:
                await asyncio.sleep(0.01)
        await snapshot.close()

    asyncio.run(scene())
