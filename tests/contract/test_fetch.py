"""Fetching a page for a caller: what is read of it, and that nothing private is ever connected to."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.fetch import Bounds, Network, NotFetched, fetch_text, text_of_html
from core.addresses import is_public

HOST = "pages.example.com"
SMALL = Bounds(bytes=1_000)
PAGE = "<html><head><title>Baker &amp; Co</title><style>p{}</style></head><body><p>We <b>bake</b>.<script>x()</script></body>"


class Site:
    """A web server on loopback, and a network on which some names stand for it."""

    def __init__(self) -> None:
        self.hits: list[str] = []
        self.asked: list[str] = []
        self.names: dict[str, list[str]] = {HOST: ["127.0.0.1"]}
        self.base = ""

    @property
    def network(self) -> Network:
        """Names as they are set here; loopback may be reached, and whatever is public."""
        return Network(self._resolve, lambda address: address == "127.0.0.1" or is_public(address))

    async def _resolve(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        if host not in self.names:
            raise OSError("unknown")
        return self.names[host]

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer as the path says."""
        self.hits.append(request.path)
        match request.path.split("/")[1:]:
            case ["page"]:
                return web.Response(text=PAGE, content_type="text/html")
            case ["latin"]:
                return web.Response(
                    body="Bäcker".encode("latin-1"), headers={"Content-Type": "text/plain; charset=iso-8859-1"}
                )
            case ["long"]:
                return web.Response(body=b"x" * 1_001, content_type="text/plain")
            case ["endless"]:
                answer = web.StreamResponse(headers={"Content-Type": "text/plain"})
                await answer.prepare(request)
                while True:
                    await answer.write(b"x" * 65_536)
            case ["slow"]:
                await asyncio.sleep(30)
            case ["bomb"]:
                packed = gzip.compress(b"x" * 10_000_000)
                return web.Response(body=packed, headers={"Content-Type": "text/plain", "Content-Encoding": "gzip"})
            case ["picture"]:
                return web.Response(body=b"\x89PNG", content_type="image/png")
            case ["empty"]:
                return web.Response(text="<p> </p>", content_type="text/html")
            case ["to", *where]:
                return web.Response(status=302, headers={"Location": request.query.get("url", "/" + "/".join(where))})
            case ["again"]:
                return web.Response(status=302, headers={"Location": "/again"})
        return web.Response(status=404)


def visit(use: Callable[[Site], Awaitable[Any]]) -> Any:
    """What `use` returns with the site up."""

    async def main() -> Any:
        site = Site()
        runner = web.ServerRunner(web.Server(site.serve))  # type: ignore[arg-type]
        await runner.setup()
        try:
            listening = web.TCPSite(runner, "127.0.0.1", 0, shutdown_timeout=0.1)
            await listening.start()
            port = runner.addresses[0][1]
            site.base = f"http://{HOST}:{port}"
            return await use(site)
        finally:
            await runner.cleanup()

    return asyncio.run(main())


async def why_not(url: str, bounds: Bounds = SMALL, **network: Any) -> str:
    """Why a page is not fetched."""
    with pytest.raises(NotFetched) as why:
        await fetch_text(url, bounds, **network)
    return str(why.value)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/page", "Baker & Co\nWe bake."),
        ("/latin", "Bäcker"),
        ("/to/page", "Baker & Co\nWe bake."),
        ("/to/to/page", "Baker & Co\nWe bake."),
    ],
)
def test_a_page_is_read_as_a_person_does(path: str, text: str) -> None:
    """Markup, scripts and styles go, the charset is the server's, redirects are followed, each host resolved anew."""

    async def use(site: Site) -> tuple[str, list[str], int]:
        return await fetch_text(site.base + path, network=site.network), site.asked, len(site.hits)

    found, asked, hits = visit(use)
    assert found == text
    assert asked == [HOST] * hits


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/nothing", "status 404"), ("/long", "more than 1000 bytes"), ("/endless", "more than 1000 bytes"),
        ("/slow", "within 1 s"), ("/bomb", "compressed"), ("/picture", "image/png"), ("/empty", "no text"),
        ("/again", "more than 5 times"),
    ],
)  # fmt: skip
def test_a_page_beyond_its_bounds_is_refused_in_a_sentence(path: str, words: str) -> None:
    """Bytes, time, redirects and types are bounded, whatever the server does."""
    said = visit(lambda site: why_not(site.base + path, Bounds(bytes=1_000, seconds=1), network=site.network))
    assert words in said


PRIVATE = (
    "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.100.100.200", "0.0.0.0", "224.0.0.1",
    "168.63.129.16", "255.255.255.255", "::1", "::", "fe80::1%eth0", "fd00:ec2::254", "::ffff:127.0.0.1", "::127.0.0.1",
    "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2001:db8::1", "ff02::1",
)  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_a_name_that_stands_for_a_private_address_is_not_connected_to(address: str) -> None:
    """Also where a public address stands beside it; an unknown name gives the same sentence, so nothing is learnt of names inside."""

    async def use(site: Site) -> list[str]:
        site.names |= {"inside.example.com": [address], "both.example.com": ["93.184.215.14", address]}

        async def resolved(host: str, port: int) -> list[str]:
            return await site._resolve(host, port)

        real = Network(resolved)
        port = site.base.rpartition(":")[2]
        names = ("inside", "both", "unknown")
        said = [await why_not(f"http://{name}.example.com:{port}/page", network=real) for name in names]
        assert site.hits == []
        return said

    assert set(visit(use)) == {"Its host has no public address."}


@pytest.mark.parametrize("target", ["http://169.254.169.254/latest", "http://[::1]:1/", "http://127.0.0.1/", "file:///etc/passwd",
                                    "http://2130706433/", "http://user:word@example.com/", "gopher://example.com/"])  # fmt: skip
def test_a_redirect_is_looked_at_like_the_first_url(target: str) -> None:
    """A page that sends to a private address, another scheme or a URL with credentials is refused there."""

    async def use(site: Site) -> str:
        said = await why_not(f"{site.base}/to?url={target.replace('://', '%3A%2F%2F')}", network=site.network)
        assert site.hits == ["/to"]
        return said

    assert "It is a URL" in visit(use)


def test_a_redirect_to_a_name_that_is_private_is_refused() -> None:
    """The second host is resolved and looked at too, and the connection that was looked at is the one that is made."""

    async def use(site: Site) -> str:
        site.names["inside.example.com"] = ["10.0.0.1"]
        return await why_not(f"{site.base}/to?url=http%3A%2F%2Finside.example.com%2F", network=site.network)

    assert visit(use) == "Its host has no public address."


def test_a_name_is_resolved_once_for_a_connection() -> None:
    """A name whose second answer is another address is never asked again, so it cannot change between look and connection."""

    async def use(site: Site) -> tuple[str, int]:
        answers = iter([["127.0.0.1"], ["10.0.0.1"]])
        calls = 0

        async def changing(host: str, port: int) -> list[str]:
            nonlocal calls
            calls += 1
            return next(answers)

        text = await fetch_text(f"{site.base}/page", network=Network(changing, lambda address: address == "127.0.0.1"))
        return text, calls

    assert visit(use) == ("Baker & Co\nWe bake.", 1)


def test_the_default_network_is_the_public_one() -> None:
    """Without a network of its own, fetching reaches no loopback, by address or by name."""
    for url in ("http://127.0.0.1:1/", "http://localhost/", "http://[::1]/", "http://0x7f.1/"):
        assert "public host" in asyncio.run(why_not(url))


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(["<", "</", "<!--", "-->", ">", "<script>", "</script>", "<p>", "a", "&", "&lt;", '"', "<a "])
    ).map("".join)
)
def test_any_markup_gives_text(page: str) -> None:
    """No page makes the reading fail, and what is left has no line without text."""
    assert all(line.strip() for line in text_of_html(page).splitlines())
