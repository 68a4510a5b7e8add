"""`millstream tasks` and the inputs of `millstream send`, as a person at a shell meets them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cli.main import main
from config.settings import Settings
from config.tasks import Tasks


@pytest.fixture(autouse=True)
def no_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None stands yet, whatever ran before in this directory."""
    monkeypatch.setenv("MILLSTREAM_DATABASE_URL", f"sqlite:///{tmp_path}/none.db")


def test_every_task_is_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """The list has each task's name and versions, and what is shown of one is its file."""
    assert main(["tasks", "list"]) == 0
    listed = capsys.readouterr().out
    for task in Tasks.load(Settings()):
        assert task.name in listed
        assert main(["tasks", "show", task.name]) == 0
        path, _, text = capsys.readouterr().out.partition("\n")
        assert (path, text) == (f"# {task.path}", task.path.read_text("utf-8"))


def test_messages_are_rendered_without_sending(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file, standard input and an object on the command line give the same messages, as text or as JSON."""
    values = {"text": "Baker wanted. {{ 7 * 7 }}"}
    (tmp_path / "in.json").write_text(json.dumps(values))
    assert main(["tasks", "render", "extract_job_data", "--input", str(tmp_path / "in.json")]) == 0
    shown = capsys.readouterr().out
    assert "--- system (extract_job_data/v1)" in shown and "<posting>\nBaker wanted. {{ 7 * 7 }}\n</posting>" in shown
    command = [sys.executable, "-m", "cli.main", "tasks", "render", "extract_job_data", "--input", "-"]
    piped = subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, timeout=60, check=True)
    assert piped.stdout == shown
    assert main(["tasks", "render", "extract_job_data", "--json", "--input", json.dumps(values)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["prompt_version"] == "extract_job_data/v1"
    assert [message["role"] for message in found["messages"]] == ["system", "user"]


def test_a_picture_is_named_and_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Bytes are shown as their type and count."""
    assert main(["tasks", "render", "extract_job_data", "--input", '{"image": "aGk=", "media_type": "image/png"}']) == 0
    assert "[image, image/png, 2 bytes]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tasks", "show", "draft_cvs"], ["'draft_cvs'", "draft_cv"]),
        (["tasks", "render", "sentiment", "--input", "/no/such/file"], ["/no/such/file"]),
        (["tasks", "render", "sentiment", "--input", '{"text"'], ["--input is not JSON"]),
        (["tasks", "render", "sentiment", "--input", '{"txt": "x"}'], ["input.txt", "text"]),
        (["tasks", "render", "sentiment", "--input", '{"text": "x"}', "--version", "v9"], ["'v9'", "v1"]),
        (["send", "--input", "{}"], ["--input", "--task"]),
        (["send", "--task", "sentiment", "--input", "{}", "--file", "-"], ["--input", "--file"]),
        (["send", "--task", "sentiment", "--input", '{"a": NaN'], ["--input is not JSON"]),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The sentence names the value at fault, and the exit status is 2."""
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert all(word in message for word in words), message
    assert message.count("\n") == 1
