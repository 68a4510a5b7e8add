"""`millstream config`: the registry as one YAML file that a company keeps in git."""

from __future__ import annotations

import argparse
import json

from cli.files import read_text, write_text
from cli.registry_change import actions, as_data, change_options, commit, json_option, lines_of, preview, read
from cli.stackfile import stack_settings
from config.registry_entries import Contents
from config.registry_file import from_yaml, to_yaml
from config.settings import Settings


def describe(parser: argparse.ArgumentParser) -> None:
    """The actions and their options."""
    action = actions(parser)
    exporting = action.add_parser("export", help="write what is registered as YAML", allow_abbrev=False)
    exporting.add_argument("--out", metavar="PATH", help="the file to write (default: standard output)")
    importing = action.add_parser(
        "import",
        help="bring the registry to what a file says, section by section; those it leaves out stay",
        allow_abbrev=False,
    )
    importing.add_argument("file", metavar="PATH", help="the YAML file; - reads standard input")
    importing.add_argument("--dry-run", action="store_true", help="show what would change and write nothing")
    change_options(importing)
    showing = action.add_parser("diff", help="show what an import would change; 1 when it would", allow_abbrev=False)
    showing.add_argument("file", metavar="PATH", help="the YAML file; - reads standard input")
    json_option(showing)


def run(arguments: argparse.Namespace) -> int:
    """Do what the action says."""
    settings = stack_settings()
    if arguments.action == "export":
        return _export(settings, arguments.out)
    text = read_text(arguments.file)

    def edit(before: Contents) -> Contents:
        return from_yaml(text, before)

    if arguments.action == "import" and not arguments.dry_run:
        return commit(settings, edit, arguments)
    differences = preview(settings, edit)
    if arguments.json:
        print(json.dumps({"changes": as_data(differences)}))
    else:
        print("\n".join(lines_of(differences)) or "Nothing changes.")
    return 1 if differences and arguments.action == "diff" else 0


def _export(settings: Settings, out: str | None) -> int:
    contents, _ = read(settings)
    text = to_yaml(contents)
    write_text(out, text)
    return 0
