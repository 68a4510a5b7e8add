"""Requests that name a task and a plan, and models that fail: who answers, what is told of it, and that it is all accounted for."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer

from cli import kafka
from cli.exchange import Exchange
from cli.main import main
from cli.running import Running, running
from core.topics import RESPONSES, Topic
from schemas.codec import Codec, Event
from tests.stack.asking import all_usages, ask, ask_one, eventually, log, simulator, told

CODEC = Codec()
REPLIES = Topic("replies.orders", "LlmResponse", 86_400_000)
PLANS = ("freemium", "paygo", "pro")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    allow = {"MILLSTREAM_REPLY_TOPICS": '["replies.*"]', "MILLSTREAM_BACKOFF_BASE_SECONDS": "0.05"}
    with running(tmp_path_factory.mktemp("routing"), environment=allow) as run:
        kafka.create_topics(run.settings, (REPLIES,))
        yield run


@pytest.fixture(autouse=True)
def one_account(pipeline: Running) -> Iterator[None]:
    """After each case every call that the simulator saw has its usage event."""
    yield
    simulator(pipeline, "faults", method="DELETE")


@pytest.mark.parametrize("task", ["extraction", "cv_draft", "cover_letter"])
def test_a_task_and_a_plan_choose_the_model(task: str, pipeline: Running) -> None:
    """A request without a model is answered by the model of its task and plan, and says which route chose it and why."""
    asked = {plan: told(model=None, task=task, plan=plan) for plan in PLANS}
    answers = ask(pipeline, asked.values())
    chosen = {plan: answers[request["request_id"]] for plan, request in asked.items()}
    assert {answer["outcome"] for answer in chosen.values()} == {"completed"}
    assert {chosen[plan]["model"] for plan in PLANS[:2]} == {"gemini-2.5-flash"}
    assert chosen["pro"]["model"] == ("gemini-2.5-flash" if task == "extraction" else "gemini-2.5-pro")
    for answer in chosen.values():
        assert answer["route"]
        kept = [decision for decision in answer["decisions"] if decision["kept"]]
        assert (kept[0]["model"], bool(kept[0]["reason"])) == (f"google/{answer['model']}", True)


def test_a_request_that_no_route_is_for_is_told_so(pipeline: Running) -> None:
    """Without a model and a route the answer names the plan and the task, and nobody is called."""
    answer = ask_one(pipeline, told(model=None, task="juggling", plan="pro"))
    assert (answer["outcome"], answer["error"]["code"], answer["attempts"]) == ("refused", "policy_no_route", 0)
    assert "juggling" in answer["error"]["message"]
