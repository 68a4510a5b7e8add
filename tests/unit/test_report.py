"""The report as it is drawn: amounts, times, the terminal, the page, CSV and JSON; and how its window is told."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from cli.amounts import bar, columns, count, duration, money, plain, share, spark
from cli.errors import CommandError
from cli.report.charts import column_chart, nice_ceiling, stack, step_line
from cli.report.figures import TOKEN_CLASSES, Figures, Report, Request, Step
from cli.report.html import page
from cli.report.machine import as_csv, as_json
from cli.report.table import draw
from cli.report.window import parse_since

NOW = 1_800_000_000_000_000
EVIL = '<img src=x onerror="alert(1)">[bold]\x1b[31m\n"&'
VOID = {"meta", "rect", "path"}
ELEMENTS = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "main",
        "header",
        "h1",
        "h2",
        "p",
        "section",
        "div",
        "dl",
        "dt",
        "dd",
    ),
    *("span", "i", "svg", "rect", "path", "footer", "table", "thead", "tbody", "tr", "th", "td", "code"),
}


def figures(name: str = "acme", **changes: object) -> Figures:
    """The figures of one group."""
    tokens: dict[str, int | None] = {
        **dict.fromkeys(TOKEN_CLASSES),
        "input_uncached": 750,
        "cache_read": 250,
        "output_text": 90,
    }
    basis = Figures(
        name, 40, 4, 1_234_567_890, 3, 2, 50_000_000, tokens, 800_000, 1_500_000, 2_000_000, 90_000, 120_000
    )
    return replace(basis, **changes)  # type: ignore[arg-type]


def report(name: str = "acme", by: str = "tenant", **changes: object) -> Report:
    """A report with something in each of its parts, all of it called `name`."""
    window = parse_since("6h", NOW)
    steps = [
        Step(bucket * window.step * 1_000_000, bucket % 7 * 10**8, 5, 1, None if bucket % 5 else 10**6)
        for bucket in window.buckets
    ]
    request = Request("0190-1", name, name, name, name, None, None, NOW - 60_000_000)
    basis = Report(window, by, None, figures(""), [figures(name), figures("")], 7, steps, {name: [1] * len(steps)},
                   [(name, 4)], [replace(request, took=3_000_000)], [replace(request, cost=5)])  # fmt: skip
    return replace(basis, **changes)  # type: ignore[arg-type]


def empty() -> Report:
    """A report on nothing."""
    nothing = Figures("", 0, 0, 0, 0, 0, 0, dict.fromkeys(TOKEN_CLASSES), None, None, None, None, None)
    return report(total=nothing, groups=[], more=0, slowest=[], costliest=[], error_codes=[], trends={})


def drawn(what: Report, width: int = 80) -> str:
    """The report as a terminal of this width shows it."""
    console = Console(width=width, file=io.StringIO(), color_system=None)
    for part in draw(what, width):
        console.print(part)
    text = console.file.getvalue()
    assert isinstance(text, str)
    return text


class Reader(HTMLParser):
    """Reads a page as a browser would: which elements, which attributes, what text; fails where tags do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize(
    ("nano", "shown"),
    [(0, "$0.00"), (1, "$0.000000001"), (123_456, "$0.00012"), (1_234_567, "$0.0012"), (99_999_999, "$0.100"),
     (300_000_000, "$0.30"), (1_234_567_890_123, "$1,234.57"), (-300_000_000, "-$0.30"), (None, "unknown")],
)  # fmt: skip
def test_money_shows_two_figures_or_cents(nano: int | None, shown: str) -> None:
    """Small amounts keep two figures, large ones cents, and no cost at all is a word and not zero."""
    assert money(nano) == shown


@given(st.integers(-(10**18), 10**18))
def test_money_is_rounded_by_less_than_a_cent_and_never_to_zero(nano: int) -> None:
    """What is shown differs from the amount by half a cent at most, and by less than a tenth of it; only zero shows as zero."""
    shown = money(nano).replace("$", "").replace(",", "")
    whole, _, rest = shown.lstrip("-").partition(".")
    back = (int(whole) * 10**9 + int(rest.ljust(9, "0"))) * (-1 if shown.startswith("-") else 1)
    assert abs(back - nano) <= min(5_000_000, abs(nano) // 10)
    assert (back == 0) == (nano == 0)


def test_counts_times_and_shares_read_as_people_write_them() -> None:
    """Units change where the figures would get long, and what nobody knows is a dash."""
    assert [count(n) for n in (None, 0, 12_345, 1_250_000, 3_400_000_000)] == ["-", "0", "12,345", "1.2 M", "3.4 G"]
    assert [duration(us) for us in (None, 12, 33_500, 999_700, 12_340_000, 60e6, 92e6, 3_600e6, 18_600e6, 100 * 3_600e6)] == [
        "-", "12 µs", "34 ms", "1.00 s", "12.3 s", "1 min", "1 min 32 s", "1 h", "5 h 10 min", "4 d 4 h"]  # fmt: skip
    assert [share(part) for part in (None, 0, 0.004, 0.12, 1)] == ["-", "0 %", "0.4 %", "12 %", "100 %"]
    assert plain("a\x1b[2J\nb é") == "a�[2J�b é"


def test_bars_show_the_smallest_amount_and_fill_at_the_largest() -> None:
    """An amount above zero is never invisible; the largest fills its column or line."""
    assert columns([0, 0.001, 8, 16], 2) == ["   █", " ▁██"]
    assert (bar(16, 16, 4), bar(0.001, 16, 4), bar(0, 16, 4), bar(1, 0, 4)) == ("████", "▏", "", "")
    assert len(spark(range(1_000), 30)) == 30
    assert spark([], 10) == ""


@pytest.mark.parametrize(
    ("text", "seconds", "step"),
    [("1h", 3_600, 60), ("24h", 86_400, 1_800), ("7d", 604_800, 10_800), ("4w", 2_419_200, 86_400), ("9000d", 777_600_000, 31_449_600)],
)  # fmt: skip
def test_a_window_is_an_age_cut_into_few_steps(text: str, seconds: int, step: int) -> None:
    """An age counts back from now, and the plot has at most 63 columns that cover it."""
    window = parse_since(text, NOW)
    assert (NOW - window.since, len(window.buckets) <= 63) == (seconds * 1_000_000, True)
    assert window.step <= step
    assert window.buckets[0] * window.step * 1_000_000 <= window.since
    assert (window.buckets[-1] + 1) * window.step * 1_000_000 > NOW


def test_a_window_may_begin_at_a_date() -> None:
    """A date is midnight UTC, and a time may have a zone."""
    assert parse_since("2026-11-01", NOW).since == 1_793_491_200_000_000
    assert parse_since("2026-11-01T01:00+01:00", NOW).since == 1_793_491_200_000_000


@pytest.mark.parametrize(
    "text", ["", "7", "d", "0d", "-1d", "soon", "2999-01-01", "1969-12-31", "9999999999d", "2026-13-01"]
)
def test_a_window_that_cannot_be_is_refused(text: str) -> None:
    """The sentence names the option and the value."""
    with pytest.raises(CommandError, match=re.escape(f"--since {text!r}")):
        parse_since(text, NOW)


@given(st.floats(1e-6, 1e18))
def test_an_axis_ends_at_a_round_figure(value: float) -> None:
    """The end of an axis is at or above the largest value, below 2.5 times of it, and has at most two figures."""
    end = nice_ceiling(value)
    assert value <= end < 2.51 * value
    assert math.isclose(end, float(f"{end:.1e}"))


def test_charts_stay_in_their_box() -> None:
    """A column as high as the axis fills it, a negative one is not drawn, a line has a gap where there is no value."""
    chart = column_chart([("main", [10, 5, -3])], ["a", "<b>", "c"], 10, "T")
    assert [float(y) for y in re.findall(r'class="main"[^/]* y="([\d.]+)"', chart)] == [0, 50]
    assert "&lt;b&gt;" in chart and "<b>" not in chart
    assert 'd="M0 0.00H1M2 50.00H3V0.00H4"' in step_line([4, None, 2, 4], list("abcd"), 4, "T")
    assert stack([("x", 0, "")], "T").count("<rect") == 1


def test_a_page_needs_nothing_else_and_runs_nothing() -> None:
    """The page has no script, no address and no element beyond those of its own, and its tags match, whatever tenants are called."""
    text = page(report(EVIL))
    read = Reader(text)
    assert {tag for tag, _ in read.seen} <= ELEMENTS
    assert not {name for _, attributes in read.seen for name in attributes} & {
        "src",
        "href",
        "onerror",
        "onload",
        "style",
    }
    assert "://" not in text and "url(" not in text and "@import" not in text
    assert '<img src=x onerror="alert(1)">' in read.text
    assert "\x1b" not in text


def test_a_page_is_for_light_and_dark_screens_phones_and_paper() -> None:
    """The page follows the reader's colour scheme, a narrow screen and a printer."""
    text = page(report())
    for words in ("prefers-color-scheme: dark", "@media print", "max-width: 600px", "width=device-width"):
        assert words in text


@pytest.mark.parametrize("width", [80, 100, 160])
def test_a_terminal_shows_every_figure_whole(width: int) -> None:
    """No line is wider than the terminal; names give way, figures and request ids do not."""
    long = replace(
        report("n" * 200),
        costliest=[Request(str(i) * 36, "t" * 99, "k", "m" * 99, "o", 10**13, 10**9, NOW) for i in range(3)],
    )
    text = drawn(long, width)
    assert max(map(len, text.splitlines())) <= width
    for figure in (
        "$1.23",
        "0".ljust(36, "0"),
        "$10,000.00",
        "16 min 40 s",
        "800 ms",
        "1.50 s",
        "2.00 s",
        "4 (10 %)",
        "25 %",
    ):
        assert figure in text
    assert "7 more" in text


def test_an_events_text_cannot_steer_the_terminal() -> None:
    """Escape sequences and rich's markup are shown, not obeyed."""
    text = drawn(report(EVIL, tenant=EVIL), 200)
    assert "\x1b" not in text and "[bold]" in text


def test_what_the_spend_lacks_is_said_beside_it() -> None:
    """Unpriced calls and those of unknown cost are named with the spend, in the terminal and on the page, each group with its own."""
    words = "Not in the spend: 3 unpriced calls and 2 calls of unknown cost, at most $0.050."
    assert words in Reader(page(report())).text
    assert words in " ".join(drawn(report()).split())
    assert words.split(":")[0] not in drawn(report(total=figures("", unpriced=0, unknown=0)))
    line = next(line for line in drawn(report(), 120).splitlines() if line.startswith("acme"))
    assert line.split()[3:7] == ["$0.035", "3", "2", "40"]


def test_nothing_to_report_is_said() -> None:
    """Without requests there is a sentence and no empty table."""
    assert "No requests in this time." in drawn(empty())
    assert "No requests in this time." in Reader(page(empty())).text
    assert len(list(csv.reader(io.StringIO(as_csv(empty()))))) == 1
    assert json.loads(as_json(empty()))["groups"] == []


def test_programs_get_exact_integers_and_nothing_for_nothing() -> None:
    """CSV has a line a group with the dimension's name in front; JSON has everything; unknown is empty or null."""
    lines = list(csv.DictReader(io.StringIO(as_csv(report(EVIL)))))
    assert [line["tenant"] for line in lines] == [EVIL, ""]
    assert (lines[0]["spend_nano_usd"], lines[0]["tokens_cache_read"], lines[0]["tokens_reasoning"]) == (
        "1234567890",
        "250",
        "",
    )
    found = json.loads(as_json(report(EVIL)))
    assert (found["total"]["spend_nano_usd"], found["total"]["cache_share"], found["groups_left_out"]) == (
        1_234_567_890,
        0.25,
        7,
    )
    assert found["costliest"][0] == {
        "request_id": "0190-1", "tenant": EVIL, "task": EVIL, "model": EVIL, "outcome": EVIL, "cost_nano_usd": 5,
        "took_us": None, "created_at_us": NOW - 60_000_000,
    }  # fmt: skip


def test_what_the_response_cache_saved_is_told() -> None:
    """In the terminal, on the page, in JSON and in CSV; without hits nothing is said of it."""
    saved = figures("acme", cache_hits=12, cache_saved=3_400_000)
    found, words = report(total=saved, groups=[saved]), "From the response cache: 12 answers, $0.0034 saved."
    assert words in drawn(found)
    assert words in Reader(page(found)).text
    total = json.loads(as_json(found))["total"]
    assert (total["cache_hits"], total["cache_saved_nano_usd"]) == (12, 3_400_000)
    [row] = csv.DictReader(io.StringIO(as_csv(found)))
    assert (row["cache_hits"], row["cache_saved_nano_usd"]) == ("12", "3400000")
    assert "response cache" not in drawn(report()) + page(report())
