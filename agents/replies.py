"""Where copies of answers go: the topics that records name for them, as far as a deployment allows these and the broker has them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from core.outcome import Headers
from core.replies import NoReplyTo, allowed, checked, own_patterns, reply_to
from schemas.events import ReplyTo

#: How many partitions a topic of a caller's has, None where it does not exist.
Partitions = Callable[[str], Awaitable[int | None]]


class Replies:
    """Knows the `patterns` of topics that may be named; `{tenant}` stands for the tenant in them."""

    def __init__(self, patterns: Sequence[str], partitions: Partitions) -> None:
        self._patterns = patterns
        self._partitions = partitions

    async def to(self, named: str | None, headers: Headers, tenant: str | None) -> ReplyTo | NoReplyTo | None:
        """Where the copy of an answer goes that is asked for by name or by headers, or why it cannot; None where none is.

        `tenant` is None where it is not known: then no topic of a tenant's own will do.
        """
        to = reply_to(named, headers)
        if to is None or isinstance(to, NoReplyTo):
            return to
        patterns = own_patterns(self._patterns, tenant)
        return checked(to, patterns, await self._partitions(to["topic"]) if allowed(to["topic"], patterns) else None)

    async def by_headers(self, headers: Headers, tenant: str | None = None) -> ReplyTo | None:
        """Where the copy of an answer goes to a record that is refused anyway; None for nowhere."""
        to = await self.to(None, headers, tenant)
        return None if isinstance(to, NoReplyTo) else to
