"""The report as one HTML page that needs nothing else: no script, no font, no address."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from cli.amounts import count, duration, moment, money, plain, share
from cli.report.charts import column_chart, nice_ceiling, stack, step_line, tiny_columns
from cli.report.figures import TOKEN_CLASSES, Figures, Report, Request
from cli.report.style import STYLE
from cli.report.table import not_in_spend, saved_by_cache

#: A browser that knows this policy loads nothing from anywhere and runs nothing, whatever an event's text holds.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_DAY = 86_400


def page(report: Report) -> str:
    """The whole document."""
    body = _body(report) if not report.empty else "<section>No requests in this time.</section>"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Millstream report: {_of(report)}</title>\n<style>{STYLE}</style>\n</head>\n<body><main>\n"
        f"<header><h1>Millstream report</h1><p>{_of(report)} · requests made from {moment(report.window.since)} "
        f"to {moment(report.window.until)} UTC</p></header>\n{body}\n"
        "<footer>Spend is the known cost of provider calls, price adjustments included. Times are those of provider calls, "
        "first token those of streamed calls. Cache share is input tokens read from a provider's cache, of all input tokens."
        "</footer>\n</main></body>\n</html>\n"
    )


def _of(report: Report) -> str:
    return f"tenant {_text(report.tenant)}" if report.tenant is not None else "all tenants"


def _text(value: str) -> str:
    return escape(plain(value))


def _body(report: Report) -> str:
    missing = not_in_spend(report.total)
    parts = [
        _tiles(report.total),
        f'<p class="warn">Not in the spend: {escape(missing)}.</p>' if missing else "",
        f"<p>{escape(saved)}</p>" if (saved := saved_by_cache(report.total)) else "",
        _over_time(report),
        _groups(report),
        f'<div class="pair">{_tokens(report.total)}{_errors(report)}</div>',
        _requests("Costliest requests", report.costliest),
        _requests("Slowest requests", report.slowest),
    ]
    return "\n".join(part for part in parts if part)


def _tiles(total: Figures) -> str:
    tiles = [
        ("Spend", money(total.spend), f"{money(round(total.spend / total.calls))} a call" if total.calls else ""),
        ("Calls", count(total.calls), f"{count(total.errors)} failed, {share(total.error_share)}"),
        (
            "Provider time, p50",
            duration(total.p50),
            f"p95 {_unbroken(duration(total.p95))} · p99 {_unbroken(duration(total.p99))}",
        ),
        ("First token, p50", duration(total.first_token_p50), f"p95 {duration(total.first_token_p95)}"),
        ("Tokens in", count(total.tokens_in), f"{count(total.tokens_out)} out"),
        ("Cache share", share(total.cache_share), "of all input tokens"),
    ]
    return '<div class="tiles">{}</div>'.format(
        "".join(f'<dl class="tile"><dt>{name}</dt><dd>{value}</dd><dd>{also}</dd></dl>' for name, value, also in tiles)
    )


def _over_time(report: Report) -> str:
    steps, length = report.steps, duration(report.window.step * 1e6)
    times = [_label(step.start, report.window.step) for step in steps]
    ends = (times[0], times[len(times) // 2], times[-1]) if len(times) > 2 else (times[0], times[-1])
    spend_most = nice_ceiling(max(step.spend for step in steps))
    spend = column_chart(
        [("main", [step.spend for step in steps])],
        [f"{time}: {money(step.spend)}" for time, step in zip(times, steps, strict=True)],
        spend_most, f"Spend per {length}",
    )  # fmt: skip
    calls_most = nice_ceiling(max(step.calls for step in steps))
    calls = column_chart(
        [("bad", [step.errors for step in steps]), ("main", [step.calls - step.errors for step in steps])],
        [f"{time}: {count(s.calls)} calls, {count(s.errors)} failed" for time, s in zip(times, steps, strict=True)],
        calls_most, f"Calls per {length}",
    )  # fmt: skip
    slow_most = nice_ceiling(max((step.p95 or 0 for step in steps), default=0))
    slow = step_line(
        [step.p95 for step in steps],
        [f"{time}: {duration(step.p95)}" for time, step in zip(times, steps, strict=True)],
        slow_most, f"95th percentile of provider time per {length}",
    )  # fmt: skip
    key = '<span class="key"><i class="dot main"></i>succeeded<i class="dot bad"></i>failed</span>'
    return (
        f'<section class="tall"><h2>Spend per {length}</h2>{_plot(spend, [money(round(spend_most * f)) for f in (1, 0.5, 0)], ends)}</section>'
        f'<div class="pair"><section><h2>Calls per {length} {key}</h2>'
        f"{_plot(calls, [_axis(calls_most * f) for f in (1, 0.5, 0)], ends)}</section>"
        f"<section><h2>Provider time, p95</h2>{_plot(slow, [_axis_time(slow_most * f) for f in (1, 0.5, 0)], ends)}</section></div>"
    )


def _axis(number: float) -> str:
    return f"{number:g}" if number < 10 else count(number)


def _axis_time(microseconds: float) -> str:
    return duration(microseconds).replace(".0 ", " ").replace(".00 ", " ") if microseconds else "0"


def _unbroken(text: str) -> str:
    return text.replace(" ", "&nbsp;")


def _label(start: int, step: int) -> str:
    return moment(start)[:10] if step >= _DAY else moment(start)[5:]


def _plot(svg: str, y: Sequence[str], x: Sequence[str]) -> str:
    across = "".join(f"<span>{label}</span>" for label in x)
    down = "".join(f"<span>{label}</span>" for label in y)
    return f'<div class="plot"><div class="y">{down}</div>{svg}<div class="x">{across}</div></div>'


def _groups(report: Report) -> str:
    most = max((group.spend for group in report.groups), default=0) or 1
    heads = [
        (report.by, ""), ("spend", "n"), ("", "opt"), *([("trend", "opt")] if report.trends else []),
        ("per call", "n"), ("unpriced", "n"), ("unknown cost", "n"), ("calls", "n"), ("failed", "n"), ("p50", "n"), ("p95", "n"), ("p99", "n"), ("first token", "n"),
        ("tokens in", "n"), ("out", "n"), ("cached", "n"),
    ]  # fmt: skip
    rows = []
    for group in report.groups:
        name = _text(group.name)
        shown = name or f'<span class="none">no {report.by}</span>'
        trend = report.trends.get(group.name, [])
        rows.append([
            f'<td class="name" title="{name}">{shown}</td>', _number(money(group.spend)),
            f'<td class="bar opt">{_bar(group.spend, most)}</td>',
            *([f'<td class="opt">{tiny_columns(trend, f"Spend over time of {plain(group.name)}")}</td>'] if report.trends else []),
            _number(money(group.spend_per_call)), _number(count(group.unpriced or None)), _number(count(group.unknown or None)), _number(count(group.calls)),
            _number(share(group.error_share), "red" if group.errors else ""),
            *(_number(duration(time)) for time in (group.p50, group.p95, group.p99, group.first_token_p50)),
            _number(count(group.tokens_in)), _number(count(group.tokens_out)), _number(share(group.cache_share)),
        ])  # fmt: skip
    more = f"<p>{count(report.more)} more; --limit 0 shows all.</p>" if report.more else ""
    return f"<section><h2>By {report.by}</h2>{_table(heads, rows)}{more}</section>"


def _bar(value: float, most: float) -> str:
    return stack([("main", value, ""), ("hover", most - value, "")], "") if value > 0 else ""


def _tokens(total: Figures) -> str:
    found = [
        (f"t{at}", name, total.tokens[name] or 0)
        for at, name in enumerate(TOKEN_CLASSES)
        if total.tokens[name] is not None
    ]
    if not found:
        return ""
    bar = stack([(css, tokens, f"{name}: {tokens:,}") for css, name, tokens in found if tokens], "Tokens by class")
    rows = [[f'<td><i class="dot {css}"></i>{name}</td>', _number(f"{tokens:,}")] for css, name, tokens in found]
    return f"<section><h2>Tokens by class</h2>{bar}{_table([('class', ''), ('tokens', 'n')], rows)}</section>"


def _errors(report: Report) -> str:
    if not report.error_codes:
        return ""
    most = max(calls for _, calls in report.error_codes)
    rows = [
        [f"<td><code>{_text(code)}</code></td>",
         f'<td class="bar">{stack([("bad", calls, ""), ("hover", most - calls, "")], "")}</td>', _number(count(calls))]
        for code, calls in report.error_codes
    ]  # fmt: skip
    return f"<section><h2>Failed calls by error</h2>{_table([('error', ''), ('', ''), ('calls', 'n')], rows)}</section>"


def _requests(title: str, requests: list[Request]) -> str:
    if not requests:
        return ""
    heads = [
        ("cost", "n"),
        ("took", "n"),
        ("made", ""),
        ("tenant", ""),
        ("task", ""),
        ("model", ""),
        ("how", ""),
        ("request", ""),
    ]
    rows = [
        [_number(money(r.cost)), _number(duration(r.took)), f"<td>{moment(r.created_at)}</td>",
         *(f'<td class="name" title="{_text(value)}">{_text(value)}</td>' for value in (r.tenant, r.task, r.model, r.outcome)),
         f"<td><code>{_text(r.request_id)}</code></td>"]
        for r in requests
    ]  # fmt: skip
    return f"<section><h2>{title}</h2>{_table(heads, rows)}</section>"


def _number(text: str, css: str = "") -> str:
    return f'<td class="n {css}">{text}</td>'


def _table(heads: Iterable[tuple[str, str]], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f'<th class="{css}">{name}</th>' for name, css in heads)
    lines = "".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'
