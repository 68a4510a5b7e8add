"""The story of a request, told from fixed facts."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from agents.outgoing import Encoder, response_id
from agents.planning import Plan
from cli.explain.gather import gather
from cli.explain.held import row_of
from cli.explain.known import Facts, Known, OpenCall
from cli.explain.show import as_json, draw
from cli.explain.story import Story, story_of
from config import ledger
from config.database import create_tables, open_database
from config.settings import settings_in
from core.attempts import attempt_id
from core.caching import hit
from core.errors import ProviderError, error
from core.facts import Attempt, Spent, refusal, response, usage
from core.outcome import pack
from core.pricing import Price, Tier
from core.reply import NO_TOKENS, Reply, text_part
from schemas.cloudevents import trace_of
from schemas.codec import Codec
from schemas.events import LlmCall, ReplyTo
from tests.examples import NOON, call, request

MODELS = ("google/gemini-2.5-flash", "openai/gpt-5-nano", "openai/gpt-5-mini", "anthropic/claude-haiku-4-5")
PRICE = Price(
    {"input_uncached": (Tier(0, Decimal("0.25")),), "output_text": (Tier(0, Decimal("2")),)},
    "genai-prices 1.2.3",
    20_778,
)
DOWN = ProviderError(error("provider_unavailable", "It is down.", provider_status=503), "no")
AWAY = {"MILLSTREAM_CLICKHOUSE_URL": "http://me:hunter2@127.0.0.1:9"}


def planned() -> LlmCall:
    """A call whose route kept three models and dropped one."""
    decisions = [
        {"model": model, "kept": kept, "reason": "target 1" if kept else "dropped: no image input"}
        for model, kept in zip(MODELS, (True, True, True, False), strict=True)
    ]
    candidates = [
        {"provider": model.partition("/")[0], "model": model.partition("/")[2], "max_output_tokens": 100,
         "reserved_nano_usd": 1_000_000} for model in MODELS[:3]
    ]  # fmt: skip
    made: Any = {**call(), "route": "two", "complexity": 0.42, "decisions": decisions, "candidates": candidates}
    return made


def at(one: LlmCall, model: str) -> LlmCall:
    """The call, at another of its candidates."""
    provider, _, name = model.partition("/")
    return LlmCall(**{**one, "provider": provider, "model": name})  # type: ignore[typeddict-item]


def events() -> tuple[LlmCall, list[Any], Any]:
    """A call with its usage events, of a failure and of the answer by the third model, and the answer."""
    one = planned()
    request_id = one["request"]["request_id"]
    tokens = {**NO_TOKENS, "input_uncached": 10, "output_text": 5}
    reply = Reply(
        output=(text_part("Hello \x1b[31mthere"),),
        finish_reason="stop",
        tokens=tokens,
        response_model=None,
        provider_response_id=None,
        provider_usage=None,
    )
    first = Attempt(attempt_id(request_id, 1), 1, "first", NOON + 3_000, None, 0)
    second = Attempt(attempt_id(request_id, 2), 2, "fallback", NOON + 60_000, NOON + 70_000)
    failed = usage(at(one, MODELS[0]), first, DOWN, NOON + 50_000, PRICE)
    good: Any = {
        **usage(at(one, MODELS[2]), second, reply, NOON + 90_000, PRICE),
        "credential_id": "k-1",
        "credential_owner": "tenant",
    }
    spent = [Spent(fact["cost_nano_usd"], fact["cost_status"]) for fact in (failed, good)]
    answer = response(at(one, MODELS[2]), "completed", NOON + 90_000, attempt=second, reply=reply, spent=spent)
    return one, [failed, good], answer


def known_of(one: LlmCall, usages: list[Any], answer: Any, **changes: Any) -> Known:
    """What ClickHouse knows when it has everything."""
    request_id = one["request"]["request_id"]
    kept = {"ingested_at": NOON + 200_000, "kafka_topic": "llm.requests.v1"}
    facts = Facts(
        ({**row_of("LlmRequest", one["request"]), **kept},),
        ({**row_of("LlmResponse", answer, response_id(request_id)), **kept},),
        tuple({**row_of("LlmUsage", fact, fact["attempt_id"]), **kept} for fact in usages),
    )
    return Known(request_id, NOON + 300_000, response_id(request_id), replace(facts, **changes), None)


def drawn(known: Known, story: Story) -> str:
    """The story as it is printed to a pipe."""
    out = StringIO()
    draw(known, story, Console(file=out, width=100, highlight=False))
    return out.getvalue()


def test_a_story_has_every_event_in_the_order_of_time() -> None:
    """Creation, choice, both calls, the fallback past a model, the first token and the answer, with exact money and times."""
    known = known_of(*events())
    story = story_of(known)
    assert [(moment.at - NOON, moment.kind, moment.text) for moment in story.moments] == [
        (0, "created", "llm.requests.v1 0@0; 1 message, 20 characters; interactive"),
        (1_000, "admitted", "by route two, complexity 0.42, at most 0.001 USD a call"),
        *((1_000, "kept", f"{model}: target 1") for model in MODELS[:3]),
        (1_000, "dropped", f"{MODELS[3]}: no image input"),
        (3_000, "call", f"1 to {MODELS[0]}, first, with the platform's key of the environment"),
        (50_000, "failed", "call 1 after 47.0 ms: provider_unavailable (HTTP 503); no tokens counted; 0 characters had come; 0.00 USD, not_charged"),
        (50_000, "fallback", f"from {MODELS[0]} to {MODELS[2]}, past {MODELS[1]} without a call"),
        (60_000, "call", f"2 to {MODELS[2]}, fallback, with tenant acme's own key k-1"),
        (70_000, "first token", "call 2 after 10.0 ms"),
        (90_000, "succeeded", "call 2 after 30.0 ms: tokens 10 input_uncached, 5 output_text; 0.0000125 USD"),
        (90_000, "completed", f"stop, 16 characters by {MODELS[2]}"),
        (200_000, "stored", "the answer of llm.requests.v1 0@0, in ClickHouse"),
    ]  # fmt: skip
    assert (story.state, known.cost, story.open) == ("completed", 12_500, ())
    assert story.costs[1] == (
        "Call 2 0.0000125 USD: input_uncached 0.0000025 USD + output_text 0.00001 USD; genai-prices 1.2.3 of 2026-11-21"
    )


def test_a_hedge_says_that_the_call_before_was_late() -> None:
    """A second call that began beside the first one is told as such, and the first one's end as it came."""
    one, [late, good], answer = events()
    ended = {**late, "finished_at": NOON + 95_000, "error_code": "pipeline_superseded", "provider_status": None}
    told = [
        (moment.kind, moment.text)
        for moment in story_of(known_of(one, [ended, {**good, "reason": "hedge"}], answer)).moments
    ]
    said = [text for kind, text in told if kind in ("hedge", "call", "failed")]
    assert said[1:3] == [
        f"call 1 is late, so {MODELS[2]} is called as well", f"2 to {MODELS[2]}, hedge, with tenant acme's own key k-1",
    ]  # fmt: skip
    assert "pipeline_superseded" in said[3]


def test_a_story_fits_its_page_and_steers_no_terminal() -> None:
    """No line is longer than 100 columns and no control character of an event reaches the terminal; bodies only when asked for."""
    one, usages, answer = events()
    plain = known_of(one, usages, answer)
    body = {"kind": "response", "body": "Hello \x1b[31mthere", "body_bytes": 17, "sha256": "00"}
    told = known_of(one, usages, answer, bodies=(body,))
    page, with_body = drawn(plain, story_of(plain)), drawn(told, story_of(told))
    assert max(map(len, with_body.splitlines())) <= 100
    assert "\x1b" not in with_body
    assert ("there" in page, "there" in with_body) == (False, True)
    assert "for      tenant acme, user ana" in page and "0.0000125 USD, 2 calls" in page


def test_a_price_adjustment_moves_the_cost() -> None:
    """An adjustment is an event with its sign, changes the total, and is no call."""
    one, (failed, good), answer = events()
    less = {
        **good,
        "attempt_id": "x",
        "adjusts": good["attempt_id"],
        "cost_nano_usd": -500,
        "finished_at": NOON + 100_000,
    }
    known = known_of(one, [failed, good, less], answer)
    (adjusted,) = (moment for moment in story_of(known).moments if moment.kind == "adjusted")
    assert (known.cost, len(known.calls)) == (12_000, 2)
    assert adjusted.text == "call 2 by -0.0000005 USD; genai-prices 1.2.3 of 2026-11-21"
    unknown = {**good, "cost_nano_usd": None, "cost_status": "unknown"}
    assert known_of(one, [failed, unknown], answer).cost is None


def test_an_id_that_was_used_again_keeps_its_own_story() -> None:
    """The answer that refuses another body stands in the story, and the request's own answer gives its outcome."""
    one, usages, answer = events()
    known = known_of(one, usages, answer)
    reused = refusal(one["request"], "refused", error("caller_request_id_reused", "Used before."), NOON + 95_000)
    again = {**row_of("LlmResponse", reused, "other"), "ingested_at": NOON + 210_000}
    facts = replace(known.facts, answers=(again, *known.facts.answers), requests=known.facts.requests * 2)
    known = replace(known, facts=facts)
    story = story_of(known)
    assert story.state == "completed"
    assert {"sent again", "refused", "completed"} <= {moment.kind for moment in story.moments}


def test_an_answer_of_the_response_cache_is_no_call() -> None:
    """The story says whose answer served again and what that saved, and counts neither a call nor a cost."""
    one, _, kept = events()
    served = {**planned(), "request": request()}
    found = hit(served, kept, 12_500, NOON + 5_000)  # type: ignore[arg-type]
    known = known_of(served, [found.usage], found.answer)  # type: ignore[arg-type]
    story = story_of(known)
    texts = {moment.kind: moment.text for moment in story.moments}
    assert texts["cached"] == f"an earlier answer of {MODELS[2]} serves again and saved 0.0000125 USD"
    assert texts["completed"].endswith(f", as answered to {one['request']['request_id']}")
    assert (known.cost, known.calls, known.adjustments, "call" in texts) == (0, (), (), False)


def test_a_downgrade_says_what_would_have_been_called() -> None:
    """The story names the first choice where a cheaper model had to do, with why that was dropped, and nothing where it had not."""
    one, usages, answer = events()
    dropped = {"model": "openai/gpt-5", "kept": False, "reason": "dropped: it costs 5 credits"}
    for instead, said in (("openai/gpt-5", True), (None, False)):
        decisions = [*answer["decisions"], dropped] if said else answer["decisions"]
        story = story_of(known_of(one, usages, {**answer, "downgraded_from": instead, "decisions": decisions}))
        [text] = [moment.text for moment in story.moments if moment.kind == "admitted"]
        assert ("instead of openai/gpt-5" in text.split(", ")) is said
        reasons = [moment.text for moment in story.moments if moment.kind == "dropped"]
        assert ("openai/gpt-5: it costs 5 credits" in reasons) is said


@pytest.mark.parametrize("unchecked", [True, False])
def test_a_request_that_no_limit_was_asked_about_says_so(unchecked: bool) -> None:
    """The story names the spare ledger where that admitted the request, and no other time."""
    one, usages, answer = events()
    story = story_of(known_of(one, usages, {**answer, "unchecked": unchecked}))
    [text] = [moment.text for moment in story.moments if moment.kind == "admitted"]
    assert ("unchecked, by the spare ledger" in text) is unchecked


def test_a_machine_gets_all_of_it() -> None:
    """The JSON has each event with its time after creation, the calls and decisions as they are, and no bodies unasked."""
    known = known_of(*events())
    found = json.loads(as_json(known, story_of(known)))
    assert (found["outcome"], found["total_us"], found["cost_nano_usd"]) == ("completed", 90_000, 12_500)
    assert [event["after_us"] for event in found["events"]][:2] == [0, 1_000]
    assert [one["kept"] for one in found["decisions"]] == [True, True, True, False]
    assert [one["attempt"] for one in found["calls"]] == [1, 2]
    assert "bodies" not in found


def test_the_ledger_tells_of_a_request_that_is_under_way(tmp_path: Path) -> None:
    """Plan, ended call, open call with its worker and reserved money come from the ledger; a ClickHouse away is named, not its password."""
    one, (failed, _), _ = events()
    request_id = one["request"]["request_id"]
    settings = settings_in({"MILLSTREAM_DATABASE_URL": f"sqlite:///{tmp_path / 'ledger.db'}", **AWAY})
    engine = open_database(settings.database_url)
    create_tables(engine)
    fields = {name: one[name] for name in ("route", "complexity", "decisions", "candidates", "prompt_version")}  # type: ignore[literal-required]
    encoder = Encoder(Codec(), "complete", lambda: NOON)
    with engine.begin() as db:
        ledger.admit(
            db, [ledger.Admission(request_id, b"h" * 32, "acme", 1_000_000, None, NOON, Plan(fields).packed())]
        )
        start = ledger.Start(request_id, "w-1", NOON + 3_000, None, 2, False)
        ledger.start(db, [start])
        packed = pack((encoder.usage(failed, trace_of([], request_id)),))
        ended = ledger.EndedAttempt(1, packed, 0, "not_charged")
        assert ledger.end(db, [ledger.End(request_id, "w-1", NOON + 50_000, ended, None, move_to=2)]) == ["recorded"]
        ledger.start(db, [replace(start, now=NOON + 60_000, candidate=2)])
    engine.dispose()
    known = gather(settings, request_id, False, NOON + 160_000)
    story = story_of(known)
    assert known.held is not None
    assert known.held.open_calls == (OpenCall(2, "fallback", MODELS[2], "w-1", False, NOON + 60_000),)
    assert (story.state, known.cost) == ("under way", 0)
    assert [moment.kind for moment in story.moments] == [
        "admitted", "kept", "kept", "kept", "dropped", "call", "failed", "call"]  # fmt: skip
    assert story.open == (
        f"Call 2 to {MODELS[2]} has run for 100.0 ms in worker w-1, which has not been heard of.",
        "0.001 USD reserved in account acme of 2026-11.",
        "Meter has yet to settle call 1.",
    )
    assert "http://127.0.0.1:9" in story.notes[0] and "hunter2" not in drawn(known, story)


def test_the_ledger_tells_where_copies_went(tmp_path: Path) -> None:
    """An answer that only the ledger has is told in full, with the topic and partition of its copy."""
    one, usages, answer = events()
    request_id = one["request"]["request_id"]
    settings = settings_in({"MILLSTREAM_DATABASE_URL": f"sqlite:///{tmp_path / 'ledger.db'}", **AWAY})
    engine = open_database(settings.database_url)
    create_tables(engine)
    to = ReplyTo(topic="replies.orders", partition=4, correlation_id=None)
    packed = pack(Encoder(Codec(), "complete", lambda: NOON).answer(answer, trace_of([], request_id), to))
    with engine.begin() as db:
        ledger.admit(db, [ledger.Admission(request_id, b"h" * 32, "acme", 0, packed, NOON)])
    engine.dispose()
    known = gather(settings, request_id, False, NOON + 160_000)
    story = story_of(known)
    assert (story.state, story.moments[-1].kind, story.moments[-1].text) == (
        "completed", "copied", "to replies.orders, partition 4")  # fmt: skip
    assert known.answer is not None and known.answer["output_chars"] == 16
    assert list(known.decisions)[3] == (MODELS[3], False, "dropped: no image input")
    assert len(usages) == 2
