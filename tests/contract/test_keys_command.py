"""`millstream keys`: what it stores, shows and refuses, and that it never repeats a secret."""

from __future__ import annotations

import os
import pty
import signal
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from sqlalchemy import Engine, update

from cli.main import main
from config import limits
from config.credential_models import CREDENTIALS
from config.credentials import Credential, open_key, stored
from config.database import create_tables, open_database, reading
from config.issued_keys import issued_keys, open_signing_key
from config.key_encryption import encryption_keys, new_local_key
from config.settings import settings
from local.processes import wait_until
from schemas.signing import signing_key

SECRET = "sk-planted-0123456789-abcd"


class Deployment:
    """A folder with a database and a key file, which this process's settings name."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.file = folder / "keys"
        self.file.write_text(new_local_key("first") + "\n")
        url = f"sqlite:///{folder}/ledger.db"
        for name, value in (
            ("DATABASE_URL", url), ("KEY_ENCRYPTION", f"file:{self.file}"), ("CONFIG", str(folder / "none.toml")),
            ("KAFKA_BOOTSTRAP", "127.0.0.1:9"),
        ):  # fmt: skip
            monkeypatch.setenv(f"MILLSTREAM_{name}", value)
        monkeypatch.setenv("COLUMNS", "250")
        monkeypatch.setattr("cli.kafka.REACH_SECONDS", 0.1)
        self.engine: Engine = open_database(url)
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def keys(self, *arguments: str, given: str = "", code: int = 0) -> str:
        """What `millstream keys` prints, on either stream; it ends with this code."""
        return self._run("keys", *arguments, given=given, code=code)

    def providers(self, *arguments: str, given: str = "", code: int = 0) -> str:
        """What `millstream providers` prints, on either stream; it ends with this code."""
        return self._run("providers", *arguments, given=given, code=code)

    def _run(self, *arguments: str, given: str, code: int) -> str:
        settings.cache_clear()
        self._monkeypatch.setattr("sys.stdin", StringIO(given))
        ended = main([*arguments])
        said = "".join(self._capsys.readouterr())
        assert ended == code, said
        assert SECRET[:-4] not in said
        return said

    def stored(self) -> list[Credential]:
        """The credentials in the database."""
        with reading(self.engine) as db:
            return stored(db)

    def secrets(self) -> list[str]:
        """The secrets, as the keys in the file open them."""
        keys = encryption_keys(f"file:{self.file}")
        return sorted(open_key(keys, one).secret for one in self.stored() if one.sealed is not None)


@pytest.fixture
def deployment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Deployment]:
    """A deployment without keys of providers."""
    ending = signal.getsignal(signal.SIGTERM)
    made = Deployment(tmp_path, monkeypatch, capsys)
    create_tables(made.engine)
    yield made
    made.engine.dispose()
    signal.signal(signal.SIGTERM, ending)
    settings.cache_clear()


def test_a_key_is_added_listed_disabled_and_revoked(deployment: Deployment) -> None:
    """From standard input into the database, encrypted, and out of it again; lists show four characters of it."""
    assert "No keys are stored" in deployment.keys("list")
    said = deployment.keys(
        "add", "--provider", "openai", "--tenant", "acme", "--label", "main one", given=f"{SECRET}\n"
    )
    [made] = deployment.stored()
    assert said.splitlines()[0] == f"Stored the credential {made.credential_id} (…abcd) of openai for tenant acme."
    assert "Workers see this within 300 s; they were not told: No Kafka broker answers" in said
    assert (made.provider, made.tenant, made.label) == ("openai", "acme", "main one")
    assert deployment.secrets() == [SECRET]
    head, row = deployment.keys("list").splitlines()
    assert head.split()[:4] == ["id", "provider", "tenant", "key"]
    assert row.split()[:6] == [made.credential_id, "openai", "acme", "…abcd", "1", "enabled"]
    deployment.keys("disable", made.credential_id)
    assert "disabled" in deployment.keys("list")
    deployment.keys("enable", made.credential_id)
    deployment.keys("revoke", made.credential_id)
    assert "No keys are stored" in deployment.keys("list")
    assert "revoked" in deployment.keys("list", "--all")


def test_a_new_key_takes_the_place_of_another(deployment: Deployment) -> None:
    """The new one has the provider, tenant, label and weight of the old one, which is revoked; `providers rotate-key` does the
    same for the platform's only key, and says what there is when there is none or several."""
    deployment.keys(
        "add", "--provider", "openai", "--tenant", "acme", "--label", "x", "--weight", "3", given="sk-old-0123456789"
    )
    [old] = deployment.stored()
    deployment.keys("replace", old.credential_id, "--by", "ana", given=SECRET)
    gone, new = sorted(deployment.stored(), key=lambda one: one.revoked_at is None)
    assert (gone.credential_id, gone.sealed) == (old.credential_id, None)
    assert (new.provider, new.tenant, new.label, new.weight) == ("openai", "acme", "x", 3)
    assert open_key(encryption_keys(f"file:{deployment.file}"), new).secret == SECRET
    assert "has 0 stored keys for openai" in deployment.providers("rotate-key", "openai", given=SECRET, code=2)
    deployment.keys("add", "--provider", "openai", given="sk-old-0123456789")
    assert "In place of the credential" in deployment.providers("rotate-key", "openai", given=SECRET)
    assert deployment.secrets() == [SECRET] * 2
    deployment.keys("add", "--provider", "openai", given=SECRET)
    assert "has 2 stored keys for openai" in deployment.providers("rotate-key", "openai", given=SECRET, code=2)
    assert "never an argument" in deployment.keys("replace", new.credential_id, SECRET, code=2)


def test_a_key_is_asked_for_without_being_shown(deployment: Deployment) -> None:
    """At a terminal the secret is typed at a prompt, and the terminal does not show it."""
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-m", "cli.main", "keys", "add", "--provider", "openai"])
    shown = b""
    while b"not shown" not in shown:
        shown += os.read(terminal, 1_000)
    os.write(terminal, f"{SECRET}\n".encode())
    wait_until(lambda: len(deployment.stored()) == 1, 30, "the key to be stored")
    try:
        while chunk := os.read(terminal, 1_000):
            shown += chunk
    except OSError:
        pass  # Linux ends a terminal whose process is gone with an error.
    assert os.waitpid(child, 0)[1] == 0
    os.close(terminal)
    assert b"Stored the credential" in shown
    assert SECRET[:-4].encode() not in shown
    assert deployment.secrets() == [SECRET]


def test_keys_move_to_a_new_encryption_key(deployment: Deployment) -> None:
    """The new key goes before the old one, `rotate` moves every key, and then the old one can go."""
    for provider in ("openai", "google"):
        deployment.keys("add", "--provider", provider, given=SECRET)
    old = deployment.file.read_text()
    new = deployment.keys("new-encryption-key", "--name", "second")
    deployment.file.write_text(new + old)
    assert "2 keys are encrypted by local:second:" in deployment.keys("rotate")
    deployment.file.write_text(new)
    assert deployment.secrets() == [SECRET] * 2
    deployment.keys("rotate", "--data-keys")
    assert deployment.secrets() == [SECRET] * 2
    assert {one.key_version for one in deployment.stored()} == {2}


def test_a_rotation_that_leaves_something_behind_says_so(deployment: Deployment) -> None:
    """With the wrong key in the file nothing is rotated, each key left behind is named, and the command fails."""
    deployment.keys("add", "--provider", "openai", given=SECRET)
    [made] = deployment.stored()
    right = deployment.file.read_text()
    deployment.file.write_text(new_local_key("first"))
    said = deployment.keys("rotate", code=1)
    assert "0 keys are encrypted by" in said
    assert f"Credential {made.credential_id} is encrypted under the key local:first:" in said
    assert "put the right key back" in said
    deployment.file.write_text(right)
    assert deployment.secrets() == [SECRET]


def test_a_key_whose_row_was_changed_is_shown_so(deployment: Deployment) -> None:
    """The list names it, a test of its provider does not go on with the environment's key, and it can be replaced."""
    deployment.keys("add", "--provider", "openai", given=SECRET)
    with deployment.engine.begin() as db:
        db.execute(update(CREDENTIALS).values(nonce=None))
    assert "row changed" in deployment.keys("list")
    assert "its row was changed" in deployment.providers("test", "openai", code=2)
    deployment.providers("rotate-key", "openai", given=SECRET)
    assert deployment.secrets() == [SECRET]


@pytest.mark.parametrize(
    ("arguments", "given", "said"),
    [
        (("add", "--provider", "opnai"), SECRET, "There is no provider opnai; there are openai"),
        (("add", "--provider", "openai", SECRET), "", "A key is never an argument"),
        (("add", "--provider", "openai"), "", "The secret has 0 characters"),
        (("add", "--provider", "openai"), f"{SECRET} {SECRET}", "The secret has spaces"),
        (("add", "--provider", "openai", "--weight", "0"), SECRET, "--weight 0 cannot be used"),
        (("add", "--provider", "openai", "--tenant", ""), SECRET, "--tenant has 0 characters"),
        (("revoke", "cr-typo"), "", "There is no credential cr-typo"),
        (("new-encryption-key", "--name", "Two Words"), "", "is no key; a key is a name in small letters"),
        ((), "", "required: ACTION"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said(deployment: Deployment, arguments: tuple[str, ...], given: str, said: str) -> None:
    """One sentence with the value and the next action, the secret in none, and nothing stored."""
    assert said in deployment.keys(*arguments, given=given, code=2)
    assert arguments[:1] != ("add",) or deployment.stored() == []


def test_without_an_encryption_key_nothing_is_stored(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting that is missing is named, and where to get a key."""
    monkeypatch.delenv("MILLSTREAM_KEY_ENCRYPTION")
    said = deployment.keys("add", "--provider", "openai", given=SECRET, code=2)
    assert "MILLSTREAM_KEY_ENCRYPTION is not set" in said
    assert "millstream keys new-encryption-key" in said


def test_an_api_key_is_issued_shown_once_and_revoked(deployment: Deployment) -> None:
    """Its text is on a line of its own, no list repeats it, it signs what it was issued for, and its id revokes it and no other."""
    assert "No such API key was issued" in deployment.keys("issued")
    said = deployment.keys(
        "issue", "--tenant", "acme", "--user", "ana", "--limit-usd-per-day", "0.5", "--models", "google/*", "--models",
        "openai/gpt-5", "--expires", "30d", "--label", "for tests",
    )  # fmt: skip
    text, about = said.splitlines()[:2]
    [one] = issued_keys(deployment.engine)
    key_id, _, secret = text.partition(".")
    assert (key_id, one.tenant, one.user, one.models) == (one.key_id, "acme", "ana", ("google/*", "openai/gpt-5"))
    assert about == f"This is API key {key_id} of tenant acme; it cannot be shown again."
    assert one.expires_at == one.created_at + 30 * 86_400_000_000
    assert open_signing_key(encryption_keys(f"file:{deployment.file}"), one) == signing_key(secret)
    with reading(deployment.engine) as db:
        assert [(limit.account, limit.subject, limit.most) for limit in limits.read(db).limits] == [
            (f"/acme/key:{key_id}", "usd per day", 500_000_000)
        ]
    deployment.keys("issue", "--tenant", "globex")
    shown = deployment.keys("issued", "--all")
    assert shown.count("good") == 2
    assert secret not in shown
    assert "globex" not in deployment.keys("issued", "--tenant", "acme")
    assert deployment.keys("rotate").startswith("2 keys are encrypted")
    assert deployment.keys("revoke", key_id).startswith(f"Revoked API key {key_id} of tenant acme.")
    assert key_id not in deployment.keys("issued")
    assert "revoked" in deployment.keys("issued", "--all", "--tenant", "acme")
    assert "is revoked already" in deployment.keys("revoke", key_id, code=2)
    assert "No keys are stored" in deployment.keys("list", "--all")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--tenant"),
        (("--tenant", ""), "--tenant has 0 characters"),
        (("--tenant", "a" * 257), "--tenant has 257 characters"),
        (("--tenant", "acme", "--user", "a\x00"), "--user has 2 characters; give 1 to 256, none of them NUL."),
        (("--tenant", "acme", "--limit-usd-per-day", "0"), "'0' is no amount of USD"),
        (("--tenant", "acme", "--limit-usd-per-day", "nan"), "'nan' is no amount of USD"),
        (("--tenant", "acme", "--limit-usd-per-day", "1e-10"), "'1e-10' is no amount of USD"),
        (("--tenant", "acme", "--expires", "30"), "'30' is no length of time"),
        (("--tenant", "acme", "--models", "gpt-5"), "'gpt-5' is no pattern of provider/model"),
    ],
)
def test_an_api_key_that_cannot_be_is_refused(deployment: Deployment, arguments: tuple[str, ...], words: str) -> None:
    """A sentence names the value, and nothing is stored."""
    assert words in deployment.keys("issue", *arguments, code=2)
    assert issued_keys(deployment.engine) == []
