"""Named tasks that the registry holds: stored from files, checked as they are stored, and read by workers, on both databases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import Engine, select

from config.registry import apply, load
from config.registry_entries import Contents, RegistryInvalid
from config.registry_file import from_yaml, to_yaml
from config.registry_models import REGISTRY_AUDIT, TASKS
from config.registry_store import Changed, contents_of
from config.settings import Settings
from config.tasks import Tasks, choose
from core.registry import StoredTask
from tests.contract.test_registry_commands import Shell, shell  # noqa: F401
from tests.examples import NOON

GREET = """\
description: Greets somebody.
input:
  type: object
  required:
  - who
  properties:
    who:
      type: string
output:
  type: object
  properties:
    why:
      type: string
    greeting:
      type: string
prompts:
- name: v1
  user: |
    Greet {{ who }}.

    Be kind.
"""
ANOTHER = """\
prompts:
- name: v2
  share: 10
  user: 'Write a CV of {{ profile | tojson }}.'
"""


def stored(name: str, text: str) -> dict[str, StoredTask]:
    """The task that the registry's file has under its name."""
    return dict(from_yaml(yaml.safe_dump({"tasks": {name: yaml.safe_load(text)}}, sort_keys=False)).tasks)


def put(engine: Engine, tasks: dict[str, StoredTask], settings: Settings | None = None) -> Changed:
    with engine.begin() as db:
        return apply(db, lambda now: replace(now, tasks=tasks), settings or Settings(), "ana", NOON)


def served(engine: Engine, settings: Settings | None = None) -> Tasks:
    """The tasks as a worker has them."""
    with engine.connect() as db:
        registry = load(db, settings or Settings(), NOON)
    return Tasks.load(settings or Settings()).with_stored(registry.tasks)


def test_a_stored_task_serves_beside_the_shipped_ones_and_is_audited(engine: Engine) -> None:
    """Workers see it as it was written, its schema's properties in their order, and the audit has who stored what."""
    shipped = {task.name for task in Tasks.load(Settings())}
    assert put(engine, stored("greet", GREET)).version == 1
    tasks = served(engine)
    assert {task.name for task in tasks} == shipped | {"greet"}
    task = tasks.get("greet")
    assert task is not None and (task.path, task.prompts[0].user.render({"who": "Bo"}, 99)) == (
        None, "Greet Bo.\n\nBe kind.",
    )  # fmt: skip
    assert (task.output or "").index("why") < (task.output or "").index("greeting")
    with engine.connect() as db:
        (row,) = db.execute(select(REGISTRY_AUDIT)).all()
        assert (row.changed_by, row.action, row.subject, row.before) == ("ana", "add", "task greet", None)
        assert list(row.after) == ["name", "description", "input", "output", "prompts"]
    assert [one.action for one in put(engine, {}).differences] == ["remove"]
    assert served(engine).get("greet") is None


def test_a_stored_task_takes_the_place_of_the_shipped_one(engine: Engine) -> None:
    """Under a shipped name the stored task serves, and the shipped one again when it is removed."""
    put(engine, stored("sentiment", GREET))
    assert [task.description for task in served(engine) if task.name == "sentiment"] == ["Greets somebody."]
    put(engine, {})
    assert [task.path is not None for task in served(engine) if task.name == "sentiment"] == [True]


def test_a_version_alone_is_added_to_the_file_and_gets_its_share(engine: Engine) -> None:
    """What the entry leaves out is the file's; of many users the share gets the new version, and a larger share keeps them."""
    before = Tasks.load(Settings()).get("draft_cv")
    put(engine, stored("draft_cv", ANOTHER))
    task = served(engine).get("draft_cv")
    assert task is not None and before is not None
    assert (task.description, task.output, task.route) == (before.description, before.output, before.route)
    assert [(v.name, v.weight / sum(p.weight for p in task.prompts)) for v in task.prompts] == [
        ("v1", 0.9),
        ("v2", 0.1),
    ]
    tenth = {user for user in map(str, range(2_000)) if choose(task, user).name == "v2"}
    assert 140 < len(tenth) < 260
    put(engine, stored("draft_cv", ANOTHER.replace("10", "30.5")))
    task = served(engine).get("draft_cv")
    assert task is not None
    assert tenth < {user for user in map(str, range(2_000)) if choose(task, user).name == "v2"}


def test_a_change_of_nothing_but_the_order_is_a_change(engine: Engine) -> None:
    """A model writes an answer's fields in the order of the schema, so another order is stored; the same order is no change."""
    put(engine, stored("greet", GREET))
    assert put(engine, stored("greet", GREET)).differences == ()
    content: dict[str, Any] = yaml.safe_load(GREET)
    content["output"]["properties"] = dict(reversed(content["output"]["properties"].items()))
    assert [one.action for one in put(engine, stored("greet", yaml.safe_dump(content, sort_keys=False))).differences] == ["update"]  # fmt: skip


WRONG: dict[str, tuple[str, Callable[[dict[str, Any]], Any], str]] = {
    "no template": ("greet", lambda t: t["prompts"][0].update(user="{{ who"), "prompts[0].user"),
    "a template that calls": ("greet", lambda t: t["prompts"][0].update(user="{{ who.upper() }}"), "prompts[0].user"),
    "an input that is not there": ("greet", lambda t: t["prompts"][0].update(user="{{ whom }}"), "'whom'"),
    "no schema": ("greet", lambda t: t["input"].update(type="objekt"), "field input is no JSON schema"),
    "no schema of answers": ("greet", lambda t: t["output"].update(required="why"), "field output is no JSON schema"),
    "too many shares": (
        "greet", lambda t: t.update(prompts=[{"name": n, "user": "x", "share": 60} for n in "ab"]), "sum to 120 percent",
    ),
    "too few shares": ("greet", lambda t: t["prompts"][0].update(share=60), "sum to 60 percent"),
    "a share and a weight": ("greet", lambda t: t["prompts"][0].update(share=60, weight=1), "a share and a weight"),
    "no number": ("greet", lambda t: t["prompts"][0].update(share="many"), "prompts[0].share"),
    "two versions of one name": ("greet", lambda t: t["prompts"].append(t["prompts"][0]), "two versions"),
    "an unknown field": ("greet", lambda t: t.update(colour="red"), "field colour is not known"),
    "a bad name": ("Greet!", lambda t: None, "field name"),
    "no file to add to": ("greet", lambda t: t.pop("input"), "no file of that name"),
    "versions that are no list": ("draft_cv", lambda t: (t.pop("input"), t.update(prompts="v2")), "field prompts"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_task_that_cannot_be_used_is_refused_when_it_is_stored(case: str, engine: Engine) -> None:
    """Nothing is written, and the sentence names the task and the field."""
    name, break_, words = WRONG[case]
    content = yaml.safe_load(GREET)
    break_(content)
    with pytest.raises(RegistryInvalid) as refused:
        put(engine, stored(name, yaml.safe_dump(content, sort_keys=False)))
    (problem,) = refused.value.problems
    assert f"Task {name}" in problem and words in problem, problem
    with engine.connect() as db:
        assert contents_of(db) == Contents()


@pytest.mark.parametrize("definition", ['{"description": "x"}', "{", "[]", '{"input": {"type": "array"}}'])
def test_a_row_changed_by_hand_makes_no_snapshot(definition: str, engine: Engine) -> None:
    """Workers keep the registry that they have when a task in the database cannot be used; the reason names it."""
    put(engine, stored("greet", GREET))
    with engine.begin() as db:
        db.execute(TASKS.update().values(definition=definition))
    with pytest.raises(RegistryInvalid, match="Task greet"):
        served(engine)


def test_a_deployments_own_file_can_be_added_to(engine: Engine, tmp_path: Path) -> None:
    """Versions are added to the task of the folder that the setting names; without the folder the entry is refused."""
    (tmp_path / "greet.yaml").write_text(f"name: greet\n{GREET}")
    settings = Settings(tasks_dir=str(tmp_path))
    added = stored("greet", "prompts: [{name: v2, share: 25, user: 'Hello, {{ who }}.'}]")
    put(engine, added, settings)
    task = served(engine, settings).get("greet")
    assert task is not None and [v.weight for v in task.prompts] == [3, 1]
    with pytest.raises(RegistryInvalid, match="no file of that name"):
        served(engine)
    (tmp_path / "greet.yaml").write_text("name: greet\n")
    with pytest.raises(RegistryInvalid, match=r"Task file .*greet\.yaml"), engine.connect() as db:
        load(db, settings, NOON)


def test_the_registrys_file_is_the_same_when_written_again() -> None:
    """Prompts read as they were written, in the order of their keys, and what was read gives the same text again."""
    contents = Contents(tasks=stored("greet", GREET))
    text = to_yaml(contents)
    assert "\n".join("    " + line if line else "" for line in GREET.splitlines()) in text
    assert from_yaml(text) == contents and to_yaml(from_yaml(text)) == text


def test_tasks_are_stored_and_removed_from_the_shell(shell: Shell) -> None:  # noqa: F811
    """`tasks add`, `set`, `list`, `show` and `remove` do what they say, and `config` carries what was stored."""
    path = shell.folder / "v2.yaml"
    path.write_text("name: draft_cv\n" + ANOTHER)
    assert "Registry version 1." in shell.run("tasks", "add", str(path), "--by", "ana")
    assert "change it with `set`" in shell.run("tasks", "add", str(path), status=2)
    path.write_text("name: draft_cv\n" + ANOTHER.replace("10", "20"))
    (change,) = shell.json("tasks", "set", str(path))["changes"]
    assert (change["subject"], change["after"]["prompts"][0]["share"]) == ("task draft_cv", 20)
    assert "registry" in shell.run("tasks", "list")
    shown = shell.run("tasks", "show", "draft_cv")
    assert "stored in the registry" in shown and "share: 20" in shown and "name: v1" in shown
    exported = shell.run("config", "export")
    shell.run("tasks", "remove", "draft_cv")
    assert "draft_cv.yaml" in shell.run("tasks", "show", "draft_cv")
    assert "+ task draft_cv" in shell.run("config", "diff", shell.file(exported), status=1)
    shell.run("config", "import", shell.file(exported))
    assert shell.run("config", "export") == exported
    assert "there are draft_cv" in shell.run("tasks", "remove", "greet", status=2)
    path.write_text("prompts: []\n")
    assert "does not name its task" in shell.run("tasks", "add", str(path), status=2)
    path.write_text("name: draft_cv\nprompts: [{name: v2, share: 120, user: x}]\n")
    assert "prompts[1].share" in shell.run("tasks", "set", str(path), status=2)
