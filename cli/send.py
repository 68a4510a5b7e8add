"""`millstream send`: one request from the command line, or many from a file."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cli.errors import CommandError
from cli.exchange import Exchange
from cli.lines import INPUT_HELP, input_text, parse, request_of, text_of, usd
from cli.stackfile import stack_settings
from cli.streamed import Deltas
from schemas.codec import Event
from schemas.jsonform import to_json

#: Fields of a request that have an option.
NAMES = ("model", "tenant", "user", "project", "task", "prompt_version", "plan")


def describe(parser: argparse.ArgumentParser) -> None:
    """A prompt or a file, and fields for requests that do not have them."""
    parser.add_argument("prompt", nargs="?", help="the text of one user message")
    parser.add_argument("--input", metavar="FILE", help=f"with --task: {INPUT_HELP}")
    parser.add_argument("--file", metavar="PATH", help="requests as JSON lines; - reads standard input")
    parser.add_argument(
        "--out", metavar="PATH", help="write the answers as JSON lines here (with --file; default standard output)"
    )
    parser.add_argument("--rate", type=_positive, metavar="N", help="send at most N requests a second")
    parser.add_argument("--timeout", type=_positive, default=60.0, metavar="SECONDS",
                        help="give up when no answer comes for so long (default 60)")  # fmt: skip
    for name in NAMES:
        parser.add_argument(
            f"--{name.replace('_', '-')}", help=f"the {name.replace('_', ' ')} of requests that do not name one"
        )
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")
    parser.add_argument("--stream", action="store_true", help="print the answer of a prompt while it is made")


def _positive(text: str) -> float:
    try:
        if (number := float(text)) > 0:
            return number
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")


def run(arguments: argparse.Namespace) -> int:
    """Send and wait; 0 when every request got its answer, whatever the outcome, else 1."""
    one = arguments.prompt is not None or arguments.input is not None
    if one == (arguments.file is not None):
        raise CommandError("Give a prompt, --task with --input, or --file; see `millstream send --help`.")
    if arguments.input is not None and arguments.task is None:
        raise CommandError("--input goes with --task; name the task that it is for, as in --task draft_cv.")
    if arguments.stream and (arguments.file or arguments.json):
        raise CommandError("--stream prints one answer's text; leave out --file and --json.")
    if one and (arguments.out or arguments.rate):
        raise CommandError("--out and --rate go with --file; leave them out or put the requests into a file.")
    defaults = {name: getattr(arguments, name) for name in NAMES if getattr(arguments, name) is not None}
    return _send_one(arguments, defaults) if arguments.file is None else _send_file(arguments, defaults)


def _send_one(arguments: argparse.Namespace, defaults: dict[str, Any]) -> int:
    fields = {} if arguments.prompt is None else {"prompt": arguments.prompt}
    if arguments.input is not None:
        fields["input"] = input_text(arguments.input)
    request = request_of(fields, defaults, "The request")
    settings = stack_settings()
    exchange = Exchange(settings)
    deltas = Deltas(settings, exchange) if arguments.stream else None
    request["stream"] = deltas is not None
    exchange.send(request)
    exchange.flush()
    if deltas is not None:
        answer = deltas.answer(request, arguments.timeout)
        deltas.close()
    else:
        answer = exchange.answers([request["request_id"]], arguments.timeout).get(request["request_id"])
    exchange.close()
    if answer is None:
        print(f"No answer came within {arguments.timeout:g} s; is a worker running for every stage?", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps(to_json("LlmResponse", answer)))
    else:
        _print(answer, deltas.printed if deltas else 0)
    return 0


def _print(answer: Event, printed: int) -> None:
    """Print the answer but for the characters of it that are printed already."""
    if answer["outcome"] == "completed":
        print(text_of(answer)[printed:])
    else:
        print("\n" * bool(printed) + f"{answer['outcome']}: {answer['error']['code']}: {answer['error']['message']}")
    seconds = (answer["finished_at"] - answer["created_at"]) / 1_000_000
    served = answer["response_model"] or answer["model"]
    print(f"{served} · {usd(answer['cost_nano_usd'])} · {seconds:.3f} s · {answer['request_id']}", file=sys.stderr)


def _send_file(arguments: argparse.Namespace, defaults: dict[str, Any]) -> int:
    with ExitStack() as files:
        source = sys.stdin if arguments.file == "-" else files.enter_context(_open(arguments.file, "r"))
        # Every line is read before the first is sent: a mistake in the last one shall not leave half of them paid for.
        requests = list(_requests(source, defaults, arguments.file))
        out = files.enter_context(_open(arguments.out, "w")) if arguments.out else sys.stdout
        ids = [request["request_id"] for request in requests]
        if len(set(ids)) != len(ids):
            twice = next(i for i, count in Counter(ids).items() if count > 1)
            raise CommandError(f"Request id {twice} stands on two lines; give every request an id of its own.")
        exchange = Exchange(stack_settings())
        outcomes: Counter[str] = Counter()
        with _progress() as bar:
            sending = bar.add_task("sent", total=len(ids))
            waiting = bar.add_task("answered", total=len(ids))

            def arrived(answer: Event) -> None:
                outcomes[answer["outcome"]] += 1
                out.write(json.dumps(to_json("LlmResponse", answer)) + "\n")
                bar.advance(waiting)

            start = time.monotonic()
            for number, request in enumerate(requests):
                if arguments.rate:
                    time.sleep(max(0.0, start + number / arguments.rate - time.monotonic()))
                exchange.send(request)
                bar.advance(sending)
            exchange.flush()
            exchange.answers(ids, arguments.timeout, arrived)
        exchange.close()
    missing = len(ids) - outcomes.total()
    counted = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    print(
        f"{len(ids)} requests: {counted or 'no answer'}{f', {missing} unanswered' if missing else ''}.", file=sys.stderr
    )
    return 1 if missing else 0


def _requests(source: TextIO, defaults: dict[str, Any], name: str) -> Iterator[Any]:
    for number, line in enumerate(source, 1):
        if line.strip():
            where = f"Line {number} of {name}"
            yield request_of(parse(line, where), defaults, where)


def _open(path: str, mode: str) -> TextIO:
    try:
        return Path(path).open(mode, encoding="utf-8")  # type: ignore[return-value]
    except OSError as problem:
        raise CommandError(f"File {path} cannot be opened ({problem.strerror}); give another path.") from None


def _progress() -> Progress:
    columns = TextColumn("{task.description:>9}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, console=Console(stderr=True), transient=True)
