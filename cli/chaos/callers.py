"""Who asks: the keys that the traffic is signed with, records that must not be believed, and what came of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from zlib import crc32

from sqlalchemy import Connection, select

from config.credentials import Change
from config.energy_models import ENERGY_ENTRIES
from config.issued_keys import NewKey, issue, revoke
from config.key_encryption import encryption_keys, new_local_key
from config.models import REQUESTS
from core.attempts import attempt_id
from core.limits import NANO
from core.reconcile import Book, Line, compare
from schemas.signing import signed_headers

TENANTS = 7
#: Of each tenant one key is for this user, and one for whomever its requests name.
USER = "ana"
#: The key of this tenant may spend a cent a day.
THRIFTY = 4
#: The variable that holds what encrypts the keys of a run.
SEALING = "MILLSTREAM_CHAOS_KEY_ENCRYPTION"
#: A signature that was copied ten minutes ago.
STALE_SECONDS = 600
#: So many calls of a request that was not believed are looked for.
MOST_CALLS = 20

Signature = list[tuple[str, bytes]]


def signed_mode() -> dict[str, str]:
    """The settings of a deployment that believes signed requests alone, with a key of its own to encrypt theirs."""
    return {
        "MILLSTREAM_TRUST": "signed",
        "MILLSTREAM_KEY_ENCRYPTION": f"env:{SEALING}",
        SEALING: new_local_key("chaos"),
    }


@dataclass(frozen=True, slots=True)
class Keys:
    """API keys as their holders have them: of a user and of a whole tenant by the tenant's number, and two that are over."""

    of_users: tuple[str, ...]
    of_tenants: tuple[str, ...]
    revoked: str
    expired: str

    def sign(self, tenant: int, user: str | None, value: bytes, now: int) -> Signature:
        """The headers of a good record; `now` in seconds since 1970."""
        return signed_headers((self.of_users if user == USER else self.of_tenants)[tenant], value, now)

    def sign_badly(self, tenant: int, value: bytes, now: int, rng: random.Random) -> tuple[str, Signature]:
        """The headers of a record that names this tenant and must not be believed, and the code of its refusal."""
        own, other = self.of_tenants[tenant], self.of_tenants[(tenant + 1) % TENANTS]
        key_id = own.partition(".")[0]
        bad: tuple[tuple[str, Callable[[], Signature]], ...] = (
            ("caller_not_signed", list),
            ("caller_unknown_key", lambda: signed_headers("vk-0000000000000000.guessed", value, now)),
            ("caller_bad_signature", lambda: signed_headers(f"{key_id}.guessed", value, now)),
            ("caller_bad_signature", lambda: signed_headers(own, value + b"other", now)),
            ("caller_key_revoked", lambda: signed_headers(self.revoked, value, now)),
            ("caller_key_expired", lambda: signed_headers(self.expired, value, now)),
            ("caller_signature_untimely", lambda: signed_headers(own, value, now - STALE_SECONDS)),
            ("caller_identity_mismatch", lambda: signed_headers(other, value, now)),
        )
        code, headers = rng.choice(bad)
        return code, headers()


def issue_keys(db: Connection, environment: Mapping[str, str], now: int) -> Keys:
    """Issue all of them; `now` in microseconds since 1970."""
    at_hand, change = encryption_keys(environment["MILLSTREAM_KEY_ENCRYPTION"], environment), Change("chaos", now)

    def key(tenant: int, user: str | None = None, expires_at: int | None = None, most: int | None = None) -> str:
        new = NewKey(f"tenant-{tenant}", user, expires_at=expires_at, nano_usd_per_day=most)
        return issue(db, at_hand, new, change)[1]

    revoked = key(0)
    revoke(db, revoked.partition(".")[0], change)
    return Keys(
        tuple(key(tenant, USER) for tenant in range(TENANTS)),
        tuple(key(tenant, most=NANO // 100 if tenant == THRIFTY else None) for tenant in range(TENANTS)),
        revoked,
        key(0, expires_at=now - 60_000_000),
    )


def refused_line(disbelieved: Mapping[str, str], codes: Mapping[str, str]) -> Line:
    """Requests that must not be believed beside the codes of their answers, both by request id."""
    asked, answered = (Book(name, ["requests"], ("code",)) for name in ("bad signatures", "answers"))
    for request_id, code in disbelieved.items():
        asked.add(request_id, (1,), details=_sum(code))
        if request_id in codes:
            answered.add(request_id, (1,), details=_sum(codes[request_id]))
    return compare("bad signatures = refused for what is wrong with each", asked, answered)


def untouched_line(disbelieved: Iterable[str], called: Iterable[str | None], db: Connection) -> Line:
    """What is left anywhere of requests that must not be believed: calls at the provider by their ids, rows, and credits."""
    found, nothing = Book("provider and ledger", ["traces"]), Book("nothing", ["traces"])
    ids = set(disbelieved)
    calls = {attempt_id(one, number): one for one in ids for number in range(1, MOST_CALLS + 1)}
    traces = [f"request {calls[each]} at the provider" for each in called if each in calls]
    for where, column in (("the ledger", REQUESTS.c.request_id), ("energy", ENERGY_ENTRIES.c.request_id)):
        traces += [f"request {one} in {where}" for one in set(db.execute(select(column)).scalars()) & ids]
    for trace in traces:
        found.add(trace, (1,))
    return compare("calls, rows and credits of bad signatures = nothing", found, nothing)


def _sum(code: str) -> bytes:
    return crc32(code.encode()).to_bytes(4, "big")
