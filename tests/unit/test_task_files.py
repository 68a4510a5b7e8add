"""Files of tasks: what they may hold, and which version of a prompt a request gets."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from config.settings import Settings, SettingsError
from config.task_files import read_task
from config.tasks import Tasks, choose
from tests.unit.tasks import NAMES, SHIPPED, TASK, own, prepared, said


def test_a_deployment_adds_and_replaces_tasks(tmp_path: Path) -> None:
    """A file of the deployment's own is a task beside the shipped ones, or stands in place of the one of its name."""
    assert [task.name for task in own(tmp_path)] == sorted([*NAMES, "greet"])
    replaced = own(tmp_path, TASK.replace("name: greet", "name: summarise"), "summarise")
    assert said(prepared("summarise", {"who": "Ana"}, replaced, "ana")).endswith(("Greet Ana.", "Greet Ana warmly."))


BAD_FILES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "unknown field": ("description: Greets.", "description: Greets.\ncolour: red", ("field colour is not known",)),
    "unknown field within": ("weight: 3", "wieght: 3", ("prompts[0].wieght is not known",)),
    "missing field": ("description: Greets.", "", ("field description",)),
    "wrong type": ("weight: 3", "weight: many", ("prompts[0].weight", "integer")),
    "negative weight": ("weight: 3", "weight: -3", ("prompts[0].weight", "greater than or equal to 0")),
    "another name": ("name: greet\n", "name: great\n", ("field name is 'great'", "'greet'")),
    "no mapping": (TASK, "- a", ("no mapping",)),
    "no YAML": (TASK, "a: [", ("is not YAML",)),
    "a tag": ("description: Greets.", "description: !!python/object/apply:os.system [ls]", ("is not YAML",)),
    "a key twice": ("description: Greets.", "description: Greets.\ndescription: Twice.", ("key 'description' twice",)),
    "a key that is no text": ("{type: string}", "{type: object, properties: {on: {}}}", ("key True", "quotes")),
    "a list for a key": ("description: Greets.", "? [a]\n: b", ("is not YAML",)),
    "an alias": ("description: Greets.", "description: &a Greets.\nroute: *a", ("alias",)),
    "no JSON schema": ("type: object", "type: objekt", ("field input is no JSON schema", "objekt")),
    "a schema elsewhere": ("{type: string}", "{$ref: 'https://example.com/x.json'}", ("field input", "https://example.com")),
    "a schema nowhere": ("{type: string}", "{$ref: '#/$defs/x'}", ("field input", "#/$defs/x")),
    "a schema of a list": ("type: object", "type: array", ("field input must be of type object",)),
    "undefined variable": ("Greet {{ who }}.", "Greet {{ whom }}.", ("prompts[0].user (plain)", "'whom'", "it has who")),
    "syntax": ("Greet {{ who }}.", "Greet {{ who.", ("prompts[0].user", "Line 1")),
    "two of one name": ("name: warm", "name: plain", ("two versions have one name",)),
    "weights of zero": ("weight: 3", "weight: 0\n    # of all\n", ()),
    "no version": (TASK[TASK.index("prompts:") :], "prompts: []", ("field prompts",)),
    "attachment of no input": ("prompts:", "attach:\n  - {type: image, data: pic, media_type: who}\nprompts:", ("attach[0].data", "'pic'")),
    "page of no input": ("prompts:", "page: {url: link, into: who}\nprompts:", ("page.url", "'link'")),
    "a bad default": ("prompts:", "parameters: {temperature: 3}\nprompts:", ("parameters.temperature",)),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_file_that_cannot_be_used_is_refused_by_file_and_field(case: str, tmp_path: Path) -> None:
    """The sentence names the file, the field and what is wrong, before anything runs."""
    before, after, words = BAD_FILES[case]
    assert before in TASK
    if case == "weights of zero":
        assert own(tmp_path, TASK.replace(before, after)) is not None
        words, before, after = ("every weight is 0",), TASK, TASK.replace("weight: 3", "weight: 0").replace(
            "name: warm", "name: warm\n    weight: 0")  # fmt: skip
    with pytest.raises(SettingsError) as problem:
        own(tmp_path, TASK.replace(before, after))
    message = str(problem.value)
    assert message.startswith(f"Task file {tmp_path / 'greet.yaml'}: ")
    assert all(word in message for word in words), message


def test_a_folder_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    """A folder that is not there, and a file whose ending would hide it, are said at start."""
    with pytest.raises(SettingsError, match="MILLSTREAM_TASKS_DIR"):
        Tasks.load(Settings(tasks_dir=str(tmp_path / "none")))
    (tmp_path / "greet.yml").write_text(TASK)
    with pytest.raises(SettingsError, match=r"\.yaml; rename"):
        Tasks.load(Settings(tasks_dir=str(tmp_path)))
    (tmp_path / "greet.yml").rename(tmp_path / "greet.yaml")
    (tmp_path / "greet.yaml").write_bytes(b"\xff")
    with pytest.raises(SettingsError, match="cannot be read"):
        read_task(tmp_path / "greet.yaml")


def test_a_version_is_chosen_by_weight_and_stays(tmp_path: Path) -> None:
    """Of many users about three quarters get the version of weight 3, and each gets the same one every time, in every process."""
    tasks, same = own(tmp_path), own(tmp_path)
    first = [prepared("greet", {"who": "x"}, tasks, f"user {n}").prompt_version for n in range(2_000)]
    again = [prepared("greet", {"who": "y"}, same, f"user {n}").prompt_version for n in range(2_000)]
    assert first == again
    counted = Counter(first)
    assert set(counted) == {"greet/plain", "greet/warm"}
    assert 1_400 < counted["greet/plain"] < 1_600
    assert [(version or "").removeprefix("greet/") for version in first[:6]] == [
        "warm",
        "plain",
        "warm",
        "plain",
        "warm",
        "plain",
    ]


def test_a_version_of_weight_zero_gets_nothing(tmp_path: Path) -> None:
    """A retired version can stay in its file."""
    tasks = own(tmp_path, TASK.replace("weight: 3", "weight: 0"))
    assert {prepared("greet", {"who": "x"}, tasks, str(n)).prompt_version for n in range(200)} == {"greet/warm"}


@examples(deadline=None)
@given(st.text(), st.lists(st.integers(0, 1_000_000), min_size=1, max_size=5).filter(any))
def test_every_key_gets_a_version_that_has_weight(sticky: str, weights: list[int]) -> None:
    """Whatever the key and the weights, the choice is one of the versions with a weight, and the same when asked again."""
    task = SHIPPED.get("summarise")
    assert task is not None
    versions = tuple(replace(task.prompts[0], name=f"v{n}", weight=weight) for n, weight in enumerate(weights))
    changed = replace(task, prompts=versions)
    found = choose(changed, sticky)
    assert found.weight > 0
    assert choose(changed, sticky) is found
