"""What choosing the models for a request costs: `python -m benchmarks.routing`

1,000 routes (by tenant, by plan and task, by patterns), 100 models of 5 providers, 5 targets a route and five strategies. A
decision is everything that `Router.choose` does, reasons included; a plan is what `Planner.plan` makes of a request with it: bounds of
cost, checks of features, the fields of the call. Beside them stands a bare loop that only looks for the first route that
matches. Rounds alternate. Prints a table, writes `benchmarks/results/routing.json`; exits with 1 when a decision is not what the bare
loop finds, never for its time.
"""

from __future__ import annotations

import os
import random
import re
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from fnmatch import translate
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console

from agents.planning import Plan, Planner
from benchmarks.figures import percentiles, spread
from benchmarks.machine import machine
from benchmarks.report import table
from config.tasks import Prepared
from core.asked import Asked, asked
from core.matching import RouteIndex
from core.registry import TIERS, Capability, Model, Provider, Registry, Route, Target
from core.routing import Choice, Conditions, Router
from core.standing import Standing
from tests.examples import NOON, request

RESULTS = Path(__file__).parent / "results" / "routing.json"
ROUTES, MODELS, PROVIDERS, TARGETS = 1_000, 100, 5, 5
TENANTS, TASKS, PLANS = 400, 100, 5
REQUESTS, ROUNDS = 5_000, 7
#: So many decisions are held against the bare loop, which takes long.
CHECKED = 500
TEXT: Capability = "text"

Json = dict[str, Any]


def main() -> int:
    """Measure, print and write down; 1 when a decision was another than the bare loop's."""
    chance = random.Random(1)
    registry = _registry(chance)
    began = time.perf_counter()
    router = Router(registry)
    built = time.perf_counter() - began
    every = [_request(chance, number) for number in range(REQUESTS)]
    conditions = _conditions(chance, registry)
    event = request("word " * 400, plan="pro", task="task-1")
    index, bare = RouteIndex(registry.routes), _bare(registry)
    planner = Planner(lambda: registry, lambda: conditions.standings, {}, 4_096)
    prepared = {one: _prepared(one) for one in every}
    work: dict[str, Callable[[Asked], object]] = {
        "decision": lambda one: router.choose(one, conditions),
        "decision, each tenant for the first time": lambda one: router.choose(one, conditions),
        "plan, the decision with bounds and feature checks": lambda one: planner.plan(prepared[one], NOON),
        "route of it": lambda one: next(index.matching(one.plan, one.task, one.tenant, one.model, one.now), None),
        "bare loop over the routes": bare,
        "request read": lambda one: asked(event, 4_096, NOON),
    }
    wrong = [
        one.request_id for one in every[:CHECKED] if not _right(one, bare(one), router, conditions, planner, prepared)
    ]
    chosen = sum(isinstance(router.choose(one, conditions), Choice) for one in every)
    rounds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(ROUNDS):
        unseen = [replace(one, tenant=f"unseen-{turn}-{number}") for number, one in enumerate(every)]
        asked_by = {"bare loop over the routes": every[:CHECKED], "decision, each tenant for the first time": unseen}
        for name, decide in work.items():
            rounds[name].append(_microseconds(decide, asked_by.get(name, every)))
    report = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine(),
        "load_average": round(os.getloadavg()[0], 2),
        "routes": ROUTES, "models": MODELS, "targets_per_route": TARGETS, "requests": REQUESTS,
        "requests_with_a_choice": chosen, "wrong_decisions": len(wrong), "index_ms": built * 1_000,
        "cpu_microseconds": {name: spread(values) for name, values in rounds.items()},
        "wall_microseconds_of_a_decision": percentiles(_each(work["decision"], every)),
    }  # fmt: skip
    RESULTS.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2) + b"\n")
    made = table(
        f"CPU µs a request with {ROUTES:,} routes and {MODELS} models", ("", "median", "least", "most"), "lrrr"
    )
    for name, figures in report["cpu_microseconds"].items():
        made.add_row(name, *(f"{figures[one]:,.1f}" for one in ("median", "least", "most")))
    Console().print(made)
    if wrong:
        print(f"{len(wrong)} of {CHECKED} decisions are wrong, first that for request {wrong[0]}.", file=sys.stderr)
    return 1 if wrong else 0


def _prepared(one: Asked) -> Prepared:
    event = request("word " * 400, plan=one.plan, task=one.task, tenant=one.tenant, user=one.user)
    return Prepared({**event, "request_id": one.request_id, "model": None}, one.task, None, False)


def _right(
    one: Asked,
    route: Route | None,
    router: Router,
    conditions: Conditions,
    planner: Planner,
    prepared: Mapping[Asked, Prepared],
) -> bool:
    """Whether the decision and the plan follow the route that the bare loop finds, with models of its own that are healthy."""
    found, plan = router.choose(one, conditions), planner.plan(prepared[one], NOON)
    name = plan.fields["route"] if isinstance(plan, Plan) else plan.route.name if plan.route else None
    if route is None or found.route != route or name != route.name:
        return False
    models = {target.model for target in route.targets}
    best = [each.model.full_name for each in found.candidates] if isinstance(found, Choice) else []
    planned = list(plan.models) if isinstance(plan, Plan) else []
    healthy = [model for model in models if conditions.standings[model].health == "healthy"]
    return bool(best) and bool(planned) and {*best, *planned} <= set(healthy or models)


def _registry(chance: random.Random) -> Registry:
    models = tuple(
        Model(
            f"provider-{number % PROVIDERS}", f"model-{number}", capabilities=frozenset({TEXT}),
            context_tokens=chance.choice((8_000, 128_000, 1_000_000)), tier=chance.choice(TIERS),
            aliases=(f"alias-{number // 10}",),
            price_override={"input_uncached": Decimal(chance.randrange(1, 10)), "output_text": Decimal(chance.randrange(10, 50))},
        )
        for number in range(MODELS)
    )  # fmt: skip
    names = [one.full_name for one in models]
    routes = []
    for number in range(ROUTES):
        kind = number % 5
        routes.append(Route(
            f"route-{number}", tuple(Target(name) for name in chance.sample(names, TARGETS)),
            tenant=f"tenant-{number * TENANTS // ROUTES}" if kind < 2 else f"group-{number}-*" if kind == 2 else "*",
            task=f"task-{chance.randrange(TASKS)}" if kind != 4 else f"task-{number % 10}*",
            plan=f"plan-{chance.randrange(PLANS)}" if kind in (1, 3) else "*",
            strategies=("complexity", "health", "cost", "latency", "success_rate"),
        ))  # fmt: skip
    routes[-1] = Route("anything", routes[-1].targets, strategies=routes[-1].strategies, precedence=-1)
    return Registry(
        {f"provider-{n}": Provider(f"provider-{n}", "openai") for n in range(PROVIDERS)}, models, tuple(routes)
    )


def _request(chance: random.Random, number: int) -> Asked:
    return Asked(
        str(uuid.UUID(int=chance.getrandbits(128))), NOON, plan=f"plan-{chance.randrange(PLANS)}",
        task=f"task-{chance.randrange(TASKS)}", tenant=f"tenant-{chance.randrange(TENANTS)}", user=f"user-{number}",
        input_tokens=chance.randrange(6_000), max_output_tokens=1_000, characters=chance.randrange(12_000),
    )  # fmt: skip


def _conditions(chance: random.Random, registry: Registry) -> Conditions:
    bounds = {one.name: chance.randrange(10**6, 10**9) for one in registry.models}
    standings = {name: Standing("healthy", success_rate=0.99) for name in registry.providers}
    standings |= {
        one.full_name: Standing("healthy" if chance.random() > 0.05 else "unhealthy", p50_ms=chance.uniform(100, 5_000))
        for one in registry.models
    }
    return Conditions(lambda one: bounds[one.name], standings)


def _bare(registry: Registry) -> Callable[[Asked], Route | None]:
    """Look at one route after another, in rank, with patterns compiled beforehand."""
    index = RouteIndex(registry.routes)
    compiled = [
        (route, *(re.compile(translate(field)).match for field in (route.plan, route.task, route.tenant)))
        for route in index.routes
    ]

    def first(one: Asked) -> Route | None:
        plan, task, tenant = one.plan or "", one.task or "", one.tenant
        for route, for_plan, for_task, for_tenant in compiled:
            if for_plan(plan) and for_task(task) and for_tenant(tenant):
                return route
        return None

    return first


def _microseconds(decide: Callable[[Asked], object], every: Sequence[Asked]) -> float:
    began = time.process_time()
    for one in every:
        decide(one)
    return (time.process_time() - began) / len(every) * 1e6


def _each(decide: Callable[[Asked], object], every: Sequence[Asked]) -> list[float]:
    took = []
    for one in every:
        began = time.perf_counter()
        decide(one)
        took.append((time.perf_counter() - began) * 1e6)
    return took


if __name__ == "__main__":
    sys.exit(main())
