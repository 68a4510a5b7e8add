"""One signed POST to a webhook, as Standard Webhooks has it (https://www.standardwebhooks.com), and where it may go."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import socket
import ssl
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import SplitResult, urlsplit

from core.addresses import is_public, url_problem

#: For each step of a request: to connect, to send, to wait for the answer.
TIMEOUT_SECONDS = 15.0
#: Before a secret in base64, as services print it that speak Standard Webhooks.
BASE64_SECRET = "whsec_"


class NotTaken(Exception):
    """A webhook that was not taken; one sentence that names no more of the URL than its host."""


def secret_bytes(secret: str) -> bytes:
    """The key that signs: a text as it is, or what stands in base64 behind `whsec_`. ValueError when that is not base64."""
    if not secret.startswith(BASE64_SECRET):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(BASE64_SECRET), validate=True)
    except binascii.Error:
        raise ValueError(f"what follows {BASE64_SECRET} is not base64") from None


def signed(webhook_id: str, seconds: int, body: bytes, secret: bytes) -> dict[str, str]:
    """The headers of a webhook that is sent at `seconds` since 1970; the signature covers its id, that time and the body."""
    said = b".".join((webhook_id.encode(), str(seconds).encode(), body))
    signature = base64.b64encode(hmac.digest(secret, said, hashlib.sha256)).decode()
    return {"webhook-id": webhook_id, "webhook-timestamp": str(seconds), "webhook-signature": f"v1,{signature}"}


@dataclass(frozen=True, slots=True)
class Receiver:
    """Where webhooks go; a `private` one may be at an address that the public internet does not reach."""

    url: str = field(repr=False)
    private: bool = False

    @property
    def host(self) -> str:
        """What messages call it: paths and queries of webhooks are often secrets."""
        return self._parts.netloc.rpartition("@")[2]

    @property
    def problem(self) -> str | None:
        """Why nothing can be sent there, None where something can; a name's addresses are looked at with each POST."""
        try:
            known = (
                self._parts.scheme in ("http", "https") and bool(self._parts.hostname) and "@" not in self._parts.netloc
            )
            known = known and (self._parts.port is None or self._parts.port > 0)
        except ValueError:
            known = False
        found = url_problem(self.url) if known and not self.private else None
        if known and found is None:
            return None
        is_one, must_be = found or ("no such URL", "a URL over http or https, without user name and password")
        return f"It is {is_one}; it must be {must_be}."

    def post(self, body: bytes, headers: dict[str, str]) -> None:
        """Send it; `NotTaken` unless the answer has a status of success. A redirect is not followed."""
        parts = self._parts
        path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        connection = self._connection()
        try:
            connection.request(
                "POST", path, body, {"content-type": "application/json", "user-agent": "Millstream", **headers}
            )
            status = connection.getresponse().status
        # ValueError: a host's name with a label that no DNS holds, or a path with letters that no request line does.
        except (OSError, HTTPException, ValueError) as why:
            raise NotTaken(f"{self.host} could not be reached ({type(why).__name__}).") from None
        finally:
            connection.close()
        if not 200 <= status < 300:
            raise NotTaken(f"{self.host} answered with status {status}.")

    @property
    def _parts(self) -> SplitResult:
        return urlsplit(self.url)

    def _connection(self) -> HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme == "https":
            return _Https(host, port, self.private)
        return _Http(host, port, self.private)


class _Http(HTTPConnection):
    def __init__(self, host: str, port: int | None, private: bool) -> None:
        super().__init__(host, port, timeout=TIMEOUT_SECONDS)
        self._private = private

    def connect(self) -> None:
        self.sock = _connected(self.host, self.port, self._private)


class _Https(HTTPSConnection):
    def __init__(self, host: str, port: int | None, private: bool) -> None:
        super().__init__(host, port, timeout=TIMEOUT_SECONDS)
        self._private = private

    def connect(self) -> None:
        plain = _connected(self.host, self.port, self._private)
        self.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=self.host)


def _connected(host: str, port: int, private: bool) -> socket.socket:
    """A connection to an address that was looked at, so that a name cannot change its mind in between."""
    addresses = [str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if not private and not all(map(is_public, addresses)):
        raise NotTaken(
            f"{host} has a private address; set MILLSTREAM_ALERT_WEBHOOKS_PRIVATE=true if alerts may go into your own network."
        )
    for address in addresses[:-1]:
        try:
            return socket.create_connection((address, port), TIMEOUT_SECONDS)
        except OSError:
            continue
    return socket.create_connection((addresses[-1], port), TIMEOUT_SECONDS)
