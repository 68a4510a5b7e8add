"""What was asked of a run, and what came of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cli.amounts import plain
from cli.chaos.faults import Fault
from cli.chaos.schedule import Planned
from cli.chaos.supervise import Ended
from cli.chaos.torment import Struck
from cli.chaos.watch import Sample
from core.reconcile import Line


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for; `named` is `--faults` as it was written."""

    requests: int
    rate: float
    faults: list[Fault]
    named: str
    every: float
    seed: int
    database: str
    quiet_seconds: float
    report: Path
    runs: Path | None
    data: Path | None

    @property
    def command(self) -> str:
        """The command that repeats this run."""
        return (
            f"millstream chaos --requests {self.requests} --rate {self.rate:g} --faults {self.named} --every {self.every:g} "
            f"--seed {self.seed} --database {self.database}"
        )


@dataclass
class Story:
    """What happened: times are seconds from the start of the traffic."""

    options: Options
    began_at: float
    cannot: dict[str, str]
    schedule: list[Planned]
    struck: list[Struck] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    traffic_seconds: float = 0.0
    quiet_after: float | None = None
    unquiet: str = ""
    uncompared: str = ""
    all_published: bool = False
    records: int = 0
    repeated: int = 0
    poisoned: int = 0
    disbelieved: int = 0
    answered: int = 0
    untaken: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """Why the run has failed, a sentence each; none when all holds."""
        found = [
            f"{line.name}: {line.differing:,} differ; the first: "
            + "; ".join(f"{plain(one.id)} {plain(one.what)}" for one in line.differences[:3])
            for line in self.lines
            if line.status == "BROKEN"
        ]
        if not self.lines:
            found.append(f"nothing was compared: {self.uncompared or 'there are no lines'}")
        if not self.all_published:
            found.append(f"the traffic broke off after {self.records:,} records")
        if len(self.struck) < len(self.schedule):
            found.append(f"only {len(self.struck)} of {len(self.schedule)} faults were struck")
        if self.quiet_after is None:
            found.append(
                f"it was not quiet within {self.options.quiet_seconds:g} s of the last fault: {self.unquiet or 'nobody says why'}"
            )
        found += [
            f"the fault {s.fault} on {s.target} could not be carried out: {s.problem}" for s in self.struck if s.problem
        ]
        return found

    @property
    def outcome(self) -> str:
        """`holds` or `BROKEN`."""
        return "BROKEN" if self.problems else "holds"


def figures(story: Story) -> dict[str, Any]:
    """The run in short, for a table of runs."""
    options = story.options
    return {
        "at": datetime.fromtimestamp(story.began_at, UTC).isoformat(timespec="seconds"),
        "seed": options.seed, "database": options.database, "requests": options.requests, "rate": options.rate,
        "every": options.every, "records": story.records, "repeated": story.repeated, "poisoned": story.poisoned,
        "disbelieved": story.disbelieved,
        "faults": len(story.struck), "by_kind": dict(sorted(Counter(one.fault for one in story.struck).items())),
        "not_run": story.cannot, "restarts": len(story.ended),
        "seconds": round(story.traffic_seconds, 1),
        "quiet_after": None if story.quiet_after is None else round(story.quiet_after, 1),
        "outcome": story.outcome, "problems": story.problems, "command": options.command,
    }  # fmt: skip
