"""The report for a terminal: a summary, plots over time, tables with bars."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cli.amounts import bar, columns, count, duration, moment, money, plain, share, shortened, spark, squeezed
from cli.report.figures import TOKEN_CLASSES, Figures, Report, Request

PLOT_LINES = 5
BAR = 10


def draw(report: Report, width: int) -> list[RenderableType]:
    """Everything to print, in order, for a terminal of `width` columns; readable from 80 on."""
    parts: list[RenderableType] = [Text(heading(report), style="bold"), Text()]
    if report.empty:
        return [*parts, Text("No requests in this time.")]
    parts += [_summary(report.total), Text()]
    if report.by != "day" or len(report.groups) > 1:
        parts += [_plot(report, width), Text()]
    tables = [_spend(report, width), _speed(report), _tokens(report.total)]
    if report.error_codes:
        tables.append(_errors(report))
    for title, requests in (("Costliest requests", report.costliest), ("Slowest requests", report.slowest)):
        if requests:
            tables.append(_requests(title, requests, width))
    for table in tables:
        parts += [table, Text()]
    return parts[:-1]


def heading(report: Report) -> str:
    """What the report is of."""
    of = f"tenant {plain(report.tenant)}" if report.tenant is not None else "all tenants"
    return f"Millstream report · {of} · {moment(report.window.since)} to {moment(report.window.until)} UTC"


def not_in_spend(figures: Figures) -> str:
    """What the spend does not hold, in words; empty when it holds everything."""
    parts = []
    if figures.unpriced:
        parts.append(f"{count(figures.unpriced)} unpriced {_calls(figures.unpriced)}")
    if figures.unknown:
        most = f", at most {money(figures.unknown_most)}" if figures.unknown_most else ""
        parts.append(f"{count(figures.unknown)} {_calls(figures.unknown)} of unknown cost{most}")
    return " and ".join(parts)


def saved_by_cache(figures: Figures) -> str:
    """What the response cache saved, in a sentence; empty where it answered nothing."""
    if not figures.cache_hits:
        return ""
    answers = "answer" if figures.cache_hits == 1 else "answers"
    return f"From the response cache: {count(figures.cache_hits)} {answers}, {money(figures.cache_saved)} saved."


def _calls(number: int) -> str:
    return "call" if number == 1 else "calls"


def _summary(total: Figures) -> RenderableType:
    grid = Table.grid(padding=(0, 3))
    cells = [
        ("spend", money(total.spend)),
        ("calls", count(total.calls)),
        ("errors", f"{count(total.errors)} ({share(total.error_share)})"),
        ("tokens in / out", f"{count(total.tokens_in)} / {count(total.tokens_out)}"),
        ("cache share", share(total.cache_share)),
    ]
    grid.add_row(*(Text(name, style="dim") for name, _ in cells))
    grid.add_row(*(Text(value, style="bold") for _, value in cells))
    times = (
        f"Provider time p50 {duration(total.p50)}, p95 {duration(total.p95)}, p99 {duration(total.p99)}"
        f" · first token p50 {duration(total.first_token_p50)}, p95 {duration(total.first_token_p95)}"
    )
    missing = not_in_spend(total)
    also = [Text(f"Not in the spend: {missing}.", style="yellow")] if missing else []
    if saved := saved_by_cache(total):
        also.append(Text(saved, style="green"))
    return Group(grid, *also, Text(times))


def _plot(report: Report, width: int) -> RenderableType:
    steps = report.steps
    room = max(10, width - 14)
    wide = max(1, min(room // len(steps), 4))
    values = [value for step in squeezed([s.spend for s in steps], room) for value in [step] * wide]
    scale = money(max(step.spend for step in steps))
    lines = [Text(f"Spend per {duration(report.window.step * 1e6)}", style="bold")]
    for number, line in enumerate(columns(values, PLOT_LINES)):
        label = scale if number == 0 else money(0) if number == PLOT_LINES - 1 else ""
        lines.append(Text.assemble((f"{label:>12} ", "dim"), (line, "green")))
    for name, series, style in (
        ("calls", [s.calls for s in steps], "blue"), ("errors", [s.errors for s in steps], "red"),
    ):  # fmt: skip
        squeezed_line = [value for step in squeezed(series, room) for value in [step] * wide]
        lines.append(Text.assemble((f"{name:>12} ", "dim"), (spark(squeezed_line, room), style)))
    first, last = moment(steps[0].start), moment(report.window.until)
    gap = max(2, len(values) - len(first) - len(last))
    lines.append(Text(f"{'':13}{first}{'':{gap}}{last}", style="dim"))
    return Group(*lines)


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")


def _cut(text: str, style: str = "") -> Text:
    """Text that gives way where there is no room, so that figures need not."""
    return Text(plain(text), style=style, no_wrap=True, overflow="ellipsis")


def _name(group: Figures, by: str) -> Text:
    return _cut(shortened(group.name, 32)) if group.name else _cut(f"no {by}", "dim")


def _spend(report: Report, width: int) -> Table:
    table = _table(f"By {report.by}")
    roomy = width >= 100
    table.add_column(report.by)
    table.add_column("spend", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for name in ("per call", *(("unpriced", "unknown cost") if roomy else ("no cost",)), "calls", "failed"):
        table.add_column(name, justify="right", no_wrap=True)
    trend = max(0, min(40, width - 110)) if report.trends else 0
    if trend:
        table.add_column("trend", no_wrap=True)
    most = max((group.spend for group in report.groups), default=0)
    for group in report.groups:
        without = (group.unpriced, group.unknown) if roomy else (group.unpriced + group.unknown,)
        table.add_row(
            _name(group, report.by), money(group.spend), Text(bar(group.spend, most, BAR), style="green"),
            money(group.spend_per_call), *(count(number or None) for number in without), count(group.calls), _failed(group),
            *([Text(spark(report.trends.get(group.name, [0]), trend), style="green")] if trend else []),
        )  # fmt: skip
    if report.more:
        table.caption, table.caption_justify = f"{count(report.more)} more; --limit 0 shows all.", "left"
    return table


def _failed(group: Figures) -> Text:
    if not group.errors:
        return Text("0", style="dim")
    return Text(f"{count(group.errors)} ({share(group.error_share)})", style="red")


def _speed(report: Report) -> Table:
    table = _table(f"Time and tokens by {report.by}")
    table.add_column(report.by)
    for name in ("p50", "p95", "p99", "1st token", "in", "out", "cached"):
        table.add_column(name, justify="right", no_wrap=True)
    for group in report.groups:
        table.add_row(
            _name(group, report.by), duration(group.p50), duration(group.p95), duration(group.p99),
            duration(group.first_token_p50), count(group.tokens_in), count(group.tokens_out), share(group.cache_share),
        )  # fmt: skip
    return table


def _tokens(total: Figures) -> Table:
    table = _table("Tokens by class")
    table.add_column("class")
    table.add_column("tokens", justify="right")
    table.add_column("")
    most = max((total.tokens[name] or 0 for name in TOKEN_CLASSES), default=0)
    for name in TOKEN_CLASSES:
        number = total.tokens[name]
        if number is not None:
            table.add_row(name, f"{number:,}", Text(bar(number, most, 2 * BAR), style="cyan"))
    return table


def _errors(report: Report) -> Table:
    table = _table("Failed calls by error")
    table.add_column("error")
    table.add_column("calls", justify="right")
    table.add_column("")
    most = max(calls for _, calls in report.error_codes)
    for code, calls in report.error_codes:
        table.add_row(Text(plain(code)), count(calls), Text(bar(calls, most, 2 * BAR), style="red"))
    return table


def _requests(title: str, requests: list[Request], width: int) -> Table:
    table = _table(title)
    for name in ("request", "cost", "took"):
        table.add_column(name, justify="left" if name == "request" else "right", no_wrap=True)
    roomy = width >= 110
    for name in ("model", "tenant", *(("task", "how") if roomy else ())):
        table.add_column(name)
    for request in requests:
        words = (request.model, request.tenant, *((request.task, request.outcome) if roomy else ()))
        table.add_row(
            Text(plain(request.request_id)),
            money(request.cost),
            duration(request.took),
            *(_cut(word) for word in words),
        )
    return table
