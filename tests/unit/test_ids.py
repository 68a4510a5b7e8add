"""Ids that follow from others."""

from __future__ import annotations

import uuid

from core.attempts import attempt_id

ID = "0190163d-8694-739b-aea5-966c26f8ad91"


def test_ids_are_told_apart_as_they_are_written() -> None:
    """A request is known by its id's text, so that one in capitals is another request, whose calls have ids of their own."""
    assert attempt_id(ID, 1) == str(uuid.uuid5(uuid.UUID(ID), "attempt:1"))
    found = {attempt_id(one, number) for one in (ID, ID.upper()) for number in (1, 2)}
    assert len(found) == 4
    assert attempt_id(ID.upper(), 1) == attempt_id(ID.upper(), 1)
