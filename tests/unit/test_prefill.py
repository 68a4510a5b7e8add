"""A conversation that ends with the assistant's own words: which models would refuse it, and that they are not called for it."""

from __future__ import annotations

import pytest

from core.features import no_prefill, unsupported_by
from core.media import invalid_media
from schemas.events import ContentPart
from tests.examples import request

LAST = [*request()["messages"], {**request()["messages"][0], "role": "assistant"}]


@pytest.mark.parametrize(
    ("model", "refused"),
    [
        ("claude-3-opus-20240229", False), ("claude-3-5-haiku-latest", False), ("claude-3-7-sonnet", False),
        ("claude-sonnet-4-20250514", False), ("claude-opus-4-0", False), ("claude-opus-4-1-20250805", False),
        ("claude-haiku-4-5", False), ("claude-opus-4-5-20251101", False), ("some-model", False),
        ("claude-opus-4-6", True), ("claude-sonnet-4-6-20260217", True), ("claude-opus-4.7", True),
        ("claude-sonnet-5", True), ("claude-fable-5-1", True), ("claude-opus-10", True),
    ],
)  # fmt: skip
def test_a_claude_from_4_6_on_takes_no_answer_begun_by_another(model: str, refused: bool) -> None:
    """The version in the name decides, and a date in it is no version; other providers' models are never meant."""
    assert no_prefill("anthropic", model) is refused
    assert not no_prefill("openai", model)
    found = unsupported_by(request(messages=LAST), "anthropic", "anthropic", model)
    assert (found is not None) is refused
    assert found is None or (found["code"], "role assistant" in found["message"]) == (
        "caller_unsupported_feature",
        True,
    )
    assert unsupported_by(request(), "anthropic", "anthropic", model) is None


def test_a_file_that_is_no_pdf_is_refused_with_what_to_send_instead() -> None:
    """No provider's API here takes another file, so its text has to be sent as text."""
    part = {
        **request()["messages"][0]["content"][0],
        "type": "file",
        "text": None,
        "media_type": "text/csv",
        "data": b"a,b",
    }
    made: ContentPart = part  # type: ignore[assignment]
    ((field, value, wanted),) = invalid_media("messages[0].content[0]", made)
    assert (field, value) == ("messages[0].content[0].media_type", "text/csv")
    assert wanted == "one of application/pdf; send the text of another file in a part of type text"
