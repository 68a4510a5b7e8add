"""Admit requests, those that say so when there is room for them: they stand in line for the limit that has none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from agents.outgoing import Clock
from config import ledger
from config.holding import NotAdmitted
from config.transactions import Transactions
from core.degrading import Degraded, spared
from core.energy import Short
from core.limits import Asking, CountKey, Refusal, concerns

#: How often whoever is first in a line asks again: where only what is held is in the way, and where the limit is used up.
HELD_SECONDS, USED_UP_SECONDS = 0.2, 1.0


#: Makes of an admission one without the candidates that it has to do without, whose `asking` may have no model left.
Cheaper = Callable[[ledger.Admission, Short | Degraded], ledger.Admission]


@dataclass
class _Line:
    """Those that wait for room in one limit of one account: `refusal` is the latest, `turn` is the first one's."""

    refusal: Refusal
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    length: int = 0


class Waiting:
    """Puts admissions to the ledger; at most `most` wait at once, and at most half as many in one line.

    Whoever waits for a limit is admitted before those that come later and count against it; no line holds up another. What
    waits is in memory alone: a request that is not admitted is delivered again after a crash.
    """

    def __init__(self, transactions: Transactions, clock: Clock, most: int) -> None:
        self._transactions = transactions
        self._clock = clock
        self._most = most
        self._lines: dict[CountKey, _Line] = {}

    @property
    def length(self) -> int:
        """How many wait now."""
        return sum(line.length for line in self._lines.values())

    async def admit(
        self, entry: ledger.Admission, until: int | None, cheaper: Cheaper | None = None
    ) -> ledger.Admitted:  # fmt: skip
        """What the ledger says of an admission, `refused` only after it has waited until then; None for not at all.

        Where it has to do without candidates, what `cheaper` makes of it is asked for at once, in the same turn. It does without
        those that others wait for. The plan of a refused admission is that of the last one.
        """
        if until is None or entry.asking is None:
            return await self._ask(entry, cheaper)
        admitted, ahead = None, self._past_lines(entry, cheaper)
        if self._line_of(ahead.asking) is not None and not await self._transactions.run(ledger.known, entry.request_id):
            # It may have ended meanwhile.
            ahead = self._past_lines(entry, cheaper)
            line = self._line_of(ahead.asking)
            admitted = _behind(line, ahead, ahead.asking or entry.asking) if line is not None else None
        if admitted is None:
            admitted = await self._ask(ahead, cheaper)
        while self._worth_it(admitted.refusal, until):
            assert isinstance(admitted.refusal, Refusal)
            key = admitted.refusal.count.key
            line = self._lines.get(key) or _Line(admitted.refusal)
            if line.length * 2 >= self._most or self.length >= self._most:
                break
            self._lines[key] = line
            line.length += 1
            try:
                admitted = await self._stand(line, entry, entry.asking, until, cheaper)
            finally:
                line.length -= 1
                self._lines = {key: each for key, each in self._lines.items() if each.length}
        return admitted

    def _line_of(self, asking: Asking | None) -> _Line | None:
        """The line in which a request has to stand that could fit into its limit, and counts against it whichever model answers."""
        if asking is None:
            return None
        for line in self._lines_of(asking):
            limit = line.refusal.count.limit
            wanted = asking.amounts.of(limit.meter)
            if wanted is not None and wanted <= limit.most and spared(asking, [line.refusal]) is None:
                return line
        return None

    def _lines_of(self, asking: Asking) -> list[_Line]:
        """The lines for limits that a request counts against."""
        found = ((account, line) for (account, _), line in self._lines.items() if account in asking.path)
        return [line for _, line in found if concerns(line.refusal.count.limit, asking)]

    def _past_lines(
        self, entry: ledger.Admission, cheaper: Cheaper | None, own: _Line | None = None
    ) -> ledger.Admission:  # fmt: skip
        """The admission without those of its candidates that others wait for, in lines that are not its own."""
        for line in self._lines.values():
            asking = entry.asking
            if cheaper is None or asking is None or line is own or line not in self._lines_of(asking):
                continue
            why = spared(asking, [line.refusal])
            entry = entry if why is None else cheaper(entry, why)
        return entry

    async def _stand(
        self, line: _Line, entry: ledger.Admission, asking: Asking, until: int, cheaper: Cheaper | None
    ) -> ledger.Admitted:  # fmt: skip
        """What the ledger says once this line is not what the request waits for any more, or its time is over."""
        try:
            async with asyncio.timeout((until - self._clock()) / 1_000_000):
                await line.turn.acquire()
        except TimeoutError:
            return _behind(line, entry, asking)
        try:
            while True:
                admitted = await self._ask(self._past_lines(entry, cheaper, line), cheaper)
                refusal = admitted.refusal
                if not isinstance(refusal, Refusal) or refusal.count.key != line.refusal.count.key:
                    return admitted
                line.refusal = refusal
                if not self._worth_it(refusal, until):
                    return admitted
                left = (until - self._clock()) / 1_000_000
                await asyncio.sleep(min(USED_UP_SECONDS if refusal.used_up else HELD_SECONDS, left))
        finally:
            line.turn.release()

    def _worth_it(self, refusal: NotAdmitted | Degraded | None, until: int) -> bool:
        """Whether there may be room before then: what is held is in the way, or a limit of a minute or an hour that resets."""
        now = self._clock()
        if not isinstance(refusal, Refusal) or refusal.retry_after_ms is None or now >= until:
            return False
        resets = refusal.error["code"] == "policy_rate_limited" and now + refusal.retry_after_ms * 1_000 <= until
        return resets or not refusal.used_up

    async def _ask(self, entry: ledger.Admission, cheaper: Cheaper | None) -> ledger.Admitted:
        while True:
            admitted = await self._transactions.run(ledger.admit, replace(entry, now=self._clock()))
            # The ledger decides: what is left may be less again by the time that the cheaper one asks.
            if cheaper is None or not isinstance(admitted.refusal, Short | Degraded):
                break
            entry = cheaper(entry, admitted.refusal)
            if entry.asking is None or not entry.asking.models:
                break
        return admitted if admitted.refusal is None else replace(admitted, plan=entry.plan)


def _behind(line: _Line, entry: ledger.Admission, asking: Asking) -> ledger.Admitted:
    """The refusal of a request that was not asked for, because others wait before it."""
    refusal = replace(line.refusal, asked=asking.amounts.of(line.refusal.count.limit.meter))
    return ledger.Admitted("refused", entry.now, 0, None, entry.plan, refusal)
