"""The routes that a deployment begins with: which model answers which task on which plan."""

from __future__ import annotations

from core.registry import Route, Target

FAST = "google/gemini-2.5-flash"
#: The successor of gemini-1.5-pro, which Google has switched off.
QUALITY = "google/gemini-2.5-pro"


def default_routes(fast: str = FAST, quality: str = QUALITY) -> tuple[Route, ...]:
    """The table by plan and task with these two models; the other shipped tasks take the fast one on every plan."""
    writing = ("cv_draft", "cover_letter")
    shipped = ("extraction", "ai_message", "lead_insights", "sentiment", "summarise", *writing)
    return (
        *(Route(task, (Target(fast),), task=task) for task in shipped),
        *(Route(f"{task}-{plan}", (Target(fast),), plan=plan, task=task) for task in writing for plan in ("freemium", "paygo")),
        *(Route(f"{task}-pro", (Target(quality),), plan="pro", task=task) for task in writing),
    )  # fmt: skip
