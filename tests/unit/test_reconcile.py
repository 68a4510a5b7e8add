"""The pure part of the proof: two books beside each other give one line."""

from __future__ import annotations

from cli.reconcile.answers import answer_lines
from cli.reconcile.topics import Answer, Asked, Told
from cli.reconcile.watermark import Mark, Watermark
from core.reconcile import NAMED, Book, Difference, compare, not_compared
from core.topics import REQUESTS


def book(name: str, *entries: tuple[str, int, int | None]) -> Book:
    """A book of calls and cost."""
    made = Book(name, ["calls", "cost"])
    for key, calls, cost in entries:
        made.add(key, (calls, cost))
    return made


def test_equal_books_hold() -> None:
    """The same entries in another order hold, with both sums beside each other; an unknown amount equals an unknown one."""
    line = compare("a = b", book("a", ("x", 1, 5), ("y", 1, None)), book("b", ("y", 1, None), ("x", 1, 5)))
    assert (line.status, line.differing) == ("holds", 0)
    assert line.left.figures == line.right.figures == {"calls": 2, "cost": 5}


def test_each_kind_of_difference_is_named() -> None:
    """Missing on either side, standing twice, another amount, and unknown where zero is said: each has its sentence."""
    left = book("a", ("gone", 1, 1), ("twice", 1, 2), ("dear", 1, 3), ("free", 1, None))
    right = book("b", ("twice", 1, 2), ("twice", 1, 2), ("dear", 1, 4), ("free", 1, 0), ("new", 1, 9))
    line = compare("a = b", left, right)
    assert (line.status, line.differing) == ("BROKEN", 5)
    assert line.differences == (
        Difference("gone", "is not in b"),
        Difference("twice", "calls 1 in a, 2 in b; cost 2 in a, 4 in b"),
        Difference("dear", "cost 3 in a, 4 in b"),
        Difference("free", "cost unknown in a, 0 in b"),
        Difference("new", "is not in a"),
    )


def test_equal_sums_do_not_hide_a_difference() -> None:
    """Two errors that cancel out are still two."""
    line = compare("a = b", book("a", ("x", 1, 1), ("y", 1, 2)), book("b", ("x", 1, 2), ("y", 1, 1)))
    assert line.left.figures == line.right.figures
    assert (line.status, line.differing) == ("BROKEN", 2)


def test_a_column_that_differs_is_named() -> None:
    """Where the amounts agree and a column does not, the column is told, and the label stands for the key."""
    left, right = Book("a", ["rows"], ["user", "task"]), Book("b", ["rows"], ["user", "task"])
    left.add((0, 7), (1,), "id-7", b"AAAABBBB")
    right.add((0, 7), (1,), "id-7", b"AAAACCCC")
    assert compare("a = b", left, right).differences == (Difference("id-7", "another task in b"),)


def test_only_the_first_ids_are_named_and_all_are_counted() -> None:
    """A broken log of a million rows gives a short line."""
    many = book("a", *((str(n), 1, 0) for n in range(50)))
    line = compare("a = b", many, book("b"))
    assert (line.differing, len(line.differences)) == (50, NAMED)


def test_what_cannot_be_compared_says_so() -> None:
    """A comparison that was not made neither holds nor is broken."""
    assert not_compared("a = b", "a", "b", "no b here").status == "not compared"
    assert compare("a = b", book("a"), book("b"), ["7 rows that nobody holds"]).status == "not compared"
    assert compare("a = b", book("a"), book("b")).status == "holds"


def test_an_answer_from_the_cache_without_its_usage_event_is_named() -> None:
    """So are a hit whose answer a call gave, and two events of one hit; what is under way is left out."""
    marks = Watermark({REQUESTS.name: Mark(REQUESTS, {}, {}, {}, {}, {}, {})})
    told = Told()
    for one, cached in (("hit", True), ("untold", True), ("told twice", True), ("called", False)):
        told.due[one] = Asked("", 0, None)
        told.answers[one] = {f"answer to {one}": Answer(None, 0, 0, None, 0, None, cached)}
    told.hits = {f"event {n}": one for n, one in enumerate(("hit", "told twice", "told twice", "called", "under way"))}
    line = next(line for line in answer_lines(told, marks, 0) if "response cache" in line.name)
    assert {one.id for one in line.differences} == {"untold", "told twice", "called"}
    told.hits = {"1": "hit", "2": "untold", "3": "told twice"}
    line = next(line for line in answer_lines(told, marks, 0) if "response cache" in line.name)
    assert (line.status, line.left.figures) == ("holds", {"hits": 3})
