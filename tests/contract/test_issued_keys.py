"""API keys in the database, the same on SQLite and on PostgreSQL: issued, revoked, rotated, and useless to who copies the rows."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, select, update

from config import limits
from config.credentials import Change, check_keys
from config.database import reading
from config.issued_key_models import ISSUED_KEYS
from config.issued_keys import IssuedKey, NewKey, issue, issued_keys, open_signing_key, revoke, rotate
from config.key_encryption import EncryptionKeys, LocalKey
from config.registry_models import REGISTRY_AUDIT
from config.registry_store import version_of
from config.secrets import CredentialError
from config.settings import SettingsError
from core.limits import Limit
from core.trust import Caller
from schemas.signing import signing_key

NOW = 1_795_258_680_000_000
ANA, BO = Change("ana", NOW), Change("bo", NOW + 1)
OLD, NEW = LocalKey("old", bytes(range(32))), LocalKey("new", bytes(range(32, 64)))
KEYS, BOTH = EncryptionKeys((OLD,)), EncryptionKeys((NEW, OLD))
WHOLE = NewKey("acme", "ana", "search", ("google/*", "openai/gpt-5"), "for tests", NOW + 5, 5_000_000_000)


def made(engine: Engine, new: NewKey = WHOLE) -> tuple[IssuedKey, str]:
    """A key that was just issued, and its text."""
    with engine.begin() as db:
        return issue(db, KEYS, new, ANA)


def test_an_issued_key_signs_as_it_was_given_out(engine: Engine) -> None:
    """What is read back is what was issued, and opens to what its secret signs with; a key may leave everything open."""
    one, text = made(engine)
    two, _ = made(engine, NewKey("globex"))
    assert sorted(issued_keys(engine), key=lambda key: key.tenant) == [one, two]
    key_id, _, secret = text.partition(".")
    assert key_id == one.key_id
    assert len(secret) >= 43
    assert open_signing_key(KEYS, one) == signing_key(secret)
    assert one.caller == Caller(key_id, "acme", "ana", "search", ("google/*", "openai/gpt-5"))
    assert two.caller == Caller(two.key_id, "globex")
    with reading(engine) as db:
        assert limits.read(db).limits == [Limit(f"/acme/key:{key_id}", "usd", "day", 5_000_000_000)]


def test_rows_and_audit_hold_nothing_to_sign_with(engine: Engine) -> None:
    """Neither the secret nor what it signs with is in a column, the audit or a representation."""
    one, text = made(engine)
    with engine.begin() as db:
        said = repr([tuple(row) for row in db.execute(select(ISSUED_KEYS))])
        said += repr([tuple(row) for row in db.execute(select(REGISTRY_AUDIT))]) + repr(one)
    secret = text.partition(".")[2]
    for planted in (secret, signing_key(secret).hex(), repr(signing_key(secret))[2:-1]):
        assert planted not in said
    assert f"API key {one.key_id}" in said


def test_a_revoked_key_signs_no_more(engine: Engine) -> None:
    """Its ciphertext is gone, the registry has a new version, the audit says who did it; and it cannot be revoked twice."""
    one, _ = made(engine)
    with reading(engine) as db:
        before = version_of(db)
    with engine.begin() as db:
        revoke(db, one.key_id, BO)
    [gone] = issued_keys(engine)
    assert (gone.revoked_at, gone.sealed) == (BO.at, None)
    with pytest.raises(CredentialError, match="is revoked"):
        open_signing_key(KEYS, gone)
    with reading(engine) as db:
        assert version_of(db) == before + 1
        last = db.execute(select(REGISTRY_AUDIT).where(REGISTRY_AUDIT.c.version == before + 1)).one()
    assert (last.changed_by, last.action, last.subject) == ("bo", "remove", f"API key {one.key_id}")
    for key_id, words in ((one.key_id, "revoked already"), ("vk-1", "There is no API key vk-1")):
        with pytest.raises(CredentialError, match=words), engine.begin() as db:
            revoke(db, key_id, BO)


def test_a_row_that_was_given_to_another_tenant_does_not_open(engine: Engine) -> None:
    """Whoever can write rows cannot make one tenant's key another's."""
    one, _ = made(engine)
    with engine.begin() as db:
        db.execute(update(ISSUED_KEYS).values(tenant="globex"))
    [moved] = issued_keys(engine)
    with pytest.raises(CredentialError, match=f"{one.key_id} cannot be decrypted: its row was changed"):
        open_signing_key(KEYS, moved)


@pytest.mark.parametrize("data_keys", [False, True])
def test_rotation_lets_the_old_key_go(engine: Engine, data_keys: bool) -> None:
    """Every key opens with the new key-encryption key alone, revoked ones are passed over, and one that cannot be opened is named."""
    one, text = made(engine)
    gone, _ = made(engine)
    with engine.begin() as db:
        revoke(db, gone.key_id, BO)
    with pytest.raises(SettingsError, match="does not name"):
        check_keys(issued_keys(engine), EncryptionKeys((NEW,)))
    assert rotate(engine, BOTH, data_keys=data_keys) == (1, [])
    held = {key.key_id: key for key in issued_keys(engine)}[one.key_id]
    check_keys(issued_keys(engine), EncryptionKeys((NEW,)))
    assert open_signing_key(EncryptionKeys((NEW,)), held) == signing_key(text.partition(".")[2])
    assert held.sealed is not None
    assert one.sealed is not None
    assert (held.sealed.ciphertext == one.sealed.ciphertext) != data_keys
    done, [problem] = rotate(engine, KEYS)
    assert done == 0
    assert one.key_id in problem
