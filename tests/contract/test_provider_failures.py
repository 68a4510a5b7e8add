"""Every way in which a provider's call can fail, through its real SDK against the simulator."""

from __future__ import annotations

import asyncio

import pytest

from agents.providers.base import Provider
from local.processes import free_port
from tests.contract.calling import (
    ATTEMPT,
    KEY,
    Heard,
    ask,
    every_provider,
    everything,
    failed,
    llm_call,
    run,
    settings_of,
    until,
)
from tests.contract.simulator import Simulator

FAULTS = [
    ("garbage", "provider_bad_answer", "maybe"), ("truncated", "provider_bad_answer", "maybe"),
    ("reset", "provider_connection", "maybe"), ("hang", "provider_timeout", "maybe"),
    ("empty_choices", "provider_bad_answer", "maybe"), ("error_in_200", "provider_bad_answer", "no"),
    ("refusal", "provider_content_refused", "maybe"),
]  # fmt: skip


@every_provider
@pytest.mark.parametrize(("fault", "code", "charged"), FAULTS)
def test_every_fault_has_its_error(simulator: Simulator, name: str, fault: str, code: str, charged: str) -> None:
    """Each way an answer can fail has its code and says whether it may be charged, and is tried exactly once."""
    failure = failed(
        ask(
            settings_of(name, simulator.url), llm_call(name, directive={"fault": fault}), 1.0 if fault == "hang" else 20
        )
    )
    assert (failure.error["code"], failure.charged) == (code, charged)
    assert len(simulator.calls()) == 1


@every_provider
def test_a_refusal_keeps_its_usage(simulator: Simulator, name: str) -> None:
    """A refused answer that was paid for carries the tokens that were used, and no output."""
    failure = failed(ask(settings_of(name, simulator.url), llm_call(name, directive={"fault": "refusal"})))
    [seen] = simulator.calls()
    assert failure.reply is not None
    assert failure.reply.output == ()
    assert {k: v or 0 for k, v in failure.reply.tokens.items()} == seen["tokens"]


@every_provider
@pytest.mark.parametrize("stream", [False, True])
def test_an_empty_answer_is_a_failure_that_is_paid_for(simulator: Simulator, name: str, stream: bool) -> None:
    """An answer of no words is tried again or fails, and what it used is on the account."""
    asked = llm_call(name, directive={"text": "", "usage": {"input": 10, "output": 4}})
    failure = failed(ask(settings_of(name, simulator.url), asked, listener=Heard() if stream else None))
    assert (failure.error["code"], failure.charged) == ("provider_bad_answer", "maybe")
    assert "neither text nor a tool's call" in failure.error["message"]
    [seen] = simulator.calls()
    assert failure.reply is not None
    assert (failure.reply.output, failure.reply.counted) == ((), True)
    assert {k: v or 0 for k, v in failure.reply.tokens.items()} == seen["tokens"]
    assert seen["cost_nano_usd"] > 0


STATUSES = [
    (400, "provider_invalid_request"), (401, "provider_auth"), (403, "provider_auth"), (404, "provider_unknown_model"),
    (408, "provider_timeout"), (413, "provider_invalid_request"), (422, "provider_invalid_request"),
    (429, "provider_rate_limited"), (500, "provider_unavailable"), (502, "provider_unavailable"),
    (503, "provider_unavailable"), (529, "provider_unavailable"),
]  # fmt: skip


@every_provider
def test_every_status_has_its_error(simulator: Simulator, name: str) -> None:
    """HTTP errors become codes of the closed list, are charged nothing, and are tried exactly once."""
    for status, code in STATUSES:
        failure = failed(ask(settings_of(name, simulator.url), llm_call(name, directive={"status": status})))
        assert (failure.error["code"], failure.error["provider_status"], failure.charged) == (code, status, "no")
        assert failure.error["message"].startswith(f"{name} answered {status}: ")
    assert len(simulator.calls()) == len(STATUSES)


@every_provider
def test_retry_after_is_read_in_its_three_forms(simulator: Simulator, name: str) -> None:
    """Seconds and milliseconds arrive exactly, an HTTP date within the second that it is written in."""
    for directive, least, most in (
        ({"retry_after": 7}, 7_000, 7_000), ({"retry_after_ms": 1_250}, 1_250, 1_250), ({"retry_after_date": 600}, 570_000, 601_000),
        ({"status": 503, "retry_after": 3}, 3_000, 3_000),
    ):  # fmt: skip
        failure = failed(ask(settings_of(name, simulator.url), llm_call(name, directive=directive)))
        assert failure.error["retry_after_ms"] is not None
        assert least <= failure.error["retry_after_ms"] <= most
    silent = failed(ask(settings_of(name, simulator.url), llm_call(name, directive={"status": 500})))
    assert silent.error["retry_after_ms"] is None


@every_provider
def test_the_timeout_bounds_the_call(simulator: Simulator, name: str) -> None:
    """An answer that comes too late ends the call as a time-out that may be charged, with the bound in its message."""
    failure = failed(ask(settings_of(name, simulator.url), llm_call(name, directive={"latency_ms": 30_000}), 0.5))
    assert (failure.error["code"], failure.charged) == ("provider_timeout", "maybe")
    assert "0.5 seconds" in failure.error["message"]
    assert [seen["outcome"] for seen in simulator.calls()] == ["cut_off"]


@every_provider
def test_cancelling_is_no_error(simulator: Simulator, name: str) -> None:
    """A cancelled call ends as cancelled, and the provider sees that its client has left."""

    async def cancel(made: Provider) -> bool:
        task = asyncio.create_task(made.call(llm_call(name, directive={"fault": "hang"}), ATTEMPT, 60))
        await until(lambda: simulator.in_flight() == 1)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    assert run(settings_of(name, simulator.url), cancel)
    assert [seen["outcome"] for seen in simulator.calls()] == ["cut_off"]


@every_provider
def test_the_pool_is_no_bound(simulator: Simulator, name: str) -> None:
    """More calls than any SDK's own limit of 1,000 are under way at once; the lane alone bounds them."""
    many = 1_050

    async def crowd(made: Provider) -> None:
        hanging = llm_call(name, directive={"fault": "hang"})
        tasks = [asyncio.create_task(made.call(hanging, ATTEMPT, 120)) for _ in range(many)]
        await until(lambda: simulator.in_flight() == many)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    run(settings_of(name, simulator.url), crowd)
    assert simulator.outcomes() == [("cut_off", None)] * many


@every_provider
def test_a_connection_that_cannot_be_opened_is_not_charged(name: str) -> None:
    """Where nobody listens nothing was sent, so nothing can be charged."""
    failure = failed(ask(settings_of(name, f"http://127.0.0.1:{free_port()}"), llm_call(name)))
    assert (failure.error["code"], failure.charged) == ("provider_connection", "no")


@pytest.mark.parametrize("name", ["openai", "anthropic", "google"])
def test_a_missing_key_names_its_setting(simulator: Simulator, name: str) -> None:
    """Without a key no call is made, and the answer says which setting to set."""
    failure = failed(ask(settings_of(name, simulator.url, key=None), llm_call(name)))
    assert (failure.error["code"], failure.charged) == ("provider_auth", "no")
    assert name in failure.error["message"]
    assert f"{name.upper()}_KEY_SETTING" in failure.error["message"]
    assert simulator.calls() == []


@every_provider
def test_a_refused_key_names_its_setting_and_never_itself(simulator: Simulator, name: str) -> None:
    """The provider's refusal is passed on with the setting, without the key."""
    failure = failed(ask(settings_of(name, simulator.url, key="bad-key"), llm_call(name)))
    assert (failure.error["code"], failure.charged) == ("provider_auth", "no")
    assert f"{name.upper()}_KEY_SETTING" in failure.error["message"]
    assert "bad-key" not in everything(failure)


def test_a_compatible_server_gets_no_key_that_is_not_its_own(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a key of its own a server is called without any: OpenAI's, which the SDK would take, stays at home."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    failure = failed(ask(settings_of("openai-compatible", simulator.url, key=None), llm_call("openai-compatible")))
    assert failure.error["provider_status"] == 401
    assert "didn't provide an API key" in failure.error["message"]
    assert len(simulator.calls()) == 1


@every_provider
@pytest.mark.parametrize(
    "planted",
    [KEY, "0f0f-no-form-at-all-0f0f", "Bearer abcdef.ghijkl", "AIzaSyPlanted0123456789", "x-api-key: planted-01234"],
)
def test_keys_in_what_a_provider_says_are_hidden(simulator: Simulator, name: str, planted: str) -> None:
    """A key that an error body repeats stands in no message, no exception and no traceback."""
    key = planted if " " not in planted else KEY
    # The simulator repeats the names of unknown directives in its error.
    failure = failed(ask(settings_of(name, simulator.url, key=key), llm_call(name, directive={planted: 1})))
    assert failure.error["provider_status"] == 400
    assert "[secret]" in failure.error["message"]
    for secret in (planted, planted.split()[-1], key):
        assert secret not in everything(failure)
    assert failure.__context__ is None
    assert failure.__cause__ is None
