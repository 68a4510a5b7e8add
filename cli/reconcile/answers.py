"""The request topic beside answers and dead letters, and the answers beside the usage events."""

from __future__ import annotations

from collections.abc import Iterator

from cli.reconcile.entries import TOKENS
from cli.reconcile.topics import Told
from cli.reconcile.watermark import Watermark
from core.reconcile import Book, Line, compare
from core.topics import REQUESTS

#: A request is answered at its deadline; so much later, somebody should have been there to do it.
GRACE_US = 300_000_000


def answer_lines(told: Told, marks: Watermark, now: int) -> Iterator[Line]:
    """The lines that need the topics alone; `now` is in microseconds."""
    notes = under_way_notes(told)
    yield _answered_line(told, marks, notes)
    yield _deadline_line(told, now)
    yield from _call_lines(told, notes)


def under_way_notes(told: Told) -> list[str]:
    """What cannot be compared yet, or no longer."""
    notes = [f"{len(told.under_way):,} requests still under way"] if told.under_way else []
    if told.too_old:
        notes.append(f"{len(told.too_old):,} requests whose answers may be older than what the topics hold")
    return notes


def _answered_line(told: Told, marks: Watermark, notes: list[str]) -> Line:
    asked, answered = Book("requests", ["requests"]), Book("answers and dead letters", ["requests"])
    for request_id, request in told.due.items():
        asked.add(request_id, (1,))
        if own := told.answers.get(request_id):
            answered.add(request_id, (len(own),))
        elif {request_id, request.place} & told.letters or request_id in told.answered_beside:
            answered.add(request_id, (1,))
    strangers = [i for i in told.answers if i not in told.due and i not in told.under_way and i not in told.too_old]
    before = []
    if marks.marks[REQUESTS.name].whole:
        for request_id in strangers:
            answered.add(request_id, (len(told.answers[request_id]),))
    elif strangers:
        before = [f"{len(strangers):,} answers to requests from before the part of the log that is compared"]
    return compare("request topic = answers + dead letters", asked, answered, [*notes, *before])


def _deadline_line(told: Told, now: int) -> Line:
    """Every request whose deadline is long past, those under way too: each has an answer or a dead letter."""
    late, answered = Book("requests past their deadline", ["requests"]), Book("answers and dead letters", ["requests"])
    for request_id, request in (*told.due.items(), *told.under_way.items()):
        if request.deadline_us is None or request.deadline_us + GRACE_US > now:
            continue
        late.add(request_id, (1,))
        known = request_id in told.answers or request_id in told.answered_beside
        if known or {request_id, request.place} & told.letters:
            answered.add(request_id, (1,))
    return compare("requests past their deadline = answered", late, answered)


def _call_lines(told: Told, notes: list[str]) -> Iterator[Line]:
    own_answers = {i: next(iter(own.values())) for i in told.due if len(own := told.answers.get(i, {})) == 1}
    said, charged = (Book(name, ["calls", "cost_nano_usd"]) for name in ("answers", "usage events"))
    told_tokens, call_tokens = (Book(name, ["calls", *TOKENS]) for name in ("answers", "usage events"))
    for request_id, answer in own_answers.items():
        if answer.calls:
            said.add(request_id, (answer.calls, answer.cost))
        if answer.attempt_id is not None and answer.tokens is not None:
            told_tokens.add(answer.attempt_id, (1, *answer.tokens))
    # The answer to one of two calls at once is there before it is known what the other one cost.
    ahead = {c.request_id for c in told.calls.values() if c.reason == "hedge"}
    ahead &= {request_id for request_id, answer in own_answers.items() if answer.cost is None}
    for call in told.calls.values():
        if call.request_id in own_answers:
            charged.add(call.request_id, (1, None if call.request_id in ahead else call.cost))
        if call.attempt_id in told_tokens.entries:
            call_tokens.add(call.attempt_id, (1, *call.tokens))
    yield compare("calls and cost in answers = usage events", said, charged, notes)
    yield compare("tokens in answers = tokens of their calls", told_tokens, call_tokens, notes)
    given, hits = (Book(name, ["hits"]) for name in ("answers", "usage events"))
    for request_id in (request_id for request_id, answer in own_answers.items() if answer.cached):
        given.add(request_id, (1,))
    for request_id in told.hits.values():
        if request_id in own_answers:
            hits.add(request_id, (1,))
    yield compare("answers from the response cache = their usage events", given, hits, notes)
