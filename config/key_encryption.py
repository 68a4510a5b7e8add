"""The keys that encrypt the data keys of credentials, behind one seam: local ones, HashiCorp Vault's, AWS KMS's."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from config.settings import SettingsError

KEY_BYTES = 32
NONCE_BYTES = 12
FORMS = "file:/path, env:NAME, vault:https://host/transit/keyname or aws-kms:arn"
#: A local key as it is written down: its name, and 32 random bytes in base64.
LOCAL_KEY = re.compile(r"([a-z0-9][a-z0-9-]{0,62}):([A-Za-z0-9+/]{43}=)")


class KeyRefused(Exception):
    """A data key was not wrapped by this key, or not with this associated data."""


class KeyAway(Exception):
    """The service that holds a key could not be asked; the message says why and what to do, in half a sentence."""


class KeyEncryption(Protocol):
    """One key that encrypts data keys; only the same key unwraps what it wrapped, and only with the same associated data."""

    @property
    def key_id(self) -> str:
        """Which key it is, as rows name it."""
        ...

    def wrap(self, data_key: bytes, aad: bytes) -> bytes:
        """The data key encrypted; `KeyAway` when that cannot be done now."""
        ...

    def unwrap(self, wrapped: bytes, aad: bytes) -> bytes:
        """The data key; `KeyRefused` when it is none of this key's, `KeyAway` when that cannot be found out now."""
        ...


class LocalKey:
    """A key of 32 bytes in this process: AES-256-GCM, a random nonce before each ciphertext.

    Its id holds a fingerprint, so that another key under the same name is told apart.
    """

    def __init__(self, name: str, key: bytes) -> None:
        fingerprint = hmac.digest(key, b"millstream key fingerprint", hashlib.sha256)[:4].hex()
        self._cipher = AESGCM(key)
        self.key_id = f"local:{name}:{fingerprint}"

    def wrap(self, data_key: bytes, aad: bytes) -> bytes:
        """The nonce, then the data key encrypted."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, data_key, aad)

    def unwrap(self, wrapped: bytes, aad: bytes) -> bytes:
        """The data key; `KeyRefused` when it was wrapped by another key, with other associated data, or changed."""
        try:
            return self._cipher.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], aad)
        except (InvalidTag, ValueError):
            raise KeyRefused from None


@dataclass(frozen=True, slots=True)
class EncryptionKeys:
    """The key-encryption keys of a deployment: the first wraps, all unwrap."""

    keys: tuple[KeyEncryption, ...]

    @property
    def active(self) -> KeyEncryption:
        """The key that wraps; `SettingsError` when there is none."""
        if not self.keys:
            raise SettingsError(
                "Setting MILLSTREAM_KEY_ENCRYPTION is not set, so no credential can be stored; "
                f"give {FORMS}. `millstream keys new-encryption-key` prints a line for a file."
            )
        return self.keys[0]

    def by_id(self, key_id: str) -> KeyEncryption | None:
        """The key with this id, None when it is none of these."""
        return next((key for key in self.keys if key.key_id == key_id), None)

    def namesake(self, key_id: str) -> KeyEncryption | None:
        """A local key of the same name whose bytes are others, None when there is none."""
        name, _, _ = key_id.rpartition(":")
        named = (key for key in self.keys if key.key_id.rpartition(":")[0] == name and key.key_id != key_id)
        return next(named, None) if key_id.startswith("local:") else None


def encryption_keys(setting: str | None, environment: Mapping[str, str] = os.environ) -> EncryptionKeys:
    """The keys that `MILLSTREAM_KEY_ENCRYPTION` names, several of them between spaces; `SettingsError` for what is no key.

    Nothing of the setting is repeated in an error but the kind and the place: somebody may have put a key there.
    """
    keys: list[KeyEncryption] = []
    for number, source in enumerate((setting or "").split(), 1):
        kind, _, place = source.partition(":")
        if kind == "file" and place:
            keys += _local_keys(_file(place), f"the file {place}")
        elif kind == "env" and place:
            keys += _local_keys(_variable(place, environment), f"the variable {place}")
        elif kind == "vault" and place:
            from config.key_vault import VaultKey

            keys.append(VaultKey(place, environment.get("VAULT_TOKEN"), environment.get("VAULT_NAMESPACE")))
        elif kind == "aws-kms" and place:
            from config.key_aws import AwsKey

            keys.append(AwsKey(place))
        else:
            raise SettingsError(
                f"Setting MILLSTREAM_KEY_ENCRYPTION: its value {number} is no place of a key; give {FORMS}."
            )
    ids = [key.key_id for key in keys]
    if twice := next((key_id for key_id in ids if ids.count(key_id) > 1), None):
        raise SettingsError(f"Setting MILLSTREAM_KEY_ENCRYPTION names the key {twice} twice; leave one out.")
    return EncryptionKeys(tuple(keys))


def new_local_key(name: str) -> str:
    """A fresh local key as a line of a key file."""
    return f"{name}:{base64.b64encode(os.urandom(KEY_BYTES)).decode()}"


def _file(path: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as why:
        raise SettingsError(
            f"The file {path} of MILLSTREAM_KEY_ENCRYPTION cannot be read ({type(why).__name__}); "
            "write a line of `millstream keys new-encryption-key` into it."
        ) from None


def _variable(name: str, environment: Mapping[str, str]) -> str:
    if name not in environment:
        raise SettingsError(
            f"MILLSTREAM_KEY_ENCRYPTION names the variable {name}, which is not set; "
            "set it to a line of `millstream keys new-encryption-key`."
        )
    return environment[name]


def _local_keys(text: str, place: str) -> list[LocalKey]:
    """The keys in a text, one a line, the active first; what follows a `#` is a comment."""
    keys: dict[str, LocalKey] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not (written := line.partition("#")[0].strip()):
            continue
        found = LOCAL_KEY.fullmatch(written)
        try:
            key = base64.b64decode(found[2], validate=True) if found else b""
        except binascii.Error:
            key = b""
        if found is None or len(key) != KEY_BYTES:
            raise SettingsError(
                f"Line {number} of {place} is no key; a key is a name in small letters, a colon and 32 bytes in base64, "
                "as `millstream keys new-encryption-key` prints it."
            )
        if found[1] in keys:
            raise SettingsError(
                f"Line {number} of {place} has the name {found[1]} again; give every key a name of its own."
            )
        keys[found[1]] = LocalKey(found[1], key)
    if not keys:
        raise SettingsError(f"There is no key in {place}; put a line of `millstream keys new-encryption-key` there.")
    return list(keys.values())
