"""`millstream limits`: what it sets, shows, removes, imports and refuses."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from config import ledger
from config.database import reading
from config.limits import read
from config.registry_models import REGISTRY_AUDIT
from core.accounts import path_of
from core.limits import Amounts, Asking, Limits
from tests.contract.test_registry_commands import Shell

FILE = """\
accounts:
  /:
  - requests_per_minute: 1000
    sliding: true
  /*/user:*:
  - usd_per_day: '0.5'
    soft: true
    task: extraction
  /acme:
  - concurrent: 20
  - usd_per_month: 500
  - usd_per_month: 100
    model: openai/*
time_zones:
  acme: Europe/Berlin
"""


class Limiting(Shell):
    """The command against a database of its own."""

    def held(self) -> Limits:  # type: ignore[override]
        with reading(self.engine) as db:
            return read(db)

    def words(self) -> list[str]:
        """What stands, a line a limit."""
        return sorted(f"{limit.account} {limit.most} {limit.subject}" for limit in self.held().limits)

    def admit(self, tenant: str = "acme", user: str | None = "ana") -> str:
        """What becomes of a request that may cost a cent."""
        asking = Asking(path_of(tenant, None, user, None), None, ("openai/gpt-5",), Amounts(10_000_000, 10))
        one, now = str(uuid.uuid4()), time.time_ns() // 1_000
        with self.engine.begin() as db:
            entry = ledger.Admission(one, bytes(32), tenant, 10_000_000, None, now, b"", asking)
            return ledger.admit(db, [entry])[0].kind


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Limiting]:
    made = Limiting(tmp_path, monkeypatch, capsys)
    yield made
    made.engine.dispose()


def test_a_limit_is_set_acts_at_once_and_is_audited(shell: Limiting) -> None:
    """With the command's end the next admission is refused; the audit says who changed what, and a repetition changes nothing."""
    assert shell.admit() == "new"
    said = shell.run("limits", "set", "acme", "--usd-per-month", "0.01", "--by", "ana")
    assert said == "+ limit /acme usd per month: 0.01 USD\nThey act with the next request.\n"
    assert shell.admit() == "refused"
    said = shell.run("limits", "set", "/acme", "--usd-per-month", "500", "--soft")
    assert said.startswith("~ limit /acme usd per month: 0.01 USD → 500 USD, soft\n")
    assert shell.admit() == "new"
    assert shell.run("limits", "set", "acme", "--usd-per-month", "500.00", "--soft") == "Nothing changes.\n"
    with reading(shell.engine) as db:
        rows = db.execute(select(REGISTRY_AUDIT).order_by(REGISTRY_AUDIT.c.id)).all()
    assert [(row.action, row.subject, row.changed_by == "ana") for row in rows] == [
        ("add", "limit /acme usd per month", True), ("update", "limit /acme usd per month", False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "standing"),
    [
        (("--platform", "--requests-per-minute", "1000", "--sliding"), "/ 1000 requests per sliding minute"),
        (("acme", "--user", "ana", "--tokens-per-hour", "0"), "/acme/user:ana 0 tokens per hour"),
        (("acme", "--project", "a/b", "--concurrent", "20"), "/acme/project:a%2Fb 20 concurrent"),
        (("/acme/key:k1", "--usd-per-week", "0.000000001"), "/acme/key:k1 1 usd per week"),
        (("*", "--user", "*", "--usd-per-day", "1e1"), "/*/user:* 10000000000 usd per day"),
        (("/100%", "--requests-per-day", "5", "--task", "cv*", "--model", "openai/*"), "/100%25 5 requests per day task cv* model openai/*"),
    ],
)  # fmt: skip
def test_every_account_and_window_can_be_limited(arguments: tuple[str, ...], standing: str, shell: Limiting) -> None:
    """An account by its parts or as a path, an amount to the last nano-USD, and what narrows it."""
    shell.run("limits", "set", *arguments)
    assert shell.words() == [standing]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("acme", "--usd-per-month", "-5"), "usd_per_month is -5; write an amount of USD"),
        (("acme", "--usd-per-month", "five"), "usd_per_month is 'five'; write an amount of USD"),
        (("acme", "--usd-per-month", "0.0000000001"), "usd_per_month is 0.0000000001"),
        (("acme", "--usd-per-month", "nan"), "write an amount of USD"),
        (("acme", "--usd-per-month", "9e999999"), "usd_per_month is 9e999999; write an amount of USD"),
        (("acme", "--requests-per-minute", "1.5"), "requests_per_minute is 1.5; write a whole number"),
        (("acme", "--requests-per-minute", "1e30"), "from 0 to 9,223,372,036,854,775,807"),
        (("acme", "--usd-per-year", "5"), "--usd-per-year"),
        (("acme",), "Nothing is limited"),
        (("acme", "--concurrent", "5", "--sliding"), "--sliding needs a limit of a minute"),
        (("acme", "--time-zone", "Berlin"), "'Berlin' is no time zone; give an IANA name"),
        (("/acme/user:ana", "--time-zone", "Europe/Berlin"), "A time zone is a tenant's"),
        (("--usd-per-day", "5"), "No account is named"),
        (("--user", "ana", "--usd-per-day", "5"), "--user belongs to a tenant"),
        (("--platform", "acme", "--usd-per-day", "5"), "--platform is an account of its own"),
        (("acme", "--user", "ana", "--key", "k", "--usd-per-day", "5"), "one project, user or key of one tenant"),
        (("/acme/user:ana", "--key", "k", "--usd-per-day", "5"), "one project, user or key of one tenant"),
        (("/acme/group:ana", "--usd-per-day", "5"), "'/acme/group:ana' is no account; write / for the platform"),
        (("/acme/", "--usd-per-day", "5"), "'/acme/' is no account"),
        (("ac*", "--usd-per-day", "5"), "a * stands for every name and cannot be a part of one"),
        (("a" * 300, "--usd-per-day", "5"), "at most 256 characters"),
        (("acme", "--usd-per-day", "5", "--task", ""), "The task of usd_per_day has 0 characters"),
    ],
)  # fmt: skip
def test_what_cannot_be_set_is_named(arguments: tuple[str, ...], words: str, shell: Limiting) -> None:
    """One sentence that names the value and what to write; nothing changes."""
    said = shell.run("limits", "set", *arguments, status=2)
    assert words in said
    assert "Traceback" not in said
    assert (shell.words(), shell.held().zones) == ([], {})


def test_show_tells_what_is_used_held_and_left(shell: Limiting) -> None:
    """By account, patterns for each account that was counted, with a bar; as JSON in nano-USD."""
    shell.run("limits", "set", "acme", "--usd-per-month", "0.04", "--requests-per-hour", "5")
    shell.run("limits", "set", "/*/user:*", "--concurrent", "4")
    shell.run("limits", "set", "globex", "--usd-per-day", "1", "--sliding")
    shell.admit()
    shell.admit(user="bo")
    found = {(each["account"], each["meter"]): each for each in shell.json("limits", "show")}
    assert {key: (each["used"], each["reserved"], each["left"], each["percent"]) for key, each in found.items()} == {
        ("/*/user:*", "concurrent"): (None, None, None, None),
        ("/acme", "requests"): (2, 0, 3, 40),
        ("/acme", "usd"): (0, 20_000_000, 20_000_000, 50),
        ("/acme/user:ana", "concurrent"): (0, 1, 3, 25),
        ("/acme/user:bo", "concurrent"): (0, 1, 3, 25),
        ("/globex", "usd"): (0, 0, 1_000_000_000, 0),
    }
    assert found["/acme", "usd"]["resets_at"] > time.time_ns() // 1_000
    assert found["/acme/user:ana", "concurrent"]["resets_at"] is None
    own = shell.json("limits", "show", "acme", "--user", "bo")
    assert [(each["account"], each["of"]) for each in own] == [("/acme/user:bo", "/*/user:*")]
    said = shell.run("limits", "show", "acme")
    assert "▒" * 5 + "·" * 5 in said
    assert "█" * 4 + "·" * 6 in said
    assert "globex" not in said
    assert shell.run("limits", "show", "initech") == "No limit is set for /initech.\n"
    assert shell.json("limits", "show", "--platform") == []


def test_limits_are_removed_as_far_as_they_are_named(shell: Limiting) -> None:
    """One kind, or all of an account; what is not there is told with what is."""
    shell.run("limits", "set", "acme", "--usd-per-month", "5", "--usd-per-day", "1")
    shell.run("limits", "set", "acme", "--usd-per-month", "5", "--model", "openai/*")
    shell.run("limits", "remove", "acme", "--usd-per-month", "--model", "openai/*")
    assert shell.words() == ["/acme 1000000000 usd per day", "/acme 5000000000 usd per month"]
    said = shell.run("limits", "remove", "acme", "--concurrent", status=2)
    assert "Account /acme has no such limit; it has 1 USD per day; 5 USD per month." in said
    shell.run("limits", "remove", "acme")
    assert shell.words() == []
    assert "it has none of its own" in shell.run("limits", "remove", "acme", status=2)


def test_a_file_holds_all_limits_and_writing_what_was_read_gives_it_again(shell: Limiting) -> None:
    """An import brings the limits to what the file says, one that is tried out changes nothing."""
    shell.run("limits", "set", "globex", "--usd-per-day", "1", "--time-zone", "Asia/Tokyo")
    said = shell.run("limits", "import", shell.file(FILE), "--dry-run")
    assert "- limit /globex usd per day: 1 USD\n" in said
    assert "+ limit /*/user:* usd per day task extraction: 0.5 USD, soft\n" in said
    assert "- time zone of globex: Asia/Tokyo\n" in said
    assert shell.words() == ["/globex 1000000000 usd per day"]
    assert shell.run("limits", "import", shell.file(FILE)) == said
    assert shell.run("limits", "export") == FILE
    assert shell.run("limits", "import", shell.file(FILE)) == "Nothing changes.\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("accounts: {acme: {usd_per_year: 5}}", "Account acme: it has the unknown key 'usd_per_year'; the keys are requests_per_minute"),
        ("accounts: {acme: {usd_per_day: 5, usd_per_hour: 5}}", "Account acme: a limit has 2 amounts"),
        ("accounts: {acme: [{usd_per_day: 5}, {usd_per_day: 6}]}", "Account acme: it has usd per day twice"),
        ("accounts: {acme: {usd_per_day: true}}", "usd_per_day is True"),
        ("accounts: {acme: {usd_per_day: -1}, /a/b: {concurrent: 1}}", "usd_per_day is -1; write an amount of USD such as 0.50, from 0 to 9,223,372,036.\nAccount /a/b: '/a/b' is no account"),
        ("accounts: {acme: 5}", "Account acme: 5 is no limit"),
        ("accounts: {acme: {usd_per_day: 1, soft: maybe}}", "soft is 'maybe'; write true or false"),
        ("accounts: 5", "accounts is no mapping of names"),
        ("limits: {}", "The file has the unknown key 'limits'; its keys are accounts, time_zones."),
        ("time_zones: {acme: Mars/Base}", "'Mars/Base' is no time zone"),
        ("- 5", "The file is no mapping"),
        ("a: [", "The file is no YAML"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_refused_whole(text: str, words: str, shell: Limiting) -> None:
    """Everything that is wrong with it is named, and nothing changes."""
    shell.run("limits", "set", "acme", "--usd-per-month", "5")
    assert words in shell.run("limits", "import", shell.file(text), status=2)
    assert shell.words() == ["/acme 5000000000 usd per month"]
