"""The commands as a person at a shell meets them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from cli.main import COMMANDS, main
from cli.running import Running
from config.credentials import Change, NewCredential, add
from config.database import create_tables, open_database
from config.key_encryption import encryption_keys, new_local_key
from config.registry import apply
from core.registry import Provider
from core.topics import RESPONSES
from tests.stack.asking import ask_one, events, told

ROOT = Path(__file__).parents[3]
NOWHERE = {"MILLSTREAM_KAFKA_BOOTSTRAP": "127.0.0.1:9"}


def millstream(*arguments: str, env: dict[str, str] | None = None, text: str = "", seconds: float = 60) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """Run the command in the folder of the project."""
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        env={**os.environ, **(env or {})}, input=text, capture_output=True, text=True, timeout=seconds, cwd=ROOT, check=False,
    )  # fmt: skip


def test_help_explains_each_command_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """`millstream --help` names every command with a summary, and each command has help of its own."""
    shown = millstream("--help").stdout
    assert all(name in shown for name in COMMANDS)
    for name in COMMANDS:
        with pytest.raises(SystemExit) as ended:
            main([name, "--help"])
        assert (ended.value.code, COMMANDS[name].split(",")[0].split()[0] in capsys.readouterr().out) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "env", "words"),
    [
        (["send", "x", "--modle", "y"], {}, ["--modle", "--help"]),
        (["sned"], {}, ["sned"]),
        (["send"], {}, ["prompt", "--file"]),
        (["send", "x", "--rate", "3"], {}, ["--rate", "--file"]),
        (["send", "--file", "/no/such/file"], {}, ["/no/such/file"]),
        (["send", "--file", "-", "--rate", "fast"], {}, ["'fast'"]),
        (["send", "x"], NOWHERE, ["127.0.0.1:9", "MILLSTREAM_KAFKA_BOOTSTRAP"]),
        (["tail", "usage"], NOWHERE, ["127.0.0.1:9", "millstream up"]),
        (["tail", "gossip"], {}, ["gossip", "usage"]),
        (["worker", "admit"], NOWHERE, ["127.0.0.1:9"]),
        (["worker", "meter", "--provider", "openai"], {}, ["--provider", "meter"]),
        (["worker", "complete", "--provider", "opanai"], {}, ["opanai"]),
        (["migrate"], NOWHERE, ["127.0.0.1:9"]),
        (["up", "--provider-base-url", "openai"], {}, ["'openai'", "NAME=URL"]),
        (["tail", "usage"], {"MILLSTREAM_MAX_ATTEMPTS": "many"}, ["MILLSTREAM_MAX_ATTEMPTS"]),
        (["tail", "usage"], {"MILLSTREAM_SCHEMA_REGISTRY_URL": "http://127.0.0.1:9", **NOWHERE}, ["127.0.0.1:9"]),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_in_one_sentence(
    arguments: list[str], env: dict[str, str], words: list[str]
) -> None:
    """Exit status 2, one line with the value and the next action, no traceback."""
    found = millstream(*arguments, env=env)
    assert found.returncode == 2, found.stderr
    assert len(found.stderr.strip().splitlines()) == 1, found.stderr
    assert all(word in found.stderr for word in words), found.stderr
    assert "Traceback" not in found.stderr


def test_a_ledger_out_of_reach_is_said_in_one_sentence(pipeline: Running) -> None:
    """A worker names the database and the setting, and repeats no password."""
    url = "postgresql+psycopg://millstream:hunter2@127.0.0.1:9/ledger"
    found = millstream("worker", "meter", env={**pipeline.environment, "MILLSTREAM_DATABASE_URL": url})
    assert (found.returncode, "MILLSTREAM_DATABASE_URL" in found.stderr) == (2, True)
    assert "hunter2" not in found.stderr
    empty = millstream("worker", "meter", env={**pipeline.environment, "MILLSTREAM_DATABASE_URL": "sqlite://"})
    assert (empty.returncode, "millstream migrate" in empty.stderr) == (2, True)


def worker(pipeline: Running, database: str, *arguments: str, keys: str | None = None) -> str:
    """Why a worker does not start beside the pipeline, with a database and keys of its own: one line, exit status 2."""
    env = {**pipeline.environment, "MILLSTREAM_DATABASE_URL": database, "SEALING": keys or ""}
    found = millstream("worker", *arguments, env=env | ({"MILLSTREAM_KEY_ENCRYPTION": "env:SEALING"} if keys else {}))
    assert found.returncode == 2, found.stderr
    assert len(found.stderr.strip().splitlines()) == 1, found.stderr
    return found.stderr


def test_a_worker_does_not_start_on_what_it_cannot_use(pipeline: Running, tmp_path: Path) -> None:
    """A lane of a provider that is not registered, a key-encryption key that is another one, or none, and a registry that a newer
    version wrote: each ends it at its start with status 2 and a sentence with the value and the next action."""
    url = f"sqlite:///{tmp_path}/other.db"
    engine = open_database(url)
    create_tables(engine)
    right, wrong = new_local_key("first").strip(), new_local_key("first").strip()
    with engine.begin() as db:
        only = {"eu": Provider("eu", "openai"), "us": Provider("us", "openai")}
        apply(db, lambda contents: replace(contents, providers=only), pipeline.settings, "test", 1)
        secret, change = "sk-planted-0123456789-abcd", Change("test", 1)
        made = add(db, encryption_keys("env:LINE", {"LINE": right}), NewCredential("eu"), secret, change)
    said = worker(pipeline, url, "complete", "--provider", "openai", keys=right)
    assert "Provider openai does not serve here, but eu, us do" in said
    assert "`millstream providers add openai`" in said
    said = worker(pipeline, url, "meter", keys=wrong)
    assert made.credential_id in said
    assert "put the right key back" in said
    said = worker(pipeline, url, "admit")
    assert made.credential_id in said
    assert "MILLSTREAM_KEY_ENCRYPTION does not name; add that key to it" in said
    with engine.begin() as db:
        db.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    said = worker(pipeline, url, "meter", keys=right)
    assert "was written by a newer version of Millstream (revision 9999" in said
    assert "install that version" in said
    engine.dispose()


def test_one_question_is_answered_with_its_cost_and_latency(pipeline: Running) -> None:
    """The answer goes to standard output, model, cost and time to standard error."""
    found = millstream(
        "send", 'Why? [[sim {"text": "Because."}]]', "--model", "openai/gpt-5-mini", env=pipeline.environment
    )
    assert (found.returncode, found.stdout) == (0, "Because.\n")
    assert " USD · " in found.stderr


def test_a_refused_question_is_an_answer_too(pipeline: Running) -> None:
    """The outcome does not decide the exit status: the request got its answer."""
    found = millstream("send", "Why?", "--model", "openai/gtp-5-mini", env=pipeline.environment)
    assert (found.returncode, "caller_unknown_model" in found.stdout) == (0, True)


def test_a_file_of_requests_becomes_a_file_of_answers(pipeline: Running, tmp_path: Path) -> None:
    """Lines may leave fields out; each answer is a line of JSON, the outcomes are counted at the end."""
    known = str(uuid.uuid4())
    lines = [
        {"prompt": "One.", "model": "anthropic/claude-haiku-4-5", "request_id": known, "tags": {"a": "b"}},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Two."}]}]},
        {"prompt": "Three.", "model": "openai/gtp"},
    ]
    source, target = tmp_path / "requests.jsonl", tmp_path / "answers.jsonl"
    source.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    found = millstream("send", "--file", str(source), "--out", str(target), "--model", "openai/gpt-5-mini", "--tenant", "t9",
                       "--rate", "50", env=pipeline.environment)  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert found.stderr.strip().splitlines()[-1] == "3 requests: 2 completed, 1 refused."
    answers = [json.loads(line) for line in target.read_text().splitlines()]
    by_id = {answer["request_id"]: answer for answer in answers}
    assert (len(answers), by_id[known]["provider"], by_id[known]["tags"]) == (3, "anthropic", {"a": "b"})
    assert {answer["tenant"] for answer in answers} == {"t9"}
    again = millstream("send", "--file", "-", "--model", "openai/gpt-5-mini", "--tenant", "t9",
                       env=pipeline.environment, text=json.dumps(lines[0]))  # fmt: skip
    assert json.loads(again.stdout) == by_id[known]


@pytest.mark.parametrize(
    ("line", "words"),
    [("{", ["Line 2", "JSON"]), ('{"promt": "x"}', ["Line 2", "promt"]), ('{"prompt": "x", "stream": "yes"}', ["stream", "'yes'"]), ("[]", ["JSON object"])],
)  # fmt: skip
def test_a_bad_line_stops_the_file_before_anything_is_sent(line: str, words: list[str], pipeline: Running) -> None:
    """The mistake is named with its line, and the good line before it was not paid for."""
    request_id = str(uuid.uuid4())
    good = json.dumps({"prompt": "x", "request_id": request_id})
    found = millstream("send", "--file", "-", env=pipeline.environment, text=f"{good}\n{line}\n")
    assert found.returncode == 2
    assert all(word in found.stderr for word in words), found.stderr
    assert request_id not in events(pipeline, RESPONSES)


def test_tail_shows_records_as_they_stand(pipeline: Running) -> None:
    """`--from-beginning` begins with the oldest record, `--json` prints it whole."""
    answer = ask_one(pipeline, told("For the tail."))
    for topic, field in (("responses", "outcome"), ("usage", "cost_nano_usd"), ("requests", "messages")):
        with subprocess.Popen(
            [sys.executable, "-m", "cli.main", "tail", topic, "--from-beginning", "--json"],
            env=pipeline.environment, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        ) as tail:  # fmt: skip
            assert tail.stdout is not None
            shown = next(line for line in tail.stdout if answer["request_id"] in line)
            tail.terminate()
        assert field in json.loads(shown)
