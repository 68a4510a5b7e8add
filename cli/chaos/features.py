"""What the traffic asks for beside plain calls, and whether it happened at all: a run that met none of it proves nothing of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from cli.chaos.energy import FED, POOR
from cli.chaos.limits import A_MINUTE, HURRIED
from core.reconcile import Book, Line, compare
from sinks.query import Store

#: A model that nobody has.
UNKNOWN_MODEL = "openai/no-such-model"
#: The facts that show that a feature was used: a table and a condition.
USED: Mapping[str, tuple[str, str]] = {
    "streams": ("responses", "first_token_at IS NOT NULL AND outcome = 'completed'"),
    "fallbacks": ("usage", "reason = 'fallback'"),
    "hedges": ("usage", "reason = 'hedge'"),
    "cache hits": ("usage", "reason = 'cached'"),
    "refusals of unknown models": ("responses", "error_code = 'caller_unknown_model'"),
    "refusals for a limit": ("responses", "error_code IN ('policy_rate_limited', 'policy_quota_exceeded', 'policy_budget_exceeded')"),
    "refusals for energy": ("responses", "error_code = 'policy_energy_exhausted'"),
    "downgrades": ("responses", "downgraded_from != ''"),
}  # fmt: skip
#: What was asked for less often may have met faults or limits each time. A hedge waits until calls enough tell which one is late, and only
#: the first choice of a user with credits is given up for a cheaper one.
LEAST, LEAST_OF = 20, {"hedges": 150, "downgrades": 100}
#: An equal request so soon finds the answer of the one before it, with all the time that a fault takes.
SOON_SECONDS = 30
NAME = "features that the traffic asked for often = used"


class Asked:
    """Counts how often requests ask for each feature in a way in which it has to be met."""

    def __init__(self) -> None:
        self.times: Counter[str] = Counter()
        self._questions: dict[tuple[int, str], float] = {}
        self._minutes: Counter[int] = Counter()

    def add(self, line: Mapping[str, Any], directive: Mapping[str, Any], tenant: int, user: str | None) -> None:
        """Count a request that is published now: its line, what it tells the simulator, its tenant's number and its user."""
        self.times.update(self._features(line, directive, tenant, user, time.time()))

    def _features(
        self, line: Mapping[str, Any], directive: Mapping[str, Any], tenant: int, user: str | None, now: float
    ) -> Iterator[str]:
        if line["model"] == UNKNOWN_MODEL:
            yield "refusals of unknown models"
            return
        if line["stream"]:
            yield "streams"
        if tenant == HURRIED:
            self._minutes[int(now // 60)] += 1
            if self._minutes[int(now // 60)] > A_MINUTE:
                yield "refusals for a limit"
        if line.get("task") == "cached":
            question = tenant, line["prompt"]
            if now - self._questions.get(question, 0) < SOON_SECONDS:
                yield "cache hits"
            self._questions[question] = now
        if line.get("task") != "routed":
            return
        if "status" in directive:
            yield "fallbacks"
        if directive["latency_ms"] >= 1_000 and "on_unknown_outcome" not in line:
            yield "hedges"
        if user is not None and tenant in (POOR, FED):
            yield "downgrades"
            if tenant == POOR:
                yield "refusals for energy"


def used(store: Store) -> Counter[str]:
    """How often the facts show each feature."""
    found: Counter[str] = Counter()
    for table in ("responses", "usage"):
        own = {name: condition for name, (where, condition) in USED.items() if where == table}
        counts = ", ".join(f"countIf({condition}) AS `{name}`" for name, condition in own.items())
        [row] = store.rows(f"SELECT {counts} FROM {table}")  # noqa: S608
        found.update({name: int(count) for name, count in row.items()})
    return found


def features_line(asked: Mapping[str, int], found: Mapping[str, int]) -> Line:
    """Every feature that was asked for often, beside those that were used at all; its notes say how often each was."""
    wanted, used_ones = Book("traffic", ["features"]), Book("facts", ["features"])
    for name in USED:
        if asked.get(name, 0) >= LEAST_OF.get(name, LEAST):
            wanted.add(name, (1,))
            if found.get(name, 0):
                used_ones.add(name, (1,))
    notes = [f"{name}: {found.get(name, 0):,} ({asked.get(name, 0):,} asked for)" for name in USED]
    return compare(NAME, wanted, used_ones, notes)
