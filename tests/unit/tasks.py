"""Requests for named tasks, the shipped ones and those of a deployment, and what becomes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from config.settings import Settings
from config.tasks import Prepared, Tasks
from schemas.events import LlmRequest
from tests.examples import request

SHIPPED = Tasks.load(Settings())
NAMES = [task.name for task in SHIPPED]
TASK = """
name: greet
description: Greets.
input:
  type: object
  required: [who]
  properties:
    who: {type: string}
prompts:
  - name: plain
    weight: 3
    user: "Greet {{ who }}."
  - name: warm
    system: Be warm.
    user: "Greet {{ who }} warmly."
"""
ATTACKS = (
    "{{ 7 * 7 }}",
    "{% for a in b %}",
    "{{ who.__class__ }}",
    "{# x #}",
    "}}",
    "%}",
    "{% raw %}",
    "# line",
    "\x00",
    "{{",
)
#: Texts, of which some look like the code of a template.
TEXTS = st.lists(st.sampled_from(ATTACKS) | st.text(st.characters(exclude_categories=["Cs"])), min_size=1).map("".join)


def asked(task: str | None, values: Any, **changes: Any) -> LlmRequest:
    """A request for a task, without messages of its own unless `changes` has some."""
    text = values if isinstance(values, str) or values is None else json.dumps(values)
    return request(**{"messages": [], "task": task, "input": text, **changes})


def prepared(task: str, values: Any, tasks: Tasks = SHIPPED, sticky: str = "ana", **changes: Any) -> Prepared:
    """What becomes of a request that is good."""
    found = tasks.prepare(asked(task, values, **changes), sticky)
    assert isinstance(found, Prepared), found
    return found


def refused(tasks: Tasks, of: LlmRequest) -> str:
    """The sentence that a caller gets."""
    found = tasks.prepare(of, "ana")
    assert not isinstance(found, Prepared)
    assert found["code"] == "caller_invalid_request"
    return found["message"]


def own(folder: Path, text: str = TASK, name: str = "greet", **settings: Any) -> Tasks:
    """The tasks of a deployment with a file of its own."""
    (folder / f"{name}.yaml").write_text(text, "utf-8")
    return Tasks.load(Settings(tasks_dir=str(folder), **settings))


def said(found: Prepared) -> str:
    """All text of the messages."""
    return "\n".join(part["text"] or "" for message in found.request["messages"] for part in message["content"])
