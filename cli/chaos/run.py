"""One run from the first process to the verdict."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from cli.chaos.faults import possible
from cli.chaos.report import page
from cli.chaos.schedule import Planned, plan
from cli.chaos.story import Options, Story, figures
from cli.chaos.supervise import Ended
from cli.chaos.torment import Torment
from cli.chaos.traffic import Traffic
from cli.chaos.verify import settled, verify
from cli.chaos.watch import Watch, wait_until_quiet
from cli.chaos.world import World, started

PROGRESS_SECONDS = 5.0


def chaos(options: Options) -> int:
    """Do all of it; the exit status."""
    console = Console()
    with started(options.database, options.data, lambda line: console.print(line, highlight=False)) as world:
        story = torment(world, options, console)
        story.lines = verify(world, _traffic(world), lambda line: console.print(line, highlight=False))
    return conclude(story, console)


def torment(world: World, options: Options, console: Console) -> Story:
    """Traffic and faults, until it is quiet again."""
    can, cannot = possible(options.faults, world)
    for name, why in cannot.items():
        console.print(f"Not run: {name}, because {why}.", style="yellow", highlight=False)
    schedule = plan(options.seed, options.requests / options.rate, [one.kind(world) for one in can], options.every)
    traffic = world.traffic = Traffic(world.run.settings, options.requests, options.rate, options.seed)
    stop = threading.Event()
    begun = time.monotonic()
    story = Story(options, time.time(), cannot, schedule)
    console.print(f"{options.requests:,} requests and {len(schedule)} faults; seed {options.seed}.", highlight=False)
    watch = Watch(world, begun).start()
    work = Torment(world, {one.name: one for one in can}, schedule, lambda one: _say(console, begun, one))
    threads = [
        threading.Thread(target=traffic.run, args=(stop,)),
        threading.Thread(target=work.run, args=(begun, stop)),
    ]
    try:
        for thread in threads:
            thread.start()
        _progress(console, threads, watch, traffic, begun)
        traffic.flush()
        story.traffic_seconds = time.monotonic() - begun
        console.print("The last fault is over; waiting until it is quiet ...", highlight=False)
        if wait_until_quiet(watch, lambda: settled(world), options.quiet_seconds):
            story.quiet_after = time.monotonic() - begun - story.traffic_seconds
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        watch.stop()
    world.supervisor.stop()
    story.struck, story.ended, story.samples = (
        sorted(work.struck, key=lambda s: s.began),
        world.supervisor.ended,
        watch.samples,
    )
    story.ended = [Ended(one.at - begun, one.name, one.status, one.said) for one in story.ended]
    story.records, story.repeated, story.poisoned = traffic.records, traffic.repeated, traffic.poisoned
    story.answered, story.untaken = len(watch.answered), traffic.untaken
    return story


def _traffic(world: World) -> Traffic:
    assert world.traffic is not None
    return world.traffic


def _say(console: Console, begun: float, one: Planned) -> None:
    lasts = f" for {one.seconds:g} s" if one.seconds else ""
    console.print(f"{time.monotonic() - begun:7.1f} s  {one.fault} on {one.target}{lasts}", highlight=False)


def _progress(
    console: Console, threads: Sequence[threading.Thread], watch: Watch, traffic: Traffic, begun: float
) -> None:
    said = begun
    while any(thread.is_alive() for thread in threads):
        time.sleep(0.1)
        if time.monotonic() - said >= PROGRESS_SECONDS:
            said = time.monotonic()
            lag = watch.lag
            behind = (
                ", ".join(f"{name} {n:,}" for name, n in lag.items() if n) if lag is not None else "Kafka does not tell"
            )
            console.print(
                f"{said - begun:7.1f} s  {traffic.records:,} published, {len(watch.answered):,} answered; behind: {behind or 'none'}",
                highlight=False, style="dim",
            )  # fmt: skip


def conclude(story: Story, console: Console) -> int:
    """Print the summary, write the report and the figures; the exit status."""
    options = story.options
    options.report.write_text(page(story), "utf-8")
    if options.runs is not None:
        _append(options.runs, figures(story))
    for line in story.lines:
        style = {"holds": "green", "BROKEN": "bold red"}.get(line.status, "yellow")
        console.print(f"[{style}]{line.status:<12}[/] {line.name}", highlight=False)
    by_fault = Counter(one.fault for one in story.struck)
    quiet = f"quiet {story.quiet_after:.0f} s later" if story.quiet_after is not None else "not quiet in time"
    console.print(
        f"{story.records:,} records ({story.repeated:,} repeated, {story.poisoned:,} poisoned), {story.answered:,} requests answered, "
        f"{len(story.struck)} faults of {len(by_fault)} kinds, {len(story.ended)} processes started again, {quiet}. "
        f"The report is {options.report}.", highlight=False,
    )  # fmt: skip
    if not story.problems:
        console.print("[bold green]Nothing lost, nothing doubled, nothing left open.[/]")
        return 0
    for problem in story.problems:
        console.print(f"BROKEN {problem}", style="red", markup=False, highlight=False, soft_wrap=True)
    console.print(f"Again: {options.command}", highlight=False, soft_wrap=True)
    return 1


def _append(path: Path, run: dict[str, Any]) -> None:
    runs = json.loads(path.read_text("utf-8")) if path.exists() else []
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps([*runs, run], indent=1) + "\n", "utf-8")
    os.replace(new, path)
