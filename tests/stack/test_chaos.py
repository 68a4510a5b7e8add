"""`millstream chaos`: every fault on a small stack ends well, and whatever is lost, doubled or left open is named."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka import Producer
from rich.console import Console
from sqlalchemy import select, text

from cli.chaos.callers import USER
from cli.chaos.energy import POOR
from cli.chaos.faults import FAULTS, chosen
from cli.chaos.features import LEAST, NAME
from cli.chaos.run import conclude, torment
from cli.chaos.story import Options, Story
from cli.chaos.traffic import Traffic
from cli.chaos.verify import verify
from cli.chaos.world import CLOCK, World, started
from cli.errors import CommandError
from config.database import open_database, reading
from config.energy_models import ENERGY_ENTRIES
from config.limit_models import COUNTERS
from core.accounts import account
from core.topics import RESPONSES
from sinks.writer import connect
from tests.stack.asking import log

ROOT = Path(__file__).parent.parent.parent


def millstream(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments], env={**os.environ, "COLUMNS": "160", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=800, cwd=folder, check=False,
    )  # fmt: skip


@pytest.mark.timeout(900)
def test_every_fault_that_this_machine_can_do_ends_well(tmp_path: Path) -> None:
    """A minute of all faults: exit status 0, every kind was struck, and the page and the figures say so."""
    done = millstream(
        tmp_path, "chaos", "--requests", "700", "--rate", "10", "--every", "2", "--seed", "11", "--runs", "runs.json",
        "--quiet-seconds", "300",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = json.loads((tmp_path / "runs.json").read_text())
    assert set(run["by_kind"]) | set(run["not_run"]) == set(FAULTS)
    assert set(run["by_kind"]).isdisjoint(run["not_run"])
    assert (run["outcome"], run["problems"]) == ("holds", [])
    assert run["repeated"] > 0 and run["poisoned"] > 0
    page = (tmp_path / "chaos.html").read_text()
    assert all(name in page for name in (*run["by_kind"], *run["not_run"]))
    assert not re.search(r"<script|<link|(src|href)=", page)


def test_an_unknown_fault_is_named_with_those_there_are() -> None:
    with pytest.raises(
        CommandError, match=r"There is no fault 'worker-kil'; the faults are .*worker-kill, .*, and all"
    ):
        chosen("sink-kill,worker-kil")


def test_a_clock_can_be_set_wrong_and_right_again(tmp_path: Path) -> None:
    """A Python process under the chaos clock follows the file, while its monotonic clock stays true."""
    file = tmp_path / "clock"
    program = f"""
import time
from pathlib import Path
for off in (45, -45, 0):
    before, true = time.time(), time.monotonic()
    Path({str(file)!r}).write_text(str(off))
    time.sleep(0.5)
    print(round(time.time_ns() / 1e9 - before - (time.monotonic() - true)))
"""
    environment = {**os.environ, "PYTHONPATH": str(CLOCK), "MILLSTREAM_CHAOS_CLOCK": str(file)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["45", "-90", "45"], done.stderr


@pytest.fixture(scope="module")
def suffered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, Story, Path]]:
    """A world after a few kills, quiet again and compared."""
    folder = tmp_path_factory.mktemp("chaos")
    options = Options(
        200, 20.0, chosen("worker-kill,sink-kill"), "worker-kill,sink-kill", 4.0, 5, "sqlite", 200.0, folder / "chaos.html",
        None, None,
    )  # fmt: skip
    with started("sqlite", None, lambda _: None) as world:
        story = torment(world, options, Console(quiet=True))
        yield world, story, folder


def broken(world: World, story: Story) -> dict[str, set[str]]:
    """The ids named by the lines that do not hold, by the lines' names."""
    story.lines = verify(world, traffic_of(world), lambda _: None)
    return {line.name: {one.id for one in line.differences} for line in story.lines if line.status == "BROKEN"}


def traffic_of(world: World) -> Traffic:
    assert world.traffic is not None
    return world.traffic


def concluded(story: Story) -> tuple[int, str]:
    """The exit status and what is printed."""
    console = Console(record=True, width=300, quiet=False, file=open(os.devnull, "w"))  # noqa: SIM115
    status = conclude(story, console)
    console.file.close()
    return status, console.export_text()


def test_it_holds_before_anything_is_broken(suffered: tuple[World, Story, Path]) -> None:
    world, story, folder = suffered
    assert broken(world, story) == {}
    status, said = concluded(story)
    assert (status, story.outcome) == (0, "holds"), said
    assert story.struck and story.quiet_after is not None
    assert "worker-kill" in (folder / "chaos.html").read_text()


def test_a_run_that_never_became_quiet_fails(suffered: tuple[World, Story, Path]) -> None:
    """So do traffic that broke off, faults that were not struck, and a comparison that could not be made."""
    _, story, _ = suffered
    for changes in ({"quiet_after": None}, {"all_published": False}, {"struck": []}, {"lines": []}):
        status, said = concluded(replace(story, **changes))
        assert status == 1 and "--seed 5" in said, changes
    assert concluded(story)[0] == 0


def test_a_lost_answer_is_named(suffered: tuple[World, Story, Path]) -> None:
    """A request that nobody answered fails the run, which names it and the command that repeats it."""
    world, story, folder = suffered
    lost = str(uuid.uuid4())
    traffic_of(world).ids.add(lost)
    assert broken(world, story) == {"published requests = answers or dead letters, one each": {lost}}
    status, said = concluded(story)
    assert status == 1
    assert lost in said and "--seed 5" in said
    assert lost in (folder / "chaos.html").read_text()
    traffic_of(world).ids.remove(lost)


def test_an_open_reservation_is_named(suffered: tuple[World, Story, Path]) -> None:
    world, story, _ = suffered
    request_id = next(iter(traffic_of(world).ids))
    engine = open_database(world.run.settings.database_url)
    reserve = text("UPDATE requests SET reserved_nano = :n WHERE request_id = :i")
    with engine.begin() as db:
        db.execute(reserve, {"n": 7, "i": request_id})
    found = broken(world, story)
    assert found["reservations, requests and calls left open in the ledger = nothing"] == {
        f"request {request_id} (reserved 7 nano-USD)"
    }
    assert concluded(story)[0] == 1
    with engine.begin() as db:
        db.execute(reserve, {"n": 0, "i": request_id})
    engine.dispose()


def test_a_call_made_twice_is_named(suffered: tuple[World, Story, Path]) -> None:
    """The provider sees a call's id a second time."""
    world, story, _ = suffered
    with connect(world.run.settings) as client:
        ((attempt,),) = client.query(
            "SELECT attempt_id FROM usage WHERE provider = 'openai' AND status = 'succeeded' LIMIT 1"
        ).result_rows
    body = json.dumps({"model": "gpt-5-mini", "messages": [{"role": "user", "content": "Again."}]}).encode()
    headers = {
        "authorization": "Bearer sim-key",
        "x-client-request-id": attempt,
        "content-type": "application/json",
    }
    url = f"{world.run.stack.simulator_url}/openai/v1/chat/completions"
    urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=10).close()
    assert broken(world, story)["every call seen once by its provider"] == {attempt}
    assert concluded(story)[0] == 1


def test_a_doubled_answer_is_named(suffered: tuple[World, Story, Path]) -> None:
    """A second answer under another event id, and other bytes under the same one, are two lines."""
    world, story, _ = suffered
    answers = {
        message.key().decode(): message for message in log(world.run, RESPONSES) if message.key().decode() in traffic_of(world).ids
    }  # fmt: skip
    (doubled, first), (changed, second) = list(answers.items())[:2]
    producer = Producer({"bootstrap.servers": world.run.settings.kafka_bootstrap})
    others = [(name, b"another-event" if name == "ce_id" else value) for name, value in first.headers()]
    producer.produce(RESPONSES.name, first.value(), first.key(), headers=others)
    producer.produce(RESPONSES.name, first.value(), second.key(), headers=second.headers())
    producer.flush(10)
    found = broken(world, story)
    assert doubled in found["published requests = answers or dead letters, one each"]
    identity = dict(second.headers())["ce_id"].decode()
    assert found["an answer published again = the same bytes"] == {identity}
    assert changed not in found["published requests = answers or dead letters, one each"]
    assert concluded(story)[0] == 1


def test_a_fact_that_is_gone_is_named(suffered: tuple[World, Story, Path]) -> None:
    world, story, _ = suffered
    with connect(world.run.settings) as client:
        ((attempt,),) = client.query("SELECT attempt_id FROM usage WHERE cost_nano_usd > 0 LIMIT 1").result_rows
        client.command(f"ALTER TABLE usage DELETE WHERE attempt_id = '{attempt}'", settings={"mutations_sync": 1})
    assert attempt in broken(world, story)["llm.usage.v1 = rows of usage"]
    assert concluded(story)[0] == 1


def test_energy_bit_and_no_credit_was_used_twice(suffered: tuple[World, Story, Path]) -> None:
    """Users ran out, and were given the cheaper model first; a credit that is used but was not granted, or is still reserved, is named."""
    world, story, _ = suffered
    with connect(world.run.settings) as client:
        (row,) = client.query(
            "SELECT countIf(error_code = 'policy_energy_exhausted'), countIf(downgraded_from LIKE '%/%') FROM responses"
        ).result_rows
    assert min(row) > 0
    poor = account(f"tenant-{POOR}", "user", USER)
    engine = open_database(world.run.settings.database_url)
    entry = {"account": poor, "grant_id": "none", "kind": "reserve", "credits": 1_000, "at": 1}
    with engine.begin() as db:
        db.execute(
            ENERGY_ENTRIES.insert(), [{**entry, "book": "left", "credits": -1_000}, {**entry, "book": "reserved"}]
        )
    found = broken(world, story)
    with engine.begin() as db:
        db.execute(ENERGY_ENTRIES.delete().where(ENERGY_ENTRIES.c.grant_id == "none"))
    engine.dispose()
    [beyond] = found["accounts beyond a hard limit or their energy at any look = nothing"]
    assert beyond.startswith(f"{poor} energy (")
    assert found["reservations, requests and calls left open in the ledger = nothing"] == {
        f"energy of {poor} (1,000 reserved)"
    }


def test_bad_signatures_got_nowhere(suffered: tuple[World, Story, Path]) -> None:
    """Each was refused for what is wrong with it; a request that was believed against expectation, or called for, is named."""
    world, story, _ = suffered
    traffic = traffic_of(world)
    assert story.disbelieved == len(traffic.disbelieved) > 0
    (bad, code), *_ = traffic.disbelieved.items()
    with connect(world.run.settings) as client:
        ((good,),) = client.query(
            "SELECT request_id FROM usage WHERE provider = 'openai' AND status = 'succeeded' LIMIT 1"
        ).result_rows
    traffic.disbelieved |= {bad: "caller_unheard_of", good: code}
    found = broken(world, story)
    traffic.disbelieved[bad] = code
    del traffic.disbelieved[good]
    assert found["bad signatures = refused for what is wrong with each"] == {bad, good}
    assert {f"request {good} at the provider", f"request {good} in the ledger"} <= found[
        "calls, rows and credits of bad signatures = nothing"
    ]


def test_limits_bit_and_nobody_was_beyond_one(suffered: tuple[World, Story, Path]) -> None:
    """Requests were refused for the limits of their tenants; an account beyond its limit, or one that still holds, is named."""
    world, story, _ = suffered
    with connect(world.run.settings) as client:
        (row,) = client.query(
            "SELECT countIf(error_code = 'policy_rate_limited'), countIf(error_code = 'policy_unpriced_model') FROM responses"
        ).result_rows
    assert min(row) > 0
    assert world.looks["limits"] > 20
    assert world.looks["energy"] > 5
    of = COUNTERS.c.account == "/tenant-1", COUNTERS.c.subject == "usd per day"
    engine = open_database(world.run.settings.database_url)
    with reading(engine) as db:
        before = db.execute(select(COUNTERS).where(*of)).one()
    change = COUNTERS.update().where(*of)
    with engine.begin() as db:
        db.execute(change.values(reserved=before.reserved + 10**9))
    found = broken(world, story)
    with engine.begin() as db:
        db.execute(change.values(reserved=before.reserved))
    engine.dispose()
    assert found["accounts beyond a hard limit or their energy at any look = nothing"] == {"/tenant-1 usd per day"}
    assert found["reservations, requests and calls left open in the ledger = nothing"] == {
        "limit /tenant-1 usd per day (1000000000 held)"
    }


def test_a_feature_that_never_happened_is_named(suffered: tuple[World, Story, Path]) -> None:
    """Facts that show nothing of what the traffic asked for often fail the run, though every account agrees on the rest."""
    world, story, folder = suffered
    feature = "refusals of unknown models"
    with connect(world.run.settings) as client:
        client.command(
            "ALTER TABLE responses DELETE WHERE error_code = 'caller_unknown_model'", settings={"mutations_sync": 1}
        )
    traffic_of(world).asked.times[feature] = LEAST
    assert broken(world, story)[NAME] == {feature}
    assert concluded(story)[0] == 1
    assert f"{feature}: 0 ({LEAST} asked for)" in (folder / "chaos.html").read_text()
