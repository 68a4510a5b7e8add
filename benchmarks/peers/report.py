"""What the rounds of the peers come to, and that as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table

from benchmarks.figures import USD_PER_CORE_HOUR, spread, usd_per_million
from benchmarks.report import bar, span, table

Json = dict[str, Any]
MOST_OVER_BARE = 2.0
LEAST_OVER_LITELLM = 4.0
MOST_ADDED_MS = {"p50": 10.0, "p99": 50.0}


def summary(points: list[Json], simulator_ms: float) -> list[Json]:
    """One entry a system and load: each figure's median, least and most over the rounds."""
    found = []
    for system, load in dict.fromkeys((point["system"], point["load"]) for point in points):
        rounds = [_figures(one, simulator_ms) for one in points if (one["system"], one["load"]) == (system, load)]
        figures = {name: spread([one[name] for one in rounds]) for name in rounds[0]}
        found.append({"system": system, "load": load, **figures})
    return found


def aims(found: list[Json]) -> list[Json]:
    """What was wanted, what was found, and whether that is met; without the peers an aim is about, it is left out."""
    by = {(entry["system"], entry["load"]): entry for entry in found}
    closed = [load for system, load in by if system == "millstream" and load != "half"]
    half = by.get(("millstream", "half"))
    made = []
    for load in closed:
        ours = by["millstream", load]
        if bare := by.get(("openai", load)):
            ratio = ours["cpu_ms"]["median"] / bare["cpu_ms"]["median"]
            made.append(_aim(f"CPU an answer, Millstream / bare openai SDK, {load}", ratio, MOST_OVER_BARE, most=True))
        if proxy := by.get(("litellm", load)):
            ratio = ours["per_cpu_second"]["median"] / proxy["per_cpu_second"]["median"]
            made.append(_aim(f"Answers a CPU second, Millstream / LiteLLM, {load}", ratio, LEAST_OVER_LITELLM))
            whole = ours["whole_per_cpu_second"]["median"] / proxy["whole_per_cpu_second"]["median"]
            made.append(_aim(f"The same with Kafka and ClickHouse counted, {load}", whole, LEAST_OVER_LITELLM))
    if half:
        for name, most in MOST_ADDED_MS.items():
            found_ms = half[f"added_{name}_ms"]["median"]
            made.append(_aim(f"Millstream, added {name} at half saturation, ms", found_ms, most, most=True))
    return made


def _aim(name: str, found: float, wanted: float, most: bool = False) -> Json:
    met = found <= wanted if most else found >= wanted
    return {"aim": name, "wanted": f"{'≤' if most else '≥'} {wanted:g}", "found": found, "met": met}


def _figures(point: Json, simulator_ms: float) -> dict[str, float]:
    answers = point["answers"]
    gateway = sum(point["gateway_cpu"].values()) / answers * 1_000
    ours = {f"{name}_cpu_ms": cpu / answers * 1_000 for name, cpu in point["gateway_cpu"].items()}
    servers = {f"{name}_cpu_ms": cpu / answers * 1_000 for name, cpu in point["servers_cpu"].items()}
    whole = gateway + sum(servers.values())
    return {
        "per_second": answers / point["seconds"],
        "cpu_ms": gateway,
        **ours,
        **servers,
        "whole_cpu_ms": whole,
        "per_cpu_second": 1_000 / gateway,
        "whole_per_cpu_second": 1_000 / whole,
        "usd_per_million": usd_per_million(gateway),
        "whole_usd_per_million": usd_per_million(whole),
        **{f"added_{name}_ms": took - simulator_ms for name, took in point["took_ms"].items()},
        "memory_mib": point["gateway_memory"] / 2**20,
        "whole_memory_mib": (point["gateway_memory"] + sum(point["servers_memory"].values())) / 2**20,
        "simulator_cpu_ms": point["simulator_cpu"] / answers * 1_000,
        "cores_used_by_others": point["others_cpu"] / point["seconds"],
        "load_average": point["load_average"],
    }


def tables(report: Json) -> Iterator[Table]:
    """Every table of the report, in reading order."""
    yield _against(report["aims"])
    yield _ceiling(report)
    for load in dict.fromkeys(entry["load"] for entry in report["summary"]):
        entries = [entry for entry in report["summary"] if entry["load"] == load]
        yield _cost(load, entries)
        yield _latency(load, entries)
    yield _parities(report)


def _against(found: list[Json]) -> Table:
    made = table("Against the aims", ("", "found", "wanted", ""), "lrrl")
    for one in found:
        met = "[green]met[/]" if one["met"] else "[red]not met[/]"
        made.add_row(one["aim"], f"{one['found']:,.2f}", one["wanted"], met)
    return made


def _ceiling(report: Json) -> Table:
    found = report["simulator"]
    made = table("The simulator: one process, called over plain aiohttp", ("", "calls a second"), "lr")
    made.add_row("reached from one calling process", f"{found['calls_per_second']:,.0f}")
    made.add_row("what a core of it can answer", f"{found['calls_per_cpu_second']:,.0f}")
    made.add_row("most that any system here asked of it", f"{found['most_asked_per_second']:,.0f}")
    return made


def _cost(load: str, entries: list[Json]) -> Table:
    made = table(
        f"{_named(load)}: answers per CPU second of the gateway, and with the servers it needs; USD a million requests, "
        f"a core-hour at {USD_PER_CORE_HOUR}",
        ("", "alone", "least to most", "", "with servers", "USD alone", "with servers", "MiB alone", "with servers"),
        "lrrlrrrrr",
    )
    most = max(entry["per_cpu_second"]["median"] for entry in entries)
    for entry in entries:
        value = entry["per_cpu_second"]
        drawn = bar(value["median"], most, _colour(entry))
        further = (
            ("whole_per_cpu_second", 0), ("usd_per_million", 3), ("whole_usd_per_million", 3), ("memory_mib", 0),
            ("whole_memory_mib", 0),
        )  # fmt: skip
        cells = (f"{entry[key]['median']:,.{digits}f}" for key, digits in further)
        made.add_row(entry["system"], f"{value['median']:,.0f}", span(value, 0), drawn, *cells)
    return made


def _latency(load: str, entries: list[Json]) -> Table:
    made = table(
        f"{_named(load)}: latency added to the simulator's, ms",
        ("", "answers/s", "p50", "p95", "p99", "", "others' cores", "load average"),
        "lrrrrlrr",
    )
    most = max(entry["added_p99_ms"]["median"] for entry in entries)
    for entry in entries:
        p50, p95, p99 = (entry[f"added_{name}_ms"]["median"] for name in ("p50", "p95", "p99"))
        made.add_row(
            entry["system"], f"{entry['per_second']['median']:,.0f}", f"{p50:,.1f}", f"{p95:,.1f}", f"{p99:,.1f}",
            bar(max(0.0, p50), most, _colour(entry), p99),
            f"{entry['cores_used_by_others']['median']:.2f}", f"{entry['load_average']['median']:.1f}",
        )  # fmt: skip
    return made


def _parities(report: Json) -> Table:
    made = table(
        "Parity: requests = answers = rows in ClickHouse (Millstream's) = the simulator's calls, over all rounds",
        ("", "load", "requests", "answers", "rows", "calls", "open", ""), "lrrrrrrl",
    )  # fmt: skip
    for entry in report["summary"]:
        mine = [one["parity"] for one in report["points"] if _key(one) == _key(entry)]
        sums = (
            f"{sum(one[key] for one in mine):,}" if key in mine[0] else "–"
            for key in ("sent", "answers", "usage_rows", "provider_calls", "open")
        )
        verdict = "[green]holds[/]" if all(one["holds"] for one in mine) else "[bold red]BROKEN[/]"
        made.add_row(*_key(entry), *sums, verdict)
    return made


def _key(entry: Json) -> tuple[str, str]:
    return entry["system"], entry["load"]


def _named(load: str) -> str:
    return "At half of each one's most" if load == "half" else load.capitalize()


def _colour(entry: Json) -> str:
    return "green" if entry["system"] == "millstream" else "white"
