"""A run as one HTML page that needs nothing else: the faults over the throughput, lag, memory, what was compared, what was struck."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape
from math import ceil

from cli.amounts import count, duration, moment, plain
from cli.chaos.faults import FAULTS
from cli.chaos.story import Story
from cli.chaos.watch import Sample
from cli.report.charts import bars, nice_ceiling, step_lines
from cli.report.html import POLICY
from cli.report.style import STYLE
from core.reconcile import Side

#: A chart has at most so many steps.
STEPS = 240
#: What the charts here need beyond the report's style: lines of several colours, rows of faults, one left edge for all.
OWN_STYLE = (
    ".plot .y { width: 92px; } .rows .y { justify-content: space-around; margin: 0; } .rows .chart { height: calc(var(--n) * 18px); }\n"
    ".rows { margin-bottom: 14px; } .key i { margin-left: 10px; } td.text { white-space: normal; min-width: 220px; } .ok { color: var(--t2); }\n"
    "@media (max-width: 600px) { .plot .y { width: 66px; font-size: 10px; } .key { float: none; display: block; } .rows .chart { height: calc(var(--n) * 14px); } }\n"
    + "".join(f".line.l{n} {{ stroke: var(--t{n}); }}\n" for n in range(8))
)
Series = Sequence[tuple[str, Sequence[float | None]]]


def page(story: Story) -> str:
    """The whole document."""
    options = story.options
    title = f"Chaos: seed {options.seed} on {options.database}, {story.outcome}"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}{OWN_STYLE}</style>\n</head>\n<body><main>\n"
        f"<header><h1>{escape(title)}</h1><p>{moment(round(story.began_at * 1e6))} UTC · <code>{escape(options.command)}</code></p></header>\n"
        f"{_tiles(story)}\n{_problems(story)}\n{_over_time(story)}\n{_lines(story)}\n{_faults(story)}\n{_ended(story)}\n"
        "<footer>Times are seconds from the start of the traffic. Lag is in records that a stage has not acknowledged; a gap is a time in "
        "which Kafka did not tell. Age is that of the oldest record that a process has taken and not finished.</footer>\n"
        "</main></body>\n</html>\n"
    )


def _tiles(story: Story) -> str:
    kinds = {one.fault for one in story.struck}
    held = sum(line.status == "holds" for line in story.lines)
    quiet = "not in time" if story.quiet_after is None else duration(story.quiet_after * 1e6)
    tiles = [
        ("Verdict", story.outcome, f"{held} of {len(story.lines)} comparisons hold"),
        ("Faults", count(len(story.struck)), f"of {len(kinds)} kinds"),
        (
            "Records published",
            count(story.records),
            f"{count(story.repeated)} repeated, {count(story.poisoned)} poisoned, {count(story.disbelieved)} badly signed",
        ),
        ("Requests answered", count(story.answered), f"at {story.options.rate:g} records/s"),
        ("Processes started again", count(len(story.ended)), "by the supervisor"),
        ("Quiet after the last fault", quiet, f"{duration(story.traffic_seconds * 1e6)} of traffic and faults"),
    ]
    return '<div class="tiles">{}</div>'.format(
        "".join(f'<dl class="tile"><dt>{name}</dt><dd>{value}</dd><dd>{also}</dd></dl>' for name, value, also in tiles)
    )


def _problems(story: Story) -> str:
    return "".join(f'<p class="warn">{escape(plain(problem))}</p>' for problem in story.problems)


# --- charts


def _over_time(story: Story) -> str:
    if not story.samples:
        return ""
    whole = story.samples[-1].at
    width = ceil(whole / STEPS)
    steps = max(1, ceil(whole / width))
    found: list[list[Sample]] = [[] for _ in range(steps)]
    for sample in story.samples:
        found[min(steps - 1, int(sample.at / width))].append(sample)
    ends = ("0", duration(steps * width * 0.5e6), duration(steps * width * 1e6))
    made = [("published", _rate(found, lambda s: s.published)), ("answered", _rate(found, lambda s: s.answered))]
    stages = sorted({name for s in story.samples for name in s.lag or ()})
    lag = [(name, [max((s.lag[name] for s in step if s.lag), default=None) for step in found]) for name in stages]
    processes = sorted({name for s in story.samples for name in s.memory})
    memory = [
        (name, [max((s.memory.get(name, 0) / 1e6 for s in step), default=None) for step in found]) for name in processes
    ]
    oldest = [("oldest", [max((s.oldest for s in step), default=None) for step in found])]
    return (
        f"<section><h2>Faults, and records per second {_key(made)}</h2>{_struck(story, steps * width)}{_chart(made, width, ends, 'records/s')}</section>"
        f'<div class="pair"><section><h2>Lag by stage {_key(lag)}</h2>{_chart(lag, width, ends, "records")}</section>'
        f"<section><h2>Oldest unacknowledged</h2>{_chart(oldest, width, ends, 's')}</section></div>"
        f"<section><h2>Memory by process {_key(memory)}</h2>{_chart(memory, width, ends, 'MB')}</section>"
    )


def _rate(found: Sequence[Sequence[Sample]], figure: Callable[[Sample], int]) -> list[float | None]:
    """How fast a count grew within each step, by the last sample of the one before."""
    rates: list[float | None] = []
    at, before = 0.0, 0
    for step in found:
        if not step:
            rates.append(None)
            continue
        last = step[-1]
        rates.append((figure(last) - before) / max(last.at - at, 0.1))
        at, before = last.at, figure(last)
    return rates


def _chart(series: Series, width: int, ends: Sequence[str], unit: str) -> str:
    most = nice_ceiling(max((v for _, values in series for v in values if v is not None), default=0))
    labels = [
        f"{at * width} s: " + ", ".join(f"{name} {_axis(values[at])}" for name, values in series) + f" {unit}"
        for at in range(len(series[0][1]) if series else 0)
    ]
    svg = step_lines([(f"l{n % 8}", values) for n, (_, values) in enumerate(series)], labels, most, unit)
    down = "".join(f"<span>{_axis(most * part)}{f' {unit}' if part == 1 else ''}</span>" for part in (1, 0.5, 0))
    across = "".join(f"<span>{end}</span>" for end in ends)
    return f'<div class="plot"><div class="y">{down}</div>{svg}<div class="x">{across}</div></div>'


def _struck(story: Story, whole: float) -> str:
    targets = sorted({one.target for one in story.struck})
    if not targets:
        return ""
    kinds = sorted({one.fault for one in story.struck})
    rows = [
        [
            (f"t{kinds.index(one.fault) % 8}", one.began, one.ended, f"{one.fault} on {one.target}, {one.began:.1f} to {one.ended:.1f} s")
            for one in story.struck
            if one.target == target
        ]
        for target in targets
    ]  # fmt: skip
    down = "".join(f"<span>{escape(target)}</span>" for target in targets)
    return f'<div class="plot rows" style="--n: {len(targets)}"><div class="y">{down}</div>{bars(rows, whole, "Faults by target")}</div>'


def _key(series: Series) -> str:
    return '<span class="key">{}</span>'.format(
        "".join(f'<i class="dot t{n % 8}"></i>{escape(name)}' for n, (name, _) in enumerate(series))
    )


def _axis(number: float | None) -> str:
    if number is None:
        return "-"
    return f"{number:.3g}" if number < 10 else count(number)


# --- tables


def _lines(story: Story) -> str:
    rows = []
    for line in story.lines:
        css = {"holds": "ok", "BROKEN": "red"}.get(line.status, "none")
        said = [*line.notes, *(f"{plain(one.id)} {plain(one.what)}" for one in line.differences)]
        rows.append([
            f'<td class="{css}">{line.status}</td>', f'<td class="text">{escape(line.name)}</td>', _side(line.left), _side(line.right),
            f'<td class="text">{escape("; ".join(said))}</td>',
        ])  # fmt: skip
    heads = [("", ""), ("compared", ""), ("", "n"), ("", "n"), ("said", "")]
    return f"<section><h2>What was compared</h2>{_table(heads, rows)}</section>"


def _side(side: Side) -> str:
    name, amount = next(iter(side.figures.items()), ("", 0))
    return f'<td class="n">{amount:,} {escape(name)}</td>'


def _faults(story: Story) -> str:
    rows = [
        [_number(f"{one.began:.1f} s"), f"<td>{one.fault}</td>", f"<td>{escape(one.target)}</td>", _number(f"{one.ended - one.began:.1f} s"),
         f'<td class="text opt">{escape(one.problem or FAULTS[one.fault].what)}</td>']
        for one in story.struck
    ]  # fmt: skip
    heads = [("at", "n"), ("fault", ""), ("target", ""), ("took", "n"), ("", "opt")]
    not_run = "".join(f"<p>Not run: {name}, because {escape(why)}.</p>" for name, why in story.cannot.items())
    return f"<section><h2>Faults</h2>{not_run}{_table(heads, rows)}</section>"


def _ended(story: Story) -> str:
    if not story.ended:
        return ""
    rows = [
        [_number(f"{one.at:.1f} s"), f"<td>{escape(one.name)}</td>", _number(str(one.status)), f'<td class="text">{escape(plain(one.said)[:200])}</td>']
        for one in story.ended
    ]  # fmt: skip
    heads = [("at", "n"), ("process", ""), ("exit status", "n"), ("its last line", "")]
    return f"<section><h2>Processes that ended and were started again</h2>{_table(heads, rows)}</section>"


def _number(text: str) -> str:
    return f'<td class="n">{text}</td>'


def _table(heads: Iterable[tuple[str, str]], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f'<th class="{css}">{name}</th>' for name, css in heads)
    body = "".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
