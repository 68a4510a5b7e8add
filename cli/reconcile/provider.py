"""The provider's own account, as the simulator of a local stack keeps it, beside the usage events."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cli.errors import CommandError
from cli.reconcile.entries import TOKENS
from cli.reconcile.topics import Told
from cli.reconcile.watermark import Watermark
from core.admission import UUID
from core.attempts import CHECK, attempt_id
from core.pricing import TOKEN_CLASSES
from core.reconcile import Book, Line, compare, not_compared
from core.topics import USAGE

#: So many calls of a request under way are looked for.
MOST_CALLS = 50
NAMES = ("calls at the provider = usage events", "tokens and cost at the provider = usage events")


@dataclass(frozen=True, slots=True)
class Account:
    """The calls that the provider knows, taken at `taken_us`; `whole` when it has forgotten none."""

    calls: list[dict[str, Any]]
    taken_us: int
    whole: bool


def provider_account(url: str) -> Account:
    """The simulator's account now; `CommandError` when it does not answer."""
    taken = time.time_ns() // 1_000
    try:
        totals = _get(f"{url}/_sim/ledger")
        calls = _get(f"{url}/_sim/calls?since=0")
    except (OSError, ValueError) as why:
        raise CommandError(f"The simulator at {url} does not tell its account ({type(why).__name__}).") from None
    return Account(calls, taken, totals["records"] == totals["last_seq"])


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=30) as answer:  # the stack file's own address, on loopback
        return json.load(answer)


def provider_lines(account: Account | None, told: Told, marks: Watermark, since_us: int | None) -> Iterator[Line]:
    """Both lines, or that there is nothing to compare with."""
    if account is None:
        for name in NAMES:
            yield not_compared(name, "provider", "usage events", "no simulator here; a real provider has its own bill")
        return
    whole_log = marks.marks[USAGE.name].whole
    events: dict[str, list[Any]] = {}
    for call in told.calls.values():
        events.setdefault(call.attempt_id, []).append(call)
    open_calls = {
        attempt_id(i, number) for i in told.under_way if UUID.fullmatch(i) for number in range(1, MOST_CALLS + 1)
    }
    theirs, ours = Book("provider", ["calls"]), Book("usage events", ["calls"])
    charged, priced = (Book(name, ["calls", *TOKENS, "cost_nano_usd"]) for name in ("provider", "usage events"))
    others = checks = under_way = older = unknown = 0
    known: set[str] = set()
    for record in account.calls:
        identity = record["client_request_id"]
        if identity is None:
            others += 1
            continue
        if identity.startswith(CHECK):
            checks += 1
            continue
        known.add(identity)
        found = events.get(identity, [])
        if not found and identity in open_calls:
            under_way += 1
            continue
        if not found and not whole_log and (since_us is None or record["received_us"] < since_us):
            older += 1
            continue
        theirs.add(identity, (1,))
        if len(found) != 1 or found[0].cost is None or record["cost_nano_usd"] is None:
            unknown += 1
            continue
        counts = [record["tokens"][name] for name in TOKEN_CLASSES]
        charged.add(identity, (1, *counts, record["cost_nano_usd"]))
    begins = min((record["received_us"] for record in account.calls), default=account.taken_us)
    for identity, found in events.items():
        for call in found:
            if identity in known or (
                call.status == "succeeded" and call.provider != "echo" and begins <= call.finished_at < account.taken_us
            ):
                ours.add(identity, (1,))
        if identity in charged.entries:
            priced.add(identity, (1, *(count or 0 for count in found[0].tokens), found[0].cost))
    notes = [
        f"{number:,} calls {why}"
        for number, why in (
            (under_way, "whose requests are still under way"),
            (older, "from before the part of the log that is compared"),
            (others, "without a call id of ours"),
            (checks, "of `millstream providers test`"),
        )
        if number
    ]
    if not account.whole:
        notes.append("the oldest calls, which the simulator has forgotten")
    yield compare(NAMES[0], theirs, ours, notes)
    without = [f"{unknown:,} calls whose cost one of the two does not know"] if unknown else []
    yield compare(NAMES[1], charged, priced, without)
