"""What is known of models that nobody has registered: which there are, and what they can do."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from agents.planning import Plan, Planner
from config.known_models import EVERYTHING, Catalogue, model_of, models_at
from config.registry import from_environment
from config.settings import Settings
from config.tasks import Prepared
from core.registry import Provider
from core.routing import NoChoice
from tests.examples import NOON, request
from tests.media import medium, turn

DAY = (date(2026, 11, 1) - date(1970, 1, 1)).days
OPENAI = Provider("openai", "openai")
SEEING = turn("user", medium("image/png"))


def test_the_catalogue_knows_priced_models_and_patterns_and_names_the_nearest() -> None:
    """A model that is on the price list, or fits a pattern, may be called; an unknown one is met with names that exist."""
    catalogue = Catalogue((OPENAI, Provider("echo", "echo")), {"echo": ["*"], "openai": ["ft:*"]})
    for provider, name in (("openai", "gpt-5-mini"), ("openai", "ft:own"), ("echo", "anything")):
        assert catalogue.model(provider, name, DAY) is not None, name
    for provider, name in (("openai", "gtp-5-mini"), ("openai", ""), ("google", "gemini-2.5-pro")):
        assert catalogue.model(provider, name, DAY) is None, name
    assert "openai/gpt-5-mini" in catalogue.nearest("openai/gtp-5-mini")


def test_a_name_that_only_a_pattern_knows_is_taken_to_do_everything() -> None:
    """A server of one's own may run any model; one of the price list is described however it comes to be known."""
    catalogue = Catalogue((OPENAI, Provider("own", "openai-compatible")), {"openai-compatible": ["*"], "openai": ["*"]})
    assert (found := catalogue.model("own", "llava", DAY)) is not None and found.capabilities == EVERYTHING
    assert catalogue.model("openai", "gpt-4-0613", DAY) == model_of(OPENAI, "gpt-4-0613")


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("ft:gpt-4o-mini-2024-07-18:acme::abc", "gpt-4o-mini-2024-07-18"),
        ("ft:gpt-3.5-turbo-0125:acme::abc", "gpt-3.5-turbo-0125"),
        ("ft:gpt-4.1-mini-2025-04-14:acme:cv:abc", "gpt-4.1-mini-2025-04-14"),
        ("gpt-4o-mini-2024-07-18.ft-abc", "gpt-4o-mini-2024-07-18"),
    ],
)
def test_a_fine_tuned_model_does_what_its_base_model_does(name: str, base: str) -> None:
    """Capabilities, context and tier are those of the model that it was made of."""
    found, of = Catalogue((OPENAI,), {"openai": ["ft:*"]}).model("openai", name, DAY), model_of(OPENAI, base)
    assert found is not None and found.name == name
    assert (found.capabilities, found.context_tokens, found.tier) == (of.capabilities, of.context_tokens, of.tier)
    assert found.context_tokens is not None


def test_what_does_not_answer_in_words_is_no_model_here() -> None:
    """Embeddings, speech and images are neither listed nor known, whatever the patterns say; nor is a tuned one without a name."""
    catalogue = Catalogue((OPENAI,), {"openai": ["*"]})
    listed = {model.name for model in models_at(OPENAI)}
    for name in ("text-embedding-3-small", "whisper-1", "tts-1", "gpt-image-1", "ft:babbage-002:acme::abc"):
        assert catalogue.model("openai", name, DAY) is None, name
        assert name not in listed
    assert not any("ft:" in name or ".ft-" in name for name in listed)
    assert not any("embedding" in name for name in catalogue.nearest("openai/text-embedding-3-smal"))


@pytest.mark.parametrize(
    ("model", "changes", "code"),
    [
        ("openai/gpt-3.5-turbo-0125", {"messages": [SEEING]}, "caller_unsupported_feature"),
        ("openai/gpt-4-0613", {"messages": [SEEING]}, "caller_unsupported_feature"),
        ("openai/gpt-4-0613", {"prompt": "word " * 10_000}, "policy_no_candidate"),
        ("openai/text-embedding-3-small", {}, "caller_unknown_model"),
        ("openai/gpt-4o-2024-08-06", {"messages": [SEEING]}, None),
        ("openai/gpt-3.5-turbo-0125", {}, None),
    ],
)
def test_a_model_named_directly_is_held_to_what_it_can_do(
    model: str, changes: dict[str, Any], code: str | None
) -> None:
    """By the planner of a deployment without a registry: no image to a model that cannot see, no prompt beyond its context."""
    settings = Settings()
    planner = Planner(lambda: from_environment(settings, NOON), dict, settings.models, 1_000)
    plan = planner.plan(Prepared(request(model=model, **changes), None, None, False), NOON)
    if code is None:
        assert isinstance(plan, Plan) and plan.models == (model,)
    else:
        assert isinstance(plan, NoChoice) and plan.error["code"] == code
