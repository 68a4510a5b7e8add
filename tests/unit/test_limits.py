"""Accounts, windows and limits as plain decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.accounts import account, path_of, patterns_of, problem_of, tenant_of
from core.limits import (
    SOON_MS,
    Amounts,
    Asking,
    Cell,
    Count,
    CountKey,
    Level,
    Limit,
    Limits,
    Refusal,
    level,
    refusals,
    shown,
)
from core.windows import CELLS, LENGTHS, US, Window, calendar, cell, oldest_cell

NOW = 1_795_258_680_000_000
WINDOWS: tuple[Window, ...] = ("minute", "hour", "day", "week", "month")
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Apia",
)
ANA = path_of("acme", "search", "ana", "k1")
MODEST = Amounts(100, 10)
TIMES = st.integers(1_400_000_000 * US, 1_900_000_000 * US)


def asking(nano: int | None = 100, tokens: int = 10, task: str | None = None, *models: str) -> Asking:
    return Asking(ANA, task, models or ("openai/gpt-5",), Amounts(nano, tokens))


def test_a_request_is_charged_to_its_whole_path() -> None:
    """From the platform down to the key; what a request does not name is left out."""
    assert ANA == ("/", "/acme", "/acme/project:search", "/acme/user:ana", "/acme/key:k1")
    assert path_of("acme", None, "ana", None) == ("/", "/acme", "/acme/user:ana")


@given(
    st.text(min_size=1).filter(lambda t: t != "*"), st.text(min_size=1).filter(lambda t: t != "*"), st.text(min_size=1)
)
def test_no_name_can_stand_for_another_account(one: str, other: str, user: str) -> None:
    """Names with slashes, colons and percent signs are accounts of their own, whatever they look like."""
    assert (account(one) == account(other)) == (one == other)
    assert account(one) != account(other, "user", user)
    assert account(one) != "/"
    assert tenant_of(account(one, "user", user)) == tenant_of(account(one)) == one
    assert problem_of(account(one, "user", user)) is None


@pytest.mark.parametrize(
    "path", ["acme", "/acme/ana", "/acme/group:ana", "//user:ana", "/acme/user:", "/acme/user:a/key:b"]
)
def test_what_is_no_account_is_told(path: str) -> None:
    """A path that stands for nothing is named, with what to write."""
    assert repr(path) in (problem_of(path) or "")


def test_the_most_special_limit_of_a_subject_holds() -> None:
    """A user's own limit goes before that for the users of its tenant, and this before that for all users; other subjects add to it."""
    everywhere = Limit("/*/user:*", "usd", "day", 1)
    of_tenant, own, other = (
        replace(everywhere, account="/acme/user:*", most=2),
        replace(everywhere, account="/acme/user:ana", most=3),
        Limit("/*/user:*", "tokens", "day", 4),
    )
    limits = Limits(1, (everywhere, of_tenant, own, other))
    assert limits.of("/acme/user:ana") == [own, other]
    assert limits.of("/acme/user:bo") == [of_tenant, other]
    assert limits.of("/globex/user:ana") == [everywhere, other]
    assert patterns_of("/acme") == ("/acme", "/*")
    assert limits.of("/acme") == limits.of("/") == []


def test_limits_of_a_task_or_model_count_only_what_they_name() -> None:
    """A limit with a task counts that task's requests, one with a model the requests that such a model may answer."""
    limits = Limits(
        1, (Limit("/acme", "usd", "day", 5, task="draft_*"), Limit("/acme", "usd", "day", 5, model="openai/*"))
    )
    assert [c.limit.task for c in limits.counts(asking(1, 1, "draft_cv", "google/gemini"), NOW)] == ["draft_*"]
    assert [c.limit.model for c in limits.counts(asking(1, 1, "other", "google/gemini", "openai/gpt-5"), NOW)] == [
        "openai/*"
    ]


@given(TIMES, st.sampled_from(ZONES), st.sampled_from(WINDOWS))
def test_calendar_windows_follow_each_other_without_gap(now: int, zone: str, window: Window) -> None:
    """A time is in its window, every time of the window has the same one, and the next one begins where it ends."""
    span = calendar(window, zone, now)
    assert span.begins <= now < span.ends
    if window != "hour":  # an hour whose zone moves by half of one may be cut
        assert calendar(window, zone, span.begins) == calendar(window, zone, span.ends - 1) == span
        assert calendar(window, zone, span.ends).begins == span.ends
    if window in ("day", "week", "month"):
        local = datetime.fromtimestamp(span.begins // US, UTC).astimezone(ZoneInfo(zone))
        assert calendar("day", zone, span.begins).begins == span.begins
        assert window != "month" or local.day == 1
        assert window != "week" or local.weekday() == 0


@pytest.mark.parametrize(
    ("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-06-01", 24)], ids=["spring", "autumn", "summer"]
)
def test_a_day_on_which_clocks_change_has_its_own_length(day: str, hours: int) -> None:
    """In Berlin a day of 23, 25 or 24 hours is one window, and each of its hours is one too."""
    noon = int(datetime.fromisoformat(f"{day}T12:00:00").replace(tzinfo=ZoneInfo("Europe/Berlin")).timestamp()) * US
    span = calendar("day", "Europe/Berlin", noon)
    begins = range(span.begins, span.ends, 3_600 * US)
    assert len(begins) == hours
    assert len({calendar("hour", "Europe/Berlin", at) for at in begins}) == hours


@given(TIMES, st.integers(0, 3_000_000 * US), st.sampled_from(WINDOWS))
def test_a_sliding_window_counts_everything_in_it(now: int, ago: int, window: Window) -> None:
    """What happened within the window's length counts; what is older by more than a cell does not."""
    length = LENGTHS[window] * US
    counts = oldest_cell(window, now) <= cell(window, now - ago)
    assert counts or ago > length
    assert not counts or ago < length + length // CELLS + US


def refusal(
    counts: Sequence[Count], cells: Mapping[CountKey, Sequence[Cell]], amounts: Amounts, now: int
) -> Refusal | None:
    """The limit in the way that is there longest."""
    return next(iter(refusals(counts, cells, amounts, now)), None)


def cells_of(limits: Limits, *cells: Cell) -> dict[tuple[str, str], tuple[Cell, ...]]:
    return {count.key: cells for count in limits.counts(asking(), NOW)}


def refused(limit: Limit, used: int, reserved: int, amounts: Amounts = MODEST) -> tuple[str, int | None] | None:
    limits = Limits(1, (limit,))
    counts = limits.counts(asking(), NOW)
    no = refusal(counts, {counts[0].key: (Cell(counts[0].begins, used, reserved),)}, amounts, NOW)
    return None if no is None else (no.error["code"], no.error["retry_after_ms"])


def test_a_request_fits_up_to_the_last_nano() -> None:
    """It fits if what is used, what is held and what it asks for come to the limit, and not one more."""
    day = Limit("/acme", "usd", "day", 1_000)
    assert refused(day, 500, 400) is None
    assert refused(day, 500, 401) == ("policy_budget_exceeded", SOON_MS)
    left = calendar("day", "UTC", NOW).ends - NOW
    assert refused(day, 901, 0) == ("policy_budget_exceeded", left // 1_000)
    assert refused(day, 0, 0, Amounts(1_001, 1)) == ("policy_budget_exceeded", None)
    assert refused(day, 0, 0, Amounts(None, 1)) == ("policy_unpriced_model", None)
    assert refused(replace(day, hard=False), 5_000, 0) is None


def test_each_refusal_has_its_code() -> None:
    """Short windows and concurrency are rates, long windows quotas, money a budget."""
    assert (refused(Limit("/", "requests", "minute", 5), 5, 0) or ("",))[0] == "policy_rate_limited"
    assert refused(Limit("/", "concurrent", None, 5), 0, 5) == ("policy_rate_limited", SOON_MS)
    assert (refused(Limit("/", "tokens", "month", 15), 6, 0) or ("",))[0] == "policy_quota_exceeded"


def test_of_several_limits_in_the_way_the_longest_is_told() -> None:
    """So that `retry_after_ms` is not a promise that the next limit breaks."""
    limits = Limits(1, (Limit("/", "requests", "minute", 1), Limit("/acme", "requests", "day", 1)))
    counts = limits.counts(asking(), NOW)
    no = refusal(counts, {count.key: (Cell(count.begins, 1, 0),) for count in counts}, Amounts(1, 1), NOW)
    assert no is not None
    assert no.count.account == "/acme"


def test_a_sliding_window_says_when_its_oldest_cells_are_out() -> None:
    """After `retry_after_ms` the request fits, and a cell earlier it does not."""
    limit = Limit("/acme", "requests", "minute", 3, sliding=True)
    limits, width = Limits(1, (limit,)), LENGTHS["minute"] * US // CELLS
    count = limits.counts(asking(), NOW)[0]
    cells = [Cell(count.begins - 50 * width, 2, 0), Cell(count.begins - 10 * width, 1, 0)]
    no = refusal([count], {count.key: cells}, Amounts(1, 1), NOW)
    assert no is not None and no.retry_after_ms is not None
    for later, fits in ((no.retry_after_ms * 1_000, True), (no.retry_after_ms * 1_000 - width, False)):
        then = limits.counts(asking(), NOW + later)[0]
        assert (refusal([then], {count.key: cells}, Amounts(1, 1), NOW + later) is None) == fits


@given(st.lists(st.tuples(st.integers(0, 200 * US), st.integers(1, 5), st.booleans()), max_size=60), st.data())
def test_a_sliding_limit_is_never_over_in_any_window(
    arrivals: list[tuple[int, int, bool]], data: st.DataObject
) -> None:
    """Whatever arrives when and in whatever order, and asks for more later, no span of a minute holds more than the limit."""
    limit = Limit("/acme", "tokens", "minute", 10, sliding=True)
    limits, cells, taken = Limits(1, (limit,)), dict[int, int](), list[tuple[int, int]]()
    for new, tokens, again in arrivals:
        # A further call counts where its request was admitted.
        at = data.draw(st.sampled_from(taken))[0] if again and taken else new
        count = limits.counts(asking(), at)[0]
        here = [Cell(begins, used, 0) for begins, used in cells.items()]
        if refusal([count], {count.key: here}, Amounts(0, tokens), at) is None:
            cells[count.begins] = cells.get(count.begins, 0) + tokens
            taken.append((at, tokens))
    for end, _ in taken:
        assert sum(tokens for at, tokens in taken if end - 60 * US < at <= end) <= 10


@given(st.dictionaries(st.integers(0, 200), st.integers(1, 9), max_size=40), st.integers(0, 200))
def test_a_sliding_level_is_that_of_the_fullest_window(used: dict[int, int], here: int) -> None:
    """Of all rows of cells as long as a window that have in them the cell that is charged; no fuller than that, too."""
    limits, width = Limits(1, (Limit("/acme", "tokens", "minute", 10, sliding=True),)), US
    count = limits.counts(asking(), NOW // width * width + here * width)[0]
    first = count.begins - here * width
    cells = [Cell(first + place * width, amount, 0) for place, amount in used.items()]
    windows = (range(last - CELLS, last + 1) for last in range(here, here + CELLS + 1))
    assert level(count, cells).used == max(sum(used.get(place, 0) for place in window) for window in windows)


def test_levels_and_words() -> None:
    """A level has a share, a limit has words."""
    limit = Limit("/acme", "usd", "month", 500 * 10**9)
    assert Level(400 * 10**9, 50 * 10**9).share(limit) == 90
    assert shown(limit) == "500 USD per month"
    assert (
        shown(Limit("/", "requests", "minute", 1_000, sliding=True, task="x"))
        == "1,000 requests per sliding minute task x"
    )
    count = Limits(1, (limit,)).counts(asking(), NOW)[0]
    assert level(count, [Cell(count.begins, 1, 2), Cell(0, 5, 5)]) == Level(1, 2)


def test_windows_are_ordered_by_length() -> None:
    """The names stand for ever longer times."""
    assert all(LENGTHS[a] < LENGTHS[b] for a, b in pairwise(WINDOWS))


@pytest.mark.parametrize(
    ("named", "unknown"),
    [
        ((), "/acme"),
        (("/", "/*", "/*/user:*", "/*/user:ana", "/acmes"), "/acme"),
        (("/acme",), None),
        (("/acme/project:other",), None),
        (("/acme/user:ana",), None),
        (("/acme/user:*",), None),
        (("/acme/user:bo",), "/acme/user:ana"),
        (("/acme/user:bo", "/acme/user:*"), None),
        (("/acme/user:bo", "/acme/user:ana"), None),
    ],
)
def test_an_account_is_known_by_a_limit_that_names_it(named: tuple[str, ...], unknown: str | None) -> None:
    """A pattern over tenants makes none known; users have to be named only where some user of the tenant is."""
    limits = Limits(1, [Limit(each, "requests", "day", 5) for each in named])
    assert limits.unknown(ANA) == unknown
