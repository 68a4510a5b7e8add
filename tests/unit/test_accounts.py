"""The names of accounts: what a path says of whom a request is charged to."""

from __future__ import annotations

import pytest

from core.accounts import names_of, path_of


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("acme", None, None, None), {"tenant": "acme"}),
        (("acme", None, "ana", None), {"tenant": "acme", "user": "ana"}),
        (("a/b%", "user:x", "key:/", "k1"), {"tenant": "a/b%", "project": "user:x", "user": "key:/", "key": "k1"}),
    ],
)
def test_a_path_says_whom_it_was_made_of(names: tuple[str, str | None, str | None, str | None], said: object) -> None:
    """Whatever characters names have, what a path was made of can be read from it."""
    assert names_of(path_of(*names)) == said
