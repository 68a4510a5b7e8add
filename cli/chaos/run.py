"""One run from the first process to the verdict."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from rich.console import Console
from sqlalchemy.exc import SQLAlchemyError

from cli.chaos.energy import allowances
from cli.chaos.faults import possible
from cli.chaos.report import page
from cli.chaos.schedule import Planned, plan
from cli.chaos.story import Options, Story, figures
from cli.chaos.torment import Torment
from cli.chaos.traffic import Traffic
from cli.chaos.verify import settled, verify
from cli.chaos.watch import Watch, wait_until_quiet
from cli.chaos.world import World, started
from cli.errors import CommandError
from sinks.query import QueryFailed

PROGRESS_SECONDS = 5.0


def chaos(options: Options) -> int:
    """Do all of it; the exit status."""
    console = Console(highlight=False, soft_wrap=True)
    with started(options.database, options.data, console.print) as world:
        story = torment(world, options, console)
        try:
            story.lines = verify(world, _traffic(world), console.print)
        except (CommandError, QueryFailed, KafkaException, SQLAlchemyError) as why:
            story.uncompared = f"{type(why).__name__}: {why}"
    return conclude(story, console)


def torment(world: World, options: Options, console: Console) -> Story:
    """Traffic and faults, until it is quiet again."""
    can, cannot = possible(options.faults, world)
    for name, why in cannot.items():
        console.print(f"Not run: {name}, because {why}.", style="yellow")
    schedule = plan(options.seed, options.requests / options.rate, [one.kind(world) for one in can], options.every)
    traffic = world.traffic = Traffic(
        world.run.settings, options.requests, options.rate, options.seed, world.keys
    )  # fmt: skip
    stop = threading.Event()
    begun = time.monotonic()
    story = Story(options, time.time(), cannot, schedule)
    console.print(f"{options.requests:,} requests and {len(schedule)} faults; seed {options.seed}.")
    watch = Watch(world, begun).start()
    work = Torment(world, {one.name: one for one in can}, schedule, lambda one: _say(console, begun, one))
    threads = [
        threading.Thread(target=traffic.run, args=(stop,)),
        threading.Thread(target=work.run, args=(begun, stop)),
    ]
    try:
        with allowances(world.run.settings):
            for thread in threads:
                thread.start()
            _progress(console, threads, watch, traffic, begun)
        traffic.flush()
        story.traffic_seconds = time.monotonic() - begun
        console.print("The last fault is over; waiting until it is quiet ...")
        if wait_until_quiet(watch, lambda: settled(world), options.quiet_seconds):
            story.quiet_after = time.monotonic() - begun - story.traffic_seconds
        else:
            story.unquiet = (
                f"behind are {_behind(watch)}; every process runs: {world.supervisor.all_running()}; "
                f"the ledger is settled: {settled(world)}"
            )
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        watch.stop()
    world.supervisor.stop()
    _take(story, work, world, watch, begun)
    return story


def _take(story: Story, work: Torment, world: World, watch: Watch, begun: float) -> None:
    """Enter what was seen."""
    traffic = _traffic(world)
    story.struck = sorted(work.struck, key=lambda struck: struck.began)
    story.ended = [replace(one, at=one.at - begun) for one in world.supervisor.ended]
    story.samples = watch.samples
    story.records, story.repeated, story.poisoned = traffic.records, traffic.repeated, traffic.poisoned
    story.disbelieved = len(traffic.disbelieved)
    story.answered, story.untaken, story.all_published = len(watch.answered), traffic.untaken, traffic.all_published


def _traffic(world: World) -> Traffic:
    assert world.traffic is not None
    return world.traffic


def _say(console: Console, begun: float, one: Planned) -> None:
    lasts = f" for {one.seconds:g} s" if one.seconds else ""
    console.print(f"{time.monotonic() - begun:7.1f} s  {one.fault} on {one.target}{lasts}")


def _progress(
    console: Console, threads: Sequence[threading.Thread], watch: Watch, traffic: Traffic, begun: float
) -> None:
    said = begun
    while any(thread.is_alive() for thread in threads):
        time.sleep(0.1)
        if time.monotonic() - said >= PROGRESS_SECONDS:
            said = time.monotonic()
            console.print(
                f"{said - begun:7.1f} s  {traffic.records:,} published, {len(watch.answered):,} answered; behind: {_behind(watch)}",
                style="dim",
            )  # fmt: skip


def _behind(watch: Watch) -> str:
    if watch.lag is None:
        return "unknown, for Kafka does not tell"
    return ", ".join(f"{name} {records:,}" for name, records in watch.lag.items() if records) or "none"


def conclude(story: Story, console: Console) -> int:
    """Print the summary, write the report and the figures; the exit status."""
    options = story.options
    options.report.write_text(page(story), "utf-8")
    if options.runs is not None:
        _append(options.runs, figures(story))
    for line in story.lines:
        style = {"holds": "green", "BROKEN": "bold red"}.get(line.status, "yellow")
        console.print(f"[{style}]{line.status:<12}[/] {line.name}")
    by_fault = Counter(one.fault for one in story.struck)
    quiet = f"quiet {story.quiet_after:.0f} s later" if story.quiet_after is not None else "not quiet in time"
    console.print(
        f"{story.records:,} records ({story.repeated:,} repeated, {story.poisoned:,} poisoned, {story.disbelieved:,} badly signed), "
        f"{story.answered:,} requests answered, {len(story.struck)} faults of {len(by_fault)} kinds, {len(story.ended)} processes started again, {quiet}. "
        f"The report is {options.report}."
    )  # fmt: skip
    if story.untaken:
        console.print(
            f"The broker did not take {len(story.untaken):,} records, first {story.untaken[0]}.",
            style="yellow",
            markup=False,
        )
    if not story.problems:
        console.print("[bold green]Nothing lost, nothing doubled, nothing left open.[/]")
        return 0
    for problem in story.problems:
        console.print(f"BROKEN {problem}", style="red", markup=False)
    console.print(f"Again: {options.command}")
    return 1


def _append(path: Path, run: dict[str, Any]) -> None:
    runs = json.loads(path.read_text("utf-8")) if path.exists() else []
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps([*runs, run], indent=1) + "\n", "utf-8")
    os.replace(new, path)
