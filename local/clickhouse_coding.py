"""Compresses and decompresses the bodies of ClickHouse's HTTP interface."""

from __future__ import annotations

import gzip
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

import lz4.block
import lz4.frame

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_LARGEST_UNCOMPRESSED_REPLY = 1024


def decode_body(body: bytes, encoding: str, native_blocks: bool) -> bytes:
    """Undoes a request's `Content-Encoding` and ClickHouse's own block compression (`decompress=1`).

    ValueError for an encoding that is not known and for a body that ends too early.
    """
    match encoding:
        case "" | "identity":
            plain = body
        case "gzip" | "deflate":
            plain = _frames(body, lambda: zlib.decompressobj(47))
        case "lz4":
            plain = _frames(body, lz4.frame.LZ4FrameDecompressor)
        case "zstd":
            plain = _frames(body, zstd.ZstdDecompressor)
        case _:
            raise ValueError(f"Content-Encoding {encoding!r} is not known here; use gzip, deflate, lz4 or zstd.")
    return b"".join(_native_blocks(plain)) if native_blocks else plain


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes | None: ...

    def decompress(self, data: bytes, /) -> bytes: ...


def _frames(body: bytes, decompressor: Callable[[], _Decompressor]) -> bytes:
    """Decompresses one frame after another: a client that compresses block by block sends several."""
    plain = []
    while body:
        frame = decompressor()
        plain.append(frame.decompress(body))
        if not frame.eof:
            raise ValueError("The compressed body ends in the middle of a frame.")
        body = frame.unused_data or b""
    return b"".join(plain)


def _native_blocks(body: bytes) -> Iterator[bytes]:
    """Blocks of a 16-byte checksum (not checked: the transport is loopback), method, two sizes, data."""
    position = 0
    while position < len(body):
        method, packed, size = struct.unpack_from("<BII", body, position + 16)
        data = body[position + 25 : position + 16 + packed]
        if method == 0x82:
            yield lz4.block.decompress(data, uncompressed_size=size)
        elif method == 0x90:
            yield zstd.decompress(data)
        elif method == 0x02:
            yield data
        else:
            raise ValueError(f"Block compression method 0x{method:02x} is not known here; use LZ4, ZSTD or NONE.")
        position += 16 + packed


def encode_reply(body: bytes, accepted: str) -> tuple[bytes, str]:
    """Compresses a reply by the first of lz4, zstd, gzip in `Accept-Encoding`; returns it and that name."""
    names = {part.partition(";")[0].strip() for part in accepted.split(",")}
    if len(body) <= _LARGEST_UNCOMPRESSED_REPLY:
        return body, ""
    if "lz4" in names:
        return lz4.frame.compress(body), "lz4"
    if "zstd" in names:
        return zstd.compress(body, 1), "zstd"
    if "gzip" in names:
        return gzip.compress(body, 1), "gzip"
    return body, ""
