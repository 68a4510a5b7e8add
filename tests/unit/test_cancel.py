"""Cancellations: what they break off, what they keep from beginning, and what they leave alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from agents.cancel import REMEMBERED, Cancellation, Cancellations, Cancelled
from core.errors import error

ID = "0190163d-8694-739b-aea5-966c26f8ad91"


async def forever(started: list[str]) -> str:
    """Work without an end."""
    started.append("begun")
    await asyncio.Event().wait()
    return "done"


async def quick() -> str:
    """Work that ends at once."""
    return "done"


def run(use: Callable[[Cancellations, Cancellation], Awaitable[None]]) -> None:
    """Use the cancellations of a process while a request of tenant acme is at work."""

    async def main() -> None:
        known = Cancellations()
        with known.watch(ID, "acme") as cancellation:
            await use(known, cancellation)

    asyncio.run(main())


def test_a_second_cancellation_while_the_first_takes_effect_changes_nothing() -> None:
    """Work that is closing its connection is left to it, whoever else gives the request up meanwhile."""

    async def use(known: Cancellations, cancellation: Cancellation) -> None:
        closed, ends = asyncio.Event(), list[str]()

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                closed.set()
                await asyncio.sleep(0.05)
                ends.append("closed")

        under_way = asyncio.create_task(cancellation.unless(work()))
        await asyncio.sleep(0)
        known.cancel(ID, "acme")
        await closed.wait()
        known.cancel(ID, "acme")
        assert cancellation.break_off(error("pipeline_superseded", "Another one answered."))
        with pytest.raises(Cancelled) as cancelled:
            await under_way
        assert cancelled.value.failure().error["code"] == "caller_cancelled"
        assert ends == ["closed"]
        assert not cancellation.break_off(error("pipeline_superseded", "Nothing is under way."))

    run(use)


@pytest.mark.parametrize("tenant", [None, "acme"])
def test_work_under_way_is_broken_off(tenant: str | None) -> None:
    """A cancellation of the request, or of this tenant's, ends what is under way, which may have been charged."""

    async def use(known: Cancellations, cancellation: Cancellation) -> None:
        started: list[str] = []
        work = asyncio.create_task(cancellation.unless(forever(started)))
        while not started:
            await asyncio.sleep(0)
        known.cancel(ID, tenant)
        with pytest.raises(Cancelled) as cancelled:
            await work
        assert cancelled.value.failure().charged == "maybe"
        assert cancelled.value.failure().error["code"] == "caller_cancelled"
        assert not cancelled.value.failure().error["retryable"]
        # And nothing more is begun.
        with pytest.raises(Cancelled) as again:
            await cancellation.unless(forever(started))
        assert again.value.failure().charged == "no"
        assert started == ["begun"]

    run(use)


@pytest.mark.parametrize(("request_id", "tenant"), [(ID, "other"), ("0190163d-8694-739b-aea5-000000000000", None)])
def test_other_requests_are_left_alone(request_id: str, tenant: str | None) -> None:
    """Neither another tenant's word nor one about another request does anything."""

    async def use(known: Cancellations, cancellation: Cancellation) -> None:
        known.cancel(request_id, tenant)
        assert not cancellation.requested
        assert await cancellation.unless(quick()) == "done"

    run(use)


def test_a_cancellation_is_remembered_for_a_request_that_waits() -> None:
    """A request that is cancelled before its lane comes to it is known when it does; older ones are forgotten in time."""
    known = Cancellations()
    known.cancel(ID, None)
    with known.watch(ID, "acme") as cancellation:
        assert cancellation.requested
    for number in range(REMEMBERED):
        known.cancel(f"other-{number}", None)
    with known.watch(ID, "acme") as cancellation:
        assert not cancellation.requested


def test_a_time_out_of_the_work_itself_stays_one() -> None:
    """Only a cancellation is told as one."""

    async def late() -> None:
        async with asyncio.timeout(0):
            await asyncio.sleep(1)

    async def use(_: Cancellations, cancellation: Cancellation) -> None:
        with pytest.raises(TimeoutError):
            await cancellation.unless(late())

    run(use)


def test_cancelling_the_task_is_no_cancellation() -> None:
    """A worker that drains cancels tasks, and these end as cancelled."""

    async def use(_: Cancellations, cancellation: Cancellation) -> None:
        started: list[str] = []
        work = asyncio.create_task(cancellation.unless(forever(started)))
        while not started:
            await asyncio.sleep(0)
        work.cancel()
        await asyncio.wait([work])
        assert work.cancelled()

    run(use)
