"""Which URLs may be handed to a provider or fetched: public ones over HTTP, without credentials."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

#: What every HTTP server should take (RFC 9110, section 4.1).
LONGEST_URL = 8_000
#: Names that only a private network resolves (RFC 6761, RFC 6762, RFC 8375, RFC 6762 appendix G, ICANN's .internal of 2024).
PRIVATE_NAMES = ("localhost", "local", "home.arpa", "internal", "intranet", "lan", "home", "corp", "private")
#: Azure's wire server, which answers every machine there under a public address.
#: https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16
WIRE_SERVER = ipaddress.IPv4Address("168.63.129.16")
#: Of the prefixes that carry an IPv4 address at their end, NAT64's (RFC 6052) and that of IPv4-compatible addresses (RFC 4291).
CARRIERS = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::/96"))
#: What is routed of IPv6 (https://www.iana.org/assignments/ipv6-address-space); the rest is local, reserved or for translation.
UNICAST = ipaddress.IPv6Network("2000::/3")
HOST = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


def url_problem(url: str) -> tuple[str, str] | None:
    """What of a URL cannot be handed on, and what it must be instead; None for one that can.

    Only its scheme or host is repeated: paths and queries of signed URLs are secrets.
    """
    # Browsers and SDKs drop line ends and read a backslash as a slash, so such a URL means another host than it seems to.
    if len(url) > LONGEST_URL or re.search(r"[^!-~]|\\", url):
        return f"a text of {len(url)} characters", (
            f"a URL of at most {LONGEST_URL} printable ASCII characters, without spaces and backslashes"
        )
    try:
        parts = urlsplit(url)
        host, scheme, _ = (parts.hostname or "").rstrip("."), parts.scheme, parts.port
    except ValueError:
        return "a malformed URL", "a URL such as https://example.com/picture.png"
    if scheme not in ("http", "https"):
        return f"a URL with scheme {scheme!r}", "a URL over http or https"
    if "@" in parts.netloc:
        return f"a URL of {host!r} with credentials", "a URL without user name and password"
    if not _public(host):
        return f"a URL of {host!r}", "a URL of a public host: private addresses are not read on a caller's behalf"
    return None


def is_public(address: str) -> bool:
    """Whether an IP address, such as a name was resolved to, is on the public internet; False for what is no address."""
    return _public_v6(address) if ":" in address else address[-1:].isdigit() and _public(address)


def _public(host: str) -> bool:
    if ":" in host:
        return _public_v6(host)
    if not HOST.fullmatch(host):
        return False
    names = host.lower().split(".")
    if names[-1].isdigit() or names[-1].startswith("0x"):
        # A number at the end makes it an IPv4 address, of which 0x7f.1, 0177.0.0.1 and 2130706433 are other spellings.
        try:
            return _routed(ipaddress.IPv4Address(host))
        except ValueError:
            return False
    private = any(f".{host.lower()}".endswith(f".{name}") for name in PRIVATE_NAMES)
    return len(names) > 1 and not private


def _public_v6(host: str) -> bool:
    try:
        address = ipaddress.IPv6Address(host)
    except ValueError:
        return False
    inner = address.ipv4_mapped or address.sixtofour
    if any(address in network for network in CARRIERS):
        inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if inner is None and address not in UNICAST:
        return False
    return _routed(address) and (inner is None or _routed(inner))


def _routed(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return address.is_global and not address.is_multicast and address != WIRE_SERVER
