"""Stored credentials, the same on SQLite and on PostgreSQL: operations, their audit, and rotation while they are used."""

from __future__ import annotations

import asyncio
import base64
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, insert, select, text, update

from config.credential_models import CREDENTIALS
from config.credentials import (
    Change,
    Credential,
    NewCredential,
    add,
    by_id,
    check_keys,
    enable,
    open_key,
    revoke,
    rotate,
    stored,
)
from config.database import create_tables, open_database, reading
from config.key_encryption import EncryptionKeys, LocalKey
from config.keyring import Keyring
from config.registry_models import REGISTRY_AUDIT, REGISTRY_VERSION, TASKS
from config.secrets import CredentialError
from config.settings import Settings, SettingsError
from schemas.codec import Codec
from streams.tools import open_tools

NOW = 1_795_258_680_000_000
ANA, BO = Change("ana", NOW), Change("bo", NOW + 1)
SECRET = "sk-planted-0123456789-abcd"
OLD, NEW = LocalKey("old", bytes(range(32))), LocalKey("new", bytes(range(32, 64)))
KEYS = EncryptionKeys((OLD,))
BOTH = EncryptionKeys((NEW, OLD))


def added(engine: Engine, secret: str = SECRET, tenant: str | None = None, provider: str = "openai") -> Credential:
    """A credential that was just stored."""
    with engine.begin() as db:
        return add(db, KEYS, NewCredential(provider, tenant, "ours"), secret, ANA)


def all_of(engine: Engine) -> list[Credential]:
    """Every credential as it is stored."""
    with reading(engine) as db:
        return stored(db)


def test_a_stored_credential_opens_and_shows_its_last_four(engine: Engine) -> None:
    """What is read back opens to the secret; its row, its audit and its representation hold nothing but the last four."""
    made = added(engine, tenant="acme")
    assert all_of(engine) == [made]
    assert open_key(KEYS, made).secret == SECRET
    assert open_key(KEYS, made).name == f"the credential {made.credential_id} (…abcd)"
    assert (made.provider, made.tenant, made.label, made.last_four, made.enabled) == (
        "openai",
        "acme",
        "ours",
        "abcd",
        True,
    )
    with reading(engine) as db:
        rows = str([tuple(row) for table in (CREDENTIALS, REGISTRY_AUDIT) for row in db.execute(select(table))])
    for shown in (rows, repr(made), repr(open_key(KEYS, made))):
        assert SECRET not in shown
        assert SECRET[:-4] not in shown


def test_a_short_secret_shows_nothing(engine: Engine) -> None:
    """Of a secret whose last four would be a large part of it none are shown."""
    made = added(engine, "sk-0123456789")
    assert made.last_four == ""
    assert open_key(KEYS, made).secret == "sk-0123456789"


@pytest.mark.parametrize("secret", ["", "two words", "line\nend", "ключ", "x" * 5_000])
def test_a_secret_that_cannot_be_sent_is_not_stored(engine: Engine, secret: str) -> None:
    """What no HTTP header carries is refused without being repeated, and nothing is stored."""
    with pytest.raises(CredentialError, match="secret has") as failed:
        added(engine, secret)
    assert not secret or secret not in str(failed.value)
    assert all_of(engine) == []


def test_every_change_is_audited(engine: Engine) -> None:
    """Who added, disabled, enabled, rotated and revoked a credential is on record, each as a change of the registry."""
    made = added(engine)
    with engine.begin() as db:
        enable(db, made.credential_id, False, BO)
    with engine.begin() as db:
        enable(db, made.credential_id, True, BO)
    rotate(engine, BOTH, BO)
    with engine.begin() as db:
        revoke(db, made.credential_id, BO)
    with reading(engine) as db:
        rows = db.execute(select(REGISTRY_AUDIT).order_by(REGISTRY_AUDIT.c.id)).all()
        assert db.execute(select(REGISTRY_VERSION.c.version)).scalar_one() == 5
    assert [(row.version, row.changed_by, row.action) for row in rows] == [
        (1, "ana", "add"), (2, "bo", "update"), (3, "bo", "update"), (4, "bo", "update"), (5, "bo", "remove"),
    ]  # fmt: skip
    assert {row.subject for row in rows} == {f"credential {made.credential_id}"}
    assert rows[0].before is None
    assert [row.before["enabled"] for row in rows[1:]] == [True, False, True, True]
    assert [row.after["kek_id"] for row in rows] == [OLD.key_id] * 3 + [NEW.key_id, None]


def test_a_revoked_credential_is_gone_for_good(engine: Engine) -> None:
    """Its ciphertext is deleted, so that no change of its row by hand brings it back; it cannot be revoked or enabled again."""
    made = added(engine)
    with engine.begin() as db:
        gone = revoke(db, made.credential_id, BO)
    assert (gone.sealed, gone.enabled, gone.revoked_at) == (None, False, BO.at)
    with engine.begin() as db:
        db.execute(update(CREDENTIALS).values(revoked_at=None, enabled=True))
        assert db.execute(select(CREDENTIALS.c.ciphertext, CREDENTIALS.c.wrapped_key)).all() == [(None, None)]
    [forged] = all_of(engine)
    with pytest.raises(CredentialError, match="its row was changed"):
        Keyring(KEYS, [forged]).pick("openai", "acme", NOW, 0.0).open()
    with engine.begin() as db:
        db.execute(update(CREDENTIALS).values(revoked_at=BO.at))
    for change in (lambda db: revoke(db, made.credential_id, BO), lambda db: enable(db, made.credential_id, True, BO)):
        with pytest.raises(CredentialError, match=f"{made.credential_id} is revoked already"), engine.begin() as db:
            change(db)


def test_an_unknown_credential_is_named(engine: Engine) -> None:
    """Revoking what is not there says so and where to look."""
    with pytest.raises(CredentialError, match="no credential cr-typo; `millstream keys list`"), engine.begin() as db:
        revoke(db, "cr-typo", BO)


def test_a_row_changed_by_hand_does_not_open(engine: Engine) -> None:
    """A tenant, a provider or another row's ciphertext put into a row in the database is seen, and the row is named."""
    made, other = added(engine, tenant="acme"), added(engine, "sk-other-0123456789-wxyz", "globex")
    columns = ("kek_id", "wrapped_key", "nonce", "ciphertext")
    assert other.sealed is not None
    stolen = {name: getattr(other.sealed, name) for name in columns}
    for values in ({"tenant": "globex"}, {"tenant": None}, {"provider": "anthropic"}, {"last_four": "dcba"}, stolen):
        with engine.begin() as db:
            before = db.execute(select(CREDENTIALS).where(CREDENTIALS.c.credential_id == made.credential_id)).one()
            mine = update(CREDENTIALS).where(CREDENTIALS.c.credential_id == made.credential_id)
            db.execute(mine.values(values))
            changed = by_id(db, made.credential_id)
            db.execute(mine.values(before._asdict()))
        with pytest.raises(CredentialError, match=f"{made.credential_id} cannot be decrypted: its row was changed"):
            open_key(KEYS, changed)


def test_a_wrong_key_at_start_is_said(engine: Engine) -> None:
    """A process that lacks the key of a credential is told at its start which one, and with the right one nothing is said."""
    made = added(engine)
    check_keys(all_of(engine), KEYS)
    for keys, said in (
        (EncryptionKeys(()), "does not name"), (EncryptionKeys((NEW,)), "does not name"),
        (EncryptionKeys((LocalKey("old", bytes(32)),)), "is another one"),
    ):  # fmt: skip
        with pytest.raises(SettingsError, match=said) as failed:
            check_keys(all_of(engine), keys)
        assert made.credential_id in str(failed.value)
    with engine.begin() as db:
        revoke(db, made.credential_id, BO)
    check_keys(all_of(engine), EncryptionKeys(()))


@pytest.mark.parametrize("data_keys", [False, True])
def test_rotating_brings_every_row_to_the_active_key(engine: Engine, data_keys: bool) -> None:
    """After it the old key is needed no more; with new data keys the ciphertexts are others too."""
    before = [added(engine, f"sk-planted-0123456789-{number:04}") for number in range(3)]
    with engine.begin() as db:
        revoke(db, before[1].credential_id, BO)
    assert rotate(engine, BOTH, BO, data_keys=data_keys) == (2, [])
    after = {one.credential_id: one for one in all_of(engine)}
    for number in (0, 2):
        was, now = before[number], after[before[number].credential_id]
        assert open_key(EncryptionKeys((NEW,)), now).secret == f"sk-planted-0123456789-{number:04}"
        assert was.sealed is not None
        assert now.sealed is not None
        assert (now.sealed.ciphertext != was.sealed.ciphertext) is data_keys
        assert (now.key_version, now.rotated_at) == (2 if data_keys else 1, BO.at)


def test_rotating_leaves_what_it_cannot_open(engine: Engine) -> None:
    """A changed row is named and stays as it is; the others are rotated all the same."""
    broken, sound = added(engine), added(engine)
    with engine.begin() as db:
        db.execute(
            update(CREDENTIALS).where(CREDENTIALS.c.credential_id == broken.credential_id).values(tenant="globex")
        )
    rotated, [problem] = rotate(engine, BOTH, BO)
    assert rotated == 1
    assert broken.credential_id in problem
    held = {one.credential_id: one for one in all_of(engine)}
    assert held[broken.credential_id].sealed == broken.sealed
    assert open_key(EncryptionKeys((NEW,)), held[sound.credential_id]).secret == SECRET


def test_rotation_under_load_takes_no_key_away(engine: Engine) -> None:
    """While keys of both layers rotate again and again, every key that is picked opens to its own secret, snapshots being old
    or new."""
    secrets = {}
    for number in range(6):
        secret = f"sk-planted-0123456789-{number:04}"
        secrets[added(engine, secret, f"tenant-{number % 3}").credential_id] = secret
    keyring, done, opened, wrong = Keyring(BOTH, all_of(engine)), threading.Event(), [0] * 3, []

    def use(number: int) -> None:
        while not done.is_set():
            picked = keyring.pick("openai", f"tenant-{number}", NOW, opened[number] % 7 / 7)
            key = picked.open()
            if key is None or picked.credential_id is None or secrets[picked.credential_id] != key.secret:
                wrong.append(picked)
            opened[number] += 1
            if opened[number] % 5 == 0:
                keyring.load(all_of(engine))

    def failing(number: int) -> None:
        try:
            use(number)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=failing, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(12):
        keys = (NEW, OLD) if turn % 2 else (OLD, NEW)
        assert rotate(engine, EncryptionKeys(keys), BO, data_keys=turn % 3 == 0) == (6, [])
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert all(count > 12 for count in opened)


def test_rotations_at_once_and_a_revocation_lose_nothing(engine: Engine) -> None:
    """Several rotations of the same rows at the same time end with rows that open; one revoked meanwhile stays revoked."""
    made = [added(engine) for _ in range(4)]
    problems: list[str] = []

    def work() -> None:
        problems.extend(rotate(engine, BOTH, BO, data_keys=True)[1])

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    with engine.begin() as db:
        revoke(db, made[2].credential_id, BO)
    for thread in threads:
        thread.join()
    assert problems == []
    for one in all_of(engine):
        if one.credential_id == made[2].credential_id:
            assert one.sealed is None
        else:
            assert open_key(BOTH, one).secret == SECRET
            assert one.key_version > 1


@pytest.mark.parametrize("column", ["kek_id", "wrapped_key", "nonce", "ciphertext"])
def test_a_tenants_row_without_its_ciphertext_is_no_way_to_the_platforms_key(engine: Engine, column: str) -> None:
    """A column emptied by hand leaves the tenant a key that names its row instead of opening, and rotating names it too."""
    added(engine, "sk-platform-0123456789-wxyz")
    broken = added(engine, tenant="acme")
    with engine.begin() as db:
        mine = update(CREDENTIALS).where(CREDENTIALS.c.credential_id == broken.credential_id)
        db.execute(mine.values({column: None}))
    assert_unusable(engine, broken)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("weight", "a"), ("nonce", "0123456789ab"), ("wrapped_key", "text"), ("ciphertext", 5), ("kek_id", b"local:old"),
        ("key_version", "two"), ("created_at", "today"), ("rotated_at", b"1"), ("last_four", b"abcd"), ("tenant", b"acme"),
        ("provider", b"openai"), ("label", b"ours"),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_no_way_to_the_platforms_key(tmp_path: Path, column: str, value: object) -> None:
    """SQLite keeps whatever a hand writes into a column; the row is named when it is opened, and nothing else fails."""
    engine = open_database(f"sqlite:///{tmp_path}/ledger.db")
    create_tables(engine)
    added(engine, "sk-platform-0123456789-wxyz")
    broken = added(engine, tenant="acme")
    with engine.begin() as db:
        of = {"value": value, "id": broken.credential_id}
        db.execute(text(f"UPDATE credentials SET {column} = :value WHERE credential_id = :id"), of)
    assert_unusable(engine, broken)
    engine.dispose()


def assert_unusable(engine: Engine, broken: Credential) -> None:
    """Acme is given this credential, which does not open; others and rotation do without it, and it can be revoked."""
    held = all_of(engine)
    check_keys(held, KEYS)
    keyring, changed = Keyring(KEYS, held), f"{broken.credential_id} cannot be decrypted: its row was changed"
    picked = keyring.pick("openai", "acme", NOW, 0.0)
    assert (picked.credential_id, picked.owner) == (broken.credential_id, "tenant")
    with pytest.raises(CredentialError, match=changed):
        picked.open()
    others = keyring.pick("openai", "globex", NOW, 0.0).open()
    assert others is not None
    assert others.secret == "sk-platform-0123456789-wxyz"
    rotated, [problem] = rotate(engine, BOTH, BO)
    assert rotated == 1
    assert changed in problem
    with engine.begin() as db:
        assert revoke(db, broken.credential_id, BO).revoked_at == BO.at
    assert Keyring(BOTH, all_of(engine)).pick("openai", "acme", NOW, 0.0).owner == "platform"


def test_revocation_acts_while_the_registry_cannot_be_used(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that reads a registry with a row it cannot use keeps what it had of that, and stops using the key all the same."""
    monkeypatch.setenv("SEALING", f"old:{base64.b64encode(bytes(range(32))).decode()}")
    url = engine.url.render_as_string(hide_password=False)
    settings = Settings(key_encryption="env:SEALING", database_url=url)
    leaked, sound = added(engine), added(engine, "sk-other-0123456789-wxyz")

    async def run() -> None:
        tools = open_tools(settings, Codec(), lambda _: None)

        def picked() -> set[Any]:
            return {tools.keyring.pick("openai", "acme", NOW, number / 9).credential_id for number in range(9)}

        assert await tools.snapshot.refresh_now()
        assert picked() == {leaked.credential_id, sound.credential_id}
        with engine.begin() as db:
            db.execute(insert(TASKS).values(name="broken", definition="{"))
            revoke(db, leaked.credential_id, BO)
        assert not await tools.snapshot.refresh_now()
        assert picked() == {sound.credential_id}
        await tools.at_exit.aclose()
        await tools.transactions.close()

    asyncio.run(run())
