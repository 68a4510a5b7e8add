"""How hard a request is, as a score from 0 to 1, and which tier of models fits it.

The score is `length / 10,000`, capped at 1, times a factor, capped at 1; the length is the characters of all texts. For code
the factor is its language's (`LANGUAGE_FACTORS`), as the request's tag `language` names it. For other text it is its task's
(`TASK_FACTORS`, 1 for any other), times `TOOLS_FACTOR` where tools may be asked for, since the model then plans steps as well.
"""

from __future__ import annotations

from core.registry import TIERS, Tier

LONG = 10_000
LANGUAGE_FACTORS = {"python": 0.8, "javascript": 0.9, "java": 1.0, "rust": 1.1, "cpp": 1.2}
#: Below 1 where the answer is mostly found in the input, above 1 where it has to be written.
TASK_FACTORS = {
    "sentiment": 0.4,
    "extraction": 0.6,
    "extract_job_data": 0.6,
    "summarise": 0.7,
    "lead_insights": 1.1,
    "cv_draft": 1.2,
    "draft_cv": 1.2,
    "cover_letter": 1.2,
    "draft_cover_letter": 1.2,
}
TOOLS_FACTOR = 1.2
DECIMALS = 9

#: Scores below the first are cheap, those up to the second balanced, those above it powerful.
BALANCED_FROM = 0.3
POWERFUL_ABOVE = 0.7


def complexity(characters: int, *, language: str | None = None, task: str | None = None, tools: bool = False) -> float:
    """The score of a request; a `language` that is no programming language of the table makes it plain text."""
    factor = LANGUAGE_FACTORS.get(language.lower()) if language else None
    if factor is None:
        factor = TASK_FACTORS.get(task or "", 1.0) * (TOOLS_FACTOR if tools else 1.0)
    # Rounded beyond what the factors can tell apart, since 0.875 * 0.8 in floats is above 0.7.
    return round(min(1.0, min(1.0, characters / LONG) * factor), DECIMALS)


def tier_for(score: float) -> Tier:
    """The tier that fits a score."""
    if score < BALANCED_FROM:
        return "cheap"
    return "balanced" if score <= POWERFUL_ABOVE else "powerful"


def misfit(wanted: Tier, tier: Tier) -> int:
    """How badly a tier fits where another is wanted: 0 fits; the nearest is next, the stronger of two equally near."""
    steps = TIERS.index(tier) - TIERS.index(wanted)
    return 2 * steps - 1 if steps > 0 else -2 * steps
