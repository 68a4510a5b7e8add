"""The response cache's contract, the same on SQLite and on PostgreSQL."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from sqlalchemy import Engine

from config import answers, ledger
from config.answers import ADMITTED_WITHIN_US, Ended, Kept, Sought, UnderWay
from tests.contract.test_ledger import NOW, SECOND


class Shelf:
    """The cache under one key, one transaction an operation."""

    def __init__(self, of: Engine) -> None:
        self.engine = of
        self.key = os.urandom(32)

    def run(self, operation: Callable[..., Sequence[Any]], *entries: Any) -> list[Any]:
        with self.engine.begin() as db:
            return list(operation(db, entries))

    def seek(self, request_id: str, now: int = NOW) -> Any:
        return self.run(answers.seek, Sought(self.key, request_id, now))[0]

    def admit(self, request_id: str, answer: bytes | None = None) -> None:
        self.run(ledger.admit, ledger.Admission(request_id, bytes(32), "acme", 0, answer, NOW))

    def keep(self, request_id: str, answer: bytes | None, until: int = NOW + SECOND) -> None:
        kept = None if answer is None else Kept(request_id, "acme", answer, 70)
        self.run(answers.keep, Ended(self.key, request_id, kept, until))


@pytest.fixture
def shelf(engine: Engine) -> Shelf:
    return Shelf(engine)


def ids(count: int = 2) -> list[str]:
    return [str(uuid.uuid4()) for _ in range(count)]


def test_the_first_one_calls_and_the_others_wait_for_its_answer(shelf: Shelf) -> None:
    """Whoever asks again, the first included, is told the same until the answer is there; then all are given it."""
    first, second = ids()
    assert (shelf.seek(first), shelf.seek(second), shelf.seek(first)) == (None, UnderWay(), None)
    shelf.admit(first)
    assert shelf.seek(second, NOW + 600 * SECOND) == UnderWay()
    shelf.keep(first, b"answer")
    assert shelf.seek(second) == Kept(first, "acme", b"answer", 70)


def test_an_answer_ends_with_its_time(shelf: Shelf) -> None:
    """At the end of its time an answer is given no more, forgotten when asked to be, and replaced by the next."""
    first, second = ids()
    shelf.seek(first)
    shelf.keep(first, b"old", NOW + SECOND)
    assert shelf.seek(second, NOW + SECOND) is None
    shelf.keep(second, b"new", NOW + 9 * SECOND)
    assert shelf.seek(first, NOW + SECOND).answer == b"new"
    with shelf.engine.begin() as db:
        answers.forget(db, NOW + 9 * SECOND)
    assert shelf.seek(first) is None


def test_a_failure_lets_the_next_one_call(shelf: Shelf) -> None:
    """Nothing is kept of it, and of those that wait one becomes the one that calls."""
    first, second, third = ids(3)
    shelf.seek(first)
    shelf.keep(first, None)
    assert (shelf.seek(second), shelf.seek(third)) == (None, UnderWay())


def test_what_a_crash_left_is_taken_over(shelf: Shelf) -> None:
    """One that was answered elsewhere, or never admitted in time, is waited for no longer."""
    first, second, third = ids(3)
    shelf.seek(first)
    assert shelf.seek(second, NOW + ADMITTED_WITHIN_US) == UnderWay()
    assert shelf.seek(second, NOW + ADMITTED_WITHIN_US + 1) is None
    shelf.admit(second, answer=b"stored, and the cache never told")
    assert shelf.seek(third) is None


def test_of_many_at_once_one_calls(shelf: Shelf) -> None:
    """Sixteen threads ask for the same; exactly one of them is to call."""
    found: list[Any] = []
    threads = [threading.Thread(target=lambda own=own: found.append(shelf.seek(own))) for own in ids(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (found.count(None), found.count(UnderWay())) == (1, 15)
