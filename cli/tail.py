"""`millstream tail`: the records of a topic as they come."""

from __future__ import annotations

import argparse
import json
from typing import Any

from cli import kafka
from cli.lines import text_of, usd
from cli.stackfile import stack_settings
from config.schema_registry import open_codec
from core.topics import CHUNKS, DEAD_LETTERS, REQUESTS, RESPONSES, USAGE
from schemas.cloudevents import rfc3339
from schemas.codec import Event, Undecodable
from schemas.jsonform import to_json

TOPICS = {"chunks": CHUNKS, "responses": RESPONSES, "usage": USAGE, "requests": REQUESTS, "dead-letters": DEAD_LETTERS}


def describe(parser: argparse.ArgumentParser) -> None:
    """Which topic, from where, in which form."""
    parser.add_argument("topic", choices=TOPICS)
    parser.add_argument("--from-beginning", action="store_true", help="start with the oldest record")
    parser.add_argument("--json", action="store_true", help="print every record whole, as a JSON line")


def run(arguments: argparse.Namespace) -> int:
    """Print records until Ctrl-C."""
    settings = stack_settings()
    topic = TOPICS[arguments.topic]
    codec = open_codec(settings)
    reader = kafka.reader(settings, topic, from_beginning=arguments.from_beginning)
    for message in kafka.records(reader):
        if message is None:
            continue
        place = f"{message.topic()}[{message.partition()}]@{message.offset()}"
        try:
            event = codec.decode_blocking(topic.record, message.value())
        except Undecodable as why:
            print(
                json.dumps({"position": place, "undecodable": str(why)}) if arguments.json else f"{place} {why}",
                flush=True,
            )
            continue
        line = json.dumps(to_json(topic.record, event)) if arguments.json else _line(arguments.topic, event)
        print(line, flush=True)
    return 0


def _line(topic: str, event: Event) -> str:
    match topic:
        case "responses":
            what = text_of(event) if event["outcome"] == "completed" else event["error"]["message"]
            parts: list[Any] = [
                rfc3339(event["finished_at"]), event["tenant"], event["outcome"], f"{event['provider']}/{event['model']}",
                usd(event["cost_nano_usd"]), what,
            ]  # fmt: skip
        case "usage":
            parts = [
                rfc3339(event["finished_at"]), event["tenant"], event["status"], f"{event['provider']}/{event['model']}",
                usd(event["cost_nano_usd"]), event["error_code"] or "", event["attempt_id"],
            ]  # fmt: skip
        case "chunks":
            call = f"{event['request_id']}/{event['attempt']}"
            parts = [rfc3339(event["at"]), event["tenant"], call, event["index"], event["text"]]
        case "requests":
            first = event["messages"][0]["content"][:1] if event["messages"] else []
            parts = [rfc3339(event["created_at"]), event["tenant"], event["model"], first[0]["text"] if first else ""]
        case _:
            place = f"{event['topic']}[{event['partition']}]@{event['offset']}"
            parts = [rfc3339(event["failed_at"]), event["stage"], event["reason"], place, event["message"]]
    text = "  ".join(" ".join(str(part).split()) for part in parts)
    return text if len(text) <= 200 else f"{text[:199]}…"
