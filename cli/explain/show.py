"""A request's story for people, and all that is known of it as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.amounts import moment, plain
from cli.explain.known import Known
from cli.explain.story import Moment, Story, counted
from cli.lines import usd

MOST_COLUMNS = 100
#: How a kind of event looks; others are plain.
STYLES = {
    "completed": "bold green", "succeeded": "green", "kept": "green", "failed": "red", "refused": "bold red",
    "expired": "bold red", "unknown": "red", "dropped": "yellow", "fallback": "yellow", "under way": "yellow", "alert": "yellow",
    "dead letter": "bold red",
}  # fmt: skip


def draw(known: Known, story: Story, console: Console) -> None:
    """Print the head, a line an event, what is open, the costs, and what is missing."""
    head = _table()
    for name, value in _head(known, story):
        head.add_row(name, Text(plain(value), style=STYLES.get(value, "")))
    console.print(head)
    console.print()
    events = Table(box=None, pad_edge=False, header_style="bold")
    events.add_column("ms", justify="right", no_wrap=True)
    events.add_column("event", no_wrap=True)
    events.add_column("what", overflow="fold")
    for one in story.moments:
        style = STYLES.get(one.kind, "")
        events.add_row(f"{_after(known, one) / 1_000:,.1f}", Text(one.kind, style=style), Text(plain(one.text)))
    console.print(events)
    for title, lines in (("Open", story.open), ("Costs", story.costs), ("Notes", story.notes)):
        if lines:
            console.print(Text(f"\n{title}", style="bold"))
            for line in lines:
                console.print(Text(plain(line), overflow="fold"))
    for line in _bodies(known):
        console.print(Text(line, overflow="fold"))


def _table() -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _head(known: Known, story: Story) -> Iterator[tuple[str, str]]:
    row = known.request or known.answer or next(iter(known.calls), None) or next(iter(known.answers), None) or {}
    yield "request", known.request_id
    yield "outcome", story.state
    account = known.held.account if known.held else "-"
    names = ("user", "project", "task", "plan")
    who = [f"tenant {row.get('tenant', account)}", *(f"{name} {row[name]}" for name in names if row.get(name))]
    yield "for", ", ".join(who)
    if known.request is not None:
        yield "asked", known.request["model"] or "no model: the route chooses"
    yield "cost", f"{usd(known.cost)}, {counted(len(known.calls), 'call')}"
    answer = known.answer
    until = answer["finished_at"] if answer is not None else known.now
    yield (
        "time",
        f"{(until - known.zero) / 1_000:,.1f} ms {'' if answer is not None else 'so far '}from {moment(known.zero, seconds=True)} UTC",
    )


def _after(known: Known, one: Moment) -> int:
    return one.at - known.zero


def _bodies(known: Known) -> Iterator[str]:
    for row in known.facts.bodies:
        text = row["body"] or f"not kept: {row['body_bytes']:,} bytes with SHA-256 {row['sha256']}"
        yield f"\n{row['kind']}\n{plain(text)}"


def as_json(known: Known, story: Story) -> str:
    """Everything, as one JSON object; times are microseconds since 1970, money is nano-USD."""
    request, answer = known.request, known.answer
    whole: dict[str, Any] = {
        "request_id": known.request_id,
        "outcome": story.state,
        "created_at_us": known.zero,
        "total_us": answer["finished_at"] - known.zero if answer is not None else None,
        "cost_nano_usd": known.cost,
        "events": [
            {"at_us": one.at, "after_us": _after(known, one), "kind": one.kind, "text": one.text}
            for one in story.moments
        ],
        "request": request,
        "decisions": [{"model": model, "kept": kept, "reason": why} for model, kept, why in known.decisions],
        "calls": known.calls,
        "adjustments": known.adjustments,
        "cached": known.cached,
        "answer": answer,
        "other_answers": [row for row in known.answers if row is not answer],
        "dead_letters": known.facts.dead_letters,
        "alerts": known.facts.alerts,
        "ledger": _ledger(known),
        "open": story.open,
        "notes": story.notes,
    }
    if known.facts.bodies:
        whole["bodies"] = known.facts.bodies
    return json.dumps(whole, indent=2)


def _ledger(known: Known) -> dict[str, Any] | None:
    held = known.held
    if held is None:
        return None
    names = ("account", "window", "reserved_nano", "admitted_at", "answered", "turn", "unsettled", "copies")
    return {name: getattr(held, name) for name in names} | {"open_calls": [asdict(one) for one in held.open_calls]}
