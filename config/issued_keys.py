"""API keys that applications ask with: issued once, revoked for good, kept as what they sign with, encrypted.

A key is `ID.SECRET`. The secret is stored nowhere: what is kept is its SHA-256, which signs, sealed like a provider's key. Each
operation takes a connection inside a transaction, but for `rotate`, which takes a transaction a key. Times are microseconds
since 1970.
"""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass, fields
from typing import Any

from sqlalchemy import Connection, Engine, Row, insert, select, update

from config import limits
from config.credentials import Action, Change
from config.database import reading
from config.issued_key_models import ISSUED_KEYS
from config.key_encryption import EncryptionKeys
from config.registry_store import Difference, audited, take_version
from config.secrets import Binding, CredentialError, Sealed, rewrap, seal, unseal
from core.accounts import account
from core.limits import Limit
from core.trust import Caller
from schemas.signing import signing_key

PREFIX = "vk-"
#: What a ciphertext is bound to where a provider's key has its provider.
OURS = "millstream"


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key to be issued: whom it speaks for, as in `core.trust.Caller`, until when, and what its holder may spend a day."""

    tenant: str
    user: str | None = None
    project: str | None = None
    models: tuple[str, ...] = ()
    label: str = ""
    expires_at: int | None = None
    nano_usd_per_day: int | None = None


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A key as it is stored; `sealed` is None once it is revoked."""

    key_id: str
    tenant: str
    user: str | None
    project: str | None
    models: tuple[str, ...]
    label: str
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    sealed: Sealed | None

    @property
    def caller(self) -> Caller:
        """Whom it speaks for."""
        return Caller(self.key_id, self.tenant, self.user, self.project, self.models)

    @property
    def account(self) -> str:
        """Where its limits are."""
        return account(self.tenant, "key", self.key_id)

    @property
    def binding(self) -> Binding:
        """What of it the ciphertext is bound to."""
        return Binding(self.key_id, OURS, self.tenant, "", 1)


def issue(db: Connection, keys: EncryptionKeys, new: NewKey, change: Change) -> tuple[IssuedKey, str]:
    """Store a new key; it and the text that its holder signs with, which nobody can read again.

    `SettingsError` without a key to encrypt it, `CredentialError` when that key cannot be asked.
    """
    key_id, secret = f"{PREFIX}{secrets.token_hex(8)}", secrets.token_urlsafe(32)
    sealed = seal(keys, Binding(key_id, OURS, new.tenant, "", 1), signing_key(secret).hex())
    made = IssuedKey(
        key_id, new.tenant, new.user, new.project, new.models, new.label, change.at, new.expires_at, None, sealed
    )
    version = take_version(db)
    db.execute(insert(ISSUED_KEYS).values(**_document(made), **asdict(sealed)))
    _audit(db, version, change, "add", None, made)
    if new.nano_usd_per_day is not None:
        most = Limit(made.account, "usd", "day", new.nano_usd_per_day)
        limits.change(db, limits.Edit([most], fresh=True), change.who, change.at)
    return made, f"{key_id}.{secret}"


def issued(db: Connection) -> list[IssuedKey]:
    """Every key, revoked ones among them, in the order they were issued."""
    order = (ISSUED_KEYS.c.created_at, ISSUED_KEYS.c.key_id)
    return [_key(row) for row in db.execute(select(ISSUED_KEYS).order_by(*order))]


def issued_keys(engine: Engine) -> list[IssuedKey]:
    """Every key of a database, as it is stored."""
    with reading(engine) as db:
        return issued(db)


def revoke(db: Connection, key_id: str, change: Change) -> IssuedKey:
    """Revoke a key for good: what it signs with is deleted; `CredentialError` when there is none or it is revoked."""
    before = _by_id(db, key_id)
    if before.revoked_at is not None:
        raise CredentialError(f"API key {key_id} is revoked already; issue another one.")
    version = take_version(db)
    gone = dict.fromkeys(part.name for part in fields(Sealed))
    db.execute(update(ISSUED_KEYS).where(ISSUED_KEYS.c.key_id == key_id).values(revoked_at=change.at, **gone))
    after = _by_id(db, key_id)
    _audit(db, version, change, "remove", before, after)
    return after


def rotate(engine: Engine, keys: EncryptionKeys, *, data_keys: bool = False) -> tuple[int, list[str]]:
    """Wrap every data key by the active key, or with `data_keys` take new ones; as `config.credentials.rotate`.

    Safe to run again and while keys are used. The key-encryption key is asked outside of any transaction.
    """
    done, problems = 0, []
    for one in issued_keys(engine):
        if one.sealed is None:
            continue
        try:
            sealed = rewrap(keys, one.binding, one.sealed)
            if data_keys:
                sealed = seal(keys, one.binding, unseal(keys, one.binding, sealed))
        except CredentialError as why:
            problems.append(str(why))
            continue
        with engine.begin() as db:
            # A row that was revoked or wrapped anew meanwhile is left as it is.
            same = ISSUED_KEYS.c.key_id == one.key_id, ISSUED_KEYS.c.wrapped_key == one.sealed.wrapped_key
            done += db.execute(update(ISSUED_KEYS).where(*same).values(asdict(sealed))).rowcount
    return done, problems


def open_signing_key(keys: EncryptionKeys, one: IssuedKey) -> bytes:
    """What a key signs with; `CredentialError` when it is revoked, or cannot be decrypted."""
    if one.sealed is None:
        raise CredentialError(f"API key {one.key_id} is revoked; issue another one.")
    return bytes.fromhex(unseal(keys, one.binding, one.sealed))


def _by_id(db: Connection, key_id: str) -> IssuedKey:
    row = db.execute(select(ISSUED_KEYS).where(ISSUED_KEYS.c.key_id == key_id).with_for_update()).one_or_none()
    if row is None:
        raise CredentialError(f"There is no API key {key_id}; `millstream keys issued` shows those there are.")
    return _key(row)


def _audit(
    db: Connection, version: int, change: Change, action: Action, before: IssuedKey | None, after: IssuedKey
) -> None:
    was = None if before is None else _document(before)
    difference = Difference(action, f"API key {after.key_id}", was, _document(after))
    audited(db, version, (difference,), change.who, change.at)


def _document(one: IssuedKey) -> dict[str, Any]:
    """A key as the audit shows it: nothing of what it signs with."""
    shown = {part.name: getattr(one, part.name) for part in fields(one) if part.name != "sealed"}
    return shown | {"models": list(one.models)}


def _key(row: Row[Any]) -> IssuedKey:
    columns = row._asdict()
    parts = [columns.pop(part.name) for part in fields(Sealed)]
    columns["models"] = tuple(columns["models"])
    return IssuedKey(**columns, sealed=None if None in parts else Sealed(*parts))
