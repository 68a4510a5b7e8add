"""Put what is known of a request in the order of time: one moment an event, and what is still open."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

from cli.explain.known import Known, Row
from cli.lines import usd
from core.pricing import TOKEN_CLASSES
from core.topics import REQUESTS
from sinks.bodies import KEEP_DAYS

_FIRST_DAY = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Moment:
    """One event of the story: when (microseconds since 1970), what it is in a word, and what is told of it."""

    at: int
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Story:
    """The state that a request is in, its moments in order, what is open, what each call cost and why, and what is missing."""

    state: str
    moments: tuple[Moment, ...]
    open: tuple[str, ...]
    costs: tuple[str, ...]
    notes: tuple[str, ...]


def story_of(known: Known) -> Story:
    """The story of a request."""
    first = list(_published(known))
    # The application's clock may be ahead of ours, and still it asked first.
    rest = [*_admitted(known), *_calls(known), *_answered(known), *_around(known)]
    moments = (*first[:1], *sorted([*first[1:], *rest], key=lambda moment: moment.at))
    return Story(_state(known), moments, tuple(_open(known)), tuple(_costs(known)), tuple(_notes(known)))


def _state(known: Known) -> str:
    if (answer := known.answer) is not None:
        return str(answer["outcome"])
    if known.held is not None:
        return "under way"
    if known.answers:
        return str(known.answers[0]["outcome"])
    return "not admitted" if known.facts.requests else "not readable"


def _published(known: Known) -> Iterator[Moment]:
    rows = known.facts.requests or tuple(row for row in (known.request,) if row is not None)
    for number, row in enumerate(rows):
        said = [f"{counted(row['message_count'], 'message')}, {counted(row['input_chars'], 'character')}"]
        if row["kafka_topic"]:
            said.insert(0, _place(row))
        if row["deadline"] is not None:
            said.append(f"deadline at {_ms(row['deadline'] - row['created_at'])} ms")
        said += [word for word, is_so in (("streamed", row["stream"]), (row["priority"], True)) if is_so and word]
        yield Moment(row["created_at"], "sent again" if number else "created", "; ".join(said))


def _admitted(known: Known) -> Iterator[Moment]:
    answer, held, calls = known.answer, known.held, known.calls
    rows = [row for row in (answer, *calls) if row is not None]
    at = next((row["admitted_at"] for row in rows if row["admitted_at"] is not None), None)
    if at is None and held is not None and held.plan is not None:
        at = held.admitted_at
    planned = held.plan if held is not None and held.plan is not None else {}
    chosen = {
        name: (answer if answer is not None else planned).get(name)
        for name in ("route", "complexity", "prompt_version")
    }
    by = f"by route {chosen['route']}" if chosen["route"] else "without a route"
    if at is not None:
        said = [by]
        if chosen["complexity"] is not None:
            said.append(f"complexity {chosen['complexity']:.2f}")
        if chosen["prompt_version"]:
            said.append(f"prompt version {chosen['prompt_version']}")
        bounds = [one["reserved_nano_usd"] for one in planned.get("candidates", calls)]
        if known_bounds := [bound for bound in bounds if bound is not None]:
            said.append(f"at most {usd(max(known_bounds))} a call")
        told = answer if answer is not None else planned
        if downgraded := told.get("downgraded_from"):
            said.append(f"instead of {downgraded}")
        if told.get("unchecked"):
            said.append("unchecked, by the spare ledger")
        yield Moment(at, "admitted", ", ".join(said))
    elif answer is not None:
        at = answer["finished_at"]
    for model, kept, reason in known.decisions if at is not None else ():
        yield Moment(at or 0, "kept" if kept else "dropped", f"{model}: {reason.removeprefix('dropped: ')}")


def _calls(known: Known) -> Iterator[Moment]:
    before: Row | None = None
    for row in known.calls:
        number, model = row["attempt"], _model(row)
        if row["reason"] == "fallback":
            at = before["finished_at"] if before is not None else row["started_at"]
            yield Moment(at, "fallback", _fallback(known, before, row))
        if row["reason"] == "hedge":
            yield Moment(row["started_at"], "hedge", f"call {number - 1} is late, so {model} is called as well")
        yield Moment(row["started_at"], "call", f"{number} to {model}, {row['reason']}, with {_key(row)}")
        if row["first_token_at"] is not None:
            after = _ms(row["first_token_at"] - row["started_at"])
            yield Moment(row["first_token_at"], "first token", f"call {number} after {after} ms")
        yield Moment(row["finished_at"], row["status"].replace("outcome_", ""), _ended(row))
        before = row
    if (hit := known.cached) is not None:
        saved = f" and saved {usd(hit['saved_nano_usd'])}" if hit["saved_nano_usd"] is not None else ""
        yield Moment(hit["finished_at"], "cached", f"an earlier answer of {_model(hit)} serves again{saved}")
    for one in known.held.open_calls if known.held else ():
        yield Moment(one.started_at, "call", f"{one.number} to {one.model}, {one.reason}; it has not ended")


def _fallback(known: Known, before: Row | None, row: Row) -> str:
    """From which model to which, and past which of those that were kept."""
    kept = [model for model, is_kept, _ in known.decisions if is_kept]
    to, source = _model(row), _model(before) if before is not None else None
    places = [kept.index(model) for model in (source, to) if model in kept]
    passed = (
        kept[places[0] + 1 : places[1]] if len(places) == 2 else kept[: places[0]] if places and source is None else []
    )
    said = f"from {source} to {to}" if source else f"to {to}"
    return f"{said}, past {', '.join(passed)} without a call" if passed else said


def _ended(row: Row) -> str:
    said = []
    if row["error_code"]:
        status = f" (HTTP {row['provider_status']})" if row["provider_status"] is not None else ""
        said.append(f"{row['error_code']}{status}")
    by_class = {name: row[f"tokens_{name}"] for name in TOKEN_CLASSES}
    tokens = [f"{amount:,} {name}" for name, amount in by_class.items() if amount]
    said.append(f"tokens {', '.join(tokens)}" if tokens else "no tokens counted")
    if row["status"] == "failed" and row["received_chars"] is not None:
        said.append(f"{counted(row['received_chars'], 'character')} had come")
    said.append(_money(row))
    took = f" after {_ms(row['provider_us'])} ms" if row["provider_us"] is not None else ", cut off"
    return f"call {row['attempt']}{took}: {'; '.join(said)}"


def _answered(known: Known) -> Iterator[Moment]:
    for row in known.answers:
        if row["outcome"] == "completed":
            served = f" as {row['response_model']}" if row["response_model"] else ""
            said = f"{row['finish_reason']}, {counted(row['output_chars'], 'character')} by {_model(row)}{served}"
            if row["cached_from"]:
                own = row["cached_from"] != "shared"
                said += f", as answered to {row['cached_from'] if own else 'a request of another tenant'}"
        else:
            status = f" (HTTP {row['error_provider_status']})" if row["error_provider_status"] is not None else ""
            said = f"{row['error_code']}{status}: {row['error_message']}"
        yield Moment(row["finished_at"], row["outcome"], said)
        if row["ingested_at"] is not None:
            yield Moment(row["ingested_at"], "stored", f"the answer of {_place(row)}, in ClickHouse")
    answer, held, request = known.answer, known.held, known.request
    if answer is None:
        return
    if held is not None:
        for topic, partition in held.copies:
            where = f", partition {partition}" if partition is not None else ""
            yield Moment(answer["finished_at"], "copied", f"to {topic}{where}")
    elif request is not None and request["reply_topic"] and answer["outcome"] != "refused":
        yield Moment(answer["finished_at"], "copied", f"to {request['reply_topic']}, as the request asks")


def _around(known: Known) -> Iterator[Moment]:
    """What happened to its records, its prices and its providers."""
    number = {row["attempt_id"]: row["attempt"] for row in known.calls}
    for row in known.adjustments:
        amount = row["cost_nano_usd"] or 0
        moved = f"{'-' if amount < 0 else '+'}{usd(abs(amount))}"
        yield Moment(row["finished_at"], "adjusted", f"call {number.get(row['adjusts'], '?')} by {moved}{_price(row)}")
    for row in known.facts.dead_letters:
        said = f"{row['topic']} {row['partition']}@{row['offset']} by {row['stage']}, time {row['times_seen']}: "
        yield Moment(row["failed_at"], "dead letter", f"{said}{row['reason']}: {row['message']}")
    for row in known.facts.alerts:
        yield Moment(row["raised_at"], "alert", f"{row['severity']}, {row['kind']}: {row['message']}")


def _open(known: Known) -> Iterator[str]:
    held = known.held
    if held is None:
        return
    for one in held.open_calls:
        worker = f"worker {one.worker}, which {'is alive' if one.alive else 'has not been heard of'}"
        yield f"Call {one.number} to {one.model} has run for {_ms(known.now - one.started_at)} ms in {worker}."
    if not held.answered and not held.open_calls:
        yield f"No call is open; the turn is {held.turn}'s." if held.turn else "No call is open."
    if held.reserved_nano:
        yield f"{usd(held.reserved_nano)} reserved in account {held.account} of {held.window}."
    if held.unsettled:
        numbers = ", ".join(map(str, held.unsettled))
        yield f"Meter has yet to settle call {numbers}."


def _costs(known: Known) -> Iterator[str]:
    for row in known.calls:
        by_class = {name: row[f"costs_{name}"] for name in TOKEN_CLASSES}
        parts = [f"{name} {usd(amount)}" for name, amount in by_class.items() if amount]
        sums = f": {' + '.join(parts)}" if parts else ""
        yield f"Call {row['attempt']} {_money(row)}{sums}{_price(row)}"


def _notes(known: Known) -> Iterator[str]:
    yield from known.problems
    if known.bodies_wanted and not known.facts.bodies:
        yield f"No messages and no answer are kept of it: MILLSTREAM_BODIES was off, or {KEEP_DAYS} days are over."
    if known.problems:
        return
    topic = REQUESTS.name
    if not known.facts.requests:
        since = "" if known.request is not None or known.answer is not None else "; times count from its admission"
        yield f"ClickHouse does not have the event of {topic} yet{since}."
    if known.held is None and known.answer is None:
        yield "Neither ClickHouse nor the ledger has an answer or an admission; `millstream top` shows how far admit is behind."
    elif known.answer is not None and known.answer["ingested_at"] is None:
        yield "ClickHouse does not have the answer yet; it is told as the ledger has it."
    if late := [str(row["attempt"]) for row in known.calls if row["ingested_at"] is None]:
        yield f"ClickHouse does not have the usage event of call {', '.join(late)} yet; it is told as the ledger has it."
    if known.answer is not None and known.held is None:
        yield "The ledger knows the request no more."


def counted(number: int, what: str) -> str:
    """A number of things: 1 call, 2 calls."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _money(row: Row) -> str:
    return usd(row["cost_nano_usd"]) + ("" if row["cost_status"] == "priced" else f", {row['cost_status']}")


def _price(row: Row) -> str:
    day = f" of {_FIRST_DAY + timedelta(row['price_date'])}" if row["price_date"] is not None else ""
    return f"; {row['price_source']}{day}" if row["price_source"] else ""


def _key(row: Row) -> str:
    owner = f"tenant {row['tenant']}'s own key" if row["credential_owner"] == "tenant" else "the platform's key"
    return f"{owner} {row['credential_id']}" if row["credential_id"] else f"{owner} of the environment"


def _model(row: Row) -> str:
    return f"{row['provider']}/{row['model']}"


def _place(row: Row) -> str:
    return f"{row['kafka_topic']} {row['kafka_partition']}@{row['kafka_offset']}"


def _ms(microseconds: int) -> str:
    return f"{microseconds / 1_000:,.1f}"
