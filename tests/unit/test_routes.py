"""Which route holds for a request: by plan, task, tenant, time, and a share of the requests."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.registry import from_environment
from config.settings import settings_in
from core.registry import Route, StickyKey, Target
from core.routing import Choice, NoChoice, Router
from tests.examples import NOON
from tests.unit.routers import an_id, ask, conditions, model, names, router

#: All requests, in millionths of a percent.
WHOLE = 100_000_000
cuts = st.lists(st.integers(0, WHOLE), max_size=5)
FAST, QUALITY = "google/gemini-2.5-flash", "google/gemini-2.5-pro"


@given(st.integers(0, 10_000), st.integers(0, 10_000), st.integers(0, 2**64))
def test_a_share_that_grows_only_adds_keys(one: int, other: int, user: int) -> None:
    """Whoever was on the canary at 5 % is on it at 20 %."""
    small, large = sorted((one, other))
    taken = [_on_canary(Decimal(share) / 100, str(user)) for share in (small, large)]
    assert taken[1] or not taken[0]


def test_a_share_is_about_its_percentage_of_keys_and_what_it_leaves_falls_through() -> None:
    """Of 2,000 users about a quarter are on a route with a share of 25, the others on the next; 0 takes nobody."""
    taken = sum(_on_canary(Decimal(25), f"user-{number}") for number in range(2_000))
    assert 430 < taken < 570
    assert not any(_on_canary(Decimal(0), f"user-{number}") for number in range(100))
    assert all(_on_canary(Decimal(100), f"user-{number}") for number in range(100))


def test_two_requests_of_one_user_stay_on_one_side_of_a_canary() -> None:
    """The sticky field decides, not the request."""
    for user in ("ana", "ben", "cleo"):
        assert len({_on_canary(Decimal(50), user, request_id=an_id(n)) for n in range(20)}) == 1
    without_user = {_on_canary(Decimal(50), None, request_id=an_id(n)) for n in range(40)}
    assert without_user == {True, False}


@given(cuts, st.text(max_size=5), st.sampled_from(["user", "tenant", "request_id"]))
def test_routes_for_the_same_requests_that_take_100_percent_leave_nobody_out(
    at: list[int], user: str, sticky: StickyKey
) -> None:
    """However 100 percent are divided, each key has exactly one route, and none whose share is 0."""
    edges = [0, *sorted(at), WHOLE]
    shares = [upper - lower for lower, upper in pairwise(edges)]
    held = _held(shares, user, sticky)
    assert held is not None and shares[held] > 0


@given(st.lists(st.integers(0, WHOLE // 6), min_size=1, max_size=6), st.data(), st.text(max_size=5))
def test_a_share_that_grows_among_others_keeps_its_keys(shares: list[int], data: st.DataObject, user: str) -> None:
    """Whether it takes what nobody had or what the other one of two had, the keys of the growing share stay on it."""
    place = data.draw(st.integers(0, len(shares) - 1))
    by = data.draw(st.integers(0, WHOLE - sum(shares)))
    if _held(shares, user) == place:
        assert _held([*shares[:place], shares[place] + by, *shares[place + 1 :]], user) == place
        for two in ([shares[place], WHOLE - shares[place]], [WHOLE - shares[place], shares[place]]):
            mine = two.index(shares[place])
            grown = [share + by if at == mine else share - by for at, share in enumerate(two)]
            if _held(two, user) == mine:
                assert _held(grown, user) == mine


def test_shares_at_one_precedence_divide_and_a_further_one_below_divides_what_is_left() -> None:
    """5 and 95 split so; where half go elsewhere beforehand, 50 and 50 are still even among the others."""
    users = [f"user-{number}" for number in range(2_000)]
    few = sum(_held([5_000_000, 95_000_000], user) == 0 for user in users)
    assert 60 < few < 140
    first = [_route("first", 50_000_000, precedence=1)]
    halves = [*first, _route("a", 50_000_000), _route("b", 50_000_000)]
    held = [_name_of(halves, user) for user in users]
    assert 920 < held.count("first") < 1_080
    assert 420 < held.count("a") < 580 and held.count(None) == 0


def test_what_is_not_in_force_takes_no_part_in_dividing() -> None:
    """From noon on b has what a had before it: 90 percent of the users, whatever a's share was."""
    routes = [_route("a", 95_000_000, valid_until=NOON), _route("b", 90_000_000, valid_from=NOON)]
    held = [_name_of(routes, f"user-{number}") for number in range(1_000)]
    assert "a" not in held and 870 < held.count("b") < 930


def _route(name: str, millionths: int, **changes: Any) -> Route:
    return Route(name, (Target("p/a"),), share=Decimal(millionths) / 1_000_000, **changes)


def _name_of(routes: list[Route], user: str) -> str | None:
    """The route that holds for a user, None where none does."""
    made = router(model("a"), routes=tuple(routes)).choose(ask(user=user, tenant=user, request_id=user), conditions())
    return made.route.name if made.route else None


def _held(shares: list[int], user: str, sticky: StickyKey = "user") -> int | None:
    """Which of several routes for the same requests holds for a user, by its place."""
    found = _name_of([_route(str(place), share, sticky=sticky) for place, share in enumerate(shares)], user)
    return None if found is None else int(found)


def _on_canary(share: Decimal, user: str | None, **changes: Any) -> bool:
    canary = Route("canary", (Target("p/new"),), share=share, precedence=1)
    rest = Route("rest", (Target("p/old"),))
    made = router(model("new"), model("old"), routes=(canary, rest)).choose(ask(user=user, **changes), conditions())
    return names(made) == ["new"]


@pytest.mark.parametrize(
    ("plan", "task", "expected"),
    [
        *((plan, "extraction", FAST) for plan in ("freemium", "paygo", "pro", "any", None)),
        *((plan, task, FAST) for plan in ("freemium", "paygo", "any", None) for task in ("cv_draft", "cover_letter")),
        *(("pro", task, QUALITY) for task in ("cv_draft", "cover_letter")),
    ],
)
def test_the_table_by_plan_and_task(plan: str | None, task: str, expected: str) -> None:
    """The shipped routes choose by plan and task for requests that name no model."""
    made = Router(from_environment(settings_in({}), NOON)).choose(ask(plan=plan, task=task), conditions())
    assert isinstance(made, Choice)
    assert [one.model.full_name for one in made.candidates] == [expected]


def test_the_table_has_no_answer_for_another_task() -> None:
    """A request without a model that no route is for is told what was looked for."""
    made = Router(from_environment(settings_in({}), NOON)).choose(ask(plan="pro", task="poetry"), conditions())
    assert isinstance(made, NoChoice)
    assert made.error["code"] == "policy_no_route"
    assert all(word in made.error["message"] for word in ("plan pro", "task poetry", "tenant default"))


def test_a_tenant_by_name_goes_before_a_task_before_a_plan() -> None:
    """Of routes with one precedence the most specific holds; a higher precedence beats them all."""
    made = [
        Route("by-plan", (Target("p/a"),), plan="pro"),
        Route("by-task", (Target("p/b"),), task="cv"),
        Route("by-tenant", (Target("p/c"),), tenant="acme"),
        Route("anything", (Target("p/d"),), precedence=1),
    ]
    one = ask(plan="pro", task="cv", tenant="acme")
    for held in ("d", "c", "b", "a"):
        among = router(*(model(name) for name in "abcd"), routes=tuple(made))
        assert names(among.choose(one, conditions())) == [held]
        made.remove(made[-1])


def test_a_route_holds_from_its_first_moment_until_before_its_last() -> None:
    """Dates of validity are a half-open interval."""
    for since, until, held in (
        (NOON, NOON + 1, True),
        (NOON + 1, None, False),
        (None, NOON, False),
        (None, None, True),
    ):
        one = router(model("a"), routes=(Route("r", (Target("p/a"),), valid_from=since, valid_until=until),))
        assert isinstance(one.choose(ask(), conditions()), Choice) is held
