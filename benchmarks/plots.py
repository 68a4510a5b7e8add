"""Draw the results: `.millstream/peers/bin/python benchmarks/plots.py` reads benchmarks/results and writes PNGs beside them.

Runs in the peers' venv, the only one with matplotlib, and so imports nothing of ours. What was not measured is not drawn.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

RESULTS = Path(__file__).parent / "results"
OURS, THEIRS = "#2a7d4f", "#8a8f98"
SERVERS = "#a8d5ba"

Json = dict[str, Any]


def main() -> None:
    """Draw what there is."""
    for name, draw in (("peers", _peers), ("scaling", _scaling)):
        source = RESULTS / f"{name}.json"
        if not source.exists():
            continue
        draw(json.loads(source.read_text()))
        plt.suptitle(_conditions(json.loads(source.read_text())), fontsize=9)
        plt.tight_layout()
        plt.savefig(RESULTS / f"{name}.png", dpi=110)
        plt.close()
        print(f"Drawn {RESULTS / name}.png.")


def _peers(report: Json) -> None:
    loads = list(dict.fromkeys(entry["load"] for entry in report["summary"]))
    busiest = [load for load in loads if load != "half"][-1]
    _, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5))
    entries = [entry for entry in report["summary"] if entry["load"] == busiest]
    names = [entry["system"] for entry in entries]
    own = [entry["cpu_ms"] for entry in entries]
    servers = [entry["whole_cpu_ms"]["median"] - entry["cpu_ms"]["median"] for entry in entries]
    medians = [value["median"] for value in own]
    errors = [[value["median"] - value["least"] for value in own], [value["most"] - value["median"] for value in own]]
    left.barh(names, medians, xerr=errors, color=[_colour(name) for name in names], label="gateway")
    left.barh(names, servers, left=medians, color=SERVERS, label="Kafka and ClickHouse")
    left.invert_yaxis()
    left.set_xlabel("CPU ms per answered request (median; least to most)")
    left.set_title(f"CPU, {busiest}")
    left.legend()
    halves = [entry for entry in report["summary"] if entry["load"] == "half"]
    for number, quantile in enumerate(("p50", "p95", "p99")):
        places = [row + (number - 1) * 0.27 for row in range(len(halves))]
        values = [max(0.1, entry[f"added_{quantile}_ms"]["median"]) for entry in halves]
        right.barh(places, values, 0.25, alpha=1 - number * 0.3, color=[_colour(one["system"]) for one in halves])
    right.set_yticks(range(len(halves)), [f"{one['system']} ({one['per_second']['median']:.0f}/s)" for one in halves])
    right.invert_yaxis()
    right.set_xscale("log")
    right.set_xlabel("ms added to the simulator's latency: p50, p95, p99 (log scale)")
    right.set_title("Latency at half of each one's most")


def _scaling(report: Json) -> None:
    series = list(dict.fromkeys(entry["series"] for entry in report["summary"]))
    _, axes = plt.subplots(1, len(series), figsize=(3.6 * len(series), 4))
    for axis, name in zip(axes, series, strict=True):
        entries = [entry for entry in report["summary"] if entry["series"] == name]
        medians = [entry["cpu_ms"]["median"] for entry in entries]
        axis.bar([f"{entry['value']:,}" for entry in entries], medians, color=OURS)
        axis.axhline(1.1 * medians[0], color=THEIRS, linestyle="--", linewidth=1)
        for place, entry in enumerate(entries):
            axis.text(place, medians[place], f"{entry['answers_per_second']['median']:.0f}/s", ha="center", va="bottom")
        axis.set_xlabel(name, fontsize=8)
    axes[0].set_ylabel("CPU ms per answer, our processes")


def _conditions(report: Json) -> str:
    loads = [point["load_average"] for point in report["points"]]
    cores = report["machine"]["cores"]
    return f"{cores} cores, load average {min(loads):.0f} to {max(loads):.0f}, {report['measured_at'][:10]}"


def _colour(name: str) -> str:
    return OURS if name == "millstream" else THEIRS


if __name__ == "__main__":
    main()
