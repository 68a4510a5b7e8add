"""A change of the registry from the shell reaches the workers at once, and a new provider gets its lane."""

from __future__ import annotations

import uuid
from pathlib import Path

from sqlalchemy import delete, insert

from cli import kafka
from cli.refresh import publish_refresh
from cli.running import Running
from config.database import create_tables, open_database
from config.registry_models import TASKS
from core.topics import ALERTS, CONTROL, calls
from schemas.codec import Codec
from tests.stack.asking import ask_one, events, eventually, millstream, told

ROOT = Path(__file__).parents[3]


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


def test_a_registry_that_cannot_be_used_is_an_alert(pipeline: Running) -> None:
    """Each of the three workers keeps to what it had, still answers, and says once what is wrong, however often it reads it."""
    name, codec = f"broken-{uuid.uuid4().hex[:8]}", Codec()
    engine = open_database(pipeline.settings.database_url)

    def refused(problems: int) -> list[str]:
        found = [codec.decode(ALERTS.record, value) for _, value in events(pipeline, ALERTS)["registry"]]
        of_this = [
            alert for alert in found if name in alert["message"] and alert["details"]["problems"] == str(problems)
        ]
        return [alert["message"] for alert in of_this if alert["kind"] == "registry_snapshot_refused"]

    def break_once_more(place: int) -> None:
        with engine.begin() as db:
            db.execute(insert(TASKS).values(name=f"{name}-{place}", definition="{"))
        assert publish_refresh(pipeline.settings, "test", place) is None

    try:
        break_once_more(1)
        assert eventually(lambda: len(refused(1)) == 3)
        assert ask_one(pipeline, told(model="echo/echo"))["outcome"] == "completed"
        assert f"Task {name}-1 has a definition that is no JSON object" in refused(1)[0]
        assert publish_refresh(pipeline.settings, "test", 1) is None
        break_once_more(2)
        assert eventually(lambda: len(refused(2)) == 3)
        assert len(refused(1)) == 3
    finally:
        with engine.begin() as db:
            db.execute(delete(TASKS).where(TASKS.c.name.like(f"{name}%")))
        engine.dispose()
        publish_refresh(pipeline.settings, "test", 3)


def test_a_new_provider_gets_its_lane(pipeline: Running, tmp_path: Path) -> None:
    """Its topic is made when it is registered, and a worker runs its lane also while it is disabled."""
    name = f"p-{uuid.uuid4().hex[:8]}"
    database = f"sqlite:///{tmp_path}/registry.db"
    engine = open_database(database)
    create_tables(engine)
    engine.dispose()
    ours = {"MILLSTREAM_DATABASE_URL": database}
    added = millstream(pipeline, "providers", "add", name, "--kind", "echo", "--disabled", **ours)
    assert f"Start `millstream worker complete --provider {name}` for its lane." in added["notes"]
    _, topics = kafka.admin(pipeline.settings)
    assert calls(name).on(pipeline.settings.topic_prefix) in topics
    worker = pipeline.start_worker(name, ["worker", "complete"], ours)
    try:
        pipeline.wait_ready(name, 1)
        assert f"complete-{name} reads" in worker.log_tail(200)
    finally:
        worker.stop(10)
        del pipeline.workers[name], pipeline.monitoring[name]
