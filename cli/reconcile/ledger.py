"""The ledger beside the answers, beside the usage events, and its accounts beside their own parts."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from sqlalchemy import Connection

from cli.reconcile.answers import under_way_notes
from cli.reconcile.topics import Call, Told
from cli.reconcile.watermark import Watermark
from config import audit
from config.ledger_rows import month_of
from core.admission import LONGEST_LABEL, UUID
from core.reconcile import Book, Line, compare, not_compared
from core.topics import USAGE

DAY_US = 86_400_000_000
#: The ledger counts the days from when an answer was stored, a little after the answer says it was finished.
FORGETTING_US = 60_000_000

Account = tuple[str, str]


def ledger_key(request_id: str) -> str:
    """The id under which the ledger keeps a request, as `agents.admit` makes it."""
    return request_id if UUID.fullmatch(request_id) else hashlib.sha256(request_id.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Kept:
    """What the ledger holds, at one moment, of the requests that the topics tell of; `adjusted` by adjustment id.

    What was finished before `forgotten_from` it may have forgotten, after `keep_days`.
    """

    requests: dict[str, audit.Held]
    adjusted: dict[str, int]
    balances: list[audit.Balance]
    forgotten_from: int
    keep_days: int

    def forgot(self, request_id: str, finished_at: int) -> bool:
        """Whether it is no wonder that the ledger does not know the request."""
        return request_id not in self.requests and finished_at < self.forgotten_from

    def note(self, count: int, things: str) -> list[str]:
        """What was left out because of that."""
        return [f"{count:,} {things} that the ledger has forgotten, after {self.keep_days} days"] if count else []


def ledger_keys(told: Told) -> dict[str, str]:
    """The requests that the ledger has to know, by its key for each."""
    ids = {ledger_key(i): i for i in told.due if i in told.answers}
    return ids | {call.request_id: call.request_id for call in told.calls.values()}


def ledger_lines(
    told: Told, marks: Watermark, db: Connection, now: int, keep_days: int, aside: Sequence[audit.Held] = ()
) -> Iterator[Line]:
    """The lines of the ledger, all of one moment; `now` is in microseconds, `aside` is what a spare ledger has yet to hand over."""
    ids = ledger_keys(told)
    kept = Kept(
        {ids[row.request_id]: row for row in chain(aside, audit.held(db, ids))},
        dict(audit.adjusted(db, [call.attempt_id for call in told.adjustments.values()])),
        audit.balances(db), now - keep_days * DAY_US + FORGETTING_US, keep_days,
    )  # fmt: skip
    yield _answer_line(told, kept)
    yield from _call_lines(told, kept)
    yield _adjustment_line(told, kept)
    yield from _account_lines(told, kept, whole=marks.marks[USAGE.name].whole)


def _answer_line(told: Told, kept: Kept) -> Line:
    answered, stored = Book("answers", ["requests"]), Book("ledger", ["requests"])
    gone = 0
    for request_id in told.due:
        if (own := told.answers.get(request_id)) is None:
            continue
        if kept.forgot(request_id, min(answer.finished_at for answer in own.values())):
            gone += 1
            continue
        answered.add(request_id, (1,))
        if (row := kept.requests.get(request_id)) is not None and row.answered:
            stored.add(request_id, (1,))
    notes = [*under_way_notes(told), *kept.note(gone, "requests")]
    return compare("answers = answers in the ledger", answered, stored, notes)


def _call_lines(told: Told, kept: Kept) -> Iterator[Line]:
    in_log, in_ledger = (Book(name, ["calls", "cost_nano_usd"]) for name in ("usage events", "ledger"))
    metered, settled = (
        Book(name, ["calls", "cost_nano_usd", "tokens", "charged_nano_usd"])
        for name in ("usage events that meter has read", "settled calls in the ledger")
    )
    gone, waiting = 0, 0
    for call in told.calls.values():
        if kept.forgot(call.request_id, call.finished_at):
            gone += 1
            continue
        key = _key(call.number, call.request_id)
        in_log.add(key, (1, call.cost))
        waiting += not call.metered
        if call.metered:
            metered.add(key, (1, call.cost, call.all_tokens, call.charged))
    for request_id, row in kept.requests.items():
        for one in row.attempts:
            key = _key(one.number, request_id)
            if key in in_log.entries or (request_id in told.due and request_id in told.answers):
                in_ledger.add(key, (1, one.cost_nano))
            if one.settled and key in metered.entries:
                # What was settled before the ledger kept what counts against limits has what its event says.
                kept_so = (one.tokens or 0, one.charged_nano)
                counts = metered.entries[key][0][2:] if one.charged_nano is None else kept_so
                settled.add(key, (1, one.cost_nano, *counts))
    forgot = kept.note(gone, "calls")
    yield compare("usage topic = calls in the ledger", in_log, in_ledger, forgot)
    late = [f"{waiting:,} usage events that meter has yet to read"] if waiting else []
    yield compare("usage topic = settled in the ledger", metered, settled, [*late, *forgot])


def _key(number: int, request_id: str) -> str:
    return f"call {number} of request {request_id}"


def _adjustment_line(told: Told, kept: Kept) -> Line:
    published, moved = (Book(name, ["adjustments", "cost_nano_usd"]) for name in ("usage topic", "ledger"))
    for call in told.adjustments.values():
        if call.metered:
            published.add(call.attempt_id, (1, call.cost))
            if call.attempt_id in kept.adjusted:
                moved.add(call.attempt_id, (1, kept.adjusted[call.attempt_id]))
    return compare("price adjustments = settled in the ledger", published, moved)


def _account_lines(told: Told, kept: Kept, *, whole: bool) -> Iterator[Line]:
    held, reserved = Book("accounts", ["reserved_nano_usd"]), Book("open requests", ["reserved_nano_usd"])
    for balance in kept.balances:
        held.add(_account(balance), (balance.reserved_nano,))
        reserved.add(_account(balance), (balance.held_nano,))
    yield compare("reserved in accounts = held for open requests", held, reserved)
    names = (
        "spent in accounts = settled calls and adjustments",
        "unknown in accounts = bounds of calls whose cost is not known",
    )
    if not whole:
        why = "the ledger forgets settled calls, and only the whole usage topic, without --since, still has them"
        yield from (not_compared(name, "accounts", "settled calls", why) for name in names)
        return
    yield _spent_line(names[0], told, kept)
    yield _unknown_line(names[1], told, kept)


def _spent_line(name: str, told: Told, kept: Kept) -> Line:
    forgotten: Counter[Account] = Counter()
    for call in _forgotten(told, kept):
        forgotten[_charged(call)] += call.cost or 0
    spent, settled = Book("accounts", ["spent_nano_usd"]), Book("settled calls", ["spent_nano_usd"])
    for balance in kept.balances:
        spent.add(_account(balance), (balance.spent_nano,))
        settled.add(_account(balance), (balance.settled_nano + forgotten[balance.account, balance.window],))
    return compare(name, spent, settled)


def _unknown_line(name: str, told: Told, kept: Kept) -> Line:
    """The bounds stand in the usage events alone, so an account of which the ledger has settled more than was read waits."""
    bounds: Counter[Account] = Counter()
    calls: Counter[Account] = Counter()
    adjustments: Counter[Account] = Counter()
    for call in _forgotten(told, kept):
        bounds[_charged(call)] += call.bound if call.cost is None else 0
    settled = {(i, one.number) for i, row in kept.requests.items() for one in row.attempts if one.settled}
    for call in told.calls.values():
        if call.cost is None and (call.request_id, call.number) in settled:
            row = kept.requests[call.request_id]
            calls[row.account, row.window] += 1
            bounds[row.account, row.window] += call.bound
    for call in told.adjustments.values():
        if call.attempt_id in kept.adjusted:
            adjustments[_charged(call)] += 1
            bounds[_charged(call)] += call.bound
    unknown, bound = Book("accounts", ["unknown_nano_usd"]), Book("usage events", ["unknown_nano_usd"])
    waiting = 0
    for balance in kept.balances:
        account = balance.account, balance.window
        if (calls[account], adjustments[account]) != (balance.unknown_calls, balance.adjustments):
            waiting += 1
            continue
        unknown.add(_account(balance), (balance.unknown_nano,))
        bound.add(_account(balance), (bounds[account],))
    notes = [f"{waiting:,} accounts of which the ledger has settled other calls than were read"] if waiting else []
    return compare(name, unknown, bound, notes)


def _forgotten(told: Told, kept: Kept) -> Iterator[Call]:
    return (c for c in told.calls.values() if c.metered and kept.forgot(c.request_id, c.finished_at))


def _charged(call: Call) -> Account:
    return call.tenant[:LONGEST_LABEL].replace("\x00", ""), month_of(call.admitted_at)


def _account(balance: audit.Balance) -> str:
    return f"account {balance.account} in {balance.window}"
