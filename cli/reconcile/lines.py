"""The comparisons of the proof, each from what was gathered to a line."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator

from sqlalchemy import Connection

from cli.reconcile.topics import TOKENS, Told
from cli.reconcile.watermark import Watermark
from config import ledger
from core.admission import LONGEST_LABEL, UUID
from core.reconcile import Book, Line, compare, not_compared
from core.topics import REQUESTS, USAGE

DAY_US = 86_400_000_000
#: The ledger counts the days from when an answer was stored, a little after the answer says it was finished.
FORGETTING_US = 60_000_000


def ledger_key(request_id: str) -> str:
    """The id under which the ledger keeps a request, as `agents.admit` makes it."""
    return request_id if UUID.fullmatch(request_id) else hashlib.sha256(request_id.encode()).hexdigest()


def answer_lines(told: Told, marks: Watermark) -> Iterator[Line]:
    """The request topic beside answers and dead letters, and the answers beside the usage events."""
    asked, answered = Book("requests", ["requests"]), Book("answers and dead letters", ["requests"])
    for request_id, place in told.due.items():
        asked.add(request_id, (1,))
        if own := told.answers.get(request_id):
            answered.add(request_id, (len(own),))
        elif {request_id, place} & told.letters or request_id in told.answered_beside:
            answered.add(request_id, (1,))
    notes = _under_way(told)
    strangers = [i for i in told.answers if i not in told.due and i not in told.under_way and i not in told.too_old]
    if marks.marks[REQUESTS.name].whole:
        for request_id in strangers:
            answered.add(request_id, (len(told.answers[request_id]),))
    elif strangers:
        notes.append(f"{len(strangers):,} answers to requests from before the part of the log that is compared")
    yield compare("request topic = answers + dead letters", asked, answered, notes)

    own_answers = {i: next(iter(own.values())) for i in told.due if len(own := told.answers.get(i, {})) == 1}
    said, charged = (Book(name, ["calls", "cost_nano_usd"]) for name in ("answers", "usage events"))
    told_tokens, call_tokens = (Book(name, ["calls", *TOKENS]) for name in ("answers", "usage events"))
    for request_id, answer in own_answers.items():
        if answer.calls:
            said.add(request_id, (answer.calls, answer.cost))
        if answer.attempt_id is not None and answer.tokens is not None:
            told_tokens.add(answer.attempt_id, (1, *answer.tokens))
    for call in told.calls.values():
        if call.request_id in own_answers:
            charged.add(call.request_id, (1, call.cost))
        if call.attempt_id in told_tokens.entries:
            call_tokens.add(call.attempt_id, (1, *call.tokens))
    yield compare("calls and cost in answers = usage events", said, charged, notes)
    yield compare("tokens in answers = tokens of their calls", told_tokens, call_tokens, notes)


def _under_way(told: Told) -> list[str]:
    notes = [f"{len(told.under_way):,} requests still under way"] if told.under_way else []
    if told.too_old:
        notes.append(f"{len(told.too_old):,} requests whose answers may be older than what the topics hold")
    return notes


def ledger_lines(told: Told, marks: Watermark, db: Connection, now: int, keep_days: int) -> Iterator[Line]:
    """The ledger beside the answers, beside the usage events, and its accounts beside their own parts."""
    due = {ledger_key(i): i for i in told.due if i in told.answers}
    ids = {**due, **{call.request_id: call.request_id for call in told.calls.values()}}
    held = {ids[row.request_id]: row for row in ledger.held(db, ids)}
    balances = ledger.balances(db)
    forgotten_from = now - keep_days * DAY_US + FORGETTING_US

    answered, stored = Book("answers", ["requests"]), Book("ledger", ["requests"])
    gone = 0
    for request_id in due.values():
        row = held.get(request_id)
        if row is None and min(answer.finished_at for answer in told.answers[request_id].values()) < forgotten_from:
            gone += 1
            continue
        answered.add(request_id, (1,))
        if row is not None and row.answered:
            stored.add(request_id, (1,))
    forgot = [f"{gone:,} requests that the ledger has forgotten, after {keep_days} days"] if gone else []
    yield compare("answers = answers in the ledger", answered, stored, [*_under_way(told), *forgot])

    in_log, in_ledger = (Book(name, ["calls", "cost_nano_usd"]) for name in ("usage events", "ledger"))
    metered, settled = (
        Book("usage events that meter has read", ["calls", "cost_nano_usd"]),
        Book("settled calls in the ledger", ["calls", "cost_nano_usd"]),
    )
    skipped, waiting = 0, 0
    lost_money: dict[tuple[str, str], int] = defaultdict(int)
    for call in told.calls.values():
        row = held.get(call.request_id)
        if row is None and call.finished_at < forgotten_from:
            skipped += 1
            if call.metered:
                account = call.tenant[:LONGEST_LABEL].replace("\x00", "")
                lost_money[account, ledger.month_of(call.admitted_at)] += call.cost or 0
            continue
        key = f"call {call.number} of request {call.request_id}"
        in_log.add(key, (1, call.cost))
        waiting += not call.metered
        if call.metered:
            metered.add(key, (1, call.cost))
    for request_id, row in held.items():
        for number, is_settled, cost in row.attempts:
            key = f"call {number} of request {request_id}"
            if key in in_log.entries or (request_id in told.due and request_id in told.answers):
                in_ledger.add(key, (1, cost))
            if is_settled and key in metered.entries:
                settled.add(key, (1, cost))
    forgot = [f"{skipped:,} calls that the ledger has forgotten, after {keep_days} days"] if skipped else []
    yield compare("usage topic = calls in the ledger", in_log, in_ledger, forgot)
    late = [f"{waiting:,} usage events that meter has yet to read"] if waiting else []
    yield compare("usage topic = settled in the ledger", metered, settled, [*late, *forgot])
    corrections = {call.attempt_id: call for call in told.adjustments.values() if call.metered}
    published, moved = (Book(name, ["adjustments", "cost_nano_usd"]) for name in ("usage topic", "ledger"))
    for call in corrections.values():
        published.add(call.attempt_id, (1, call.cost))
    for adjustment_id, difference in ledger.adjusted(db, corrections):
        moved.add(adjustment_id, (1, difference))
    yield compare("price adjustments = settled in the ledger", published, moved)
    yield from _account_lines(told, marks, balances, lost_money)


def _account_lines(
    told: Told, marks: Watermark, balances: list[ledger.Balance], lost_money: dict[tuple[str, str], int]
) -> Iterator[Line]:
    held, reserved = Book("accounts", ["reserved_nano_usd"]), Book("open requests", ["reserved_nano_usd"])
    spent, settled = Book("accounts", ["spent_nano_usd"]), Book("settled calls", ["spent_nano_usd"])
    for balance in balances:
        key = f"account {balance.account} in {balance.window}"
        held.add(key, (balance.reserved_nano,))
        reserved.add(key, (balance.held_nano,))
        spent.add(key, (balance.spent_nano,))
        settled.add(key, (balance.settled_nano + lost_money.get((balance.account, balance.window), 0),))
    yield compare("reserved in accounts = held for open requests", held, reserved)
    name = "spent in accounts = settled calls and adjustments"
    if marks.marks[USAGE.name].whole:
        yield compare(name, spent, settled)
    else:
        yield not_compared(
            name, "accounts", "settled calls",
            "the ledger forgets settled calls, and only the whole usage topic, without --since, still has them",
        )  # fmt: skip
