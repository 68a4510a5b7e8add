"""The pure decisions: what is refused, what is tried again, what an attempt is called."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from core.admission import problem_of
from core.attempts import attempt_id
from core.errors import CODES, ProviderError, error
from core.facts import Attempt, Spent, response, usage
from core.outcome import Outgoing, pack, unpack
from core.reply import NO_TOKENS, Reply, text_part
from core.retry import LONGEST_SAID, RetryRule, next_wait, rest_left
from schemas.codec import Codec
from schemas.jsonform import from_json
from tests.examples import NOON, call, request

RULE = RetryRule(max_attempts=3, base=0.5, longest=30.0)
PART = text_part("hello")


def messages(role: str = "user", **part: Any) -> list[Any]:
    return [{"role": role, "content": [{**PART, **part}]}]


def parameters(**changes: Any) -> Any:
    return {**request()["parameters"], **changes}


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"request_id": "42"}, ["request_id", "'42'"]),
        ({"tenant": ""}, ["tenant"]),
        ({"user": "u" * 300}, ["user", "300 characters", "256"]),
        ({"tenant": "a\x00b"}, ["tenant", "NUL"]),
        ({"created_at": 0}, ["created_at", "0"]),
        ({"messages": []}, ["messages", "empty"]),
        ({"max_attempts": 0}, ["max_attempts", "0", "1 or more"]),
        ({"max_cost_nano_usd": -1}, ["max_cost_nano_usd", "-1", "0 or more"]),
        ({"messages": messages("wizard")}, ["messages[0].role", "'wizard'", "assistant"]),
        ({"messages": [{"role": "user", "content": []}]}, ["messages[0].content"]),
        ({"messages": messages(type="hologram")}, ["content[0].type", "'hologram'"]),
        ({"messages": messages(text=None)}, ["content[0].text", "None"]),
        ({"parameters": parameters(temperature=-1.0)}, ["temperature", "-1.0", "0 to 2"]),
        ({"parameters": parameters(temperature=float("nan"))}, ["temperature", "nan"]),
        ({"parameters": parameters(top_p=0.0)}, ["top_p", "0.0"]),
        ({"parameters": parameters(max_output_tokens=-5)}, ["max_output_tokens", "-5"]),
        ({"parameters": parameters(max_output_tokens=10**12)}, ["max_output_tokens", "1000000000000"]),
        ({"parameters": parameters(reasoning_effort="galaxy")}, ["reasoning_effort", "'galaxy'"]),
    ],
)  # fmt: skip
def test_an_invalid_field_is_refused_by_name_and_value(changes: dict[str, Any], names: list[str]) -> None:
    """The sentence says which field has which value and what it must be."""
    problem = problem_of(request(**changes), 100, 1_000)
    assert problem is not None
    assert problem["code"] == "caller_invalid_request"
    assert all(name in problem["message"] for name in names), problem["message"]


def test_a_value_over_the_limit_is_refused_with_both_sizes() -> None:
    """The caller learns how long the request is and how long it may be."""
    problem = problem_of(request(), 1_001, 1_000)
    assert problem is not None
    assert "1001" in problem["message"]
    assert problem_of(request(), 1_000, 1_000) is None


def test_every_code_names_who_is_at_fault() -> None:
    """The closed list is in four families and each code has a meaning."""
    assert {code.split("_")[0] for code in CODES} <= {"caller", "policy", "provider", "pipeline"}
    assert all(kind.meaning.endswith(".") for kind in CODES.values())
    with pytest.raises(KeyError):
        error("provider_moody", "Not in the list.")


def test_attempts_have_ids_that_a_redelivery_finds_again() -> None:
    """The id of an attempt follows from the request id and its number alone."""
    request_id = str(uuid.uuid4())
    assert attempt_id(request_id, 1) == attempt_id(request_id, 1)
    assert attempt_id(request_id, 1) != attempt_id(request_id, 2)
    assert uuid.UUID(attempt_id(request_id, 1)).version == 5


def test_a_retry_waits_as_the_provider_says() -> None:
    """`Retry-After` is kept to exactly; no jitter shortens it."""
    limited = error("provider_rate_limited", "Slow down.", retry_after_ms=1_500)
    assert next_wait(RULE, limited, 1, NOON, None, jitter=0.0) == 1.5


def test_backoff_is_drawn_from_a_growing_bounded_range() -> None:
    """Without `Retry-After` the wait is between nothing and base * 2^n, never above the longest."""
    broken = error("provider_unavailable", "Server error.")
    assert next_wait(RULE, broken, 1, NOON, None, jitter=0.5) == 0.25
    assert next_wait(RULE, broken, 2, NOON, None, jitter=0.5) == 0.5
    patient = RetryRule(20, 0.5, 30.0)
    assert next_wait(patient, broken, 19, NOON, None, jitter=1.0) == 30.0


@pytest.mark.parametrize("code", [c for c, kind in CODES.items() if c.startswith("provider") and not kind.retryable])
def test_what_a_retry_cannot_help_is_not_retried(code: str) -> None:
    """Refused keys, requests, models and contents fail at once."""
    assert next_wait(RULE, error(code, "No."), 1, NOON, None, jitter=0.0) is None


def test_retries_end_at_the_limit_and_at_the_deadline() -> None:
    """The third attempt is the last, and no wait reaches the deadline."""
    broken = error("provider_unavailable", "Server error.", retry_after_ms=2_000)
    assert next_wait(RULE, broken, 3, NOON, None, jitter=0.0) is None
    assert next_wait(RULE, broken, 1, NOON, NOON + 2_000_000, jitter=0.0) is None
    assert next_wait(RULE, broken, 1, NOON, NOON + 2_000_001, jitter=0.0) == 2.0
    for_ever = error("provider_rate_limited", "Come back tomorrow.", retry_after_ms=86_400_000)
    assert next_wait(RULE, for_ever, 1, NOON, None, jitter=0.0) is None


def test_a_rest_is_waited_out_only_before_a_deadline() -> None:
    """A model that rests is called when the rest is over; at once where that is too late, too long, or nobody said by when."""
    second, longest = 1_000_000, int(RULE.longest * LONGEST_SAID)
    assert rest_left(RULE, NOON + 2 * second, NOON, NOON + 3 * second) == 2.0
    assert rest_left(RULE, NOON + 3 * second, NOON, NOON + 3 * second) == 0.0
    assert rest_left(RULE, NOON + 2 * second, NOON, None) == 0.0
    assert rest_left(RULE, NOON + longest * second, NOON, NOON + 9_999 * second) == longest
    assert rest_left(RULE, NOON + longest * second + 1, NOON, NOON + 9_999 * second) == 0.0
    assert rest_left(RULE, NOON - second, NOON, NOON + second) == 0.0


def test_a_usage_event_states_unknown_as_null_and_refused_as_zero() -> None:
    """A cut-off call's cost is null with its bound beside it; an HTTP error costs exactly nothing."""
    attempt = Attempt(str(uuid.uuid4()), 1, "first", NOON)
    cut_off = usage(call(), attempt, None, NOON + 5, None)
    assert (cut_off["status"], cut_off["cost_nano_usd"], cut_off["cost_status"]) == ("outcome_unknown", None, "unknown")
    assert (cut_off["reserved_nano_usd"], cut_off["provider_us"]) == (1_000_000, None)
    limited = usage(call(), attempt, ProviderError(error("provider_rate_limited", "No."), "no"), NOON + 5, None)
    assert (limited["status"], limited["cost_nano_usd"], limited["cost_status"]) == ("failed", 0, "not_charged")
    cut = usage(call(), attempt, ProviderError(error("provider_timeout", "Late."), "maybe"), NOON + 5, None)
    assert (cut["cost_nano_usd"], cut["cost_status"]) == (None, "unknown")


def test_facts_fit_their_schemas() -> None:
    """Usage and answers of every kind encode and come back as they were."""
    codec = Codec()
    attempt = Attempt(str(uuid.uuid4()), 1, "first", NOON)
    reply = Reply((PART,), "stop", "gpt-5-mini-1", "id", {**NO_TOKENS, "output_text": 3}, "{}")  # type: ignore[typeddict-item]
    facts: list[tuple[str, Any]] = [
        ("LlmUsage", usage(call(), attempt, reply, NOON, None)),
        ("LlmUsage", usage(call(), attempt, None, NOON, None)),
        ("LlmResponse", response(call(), "completed", NOON, attempt=attempt, reply=reply, spent=[Spent(7, "priced")])),
        ("LlmResponse", response(call(), "failed", NOON, failure=error("pipeline_internal", "Oh."), spent=[])),
    ]
    for name, fact in facts:
        assert codec.decode(name, codec.encode(name, fact)) == fact


def test_packed_events_come_back_byte_for_byte() -> None:
    """What the ledger stores is republished unchanged, whatever the bytes."""
    events = (Outgoing("t", b"\x00k", bytes(range(256)), [("h", b"\xff"), ("h", b"")]),)
    assert unpack(pack(events)) == events


def test_json_in_the_wrong_shape_is_refused_with_the_place() -> None:
    """A line's mistake is named by its path."""
    good = {"request_id": "x", "created_at": "2026-11-21T10:58:00Z", "messages": []}
    assert from_json("LlmRequest", good)["created_at"] == NOON
    for change, place in [
        ({"tenat": "a"}, "tenat"), ({"messages": [{"role": 5, "content": []}]}, r"messages\[0\].role"),
        ({"created_at": "noon"}, "created_at"), ({"created_at": "2026-11-21T10:58:00"}, "zone"),
        ({"stream": 1}, "stream"), ({"on_unknown_outcome": "maybe"}, "on_unknown_outcome"), ({"tags": []}, "tags"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=place):
            from_json("LlmRequest", {**good, **change})
    with pytest.raises(ValueError, match="request_id"):
        from_json("LlmRequest", {"created_at": 1, "messages": []})
