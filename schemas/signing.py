"""Sign a request record, so that a deployment with `MILLSTREAM_TRUST=signed` knows who asks.

Three headers go beside the record's value: the id of the API key, the time in seconds since 1970, and in hex an HMAC-SHA256,
keyed by the SHA-256 of the key's secret, over `millstream-request-1`, the id and the time, a line each, and then the value.
"""

from __future__ import annotations

import hashlib
import hmac

KEY_ID, SIGNED_AT, SIGNATURE = "millstream-key-id", "millstream-signed-at", "millstream-signature"
FORM = b"millstream-request-1"


def signed_headers(api_key: str, value: bytes, seconds: int) -> list[tuple[str, bytes]]:
    """The headers that sign a record with this value; `seconds` since 1970 is now.

    `api_key` is what `millstream keys issue` printed: the key's id, a dot and its secret. ValueError when it has no dot.
    """
    key_id, dot, secret = api_key.partition(".")
    if not dot:
        raise ValueError("The API key is none of Millstream's; give it whole, as `millstream keys issue` printed it.")
    at = str(seconds).encode()
    signed = signature(signing_key(secret), key_id.encode(), at, value)
    return [(KEY_ID, key_id.encode()), (SIGNED_AT, at), (SIGNATURE, signed)]


def signing_key(secret: str) -> bytes:
    """What a key's secret signs with: 32 bytes that do not tell the secret."""
    return hashlib.sha256(secret.encode()).digest()


def signature(key: bytes, key_id: bytes, signed_at: bytes, value: bytes) -> bytes:
    """The signature of a record's value in hex, for a key id and a time as their headers have them."""
    return hmac.digest(key, b"%s\n%s\n%s\n%s" % (FORM, key_id, signed_at, value), "sha256").hex().encode()
