"""The proof as a table for people and as JSON for scripts."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cli.amounts import moment, money, plain
from cli.reconcile.gather import Proof
from cli.reconcile.watermark import Watermark
from core.reconcile import Line, Side

STYLES = {"holds": "green", "BROKEN": "bold red", "not compared": "yellow"}


def as_json(proof: Proof, taken_us: int) -> str:
    """Everything, as one JSON object."""
    lines = proof.lines
    whole: dict[str, Any] = {
        "watermark": {"time_us": taken_us, "topics": _marks(proof.marks)},
        "under_way": {
            "requests": len(proof.under_way_since),
            "oldest_us": min(proof.under_way_since, default=None),
        },
        "status": "BROKEN" if any(line.status == "BROKEN" for line in lines) else "holds",
        "lines": [
            {
                "name": line.name,
                "status": line.status,
                "left": {"name": line.left.name, **line.left.figures},
                "right": {"name": line.right.name, **line.right.figures},
                "differing": line.differing,
                "differences": [{"id": found.id, "what": found.what} for found in line.differences],
                "not_compared": list(line.notes),
            }
            for line in lines
        ],
    }
    return json.dumps(whole, indent=2)


def _marks(marks: Watermark) -> dict[str, Any]:
    return {
        name: {
            str(number): {
                "from": mark.start[number],
                "to": end,
                "handled": mark.handled[number],
                "stored": mark.stored[number],
            }
            for number, end in mark.end.items()
        }
        for name, mark in marks.marks.items()
    }


def draw(proof: Proof, taken_us: int, console: Console) -> None:
    """Print the table, what was left out, and what differs."""
    lines = proof.lines
    compared = ", ".join(f"{name} {mark.records:,}" for name, mark in proof.marks.marks.items())
    console.print(f"Up to {moment(taken_us, seconds=True)} UTC; records: {compared}.", highlight=False)
    if under_way := proof.under_way_since:
        oldest = moment(min(under_way), seconds=True)
        said = f"{len(under_way):,} requests under way, the oldest since {oldest} UTC."
        console.print(said, style="yellow", highlight=False)
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for line in lines:
        left, right = _figures(line)
        style = STYLES[line.status]
        table.add_row(f"[{style}]{line.status}[/]", escape(line.name), left, right)
    console.print(table)
    for line in lines:
        for note in line.notes:
            console.print(f"Not compared in {line.name}: {note}.", style="yellow", markup=False, highlight=False)
    for line in lines:
        for found in line.differences:
            said = f"BROKEN {line.name}: {plain(found.id)} {plain(found.what)}"
            console.print(said, style="red", markup=False, highlight=False, soft_wrap=True)
        if (more := line.differing - len(line.differences)) > 0:
            console.print(f"BROKEN {line.name}: and {more:,} more.", style="red", markup=False, highlight=False)


def _figures(line: Line) -> tuple[str, str]:
    """The first count, all tokens together and the money of each side; every class by itself where it differs."""
    return _side(line.left, line.right), _side(line.right, line.left)


def _side(side: Side, other: Side) -> str:
    shown = []
    tokens = [name for name in side.figures if name.startswith("tokens_")]
    for name, amount in side.figures.items():
        if name in tokens:
            if amount != other.figures.get(name):
                shown.append(f"{amount:,} {name}")
        elif name.endswith("nano_usd"):
            shown.append(money(amount) if amount == other.figures.get(name) else f"{amount:,} nano-USD")
        else:
            shown.append(f"{amount:,} {name}")
    if tokens and all(side.figures[name] == other.figures.get(name) for name in tokens):
        shown.insert(1, f"{sum(side.figures[name] for name in tokens):,} tokens")
    return ", ".join(shown)
