"""Fetch the text of a page that a caller names, and reach nothing but the public internet for it.

Every host is resolved here, first and after every redirect; a host with any address that is not public is refused, and the
connection goes to the address that was looked at, so that a name cannot change its mind in between.
"""

from __future__ import annotations

import asyncio
import codecs
import html
import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from core.addresses import is_public, url_problem

#: How the codecs of charsets begin that pages are written in (https://encoding.spec.whatwg.org/#names-and-labels).
CHARSETS = ("utf-8", "utf-16", "ascii", "iso8859", "cp125", "koi8", "shift_jis", "euc_", "gb", "big5")
READABLE = ("text/html", "application/xhtml+xml", "text/plain", "text/markdown", "application/json")
REDIRECTS = (301, 302, 303, 307, 308)
#: Elements whose content nobody reads, and those that stand on lines of their own.
UNREAD = frozenset({"script", "style", "noscript", "template", "svg"})
BLOCKS = frozenset({
    "address", "article", "br", "dd", "div", "dl", "dt", "footer", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li",
    "main", "nav", "ol", "p", "pre", "section", "table", "td", "th", "title", "tr", "ul",
})  # fmt: skip
TAG = re.compile(r"<(?P<end>/?)(?P<name>!--|[a-zA-Z][a-zA-Z0-9]*|[!?])")


class NotFetched(Exception):
    """A page that is not to be had; one sentence for the caller, which tells nothing of the network behind the worker."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much of a page is read (more is refused), in how many seconds with all redirects, and how many of those."""

    bytes: int = 1_000_000
    seconds: float = 10.0
    redirects: int = 5


BOUNDS = Bounds()


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, as the machine's resolver says; OSError when it has none."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(each[4][0]) for each in found]


@dataclass(frozen=True, slots=True)
class Network:
    """How names become addresses, and which addresses may be connected to."""

    resolve: Callable[[str, int], Awaitable[list[str]]] = resolve
    may_reach: Callable[[str], bool] = is_public


INTERNET = Network()


async def fetch_text(url: str, bounds: Bounds = BOUNDS, network: Network = INTERNET) -> str:
    """The text of the page at `url`, an HTML page's without its markup; `NotFetched` says why there is none."""
    connector = aiohttp.TCPConnector(resolver=_Resolver(network), use_dns_cache=False, force_close=True)
    try:
        async with asyncio.timeout(bounds.seconds), aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, auto_decompress=False,
            headers={"User-Agent": "Millstream", "Accept": ", ".join(READABLE), "Accept-Encoding": "identity"},
        ) as session:  # fmt: skip
            return await _follow(session, _parsed(url), bounds)
    except TimeoutError:
        raise NotFetched(f"It did not come within {bounds.seconds:g} s.") from None
    except aiohttp.ClientConnectorDNSError:
        # One sentence for a name that is unknown and for one that is private: which names are used inside is not told.
        raise NotFetched("Its host has no public address.") from None
    except (aiohttp.ClientError, OSError, ValueError) as problem:
        raise NotFetched(f"Its server could not be read ({type(problem).__name__}).") from None


async def _follow(session: aiohttp.ClientSession, url: URL, bounds: Bounds) -> str:
    for _ in range(bounds.redirects + 1):
        async with session.get(url, allow_redirects=False) as answer:
            if answer.status in REDIRECTS and (location := answer.headers.get("Location")):
                url = _parsed(str(url.join(URL(location))))
                continue
            return await _text(answer, bounds)
    raise NotFetched(f"It redirects more than {bounds.redirects} times.")


def _parsed(url: str) -> URL:
    problem = url_problem(url)
    if problem is not None:
        raise NotFetched(f"It is {problem[0]}; it must be {problem[1]}.")
    return URL(url)


async def _text(answer: aiohttp.ClientResponse, bounds: Bounds) -> str:
    if answer.status != 200:
        raise NotFetched(f"Its server answered with status {answer.status}.")
    if answer.content_type not in READABLE:
        raise NotFetched(f"It is of type {answer.content_type[:80]}, which is no text to read.")
    if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise NotFetched("It is compressed although that was not asked for.")
    body = bytearray()
    async for chunk in answer.content.iter_chunked(65_536):
        body += chunk
        if len(body) > bounds.bytes:
            raise NotFetched(f"It has more than {bounds.bytes} bytes.")
    text = body.decode(_codec(answer.charset), "replace")
    if answer.content_type in READABLE[:2]:
        text = await asyncio.to_thread(text_of_html, text)
    if not text.strip():
        raise NotFetched("It has no text.")
    return text


def _codec(charset: str | None) -> str:
    """The codec of a charset that pages have; UTF-8 for any other, as for one that would take long, such as punycode."""
    try:
        found = codecs.lookup(charset or "utf-8").name
    except LookupError:
        return "utf-8"
    return found if found.startswith(CHARSETS) else "utf-8"


def text_of_html(page: str) -> str:
    """What a person reads of an HTML page, a line for each block, in time linear in its length.

    Python's own parser takes minutes for 100 kB of hostile markup (https://github.com/python/cpython/issues/135462).
    """
    parts: list[str] = []
    at = 0
    while (start := page.find("<", at)) >= 0:
        parts.append(page[at:start])
        tag = TAG.match(page, start)
        if tag is None:
            parts.append("<")
            at = start + 1
            continue
        name = tag["name"].lower()
        parts.append("\n" if name in BLOCKS else "")
        closing = "-->" if name == "!--" else f"</{name}" if name in UNREAD and not tag["end"] else ">"
        end = re.compile(closing, re.IGNORECASE).search(page, tag.end())
        # As in a browser, what is never closed hides the rest.
        at = len(page) if end is None else end.start() if closing.startswith("</") else end.end()
    parts.append(page[at:])
    lines = (" ".join(line.split()) for line in html.unescape("".join(parts)).split("\n"))
    return "\n".join(line for line in lines if line)


class _Resolver(AbstractResolver):
    def __init__(self, network: Network) -> None:
        self._network = network

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The host's addresses; all of them may be reached."""
        addresses = await self._network.resolve(host, port)
        if not addresses or not all(map(self._network.may_reach, addresses)):
            raise OSError("an address that may not be reached")
        return [
            ResolveResult(
                hostname=host, host=address, port=port, proto=0, flags=socket.AI_NUMERICHOST,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
            )
            for address in addresses
        ]  # fmt: skip

    async def close(self) -> None:
        """There is nothing to close."""
