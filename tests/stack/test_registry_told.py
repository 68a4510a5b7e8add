"""A change of the registry from the shell reaches the workers at once, and a new provider gets its lane."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

from cli import kafka
from cli.running import Running
from config.database import create_tables, open_database
from core.topics import CONTROL, calls
from schemas.codec import Codec
from tests.stack.asking import ask_one, events, eventually, told

ROOT = Path(__file__).parent.parent.parent


def millstream(run: Running, *arguments: str, **environment: str) -> Any:
    """What a command that has to go well prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments, "--json"], env={**os.environ, **run.environment, **environment},
        capture_output=True, text=True, timeout=60, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_route_holds_at_once(pipeline: Running) -> None:
    """Workers that read the registry every five minutes answer by a route as soon as it is added, and no longer once it is removed."""
    name = f"told-{uuid.uuid4().hex[:8]}"
    assert pipeline.settings.registry_refresh_seconds == 300
    assert ask_one(pipeline, told(model=None, task=name))["outcome"] == "refused"
    added = millstream(pipeline, "routes", "add", name, "--task", name, "--target", "echo/echo", "--by", "ana")
    try:
        assert not [note for note in added["notes"] if "not told" in note]
        assert eventually(lambda: ask_one(pipeline, told(model=None, task=name))["route"] == name)
    finally:
        millstream(pipeline, "routes", "remove", name)
    assert eventually(lambda: ask_one(pipeline, told(model=None, task=name))["outcome"] == "refused")
    codec = Codec()
    said = [codec.decode(CONTROL.record, value) for _, value in events(pipeline, CONTROL)["registry"]]
    assert [event["kind"] for event in said if event["by"] == "ana"] == ["refresh"]


def test_a_new_provider_gets_its_lane(pipeline: Running, tmp_path: Path) -> None:
    """The topic of a registered provider's lane is made when it is registered."""
    name = f"p-{uuid.uuid4().hex[:8]}"
    database = f"sqlite:///{tmp_path}/registry.db"
    engine = open_database(database)
    create_tables(engine)
    engine.dispose()
    added = millstream(pipeline, "providers", "add", name, "--kind", "echo", MILLSTREAM_DATABASE_URL=database)
    assert f"Start `millstream worker complete --provider {name}` for its lane." in added["notes"]
    _, topics = kafka.admin(pipeline.settings)
    assert calls(name).on(pipeline.settings.topic_prefix) in topics
