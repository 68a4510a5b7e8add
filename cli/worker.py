"""`millstream worker STAGE`: run a stage until SIGTERM."""

from __future__ import annotations

import argparse
import logging
import resource

import uvloop
from sqlalchemy import inspect
from sqlalchemy.exc import SQLAlchemyError

from cli import kafka
from cli.errors import CommandError
from cli.stackfile import stack_settings
from config.database import open_database
from config.settings import PROVIDER_NAMES, Settings


def describe(parser: argparse.ArgumentParser) -> None:
    """The stage, and for `complete` the providers whose lanes this process runs."""
    parser.add_argument("stage", choices=("admit", "complete", "meter"))
    parser.add_argument(
        "--provider", action="append", choices=PROVIDER_NAMES, metavar="NAME",
        help=f"a lane to run, repeatable: {', '.join(PROVIDER_NAMES)}; all that are configured by default",
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
    stages = {
        "admit": [pipeline.ADMIT],
        "meter": [pipeline.METER],
        "complete": [pipeline.COMPLETE[name] for name in arguments.provider or settings.served()],
    }[arguments.stage]
    kafka.need_topics(settings, [stage.reads for stage in stages])
    _need_ledger(settings)
    # A lane may hold thousands of calls, each with a connection of its own.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    status: int = uvloop.run(run_stages(stages, settings))
    return status


def _need_ledger(settings: Settings) -> None:
    engine = open_database(settings.database_url)
    where = engine.url.render_as_string()
    try:
        present = inspect(engine).has_table("requests")
    except SQLAlchemyError as error:
        raise CommandError(
            f"The ledger's database at {where} cannot be reached ({type(error).__name__}); "
            "start it or set MILLSTREAM_DATABASE_URL."
        ) from None
    finally:
        engine.dispose()
    if not present:
        raise CommandError(f"The ledger's database at {where} has no tables; run `millstream migrate`.")
