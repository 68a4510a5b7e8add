"""Key-encryption keys in services, through HTTP against servers that encrypt with real AES-256-GCM."""

from __future__ import annotations

import base64
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from config.key_encryption import EncryptionKeys, LocalKey, encryption_keys
from config.secrets import Binding, CredentialError, Sealed, rewrap, seal, unseal
from local.processes import free_port
from tests.serving import Handler, Server, served

TOKEN = "hvs.planted-token-0123456789"
SECRET = "sk-planted-0123456789-abcd"
BINDING = Binding("cr-0011223344556677", "openai", "acme", "abcd", 1)
ARN = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"


class Service(Server):
    """A server of one key with versions, which its handler encrypts and decrypts with."""

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(handler)
        self.versions = [AESGCM(os.urandom(32))]
        self.status: int | None = None
        self.errors: Any = ["as told"]
        self.seen: list[tuple[str, Any]] = []

    def encrypt(self, text: bytes, aad: bytes) -> bytes:
        """Nonce and ciphertext under the newest version."""
        nonce = os.urandom(12)
        return nonce + self.versions[-1].encrypt(nonce, text, aad)


class _Handler(ABC, Handler):
    server: Service

    def do_POST(self) -> None:
        body = json.loads(self.body())
        self.server.seen.append((self.path, body))
        status, answer = (
            (self.server.status, {"errors": self.server.errors}) if self.server.status else self.answer_to(body)
        )
        elsewhere = {"Location": self.server.url + "/elsewhere"} if status == 307 else {}
        self.answer(status, json.dumps(answer).encode(), **elsewhere)

    @abstractmethod
    def answer_to(self, body: Any) -> tuple[int, Any]:
        """The status and the JSON of an answer."""


class _Transit(_Handler):
    """Vault's transit engine: https://developer.hashicorp.com/vault/api-docs/secret/transit#encrypt-data and #decrypt-data."""

    def answer_to(self, body: Any) -> tuple[int, Any]:
        if self.headers["X-Vault-Token"] != TOKEN:
            return 403, {"errors": ["permission denied"]}
        aad = base64.b64decode(body["associated_data"])
        if self.path == "/v1/transit/encrypt/millstream":
            sealed = base64.b64encode(self.server.encrypt(base64.b64decode(body["plaintext"]), aad)).decode()
            version = len(self.server.versions)
            return 200, {"data": {"ciphertext": f"vault:v{version}:{sealed}", "key_version": version}}
        if self.path == "/v1/transit/decrypt/millstream":
            _, version, sealed = body["ciphertext"].split(":")
            try:
                raw = base64.b64decode(sealed)
                text = self.server.versions[int(version[1:]) - 1].decrypt(raw[:12], raw[12:], aad)
            except (InvalidTag, ValueError, LookupError):
                return 400, {"errors": ["cipher: message authentication failed"]}
            return 200, {"data": {"plaintext": base64.b64encode(text).decode()}}
        return 404, {"errors": ["no handler for route"]}


class _Kms(_Handler):
    """AWS KMS's Encrypt and Decrypt: https://docs.aws.amazon.com/kms/latest/APIReference/API_Operations.html."""

    ACTIONS: ClassVar = ("TrentService.Encrypt", "TrentService.Decrypt")

    def answer_to(self, body: Any) -> tuple[int, Any]:
        assert self.headers["X-Amz-Target"] in self.ACTIONS
        assert body["KeyId"] == ARN
        aad = json.dumps(body["EncryptionContext"], sort_keys=True).encode()
        if self.headers["X-Amz-Target"] == self.ACTIONS[0]:
            sealed = self.server.encrypt(base64.b64decode(body["Plaintext"]), aad)
            return 200, {"CiphertextBlob": base64.b64encode(sealed).decode(), "KeyId": ARN}
        raw = base64.b64decode(body["CiphertextBlob"])
        try:
            text = self.server.versions[-1].decrypt(raw[:12], raw[12:], aad)
        except (InvalidTag, ValueError):
            return 400, {"__type": "InvalidCiphertextException"}
        return 200, {"Plaintext": base64.b64encode(text).decode(), "KeyId": ARN}


@pytest.fixture
def vault() -> Iterator[Service]:
    """Vault with one transit key."""
    yield from served(Service(_Transit))


def vault_keys(vault: Service, token: str = TOKEN, name: str = "millstream", more: str = "") -> EncryptionKeys:
    """The keys of a deployment that has its key in Vault."""
    environment = {"VAULT_TOKEN": token, "OLD": f"k1:{base64.b64encode(bytes(32)).decode()}"}
    return encryption_keys(f"vault:{vault.url}/transit/{name} {more}", environment)


def problem(keys: EncryptionKeys, sealed: Sealed, binding: Binding = BINDING) -> CredentialError:
    """The error that opening ends with: it names the credential, says what to do, and holds neither secret nor token."""
    with pytest.raises(CredentialError) as failed:
        unseal(keys, binding, sealed)
    assert binding.credential_id in str(failed.value)
    assert SECRET not in str(failed.value)
    assert TOKEN not in str(failed.value)
    assert failed.value.__context__ is None
    return failed.value


def test_vault_wraps_data_keys_and_never_sees_the_secret(vault: Service) -> None:
    """What is sealed opens; Vault is given data keys only."""
    keys = vault_keys(vault)
    sealed = seal(keys, BINDING, SECRET)
    assert sealed.kek_id == "vault:transit/millstream"
    assert sealed.wrapped_key.startswith(b"vault:v1:")
    assert unseal(keys, BINDING, sealed) == SECRET
    assert [path for path, _ in vault.seen] == ["/v1/transit/encrypt/millstream", "/v1/transit/decrypt/millstream"]
    assert base64.b64encode(SECRET.encode()).decode() not in str(vault.seen)
    assert len(base64.b64decode(vault.seen[0][1]["plaintext"])) == 32


def test_vault_rotates_its_own_versions(vault: Service) -> None:
    """A data key wrapped by an older version opens, and is wrapped by the newest one by rotating."""
    keys = vault_keys(vault)
    sealed = seal(keys, BINDING, SECRET)
    vault.versions.append(AESGCM(os.urandom(32)))
    new = rewrap(keys, BINDING, sealed)
    assert new.wrapped_key.startswith(b"vault:v2:")
    assert unseal(keys, BINDING, sealed) == unseal(keys, BINDING, new) == SECRET


def test_a_row_moves_from_a_local_key_to_vault(vault: Service) -> None:
    """With both keys in the setting, what the local key wrapped opens and is wrapped by Vault."""
    sealed = seal(EncryptionKeys((LocalKey("k1", bytes(32)),)), BINDING, SECRET)
    new = rewrap(vault_keys(vault, more="env:OLD"), BINDING, sealed)
    assert unseal(vault_keys(vault), BINDING, new) == SECRET


def test_vault_refuses_what_belongs_to_another_row(vault: Service) -> None:
    """The associated data reaches Vault: a data key moved or changed is refused as a changed row."""
    keys = vault_keys(vault)
    sealed = seal(keys, BINDING, SECRET)
    other = Binding("cr-other", "openai", "acme", "abcd", 1)
    for binding, wrapped in (
        (other, sealed.wrapped_key), (BINDING, sealed.wrapped_key[:-4] + b"AAA="), (BINDING, b"k\xe9y"), (BINDING, b""),
    ):  # fmt: skip
        failure = problem(keys, Sealed(sealed.kek_id, wrapped, sealed.nonce, sealed.ciphertext), binding)
        assert "its row was changed" in str(failure)
        assert not failure.passing


@pytest.mark.parametrize(
    ("status", "said"),
    [(403, "check VAULT_TOKEN"), (503, "unsealed"), (404, "name of the key"), (307, "is up"), (200, "is up")],
)
def test_vault_being_away_passes(vault: Service, status: int, said: str) -> None:
    """While Vault does not serve, the error says so and what to check, and that the credential may serve later."""
    keys = vault_keys(vault)
    sealed = seal(keys, BINDING, SECRET)
    vault.status = status
    failure = problem(keys, sealed)
    assert failure.passing
    assert said in str(failure)
    assert len(vault.seen) == 2  # A redirect is not followed: the token goes nowhere else.
    with pytest.raises(CredentialError, match="cannot be encrypted now"):
        seal(keys, BINDING, SECRET)
    vault.status = None
    assert unseal(keys, BINDING, sealed) == SECRET


@pytest.mark.parametrize(
    "said",
    [
        ["encryption key not found"], ["ciphertext or signature version is disallowed by policy (too old)"], [], "none",
        ["x" * 900],
    ],
)  # fmt: skip
def test_vault_refusing_for_another_reason_is_not_the_rows_fault(vault: Service, said: Any) -> None:
    """A key that is gone or too old is answered with the status of a changed row: the message has Vault's host and its reason."""
    keys = vault_keys(vault)
    sealed = seal(keys, BINDING, SECRET)
    vault.status, vault.errors = 400, said
    failure = problem(keys, sealed)
    assert failure.passing
    assert f"Vault at 127.0.0.1:{vault.server_port} answered 400 for vault:transit/millstream" in str(failure)
    assert "row was changed" not in str(failure)
    assert "".join(said)[:200] in str(failure) or said == "none"
    assert "x" * 201 not in str(failure)


@pytest.mark.parametrize("answer", [b"no HTTP\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"])
def test_an_answer_that_is_none_is_said(answer: bytes) -> None:
    """What stands at the address and speaks no HTTP, or ends in the middle, counts as Vault being away."""

    class Broken(BaseHTTPRequestHandler):
        def handle(self) -> None:
            self.rfile.readline()
            self.wfile.write(answer)

    for service in served(Service(Broken)):
        keys = encryption_keys(f"vault:{service.url}/transit/millstream", {"VAULT_TOKEN": TOKEN})
        with pytest.raises(CredentialError, match="did not answer") as failed:
            seal(keys, BINDING, SECRET)
        assert failed.value.passing


def test_vault_with_another_token_or_key_says_which(vault: Service) -> None:
    """A refused token and an unknown key are told apart, and neither is repeated."""
    with pytest.raises(CredentialError, match="check VAULT_TOKEN") as failed:
        seal(vault_keys(vault, token="hvs.bad-token"), BINDING, SECRET)
    assert "hvs.bad-token" not in str(failed.value)
    with pytest.raises(CredentialError, match="check the name of the key"):
        seal(vault_keys(vault, name="unknown"), BINDING, SECRET)


def test_vault_that_is_not_there_is_said() -> None:
    """Where nobody listens, the error names the address."""
    address = f"127.0.0.1:{free_port()}"
    keys = encryption_keys(f"vault:http://{address}/transit/millstream", {"VAULT_TOKEN": TOKEN})
    with pytest.raises(CredentialError, match=f"Vault at {address} did not answer"):
        seal(keys, BINDING, SECRET)


def test_aws_kms_wraps_data_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through boto3: what is sealed opens, another row's data key is refused, and a service that fails passes."""
    pytest.importorskip("boto3")
    for kms in served(Service(_Kms)):
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", kms.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "planted-id")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        keys = encryption_keys(f"aws-kms:{ARN}", {})
        sealed = seal(keys, BINDING, SECRET)
        assert unseal(keys, BINDING, sealed) == SECRET
        other = Binding("cr-other", "openai", "acme", "abcd", 1)
        assert "its row was changed" in str(problem(keys, sealed, other))
        kms.status = 500
        assert problem(keys, sealed).passing
