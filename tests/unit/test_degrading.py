"""Which requests do without their dearer candidates, as a plain decision."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.accounts import path_of
from core.degrading import Degraded, degraded
from core.limits import Amounts, Asking, Cell, CountKey, Limit, Limits, Meter, refusals

NOW = 1_795_258_680_000_000
STRONG, CHEAP = "openai/gpt-5", "google/gemini-2.5-flash"
ASKING = Asking(path_of("acme", None, "ana", None), "draft", (STRONG, CHEAP), Amounts(10, 10), (), 80, (0,))
MONTH = Limit("/acme", "usd", "month", 1_000)


def judged(asking: Asking, *full: tuple[Limit, int, int]) -> Degraded | None:
    """What becomes of a request under limits with so much used and held."""
    found = Limits(1, [limit for limit, _, _ in full])
    counts = found.counts(asking, NOW)
    level = {limit.subject + limit.account: (used, held) for limit, used, held in full}
    cells: dict[CountKey, list[Cell]] = {
        count.key: [Cell(count.begins, *level[count.limit.subject + count.limit.account])] for count in counts
    }
    return degraded(asking, counts, cells, next(iter(refusals(counts, cells, asking.amounts, NOW)), None))


@given(st.integers(1, 100), st.integers(0, 2_000), st.integers(0, 2_000), st.booleans())
def test_from_the_share_on_and_not_before(share: int, used: int, held: int, hard: bool) -> None:
    """What is used and what is held count alike, the request itself does not; below the share only what does not fit degrades."""
    found = judged(replace(ASKING, degrade_from=share), (replace(MONTH, hard=hard), used, held))
    taken = used + held
    assert (found is not None) == (taken * 100 >= share * 1_000 or (hard and taken + 10 > 1_000))
    if found is not None:
        assert found.percent == taken * 100 // 1_000
        assert list(found.too_dear) == [0]


def test_the_reason_names_the_fullest_limit() -> None:
    """Of several limits, soft ones and those of users too, the fullest is told of, with both percentages."""
    soft = Limit("/acme/user:ana", "requests", "day", 100, hard=False)
    found = judged(ASKING, (MONTH, 830, 0), (soft, 120, 0))
    assert found is not None
    assert found.too_dear == {
        0: "120 % of requests per day of /acme/user:ana are used or held, and the route degrades from 80 % on"
    }


def test_what_does_not_fit_is_told_so() -> None:
    """A request that is larger than the rest goes on with the cheaper candidates below the share as well."""
    found = judged(replace(ASKING, amounts=Amounts(400, 10)), (MONTH, 700, 0))
    assert found is not None
    assert found.too_dear == {
        0: "70 % of usd per month of /acme are used or held, and what the request may take does not fit into the rest"
    }


@pytest.mark.parametrize(
    ("limit", "degrades"),
    [
        (replace(MONTH, account="/"), False),
        (replace(MONTH, account="/acme/user:bo"), False),
        (replace(MONTH, task="translate"), False),
        (replace(MONTH, model="google/*"), False),
        (replace(MONTH, model="openai/*"), True),
        (replace(MONTH, account="/*"), True),
        (replace(MONTH, sliding=True), True),
        (Limit("/acme", "concurrent", None, 1_000), True),
    ],
)
def test_only_limits_that_the_dearer_candidates_count_against(limit: Limit, degrades: bool) -> None:
    """A limit of the platform, of others, of other tasks, or of the cheaper models alone degrades nobody."""
    assert (judged(ASKING, (limit, 900, 0)) is not None) is degrades


@pytest.mark.parametrize(
    ("meter", "model", "degrades"),
    [
        ("usd", None, True), ("usd", "openai/*", True), ("requests", None, False), ("tokens", None, False),
        ("concurrent", None, False), ("requests", "openai/*", True), ("tokens", "*", False),
    ],
)  # fmt: skip
def test_what_no_cheaper_model_can_save_is_refused_or_waits(meter: Meter, model: str | None, degrades: bool) -> None:
    """A full limit that the cheaper candidates count against as much stays in the way of the request as it is."""
    limit = Limit("/acme", meter, None if meter == "concurrent" else "day", 1_000, model=model)
    assert (judged(ASKING, (limit, 1_000, 0)) is not None) is degrades


def test_a_request_without_a_price_is_not_degraded_past_it() -> None:
    """A model without a price under a limit of money stays the deployment's fault to be told of; so does a full platform."""
    assert judged(replace(ASKING, amounts=Amounts(None, 10)), (MONTH, 900, 0)) is None
    assert judged(ASKING, (MONTH, 900, 0), (replace(MONTH, account="/"), 1_000, 0)) is None
