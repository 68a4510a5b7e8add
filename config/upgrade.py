"""Bring a database to the tables of this version, with Alembic's revisions in `config/migrations`."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

# Whoever makes the tables needs all of them in METADATA.
from config import (  # noqa: F401
    answers,
    credential_models,
    energy_models,
    health_models,
    issued_key_models,
    limit_models,
    registry_models,
    spending,
)
from config.models import METADATA
from config.settings import SettingsError

MIGRATIONS = Path(__file__).parent / "migrations"

#: Every revision, oldest first; known here so that a current database costs one query and no Alembic.
REVISIONS = tuple(f"{number:04}" for number in range(1, 20))
HEAD = REVISIONS[-1]

#: Which transaction of PostgreSQL may change tables; any number that nobody else takes.
_ADVISORY_LOCK = 7_235_001


def upgrade(engine: Engine) -> None:
    """Bring the database to this version, whatever made it, in one transaction; safe to run again and by several at once.

    An empty one is made at once, one from before there were revisions starts at the first. `SettingsError` for a database
    that a newer version has written.
    """
    with engine.connect() as db:
        if revision_of(db) == HEAD:
            return
    with engine.begin() as db:
        if db.dialect.name == "postgresql":
            db.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _ADVISORY_LOCK})
        if (revision := revision_of(db)) == HEAD:
            return
        _refuse_newer(db, revision)
        if revision is None and not inspect(db).has_table("requests"):
            METADATA.create_all(db)
            _run(db, "stamp")
        else:
            _run(db, "upgrade")


def refuse_other_schema(db: Connection) -> None:
    """`SettingsError` unless the database has the tables of this version."""
    revision = revision_of(db)
    _refuse_newer(db, revision)
    if revision != HEAD:
        raise SettingsError(
            f"The database at {_where(db)} has the tables of {f'revision {revision}' if revision else 'no revision'}, "
            f"not of {HEAD}; run `millstream migrate`."
        )


def revision_of(db: Connection) -> str | None:
    """The revision that a database is at; None for one that Alembic never saw."""
    if not inspect(db).has_table("alembic_version"):
        return None
    revision: str | None = db.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return revision


def _refuse_newer(db: Connection, revision: str | None) -> None:
    if revision is not None and revision not in REVISIONS:
        raise SettingsError(
            f"The database at {_where(db)} was written by a newer version of Millstream (revision {revision}, this version "
            f"knows {HEAD}); install that version or set MILLSTREAM_DATABASE_URL to another database."
        )


def _where(db: Connection) -> str:
    return db.engine.url.render_as_string()


def _run(db: Connection, command: str) -> None:
    # Loaded only where something has to change: Alembic takes longer to import than most commands take.
    from alembic import command as alembic
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = db
    (alembic.upgrade if command == "upgrade" else alembic.stamp)(config, HEAD)
