"""A key in HashiCorp Vault's transit engine (https://developer.hashicorp.com/vault/api-docs/secret/transit).

The key must be of an AEAD type, as `aes256-gcm96` is, for the associated data to be bound. Vault rotates its versions itself: a
ciphertext names the version that made it.
"""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any
from urllib.parse import quote, urlsplit

from config.key_encryption import KeyAway, KeyRefused
from config.settings import SettingsError

TIMEOUT_SECONDS = 5.0
LONGEST_ANSWER = 65_536
LONGEST_SAID = 200
#: What Go's AEADs say of a ciphertext, or associated data, that the key did not make: the one refusal that is the row's fault.
#: A key that is gone and a version that is too old are answered with 400 as well.
NOT_AUTHENTIC = "message authentication failed"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Vault's token goes to the address that was set and to no other."""

    def redirect_request(self, *_: Any) -> None:
        """Nothing: the redirect is the answer."""


class VaultKey:
    """The key at `address`, such as https://host/transit/keyname; `SettingsError` for another form or without a token."""

    def __init__(self, address: str, token: str | None, namespace: str | None = None) -> None:
        url = urlsplit(address)
        mount, _, name = url.path.strip("/").rpartition("/")
        safe = url.scheme == "https" or (url.scheme == "http" and url.hostname in LOOPBACK)
        if not (safe and url.hostname and mount and name) or url.username or url.query:
            raise SettingsError(
                "The vault: part of MILLSTREAM_KEY_ENCRYPTION is no address of a transit key; "
                "give vault:https://host/transit/keyname."
            )
        if not token:
            raise SettingsError("MILLSTREAM_KEY_ENCRYPTION names a key of Vault and VAULT_TOKEN is not set; set it.")
        self.key_id = f"vault:{mount}/{name}"
        self._host = url.netloc
        self._url = f"{url.scheme}://{url.netloc}/v1/{quote(mount)}/{{}}/{quote(name, safe='')}"
        self._headers = {"X-Vault-Token": token, "X-Vault-Request": "true", "Content-Type": "application/json"}
        if namespace:
            self._headers["X-Vault-Namespace"] = namespace
        self._opener = urllib.request.build_opener(_NoRedirects)

    def wrap(self, data_key: bytes, aad: bytes) -> bytes:
        """Vault's ciphertext of the data key, such as `vault:v1:…`."""
        return str(self._ask("encrypt", {"plaintext": _base64(data_key), "associated_data": _base64(aad)})).encode()

    def unwrap(self, wrapped: bytes, aad: bytes) -> bytes:
        """The data key; `KeyRefused` when Vault says that the ciphertext, or what it is bound to, was changed."""
        if not (wrapped.isascii() and wrapped.startswith(b"vault:v")):
            raise KeyRefused
        body = {"ciphertext": wrapped.decode(), "associated_data": _base64(aad)}
        return bytes(self._ask("decrypt", body))

    def _ask(self, action: str, body: dict[str, str]) -> Any:
        """What Vault answers; the exceptions of HTTP, which know the token, end here."""
        request = urllib.request.Request(
            self._url.format(action), method="POST", data=json.dumps(body).encode(), headers=self._headers
        )
        problem: Exception
        try:
            with self._opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
                data = json.load(answer)["data"]
                return data["ciphertext"] if action == "encrypt" else base64.b64decode(data["plaintext"], validate=True)
        except urllib.error.HTTPError as refused:
            problem = self._problem(action, refused.code, _said(refused))
            refused.close()
        except (OSError, HTTPException, ValueError, LookupError, TypeError) as why:
            problem = KeyAway(f"Vault at {self._host} did not answer ({type(why).__name__}); check that it is up")
        raise problem

    def _problem(self, action: str, status: int, said: str) -> Exception:
        if status == 400 and action == "decrypt" and NOT_AUTHENTIC in said:
            return KeyRefused()
        where = f"Vault at {self._host} answered {status} for {self.key_id}{f' ({said})' if said else ''}"
        if status == 403:
            return KeyAway(f"{where}; check VAULT_TOKEN and its policy for {action}")
        if status in (400, 404, 405):
            return KeyAway(f"{where}; check the name of the key and of the engine in MILLSTREAM_KEY_ENCRYPTION")
        return KeyAway(f"{where}; check that it is up and unsealed")


def _said(refused: urllib.error.HTTPError) -> str:
    """What Vault says is wrong, shortened; empty where it says nothing."""
    try:
        errors = json.loads(refused.read(LONGEST_ANSWER))["errors"]
    except (OSError, HTTPException, ValueError, LookupError, TypeError):
        return ""
    text = " ".join(map(str, errors)) if isinstance(errors, list) else ""
    return " ".join(text.split())[:LONGEST_SAID]


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()
