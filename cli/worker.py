"""`millstream worker STAGE`: run a stage until SIGTERM."""

from __future__ import annotations

import argparse
import logging
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import uvloop
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from cli import kafka
from cli.errors import CommandError
from cli.stackfile import stack_settings
from config.credentials import check_keys, stored_credentials
from config.database import open_database, reading
from config.issued_keys import issued_keys
from config.key_encryption import encryption_keys
from config.registry import lanes
from config.registry_entries import RegistryInvalid
from config.settings import Settings
from config.snapshot import read_registry
from config.upgrade import refuse_other_schema
from core.registry import Registry
from core.topics import CHUNKS, CONTROL


def describe(parser: argparse.ArgumentParser) -> None:
    """The stage, and for `complete` the providers whose lanes this process runs."""
    parser.add_argument("stage", choices=("admit", "complete", "meter"))
    parser.add_argument(
        "--provider", action="append", metavar="NAME",
        help="a lane to run, repeatable, by its provider's name (`millstream providers list`); all by default",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Run the stage; 1 when it could not go on."""
    from streams import pipeline
    from streams.worker import run_stages

    if arguments.provider and arguments.stage != "complete":
        raise CommandError(f"--provider goes with the stage complete, not with {arguments.stage}; leave it out.")
    settings = stack_settings()
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for noisy in ("faust", "mode", "aiokafka", "streams.transport", "httpx2", "openai", "anthropic", "google_genai"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    if unknown := set(arguments.provider or ()) - set(known := lanes(settings)):
        raise CommandError(f"There is no provider {min(unknown)!r}; there are {', '.join(known)}.")
    kafka.need_topics(settings, [CHUNKS, CONTROL])
    served = _need_database(settings).providers
    if missing := sorted(set(arguments.provider or ()) - served.keys()):
        raise CommandError(
            f"Provider {missing[0]} does not serve here, but {', '.join(served)} do; name one of them, or register it with "
            f"`millstream providers add {missing[0]}`."
        )
    stages = {
        "admit": [pipeline.ADMIT, *([pipeline.ingress(tenants)] if (tenants := settings.request_tenants) else ())],
        "meter": [pipeline.METER],
        "complete": [pipeline.lane(name) for name in arguments.provider or served],
    }[arguments.stage]
    kafka.need_topics(settings, [topic for stage in stages for topic in stage.topics])
    # A lane may hold thousands of calls, each with a connection of its own.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    status: int = uvloop.run(run_stages(stages, settings))
    return status


def _need_database(settings: Settings) -> Registry:
    """The registry as it stands; `CommandError` when a database cannot be used as it is."""
    if settings.spare_database_url is not None:
        with _using(settings.spare_database_url, "spare ledger", "MILLSTREAM_SPARE_DATABASE_URL") as engine:
            with reading(engine) as db:
                refuse_other_schema(db)
    with _using(settings.database_url, "ledger", "MILLSTREAM_DATABASE_URL") as engine:
        registry = read_registry(engine, settings)
        kept = [*stored_credentials(engine), *(issued_keys(engine) if settings.trust == "signed" else ())]
        check_keys(kept, encryption_keys(settings.key_encryption))
        return registry


@contextmanager
def _using(url: str, whose: str, setting: str) -> Iterator[Engine]:
    engine = open_database(url)
    try:
        yield engine
    except SQLAlchemyError as error:
        raise CommandError(
            f"The {whose}'s database at {engine.url.render_as_string()} cannot be reached ({type(error).__name__}); "
            f"start it or set {setting}."
        ) from None
    except RegistryInvalid as why:
        raise CommandError(str(why)) from None
    finally:
        engine.dispose()
