"""`millstream energy`: what it sets, grants, shows and refuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from config.database import reading
from config.registry_models import REGISTRY_AUDIT
from config.settings import settings
from tests.contract.test_registry_commands import Shell


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    shell = Shell(tmp_path, monkeypatch, capsys)
    yield shell
    shell.engine.dispose()
    settings.cache_clear()


def test_prices_are_set_listed_and_taken_away(shell: Shell) -> None:
    """The narrowest stands first, setting one again changes it, and each change is audited with who asked for it."""
    shell.run("energy", "price", "set", "1")
    shell.run("energy", "price", "set", "3", "--task", "draft_cv", "--tier", "powerful", "--by", "bo")
    said = shell.run("energy", "price", "set", "5", "--task", "draft_cv", "--tier", "powerful")
    assert "energy price task draft_cv tier powerful" in said
    assert "credits: 3 → 5" in said
    assert shell.json("energy", "price", "list") == [
        {"task": "draft_cv", "model": None, "tier": "powerful", "credits": 5},
        {"task": None, "model": None, "tier": None, "credits": 1},
    ]
    assert shell.run("energy", "price", "list").split()[-6:] == ["draft_cv", "powerful", "5", "any", "any", "1"]
    assert "Nothing changes" in shell.run("energy", "price", "set", "1")
    shell.run("energy", "price", "remove", "--task", "draft_cv", "--tier", "powerful")
    assert "no energy price for task draft_cv" in shell.run("energy", "price", "remove", "--task", "draft_cv", status=2)
    with reading(shell.engine) as db:
        rows = db.execute(
            select(REGISTRY_AUDIT.c.action, REGISTRY_AUDIT.c.changed_by).order_by(REGISTRY_AUDIT.c.id)
        ).all()
    assert [action for action, _ in rows] == ["add", "add", "update", "remove"]
    assert rows[1].changed_by == "bo"


def test_grants_are_shown_with_a_bar_and_their_history(shell: Shell) -> None:
    """Users of a tenant beside each other, one alone, and nobody of another tenant or with a longer name."""
    assert "has 100 credits left" in shell.run("energy", "grant", "acme", "ana", "100")
    shell.run("energy", "grant", "acme", "ana", "20", "--expires", "2999-12-31")
    shell.run("energy", "grant", "acme", "anabel", "7")
    shell.run("energy", "grant", "acme2", "ana", "9")
    assert {each["account"]: each["left"] for each in shell.json("energy", "show", "acme")} == {
        "/acme/user:ana": 120, "/acme/user:anabel": 7,
    }  # fmt: skip
    shown = shell.run("energy", "show", "acme", "ana")
    assert "120 of 120 left, some until 2999-12-31" in shown
    assert "█" * 30 in shown
    assert "anabel" not in shown
    moves = shell.json("energy", "history", "acme", "ana")
    assert [(each["kind"], each["credits"], each["left"]) for each in moves] == [
        ("grant", 100, 100),
        ("grant", 20, 120),
    ]
    assert "grant" in shell.run("energy", "history", "acme", "ana")
    assert "never had energy" in shell.run("energy", "history", "acme", "bo")
    assert "Nobody there" in shell.run("energy", "show", "other")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("grant", "acme", "ana", "0"), "0 credits cannot be granted"),
        (("grant", "acme", "ana", "1", "--expires", "2020-01-01"), "would have expired already"),
        (("grant", "acme", "ana", "1", "--expires", "soon"), "'soon' is no time"),
        (("price", "set", "-1"), "-1"),
        (("price", "set", "1", "--tier", "cheap", "--model", "a/b"), "not allowed with"),
    ],
)
def test_what_makes_no_sense_is_refused(shell: Shell, arguments: tuple[str, ...], words: str) -> None:
    """With a sentence that names the value, and nothing done."""
    assert words in shell.run("energy", *arguments, status=2)
    assert shell.json("energy", "show", "acme") == []
    assert shell.json("energy", "price", "list") == []
