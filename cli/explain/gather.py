"""Ask ClickHouse and the ledger of a request; what cannot be asked is said, and the rest is told all the same."""

from __future__ import annotations

from sqlalchemy.exc import SQLAlchemyError

from agents.outgoing import response_id
from cli.explain.facts import facts_of
from cli.explain.held import held_of
from cli.explain.known import Facts, Held, Known
from cli.reconcile.ledger import ledger_key
from config import audit
from config.database import open_database, reading
from config.schema_registry import open_codec
from config.settings import Settings, SettingsError
from schemas.codec import Undecodable
from sinks.query import QueryFailed, Store


def gather(settings: Settings, request_id: str, bodies: bool, now: int) -> Known:
    """What is known of a request at `now`, in microseconds since 1970; `bodies` asks for its messages and answer too."""
    problems: list[str] = []
    # The ledger first: what it has forgotten since, ClickHouse has.
    held = _held(settings, request_id, now, problems)
    models = {one["model"] for one in held.plan["decisions"]} if held and held.plan else set()
    store = Store(settings)
    try:
        facts = facts_of(store, request_id, models, now, bodies=bodies)
    except QueryFailed as why:
        problems.append(str(why))
        facts = Facts()
    finally:
        store.close()
    return Known(request_id, now, response_id(request_id), facts, held, tuple(problems), bodies)


def _held(settings: Settings, request_id: str, now: int, problems: list[str]) -> Held | None:
    """What the ledger has of the request, or the spare one."""
    held = _held_in(settings.database_url, "ledger", "MILLSTREAM_DATABASE_URL", settings, request_id, now, problems)
    if held is None and (spare := settings.spare_database_url) is not None:
        setting = "MILLSTREAM_SPARE_DATABASE_URL"
        held = _held_in(spare, "spare ledger", setting, settings, request_id, now, problems)
    return held


def _held_in(
    url: str, whose: str, setting: str, settings: Settings, request_id: str, now: int, problems: list[str]
) -> Held | None:  # fmt: skip
    engine = open_database(url)
    try:
        with reading(engine) as db:
            kept = audit.kept(db, ledger_key(request_id), now)
        return None if kept is None else held_of(kept, open_codec(settings))
    except SQLAlchemyError as why:
        problems.append(
            f"The {whose}'s database cannot be read ({type(why).__name__}); run `millstream migrate`, or set "
            f"{setting} to the one that the workers use."
        )
    except (Undecodable, OSError, SettingsError) as why:
        problems.append(f"The ledger's events of the request cannot be read: {why}")
    finally:
        engine.dispose()
    return None
