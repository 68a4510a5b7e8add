"""Every meter of limits under a race of processes that are killed, the same on SQLite and on PostgreSQL: exact at any instant."""

from __future__ import annotations

from collections import Counter

import pytest
from sqlalchemy import Engine, func, select

from config import limits
from config.audit import totals
from config.database import reading
from config.limit_audit import counted
from config.limit_models import COUNTERS
from config.models import ATTEMPTS, REQUESTS
from core.limits import Limits
from tests.contract.limit_racer import BEGINS, BOUND, CENT, MINUTE, ROOMS, Room, admitted_at, asking_of, request_id
from tests.contract.racing import Place, race, watched

REQUESTS_OF_A_RACE = 1_000


def admitted(engine: Engine) -> dict[int, list[tuple[int | None, int | None]]]:
    """The requests that were let in, by their numbers, each with its calls: what they cost and the tokens that they used."""
    numbers = {request_id(number): number for number in range(REQUESTS_OF_A_RACE)}
    with engine.connect() as db:
        rows = db.execute(
            select(REQUESTS.c.request_id, REQUESTS.c.answer, REQUESTS.c.charges, REQUESTS.c.reserved_nano)
        )
        calls: dict[int, list[tuple[int | None, int | None]]] = {}
        for row in rows:
            assert (row.charges, row.reserved_nano) == (None, 0)
            calls[numbers[row.request_id]] = []
        for call in db.execute(select(ATTEMPTS.c.request_id, ATTEMPTS.c.cost_nano, ATTEMPTS.c.tokens)):
            calls[numbers[call.request_id]].append((call.cost_nano, call.tokens))
    return calls


def used(room: Room, calls: dict[int, list[tuple[int | None, int | None]]]) -> Counter[Place]:
    """What admitted requests and their calls use of every limit, with the bound of a call of which nobody knows it."""
    known, found = Limits(limits=room.limits), Counter[Place]()
    for number, own in calls.items():
        amount = {
            "usd": sum(CENT if cost is None else cost for cost, _ in own),
            "tokens": sum(BOUND if tokens is None else tokens for _, tokens in own),
            "requests": 1,
            "concurrent": 0,
        }[room.meter]
        for count in known.counts(asking_of(number), admitted_at(number)):
            found[count.account, count.begins] += amount
    return found


@pytest.mark.parametrize("meter", ROOMS)
def test_no_race_goes_beyond_a_limit_and_none_leaves_a_rest(engine: Engine, meter: str) -> None:
    """A thousand requests in shared transactions of four processes, three levels, failures, time-outs, abandoned requests and kill -9.

    A reader sees no level over its limit at any instant, and nobody is refused while there is room (`assert_full`). At the end
    nothing is held, and what is counted is what was let in and called: who was refused has taken nothing. Exactly a hundred
    requests of a cent succeed; fewer only by the calls whose outcome nobody knows.
    """
    room = ROOMS[meter]
    with engine.begin() as db:
        limits.change(db, limits.Edit(room.limits), "ana", BEGINS)
    most = {limit.account: limit.most for limit in room.limits}
    with watched(engine) as looks:
        kills = race(engine, "tests.contract.limit_racer", REQUESTS_OF_A_RACE, meter)
    assert kills > 0
    assert len(looks) > 20
    assert [(place, seen) for look in looks for place, seen in look.items() if seen > most[place[0]]] == []
    calls = admitted(engine)
    with engine.connect() as db:
        lost = db.execute(select(func.count()).where(ATTEMPTS.c.lost)).scalar_one()
        answers = Counter(db.execute(select(REQUESTS.c.answer)).scalars())
        assert totals(db).reserved_nano == totals(db).unsettled == 0
        counters = {(row.account, row.begins): (row.used, row.reserved) for row in db.execute(select(COUNTERS))}
    with reading(engine) as db:
        audited = counted(db, BEGINS + MINUTE, 8)
    assert counters == {place: (amount, 0) for place, amount in used(room, calls).items()}
    assert {(one.account, one.begins): (one.used_by_calls, one.held_by_requests) for one in audited} == counters
    # Calls were cut off, and of the requests that were let in some were left alone until what was held for them had expired.
    assert lost > 0 and answers[None] > 0
    unknown = sum(cost is None for own in calls.values() for cost, _ in own)
    platform = sorted((begins, amount) for (account, begins), (amount, _) in counters.items() if account == "/")
    match room.meter:
        case "usd":
            assert [amount for _, amount in platform] == [100 * CENT]
            assert answers[b"answered"] == 100 - unknown
            assert room.known == (unknown == 0)
        case "requests":
            assert platform == [(BEGINS, 50), (BEGINS + MINUTE, 50)]
            assert len(calls) == 100
        case "tokens":
            # A call uses half of its bound, so that the last of the room is less than another request asks for.
            assert [begins for begins, _ in platform] == [BEGINS, BEGINS + MINUTE]
            assert all(room.most - BOUND < amount <= room.most for _, amount in platform)
        case "concurrent":
            assert max(look["/", 0] for look in looks) == room.most
            assert len(calls) == REQUESTS_OF_A_RACE
