"""A look drawn for a terminal, 80 columns or more."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cli.amounts import NOTHING, count, duration, moment, money, share
from cli.top.figures import Lane, Look

#: From here on a figure is shown as a warning.
LAG_WARNS = 1_000
OLD_WARNS = 60.0


def draw(look: Look) -> RenderableType:
    """The whole view."""
    head = Text.assemble(("millstream top", "bold"), (f"  {moment(look.at_us, seconds=True)} UTC", "dim"))
    problems = [Text(problem, style="bold red") for problem in look.problems]
    return Group(head, *problems, Text(), *_minute(look), _sink(look), Text(), _lanes(look.lanes))


def _minute(look: Look) -> list[RenderableType]:
    minute = look.minute
    if minute is None:
        return [Text("Last minute  unknown", style="dim")]
    failed = f"{count(minute.errors)} failed ({share(minute.errors / minute.calls if minute.calls else None)})"
    line = Text.assemble(
        ("Last minute  ", "dim"), (money(minute.spend), "bold green"), " spent · ", f"{minute.calls / 60:.1f} calls/s · ",
        (failed, "red" if minute.errors else ""), f" · p95 {duration(minute.p95_us)}",
    )  # fmt: skip
    without = [
        f"{count(n)} {what}" for n, what in ((minute.unpriced, "unpriced"), (minute.unknown, "of unknown cost")) if n
    ]
    if not without:
        return [line]
    return [line, Text(f"             not in the spend: {' and '.join(without)}", style="yellow")]


def _sink(look: Look) -> Text:
    fresh = look.freshness
    parts = [f"lag {count(look.sink.lag)}"]
    if fresh is not None and fresh.newest_seconds is not None:
        parts.append(f"newest call {_age(fresh.newest_seconds)} ago")
    if fresh is not None and fresh.stored_after_p95_seconds is not None:
        parts.append(f"stored after {_age(fresh.stored_after_p95_seconds)} (p95)")
    return Text.assemble(("Sink         ", "dim"), " · ".join(parts))


def _lanes(lanes: list[Lane]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("lane", no_wrap=True)
    for name in ("lag", "in flight", "oldest", "req/s", "p95", "errors"):
        table.add_column(name, justify="right", no_wrap=True)
    for lane in lanes:
        flight = count(lane.in_flight)
        if lane.slots:
            flight += f"/{count(lane.slots)}"
        table.add_row(
            lane.name.removeprefix("complete-"),
            Text(count(lane.lag), style="yellow" if (lane.lag or 0) >= LAG_WARNS else ""),
            flight,
            Text(_age(lane.oldest_seconds), style="yellow" if (lane.oldest_seconds or 0) >= OLD_WARNS else ""),
            _rate(lane.per_second),
            duration(lane.p95_us),
            Text(count(lane.errors), style="red" if lane.errors else ""),
        )
    return table


def _rate(per_second: float | None) -> str:
    if per_second is None:
        return NOTHING
    return f"{per_second:.1f}" if per_second < 1_000 else count(per_second)


def _age(seconds: float | None) -> str:
    if seconds is None:
        return NOTHING
    return duration(seconds * 1e6) if seconds else "0 s"
