"""`millstream providers`, `models`, `routes` and `config`: what they show, change and refuse, with Kafka away."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from cli.main import main
from cli.stackfile import PROVIDER_VARIABLES, STACK_FILE
from config import credentials
from config.database import create_tables, open_database, reading
from config.health import record
from config.key_encryption import encryption_keys, new_local_key
from config.registry import apply
from config.registry_entries import Contents
from config.registry_file import from_yaml, to_yaml
from config.registry_models import REGISTRY_AUDIT
from config.registry_store import contents_of, version_of
from config.settings import settings
from core.health import ProviderHealth
from local.stack import Stack

ENVIRONMENT_KEY = "sk-planted-environment-aaaa"
STORED_KEY = "sk-planted-stored-0123-zzzz"
FILE = """\
providers:
  eu:
    kind: openai
    base_url: https://eu.example/v1
    concurrency: 12
models:
  eu/gpt-4o:
    aliases:
    - smart
    tier: powerful
routes:
  chat:
    targets:
    - smart
    task: chat
    share: 50
tasks: {}
"""


class Shell:
    """The commands against a database of their own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys
        keys = folder / "keys"
        keys.write_text(new_local_key("first") + "\n")
        for name, value in (
            ("MILLSTREAM_DATABASE_URL", f"sqlite:///{folder}/registry.db"), ("MILLSTREAM_CONFIG", str(folder / "none.toml")),
            ("MILLSTREAM_KEY_ENCRYPTION", f"file:{keys}"), ("MILLSTREAM_KAFKA_BOOTSTRAP", "127.0.0.1:9"),
            ("OPENAI_API_KEY", ENVIRONMENT_KEY), ("COLUMNS", "80"),
        ):  # fmt: skip
            monkeypatch.setenv(name, value)
        for name in ("ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY"):
            monkeypatch.delenv(name, raising=False)
        settings.cache_clear()
        self.engine = open_database(settings().database_url)
        create_tables(self.engine)

    def run(self, *arguments: str, status: int = 0) -> str:
        """What a command prints on both streams."""
        assert main(list(arguments)) == status
        return "".join(self._capsys.readouterr())

    def json(self, *arguments: str, status: int = 0) -> Any:
        """What a command prints as JSON."""
        return json.loads(self.run(*arguments, "--json", status=status))

    def file(self, text: str) -> str:
        """The path of a file with this text."""
        path = self.folder / "registry.yaml"
        path.write_text(text)
        return str(path)

    def hold(self, text: str) -> None:
        """Let the database hold what this YAML says."""
        contents = from_yaml(text)
        with self.engine.begin() as db:
            apply(db, lambda _: contents, settings(), "test", 1)

    def held(self) -> Contents:
        with reading(self.engine) as db:
            return contents_of(db)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    ending = signal.getsignal(signal.SIGTERM)
    made = Shell(tmp_path, monkeypatch, capsys)
    yield made
    made.engine.dispose()
    settings.cache_clear()
    signal.signal(signal.SIGTERM, ending)


def test_a_change_is_made_audited_and_says_that_kafka_was_away(shell: Shell) -> None:
    """A provider is added by who says so; without Kafka the command says when the workers see it and what is left to do."""
    said = shell.run("providers", "add", "eu", "--kind", "openai", "--base-url", "https://eu.example/v1", "--by", "ana")
    assert "+ provider eu" in said and "Registry version 1." in said
    assert "within 300 s" in said and "127.0.0.1:9" in said
    assert "run `millstream migrate`" in said and "millstream worker complete --provider eu" in said
    assert "add openai, anthropic, google, echo too" in said
    with reading(shell.engine) as db:
        (row,) = db.execute(select(REGISTRY_AUDIT)).all()
        assert (row.changed_by, row.subject, row.before, version_of(db)) == ("ana", "provider eu", None, 1)


def test_an_import_does_what_the_diff_showed(shell: Shell) -> None:
    """The diff and the dry run show each entry and write nothing; the import does just that; its export is the file."""
    path = shell.file(FILE)
    shown = shell.run("config", "diff", path, status=1)
    assert shown.splitlines() == ["+ provider eu", "+ model eu/gpt-4o", "+ route chat"]
    assert shell.run("config", "import", path, "--dry-run") == shown
    assert shell.held() == Contents()
    assert shell.run("config", "import", path).startswith(shown)
    assert shell.run("config", "export") == FILE
    assert shell.run("config", "diff", path) == "Nothing changes.\n"
    changed = shell.file(FILE.replace("share: 50", "share: 25\n    valid_from: 2026-12-01"))
    assert 'share: "50" → "25"' in (shown := shell.run("config", "diff", changed, status=1))
    assert "valid_from: null → 2026-12-01T00:00:00Z" in shown


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (FILE.replace("tier", "teir"), "Model eu/gpt-4o has the unknown field 'teir'"),
        (FILE.replace("share: 50", "share: 150"), "Route chat has a share of 150 percent"),
        (FILE.replace("- smart\n    task", "- clever\n    task"), "clever is unknown"),
        (FILE.replace("kind: openai", "kind: opanai"), "unknown kind 'opanai'"),
        ("", "The file is empty"),
        ("providers:\n", "write `providers: {}` to empty it"),
    ],
)
def test_a_file_that_cannot_be_used_changes_nothing(shell: Shell, text: str, said: str) -> None:
    """Import and diff refuse it with the value at fault, and what was there stays."""
    shell.hold("providers: {anthropic: {kind: anthropic}}")
    before = shell.held()
    for action in ("import", "diff"):
        assert said in shell.run("config", action, shell.file(text), status=2)
    assert shell.held() == before


def test_a_file_of_some_sections_leaves_the_others(shell: Shell) -> None:
    """Routes in a file of their own take the place of the routes and of nothing else, in the diff as in the import."""
    shell.hold(FILE)
    path = shell.file("routes: {other: {targets: [eu/gpt-4o]}}")
    assert shell.run("config", "diff", path, status=1).splitlines() == ["- route chat", "+ route other"]
    shell.run("config", "import", path)
    assert list(shell.held().routes) == ["other"]
    assert (shell.held().providers, shell.held().models) == (from_yaml(FILE).providers, from_yaml(FILE).models)


def test_a_route_hedges_when_told_so(shell: Shell) -> None:
    """`--hedge` and `--no-hedge` are kept, listed and exported; without them nothing is hedged."""
    shell.hold(FILE)
    assert not shell.held().routes["chat"].hedge
    shell.run("routes", "set", "chat", "--hedge")
    assert shell.held().routes["chat"].hedge
    assert "hedged" in shell.run("routes", "list") and "hedge: true" in shell.run("config", "export")
    shell.run("routes", "set", "chat", "--no-hedge")
    assert shell.run("config", "export") == FILE


def test_a_route_degrades_when_told_so(shell: Shell) -> None:
    """The share and the cheaper targets are kept, listed, audited and exported as they were given; `none` takes them away."""
    shell.hold("routes: {}")
    targets = "--target", "openai/gpt-5", "--target", "openai/gpt-5-mini"
    shell.run("routes", "add", "chat", *targets, "--degrade-from", "80", "--degrade-to", "openai/gpt-5-mini")
    route = shell.held().routes["chat"]
    assert (route.degrade_from, route.degrade_to) == (80, ("openai/gpt-5-mini",))
    with reading(shell.engine) as db:
        (row,) = db.execute(select(REGISTRY_AUDIT)).all()
        assert (row.after["degrade_from"], row.after["degrade_to"]) == (80, ["openai/gpt-5-mini"])
    assert "only openai/gpt-5-mini from 80" in shell.run("routes", "list")
    exported = shell.run("config", "export")
    assert "    degrade_from: 80\n    degrade_to:\n    - openai/gpt-5-mini\n" in exported
    shell.run("routes", "set", "chat", "--degrade-from", "none", "--degrade-to", "none")
    assert "degrade" not in shell.run("config", "export")
    shell.run("config", "import", shell.file(exported))
    assert shell.held().routes["chat"] == route


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--degrade-from", "80"), "names no cheaper model; name one of its targets in degrade_to"),
        (("--degrade-from", "0", "--degrade-to", "openai/gpt-5-mini"), "degrades from 0 percent on; it needs 1 to 100"),
        (("--degrade-from", "80", "--degrade-to", "openai/gpt-4o"), "degrades to openai/gpt-4o, which is none of its targets"),
        (("--degrade-from", "80", "--degrade-to", "openai/gpt-5"), "degrades to openai/gpt-5, which costs no less than its other targets"),
    ],
)  # fmt: skip
def test_a_route_that_cannot_degrade_is_refused(shell: Shell, options: tuple[str, ...], said: str) -> None:
    """What is asked for makes no sense, also by the prices of the day, and the sentence says what to change; nothing is kept."""
    targets = "--target", "openai/gpt-5", "--target", "openai/gpt-5-mini"
    assert said in " ".join(shell.run("routes", "add", "chat", *targets, *options, status=2).split())
    assert shell.held() == Contents()


def test_a_route_to_a_name_that_nobody_knows_is_refused_with_the_nearest(shell: Shell) -> None:
    """A slip in one of several targets is no change, whichever command makes it; a model that is only disabled is a note."""
    shell.hold("{routes: {chat: {targets: [openai/gpt-5]}}, models: {openai/gpt-4o: {enabled: false}}}")
    before, two = shell.held(), ("--target", "openai/gpt-5", "--target", "openai/gtp-5-mini")
    slip = shell.file("{routes: {chat: {targets: [openai/gpt-5, openai/gtp-5-mini]}}}")
    for command in (
        ("routes", "add", "other", "--task", "cv", *two),
        ("routes", "set", "chat", *two),
        ("config", "import", slip),
    ):
        said = " ".join(shell.run(*command, status=2).split())
        assert "names openai/gtp-5-mini, which is not known here; the nearest known are openai/gpt-5-mini" in said
        assert shell.held() == before
    off = shell.run("routes", "set", "chat", "--target", "openai/gpt-5", "--target", "openai/gpt-4o")
    assert "goes past some of its targets: openai/gpt-4o is disabled" in " ".join(off.split())


def test_a_route_whose_model_has_gone_can_be_changed(shell: Shell) -> None:
    """Names that a route had when they were known stand in the way of no later change; enabling it again names them anew."""
    text = (
        "{providers: {openai: {kind: openai}, eu: {kind: openai}}, routes: {chat: {targets: [openai/gpt-5, eu/gpt-5]}}}"
    )
    shell.hold(text)
    gone = shell.file(text.replace(", eu: {kind: openai}", ""))
    assert "eu/gpt-5 is unknown" in " ".join(shell.run("config", "import", gone).split())
    shell.run("routes", "set", "chat", "--precedence", "2")
    shell.run("routes", "set", "chat", "--disabled")
    assert "names eu/gpt-5, which is not known here" in shell.run("routes", "set", "chat", "--enabled", status=2)


def test_lists_say_where_things_come_from(shell: Shell) -> None:
    """Providers, models and routes are shown with the environment, the price list and the defaults told from the database."""
    assert {row["from"] for row in shell.json("providers", "list")} == {"environment"}
    assert {row["from"] for row in shell.json("routes", "list")} == {"default"}
    assert "the default routes" in shell.run("routes", "list")
    shell.hold(FILE)
    (provider,) = shell.json("providers", "list")
    assert (provider["name"], provider["from"], provider["concurrency"]) == ("eu", "database", 12)
    models = {row["name"]: row["from"] for row in shell.json("models", "list", "--provider", "eu")}
    assert models["gpt-4o"] == "database" and models["gpt-4o-mini"] == "price list"
    assert [row["name"] for row in shell.json("models", "list", "--registered")] == ["gpt-4o"]
    (route,) = shell.json("routes", "list")
    assert (route["name"], route["from"], route["share"]) == ("chat", "database", "50")


def test_providers_are_shown_with_their_health(shell: Shell) -> None:
    """What the latest checks found stands beside a provider, and nothing beside one that was not checked."""
    with shell.engine.begin() as db:
        record(db, {"openai": ProviderHealth("unhealthy", 0, 3, 1, 1, "no answer")})
    assert {row["name"]: row["health"] for row in shell.json("providers", "list")} == {
        "openai": "unhealthy", "anthropic": "unknown", "google": "unknown", "echo": "unknown",
    }  # fmt: skip
    assert "enabled, unhealthy" in shell.run("providers", "list")


def test_no_letter_of_a_figure_or_an_id_is_left_out(shell: Shell) -> None:
    """Where 80 columns are too few, a table is wider: limits with large amounts, long accounts, and issued keys."""
    shell.run("limits", "set", "acme", "--usd-per-month", "12500.50")
    shell.run("limits", "set", "acme", "--user", "somebody-with-a-long-name", "--tokens-per-month", "123456789")
    shown = shell.run("limits", "show", "acme")
    for word in ("account", "limit", "used", "reserved", "left", "resets at", "12,500.5 USD", "123,456,789"):
        assert word in shown, shown
    issued = re.search(
        r"vk-[0-9a-f]{16}", shell.run("keys", "issue", "--tenant", "acme", "--label", "a service of ours")
    )
    assert issued is not None
    assert issued[0] in shell.run("keys", "issued")


def test_what_is_shown_fits_a_terminal(shell: Shell) -> None:
    """No line of a list is wider than 80 columns, the whole price list included."""
    for command in ("providers", "models", "routes"):
        assert max(len(line) for line in shell.run(command, "list").splitlines()) <= 80


def test_options_change_what_they_name_and_nothing_else(shell: Shell) -> None:
    """`set` keeps the fields that no option names, `none` empties one, and a value of the wrong kind is named."""
    shell.hold(FILE)
    shell.run("providers", "set", "eu", "--concurrency", "none", "--region", "eu-west-1")
    eu = shell.held().providers["eu"]
    assert (eu.kind, eu.base_url, eu.concurrency, eu.region) == ("openai", "https://eu.example/v1", None, "eu-west-1")
    said = shell.run("routes", "set", "chat", "--share", "lots", status=2)
    assert "Route chat has a share that cannot be used" in said
    said = shell.run("models", "add", "eu/gpt-4o", status=2)
    assert "registered already" in said
    said = shell.run("providers", "disable", "eu", status=2)
    assert "Route chat has no model left to send to: smart is at the disabled provider eu" in said
    assert "there are eu" in shell.run("providers", "enable", "us", status=2)


def test_a_model_begins_with_what_is_known_of_it(shell: Shell) -> None:
    """`models add` takes capabilities and context from what is known and the rest from its options; prices are read by class."""
    shell.run(
        "models", "add", "openai/gpt-4o", "--alias", "smart", "--tier", "cheap",
        "--price", "input_uncached=0.25,output_text=2",
    )  # fmt: skip
    model = shell.held().models["openai/gpt-4o"]
    assert (model.aliases, model.tier, model.context_tokens) == (("smart",), "cheap", 128_000)
    assert "image" in model.capabilities
    assert {name: str(price) for name, price in (model.price_override or {}).items()} == {
        "input_uncached": "0.25", "output_text": "2",
    }  # fmt: skip
    shell.run("models", "set", "openai/gpt-4o", "--default-output-tokens", "1500")
    exported = shell.run("config", "export")
    assert "    default_output_tokens: 1500\n" in exported
    assert "1,500 tokens out" in shell.run("models", "list", "--registered")
    shell.run("models", "set", "openai/gpt-4o", "--default-output-tokens", "none")
    assert shell.held().models["openai/gpt-4o"] == model
    shell.run("config", "import", shell.file(exported))
    assert shell.held().models["openai/gpt-4o"].default_output_tokens == 1_500
    assert "--price has 'output'" in shell.run("models", "set", "openai/gpt-4o", "--price", "output", status=2)
    assert "no provider 'nobody'" in shell.run("models", "add", "nobody/x", status=2)
    assert "not PROVIDER/MODEL" in shell.run("models", "add", "gpt", status=2)


def test_match_shows_the_route_of_a_request(shell: Shell) -> None:
    """The default table answers by plan and task; what no route is for is refused with 1; times are taken."""
    for plan, model in (("pro", "gemini-2.5-pro"), ("paygo", "gemini-2.5-flash"), ("freemium", "gemini-2.5-flash")):
        found = shell.json("routes", "match", "--task", "cv_draft", "--plan", plan)
        assert found["route"] == f"cv_draft-{plan}"
        assert [one["model"] for one in found["decisions"] if one["kept"]] == [f"google/{model}"]
    assert "no route is for" in shell.run("routes", "match", "--task", "poetry", status=1)
    shell.hold("routes: {late: {task: poetry, targets: [echo/echo], valid_from: 2026-12-01}}")
    at = ("routes", "match", "--task", "poetry", "--at")
    assert "no route is for" in shell.run(*at, "2026-11-30T23:59:59Z", status=1)
    assert "Route late." in shell.run(*at, "2026-12-01T00:00:00Z")
    assert "no time" in shell.run(*at, "soon", status=2)


def test_match_ranks_by_prices_and_health_as_a_worker_does(shell: Shell) -> None:
    """A route by cost shows the cheaper model first, until its provider is unhealthy."""
    shell.hold(
        "routes: {thrifty: {task: t, targets: [openai/gpt-5, google/gemini-2.5-flash], strategies: [health, cost]}}"
    )
    match = ("routes", "match", "--task", "t", "--prompt", "Say it in one word.")
    before = shell.json(*match)["decisions"]
    assert [one["model"] for one in before] == ["google/gemini-2.5-flash", "openai/gpt-5"]
    assert all("USD" in one["reason"] and "no price" not in one["reason"] for one in before)
    with shell.engine.begin() as db:
        record(db, {"google": ProviderHealth("unhealthy", 0, 3, 1, 1, "no answer")})
    after = shell.json(*match)["decisions"]
    assert after[0]["model"] == "openai/gpt-5"
    assert "unhealthy" in after[1]["reason"]


@pytest.mark.parametrize(
    ("model", "reach", "auth", "answer"),
    [
        ("echo", "ok", "ok", "ok"), ("fail-401", "ok", "failed", "not tried"), ("fail-404", "ok", "ok", "unknown model"),
        ("fail-429", "ok", "ok", "rate limited"), ("disconnect", "failed", "not tried", "not tried"),
    ],
)  # fmt: skip
def test_a_call_says_what_worked(shell: Shell, model: str, reach: str, auth: str, answer: str) -> None:
    """Reach, auth and model are told apart, and only an answer ends with 0."""
    found = shell.json("providers", "test", "echo", "--model", model, status=0 if answer == "ok" else 1)
    assert (found["reach"], found["auth"], found["answer"]) == (reach, auth, answer)
    assert found["latency_us"] > 0 and bool(found["error"]) == (answer != "ok")


def test_beside_a_local_stack_its_simulator_is_called(
    shell: Shell, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where `millstream up` runs, providers are those of its workers and say so; the user's key goes to none but a server of theirs."""
    for variables in PROVIDER_VARIABLES.values():
        for name in variables:
            monkeypatch.setenv(name, "")
            monkeypatch.delenv(name)
    monkeypatch.setenv("OPENAI_API_KEY", "bad-key")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "bad-key")
    monkeypatch.chdir(shell.folder)
    # A name of the same host that is not the simulator's own address.
    elsewhere = address.replace("127.0.0.1", "localhost")
    called = {"openai": f"{address}/openai/v1", "anthropic": f"{elsewhere}/anthropic"}
    Stack("127.0.0.1:9", "", "", address, None, "", {"up": os.getpid()}, {}, called).write(STACK_FILE)
    settings.cache_clear()
    found = {one["name"]: one for one in shell.json("providers", "list")}
    assert (found["openai"]["base_url"], found["openai"]["key"]) == (called["openai"], "simulator's")
    assert (found["anthropic"]["base_url"], found["anthropic"]["key"]) == (called["anthropic"], "environment's")
    monkeypatch.setenv("COLUMNS", "160")
    assert f"{called['openai']} (simulator)" in shell.run("providers", "list")
    printed = shell.run("providers", "test", "openai")
    assert f"{called['openai']} (simulator)" in printed
    assert re.search(r"auth +ok", printed)
    printed = shell.run("providers", "test", "anthropic", status=1)
    assert called["anthropic"] in printed and "(simulator)" not in printed
    assert re.search(r"auth +failed", printed)


def test_a_call_without_a_key_is_not_made(shell: Shell) -> None:
    """A provider whose key is missing is not called, and the setting to set is named; nor is one that does not exist."""
    found = shell.json("providers", "test", "anthropic", status=1)
    assert (found["reach"], found["auth"], found["latency_us"]) == ("not tried", "no key", None)
    assert "ANTHROPIC_API_KEY" in found["error"]
    assert "no provider 'nobody'" in shell.run("providers", "test", "nobody", status=2)


def test_keys_are_shown_by_their_last_four_characters(shell: Shell) -> None:
    """A stored key and one of the environment show in no list, export or audit beyond the last four of the stored one."""
    with shell.engine.begin() as db:
        new = credentials.NewCredential("openai")
        credentials.add(db, encryption_keys(settings().key_encryption), new, STORED_KEY, credentials.Change("ana", 1))
    keys = {row["name"]: row["key"] for row in shell.json("providers", "list")}
    assert keys == {"openai": "…zzzz", "anthropic": "not set", "google": "not set", "echo": "not needed"}
    shell.hold("providers: {openai: {kind: openai}}")
    with reading(shell.engine) as db:
        audit = repr(db.execute(select(REGISTRY_AUDIT)).all())
    said = shell.run("providers", "list") + shell.run("config", "export") + audit + to_yaml(shell.held())
    assert "planted" not in said


def test_a_database_without_tables_is_named(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before `millstream migrate` each command says so."""
    monkeypatch.setenv("MILLSTREAM_DATABASE_URL", f"sqlite:///{shell.folder}/other.db")
    settings.cache_clear()
    for command in (("providers", "list"), ("config", "export"), ("routes", "remove", "x")):
        assert "run `millstream migrate`" in shell.run(*command, status=2)
