"""Named tasks that are stored while the workers run, and requests that name the version of a prompt."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.lines import request_of
from cli.refresh import publish_refresh
from cli.running import Running, running
from config.database import open_database
from config.registry_models import TASKS
from core.topics import ALERTS
from schemas.codec import Codec, Event
from tests.stack.asking import ask, ask_one, events, eventually, millstream

TASK = """
name: haiku
description: Writes a haiku.
input:
  type: object
  required: [about]
  properties:
    about: {type: string}
prompts:
- name: v1
  user: Write a haiku about {{ about }}.
"""
ANOTHER = "- name: v2\n  share: 30\n  user: Three lines about {{ about }}, please.\n"


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("stored-tasks")) as run:
        yield run


def asked(user: str = "ana", **fields: Any) -> Any:
    """A request for a haiku."""
    given = {"model": "openai/gpt-5-mini", "task": "haiku", "input": '{"about": "bread"}', "user": user, **fields}
    return request_of(given, {}, "test")


def haiku(run: Running, **fields: Any) -> Event:
    return ask_one(run, asked(**fields))


def test_a_stored_task_serves_at_once(pipeline: Running, tmp_path: Path) -> None:
    """Workers that read the registry every five minutes know a task as soon as it is stored, its new version, and that it is gone."""
    assert pipeline.settings.registry_refresh_seconds == 300
    path = tmp_path / "haiku.yaml"
    path.write_text(TASK)
    assert haiku(pipeline)["error"]["code"] == "caller_invalid_request"
    assert not [note for note in millstream(pipeline, "tasks", "add", str(path))["notes"] if "not told" in note]
    assert eventually(lambda: haiku(pipeline)["prompt_version"] == "haiku/v1")
    path.write_text(TASK + ANOTHER)
    millstream(pipeline, "tasks", "set", str(path))
    assert eventually(lambda: haiku(pipeline, prompt_version="v2")["prompt_version"] == "haiku/v2")
    answers = ask(pipeline, [asked(f"user {n}") for n in range(200)]).values()
    second = sum(answer["prompt_version"] == "haiku/v2" for answer in answers)
    assert len(answers) == 200 and 35 < second < 90
    unknown = haiku(pipeline, prompt_version="v3")
    assert (unknown["outcome"], unknown["error"]["code"], unknown["attempts"]) == (
        "refused",
        "caller_invalid_request",
        0,
    )
    assert "the versions of task haiku are v1, v2." in unknown["error"]["message"]
    sent = millstream(pipeline, "send", "--model", "openai/gpt-5-mini", "--task", "haiku", "--prompt-version", "v2", "--input",
                      json.dumps({"about": "salt"}))  # fmt: skip
    assert (sent["outcome"], sent["prompt_version"]) == ("completed", "haiku/v2")


def test_a_task_that_cannot_be_used_leaves_the_workers_what_they_have(pipeline: Running, tmp_path: Path) -> None:
    """A row changed by hand is refused with an alert that names the task, and the task of before goes on serving."""
    assert haiku(pipeline, prompt_version="v1")["outcome"] == "completed"
    engine = open_database(pipeline.settings.database_url)
    with engine.begin() as db:
        kept = db.execute(TASKS.select().where(TASKS.c.name == "haiku")).one().definition
        db.execute(TASKS.update().values(definition=kept.replace("{{ about }}", "{{ abuot }}")))
    assert publish_refresh(pipeline.settings, "test", 0) is None

    def refused() -> list[str]:
        return [
            Codec().decode(ALERTS.record, value)["message"]
            for records in events(pipeline, ALERTS).values()
            for _, value in records
        ]

    assert eventually(lambda: [text for text in refused() if "Task haiku" in text and "'abuot'" in text]), refused()
    assert haiku(pipeline, prompt_version="v1")["outcome"] == "completed"
    with engine.begin() as db:
        db.execute(TASKS.delete())
    engine.dispose()
    assert publish_refresh(pipeline.settings, "test", 0) is None
    assert eventually(lambda: haiku(pipeline)["error"] is not None)
