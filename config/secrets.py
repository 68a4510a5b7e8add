"""Envelope encryption of credentials: AES-256-GCM under a data key of its own, which a key-encryption key wraps.

Associated data binds both layers to their row, so that a ciphertext cannot be moved to another provider, tenant or credential.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from config.key_encryption import KEY_BYTES, NONCE_BYTES, EncryptionKeys, KeyAway, KeyEncryption, KeyRefused

FORM = "millstream-credential-1"
ADD_AGAIN = "revoke the credential and add its secret again"


class CredentialError(Exception):
    """A credential cannot be used; the message names it and the next action, without its secret.

    `passing` says that the same credential may serve later, once a service that holds a key is back.
    """

    def __init__(self, message: str, passing: bool = False) -> None:
        super().__init__(message)
        self.passing = passing


@dataclass(frozen=True, slots=True)
class Binding:
    """What of a credential's row its ciphertext is bound to; `key_version` counts its data keys."""

    credential_id: str
    provider: str
    tenant: str | None
    last_four: str
    key_version: int

    def data(self, *more: str) -> bytes:
        """The associated data, one text for every binding."""
        fields = (FORM, self.credential_id, self.provider, self.tenant, self.last_four, self.key_version, *more)
        return json.dumps(fields, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Sealed:
    """A secret as its row holds it."""

    kek_id: str
    wrapped_key: bytes = field(repr=False)
    nonce: bytes = field(repr=False)
    ciphertext: bytes = field(repr=False)


def seal(keys: EncryptionKeys, binding: Binding, secret: str) -> Sealed:
    """The secret encrypted under a new data key; `CredentialError` when the active key cannot be asked."""
    data_key, nonce = os.urandom(KEY_BYTES), os.urandom(NONCE_BYTES)
    ciphertext = AESGCM(data_key).encrypt(nonce, secret.encode(), binding.data())
    return Sealed(keys.active.key_id, _wrap(keys.active, binding, data_key), nonce, ciphertext)


def unseal(keys: EncryptionKeys, binding: Binding, sealed: Sealed) -> str:
    """The secret; `CredentialError` when its key is not at hand or the row was changed."""
    data_key = _unwrap(keys, binding, sealed)
    try:
        return AESGCM(data_key).decrypt(sealed.nonce, sealed.ciphertext, binding.data()).decode()
    except (InvalidTag, ValueError):
        pass
    raise row_changed(binding)


def rewrap(keys: EncryptionKeys, binding: Binding, sealed: Sealed) -> Sealed:
    """The same secret under the same data key, wrapped by the active key; `CredentialError` as for `unseal`."""
    data_key = _unwrap(keys, binding, sealed)
    return Sealed(keys.active.key_id, _wrap(keys.active, binding, data_key), sealed.nonce, sealed.ciphertext)


def key_at_hand(keys: EncryptionKeys, binding: Binding, kek_id: str) -> KeyEncryption:
    """The key that a row was encrypted under; `CredentialError` when the setting does not name it."""
    if (key := keys.by_id(kek_id)) is not None:
        return key
    start = f"Credential {binding.credential_id} is encrypted under the key {kek_id}"
    if (other := keys.namesake(kek_id)) is not None:
        raise CredentialError(
            f"{start}, and the key of that name in MILLSTREAM_KEY_ENCRYPTION is another one ({other.key_id}); "
            f"put the right key back, or {ADD_AGAIN}."
        )
    raise CredentialError(
        f"{start}, which MILLSTREAM_KEY_ENCRYPTION does not name; add that key to it, or {ADD_AGAIN}."
    )


def _wrap(key: KeyEncryption, binding: Binding, data_key: bytes) -> bytes:
    try:
        return key.wrap(data_key, binding.data(key.key_id))
    except KeyAway as why:
        away = str(why)
    raise CredentialError(f"Credential {binding.credential_id} cannot be encrypted now: {away}.", passing=True)


def _unwrap(keys: EncryptionKeys, binding: Binding, sealed: Sealed) -> bytes:
    key = key_at_hand(keys, binding, sealed.kek_id)
    try:
        data_key = key.unwrap(sealed.wrapped_key, binding.data(sealed.kek_id))
        if len(data_key) == KEY_BYTES:
            return data_key
        problem = row_changed(binding)
    except KeyRefused:
        problem = row_changed(binding)
    except KeyAway as why:
        problem = CredentialError(f"Credential {binding.credential_id} cannot be opened now: {why}.", passing=True)
    raise problem


def row_changed(binding: Binding) -> CredentialError:
    """What is said of a credential whose row does not hold what was stored."""
    return CredentialError(
        f"Credential {binding.credential_id} cannot be decrypted: its row was changed after it was stored. Restore the row "
        f"from a backup, or {ADD_AGAIN}."
    )
