"""An answer that is too large to be an event: its caller is told, what it cost is counted, and its lane goes on."""

from __future__ import annotations

from cli.running import Running
from core.topics import USAGE
from schemas.codec import Codec
from tests.stack.asking import all_usages, ask, eventually, simulator, told

MODEL = "google/gemini-2.5-flash"


def test_an_answer_that_no_topic_takes_is_a_failure_with_its_cost(pipeline: Running) -> None:
    """Four million characters are answered as provider_bad_answer with tokens and cost; the next request is answered."""
    simulator(pipeline, "faults", {"provider": "google", "text": "x" * 4_000_000})
    large = told("A book", model=MODEL)
    try:
        answer = ask(pipeline, [large])[large["request_id"]]
    finally:
        simulator(pipeline, "faults", method="DELETE")
    assert answer["outcome"] == "failed" and answer["output"] == []
    assert answer["error"]["code"] == "provider_bad_answer" and "max_output_tokens" in answer["error"]["message"]
    assert answer["tokens"]["output_text"] > 0 and answer["cost_nano_usd"] > 0
    assert eventually(lambda: large["request_id"] in all_usages(pipeline, Codec())), USAGE.name
    (usage,) = all_usages(pipeline, Codec())[large["request_id"]]
    assert usage["status"] == "succeeded" and usage["cost_nano_usd"] == answer["cost_nano_usd"]
    small = told("A word", model=MODEL)
    assert ask(pipeline, [small])[small["request_id"]]["outcome"] == "completed"
