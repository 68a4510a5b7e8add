"""Credentials of providers: stored encrypted, listed by their last four characters, rotated while they are in use.

Each operation takes a connection inside a transaction, but for `rotate`, which takes a transaction a credential. Times are
microseconds since 1970.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol

from sqlalchemy import Connection, Engine, Row, insert, select, update

from config.credential_models import CREDENTIALS
from config.database import reading
from config.key_encryption import EncryptionKeys
from config.registry_store import Difference, audited, take_version
from config.secrets import Binding, CredentialError, Sealed, key_at_hand, rewrap, row_changed, seal, unseal
from config.settings import Key, SettingsError

Action = Literal["add", "update", "remove"]

#: Shorter secrets show nothing of themselves.
LEAST_TO_SHOW = 16
MOST_LENGTH = 4_096
TRIES = 5


@dataclass(frozen=True, slots=True)
class Credential:
    """A stored credential; `tenant` is None for the platform's.

    `sealed` is None once it is revoked, and where a hand changed its row so that it holds no ciphertext any more.
    """

    credential_id: str
    provider: str
    tenant: str | None
    label: str
    last_four: str
    weight: int
    enabled: bool
    created_at: int
    rotated_at: int | None
    revoked_at: int | None
    key_version: int
    sealed: Sealed | None

    @property
    def binding(self) -> Binding:
        """What of it the ciphertext is bound to."""
        return Binding(self.credential_id, self.provider, self.tenant, self.last_four, self.key_version)

    @property
    def name(self) -> str:
        """What messages call it."""
        shown = f" (…{self.last_four})" if self.last_four else ""
        return f"the credential {self.credential_id}{shown}"


class Kept(Protocol):
    """What is kept encrypted in a row; `sealed` is None once it is revoked."""

    @property
    def binding(self) -> Binding:
        """What of its row the ciphertext is bound to."""
        ...

    @property
    def sealed(self) -> Sealed | None:
        """The ciphertext."""
        ...


@dataclass(frozen=True, slots=True)
class NewCredential:
    """A credential to be stored: for a provider, of a tenant or (None) of the platform, taken by `weight` among its like."""

    provider: str
    tenant: str | None = None
    label: str = ""
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Change:
    """Who changes something, and when."""

    who: str
    at: int


def add(db: Connection, keys: EncryptionKeys, new: NewCredential, secret: str, change: Change) -> Credential:
    """Store a credential; `CredentialError` for a secret that cannot be sent, `SettingsError` without a key to encrypt it."""
    _check(secret)
    credential_id = f"cr-{secrets.token_hex(8)}"
    last_four = secret[-4:] if len(secret) >= LEAST_TO_SHOW else ""
    sealed = seal(keys, Binding(credential_id, new.provider, new.tenant, last_four, 1), secret)
    stored = Credential(
        credential_id,
        new.provider,
        new.tenant,
        new.label,
        last_four,
        new.weight,
        True,
        change.at,
        None,
        None,
        1,
        sealed,
    )
    version = take_version(db)
    db.execute(insert(CREDENTIALS).values(_columns(stored)))
    _audit(db, version, change, "add", None, stored)
    return stored


def stored(db: Connection) -> list[Credential]:
    """Every credential, revoked ones among them, in the order they were added."""
    order = (CREDENTIALS.c.created_at, CREDENTIALS.c.credential_id)
    return [_credential(row) for row in db.execute(select(CREDENTIALS).order_by(*order))]


def platform_credentials(db: Connection, provider: str) -> list[Credential]:
    """The platform's own credentials for a provider that are in use."""
    return [one for one in stored(db) if one.provider == provider and one.tenant is None and one.enabled]


def by_id(db: Connection, credential_id: str) -> Credential:
    """One credential, locked until the transaction ends; `CredentialError` when there is none of this id."""
    wanted = select(CREDENTIALS).where(CREDENTIALS.c.credential_id == credential_id).with_for_update()
    row = db.execute(wanted).one_or_none()
    if row is None:
        raise CredentialError(f"There is no credential {credential_id}; `millstream keys list` shows those there are.")
    return _credential(row)


def living(db: Connection, credential_id: str) -> Credential:
    """One credential that is not revoked, locked as by `by_id`; `CredentialError` when there is none."""
    found = by_id(db, credential_id)
    if found.revoked_at is not None:
        raise CredentialError(f"Credential {credential_id} is revoked already; add another one.")
    return found


def revoke(db: Connection, credential_id: str, change: Change) -> Credential:
    """Revoke a credential for good: its ciphertext is deleted; `CredentialError` when there is none or it is revoked."""
    before = living(db, credential_id)
    gone = dict.fromkeys(("kek_id", "wrapped_key", "nonce", "ciphertext"))
    return _changed(db, before, change, "remove", enabled=False, revoked_at=change.at, **gone)


def replace(db: Connection, keys: EncryptionKeys, credential_id: str, secret: str, change: Change) -> Credential:
    """Store a credential like another one, which is revoked in the same transaction; errors as for `add` and `revoke`."""
    old = living(db, credential_id)
    stored = add(db, keys, NewCredential(old.provider, old.tenant, old.label, old.weight), secret, change)
    revoke(db, credential_id, change)
    return stored


def enable(db: Connection, credential_id: str, enabled: bool, change: Change) -> Credential:
    """Let a credential be used, or not; `CredentialError` when there is none or it is revoked."""
    before = living(db, credential_id)
    return _changed(db, before, change, "update", enabled=enabled)


def rotate(engine: Engine, keys: EncryptionKeys, change: Change, *, data_keys: bool = False) -> tuple[int, list[str]]:
    """Wrap every data key by the active key, or with `data_keys` encrypt every secret under a new one.

    How many credentials were rotated, and a sentence for each that could not be, which is left as it was. Safe to run again,
    and while credentials are used: a reader of the row as it was has all that it needs, as long as the old key is at hand.
    """
    with engine.begin() as db:
        ids = [credential.credential_id for credential in stored(db) if credential.revoked_at is None]
    rotated, problems = 0, []
    for credential_id in ids:
        try:
            rotated += _rotate(engine, keys, credential_id, change, data_keys)
        except CredentialError as why:
            problems.append(str(why))
    return rotated, problems


def stored_credentials(engine: Engine) -> list[Credential]:
    """Every credential of a database, encrypted as it is stored."""
    with reading(engine) as db:
        return stored(db)


def check_keys(kept: Iterable[Kept], keys: EncryptionKeys) -> None:
    """`SettingsError` when something is encrypted under a key that is not at hand; for the start of a process."""
    for one in kept:
        if one.sealed is not None:
            try:
                key_at_hand(keys, one.binding, one.sealed.kek_id)
            except CredentialError as why:
                raise SettingsError(str(why)) from None


def open_key(keys: EncryptionKeys, credential: Credential) -> Key:
    """The key for one call; `CredentialError` when the credential is revoked or disabled, or cannot be decrypted."""
    sealed = _sealed_of(credential)
    if not credential.enabled:
        raise CredentialError(
            f"Credential {credential.credential_id} is disabled; enable it with `millstream keys enable`, or revoke it."
        )
    return Key(unseal(keys, credential.binding, sealed), credential.name)


def _sealed_of(credential: Credential) -> Sealed:
    """Its ciphertext; `CredentialError` when the credential is revoked or its row was changed."""
    if credential.revoked_at is not None:
        raise CredentialError(f"Credential {credential.credential_id} is revoked; add another one.")
    if credential.sealed is None:
        raise row_changed(credential.binding)
    return credential.sealed


def _rotate(engine: Engine, keys: EncryptionKeys, credential_id: str, change: Change, data_keys: bool) -> int:
    """1 when the credential was rotated, 0 when it was revoked meanwhile.

    The key is asked outside of any transaction, so that a slow service locks nothing; a row that changed meanwhile is read again.
    """
    for _ in range(TRIES):
        with engine.begin() as db:
            before = by_id(db, credential_id)
        if before.revoked_at is not None:
            return 0
        was, version = _sealed_of(before), before.key_version
        if data_keys:
            version += 1
            binding = Binding(credential_id, before.provider, before.tenant, before.last_four, version)
            sealed = seal(keys, binding, unseal(keys, before.binding, was))
        else:
            sealed = rewrap(keys, before.binding, was)
        with engine.begin() as db:
            now = by_id(db, credential_id)
            if now.sealed == was:
                _changed(db, now, change, "update", rotated_at=change.at, key_version=version, **_sealed(sealed))
                return 1
    raise CredentialError(f"Credential {credential_id} was changed {TRIES} times meanwhile; rotate again.")


def _changed(db: Connection, before: Credential, change: Change, action: Action, **values: Any) -> Credential:
    version = take_version(db)
    db.execute(update(CREDENTIALS).where(CREDENTIALS.c.credential_id == before.credential_id).values(values))
    after = by_id(db, before.credential_id)
    _audit(db, version, change, action, before, after)
    return after


def _audit(
    db: Connection, version: int, change: Change, action: Action, before: Credential | None, after: Credential
) -> None:
    """A change of a credential is one of the registry's; nothing of a ciphertext is in it."""
    was = None if before is None else _document(before)
    difference = Difference(action, f"credential {after.credential_id}", was, _document(after))
    audited(db, version, (difference,), change.who, change.at)


def _document(credential: Credential) -> dict[str, Any]:
    """A credential as the audit shows it."""
    shown = {part.name: getattr(credential, part.name) for part in fields(credential) if part.name != "sealed"}
    return shown | {"kek_id": credential.sealed.kek_id if credential.sealed is not None else None}


def _credential(row: Row[Any]) -> Credential:
    """A row as it stands, without its ciphertext where a column holds what was not stored there.

    SQLite keeps a value of any type that a hand writes (https://sqlite.org/flextypegood.html).
    """
    columns = row._asdict()
    changed = {
        column.name: column.type.python_type
        for column in CREDENTIALS.columns
        if not isinstance(columns[column.name], column.type.python_type)
        and not (column.nullable and columns[column.name] is None)
    }
    for name, kind in changed.items():
        value = columns[name]
        columns[name] = value.decode(errors="replace") if kind is str and isinstance(value, bytes) else kind()
    parts = [columns.pop(part.name) for part in fields(Sealed)]
    return Credential(**columns, sealed=None if changed or None in parts else Sealed(*parts))


def _columns(credential: Credential) -> dict[str, Any]:
    return _document(credential) | (_sealed(credential.sealed) if credential.sealed is not None else {})


def _sealed(sealed: Sealed) -> dict[str, Any]:
    return {part.name: getattr(sealed, part.name) for part in fields(sealed)}


def _check(secret: str) -> None:
    """`CredentialError` for a secret that no HTTP header carries."""
    if not secret or len(secret) > MOST_LENGTH:
        raise CredentialError(f"The secret has {len(secret):,} characters; give 1 to {MOST_LENGTH:,}.")
    if not (secret.isascii() and secret.isprintable() and " " not in secret):
        raise CredentialError(
            "The secret has spaces, line ends or other characters that no HTTP header carries; give the key alone."
        )
