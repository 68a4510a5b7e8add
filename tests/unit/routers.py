"""Routers over a few models of provider `p`, and what is asked of them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from core.asked import Asked
from core.registry import Model, Provider, Registry, Route
from core.routing import Choice, Conditions, NoChoice, Router
from core.standing import Standing
from tests.examples import NOON


def model(name: str, **changes: Any) -> Model:
    """A model of provider `p`."""
    return Model("p", name, **changes)


def router(*models: Model, routes: tuple[Route, ...] = (), **provider: Any) -> Router:
    """A router over these models, all of them of provider `p` unless they say otherwise."""
    names = {one.provider for one in models} | {"p"}
    return Router(Registry({name: Provider(name, "openai", **provider) for name in names}, models, routes))


def conditions(bounds: dict[str, int | None] | None = None, **standings: Standing) -> Conditions:
    """Conditions by the names of models of provider `p`."""
    return Conditions(lambda one: (bounds or {}).get(one.name, 1), {f"p/{name}": s for name, s in standings.items()})


def names(choice: Choice | NoChoice) -> list[str]:
    """The candidates' names in order; an error fails the test with its sentence."""
    assert isinstance(choice, Choice), choice
    return [one.model.name for one in choice.candidates]


def an_id(number: int) -> str:
    return str(uuid.UUID(int=number))


def ask(**changes: Any) -> Asked:
    return Asked(**{"request_id": an_id(1), "now": NOON, **changes})


def choose(
    registry: Registry, one: Asked, known: Mapping[str, Standing], bounds: Mapping[str, int | None]
) -> Choice | NoChoice:  # fmt: skip
    """What a new router makes of a request; `bounds` are by full name."""
    return Router(registry).choose(one, Conditions(lambda model: bounds.get(model.full_name), known))
