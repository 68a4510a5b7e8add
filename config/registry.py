"""What a deployment has to choose from: its database's registry, completed by the environment, the price list and the default routes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from sqlalchemy import Connection, select
from sqlalchemy.exc import SQLAlchemyError

from config.database import open_database, reading
from config.known_models import Catalogue, model_of, models_at
from config.registry_entries import Contents, RegistryInvalid
from config.registry_models import PROVIDERS
from config.registry_store import Changed, change, contents_of, version_of
from config.route_prices import not_cheaper
from config.settings import PROVIDER_NAMES, ProviderSettings, Settings
from config.task_sources import problems_of
from core.default_routes import default_routes
from core.registry import Model, Provider, Registry, Route
from core.registry_rules import check, misnamed, reachable

DAY_US = 86_400_000_000
PATTERN = re.compile(r"[*?[]")


def load(db: Connection, settings: Settings, now: int) -> Registry:
    """The registry as it stands, `now` in microseconds since 1970; `RegistryInvalid` lists all that keeps it from being used."""
    registry = complete(contents_of(db), settings, now, version_of(db))
    if problems := _problems(registry, settings):
        raise RegistryInvalid(problems)
    return registry


def _problems(registry: Registry, settings: Settings) -> list[str]:
    return [*check(registry, PROVIDER_NAMES).problems, *problems_of(registry.tasks, settings)]


def from_environment(settings: Settings, now: int = 0) -> Registry:
    """The registry of a deployment whose database holds nothing."""
    return complete(Contents(), settings, now)


def complete(contents: Contents, settings: Settings, now: int, version: int = 0) -> Registry:
    """A registry from what the database holds.

    Without a provider, those of the environment serve; models come on top of those of the price list; without a route, the
    default ones hold as far as their models are there.
    """
    providers = {name: _addressed(provider, settings) for name, provider in contents.providers.items()}
    providers = providers or {
        name: Provider(name, name, settings.provider(name).base_url) for name in settings.served()
    }
    routes = tuple(contents.routes.values()) or _default_routes(providers.values(), settings)
    models = {model.full_name: model for provider in providers.values() for model in models_at(provider)}
    models |= _named(
        providers, settings, {target.model for route in routes for target in route.targets} - models.keys(), now
    )
    tasks = tuple(contents.tasks.values())
    registry = Registry(providers, tuple({**models, **contents.models}.values()), routes, tasks, version, now)
    if contents.routes:
        return registry
    usable, _ = reachable(registry)
    return replace(registry, routes=tuple(r for r in routes if any(target.model in usable for target in r.targets)))


def lane_names(db: Connection) -> tuple[str, ...]:
    """Every provider that a lane may carry calls for: the built-in ones and those of the database, disabled ones too."""
    added = db.execute(select(PROVIDERS.c.name).order_by(PROVIDERS.c.name)).scalars()
    return tuple(dict.fromkeys((*PROVIDER_NAMES, *added)))


def lanes(settings: Settings) -> tuple[str, ...]:
    """`lane_names` of the database that the settings name; the built-in ones where it has no registry, or cannot be reached."""
    engine = open_database(settings.database_url)
    try:
        with reading(engine) as db:
            return lane_names(db)
    except SQLAlchemyError:
        return PROVIDER_NAMES
    finally:
        engine.dispose()


def provider_settings(provider: Provider, settings: Settings) -> ProviderSettings:
    """How to reach a provider of the registry.

    The environment's key serves the provider that has the name of its kind; no other address is sent it.
    """
    own = settings.provider(provider.kind)
    reached = replace(own, name=provider.name, kind=provider.kind, base_url=provider.base_url)
    if provider.name == provider.kind:
        return reached
    return replace(reached, api_key=None, key_setting=f"`millstream keys add --provider {provider.name}`")


def apply(db: Connection, edit: Callable[[Contents], Contents], settings: Settings, by: str, now: int) -> Changed:
    """Change the registry, in the transaction of `db`, to what `edit` makes of its contents; audited, and one version on.

    `RegistryInvalid` when the result could not be used. One that could not be used before may be changed in steps, as long as
    no step adds a problem.
    """

    def checked(before: Contents, after: Contents) -> None:
        def found(contents: Contents) -> list[str]:
            registry = complete(contents, settings, now)
            # Prices change with time: they are a reason to refuse a change, and none to use nothing of what stands.
            return [*_problems(registry, settings), *not_cheaper(registry, now)]

        problems = [*found(after), *misnamed(complete(after, settings, now), before.routes)]
        if problems and (added := set(problems) - set(found(before))):
            raise RegistryInvalid([problem for problem in problems if problem in added])

    return change(db, edit, checked, by, now)


def _addressed(provider: Provider, settings: Settings) -> Provider:
    """A provider without an address of its own has the one that the environment gives to its name."""
    if provider.base_url is None and provider.name in PROVIDER_NAMES and provider.kind == provider.name:
        return replace(provider, base_url=settings.provider(provider.name).base_url)
    return provider


def _default_routes(providers: Iterable[Provider], settings: Settings) -> tuple[Route, ...]:
    """The routes of a deployment that has none of its own, by way of its first Google provider; none without one."""
    for provider in sorted((p for p in providers if p.kind == "google" and p.enabled), key=lambda p: not p.default):
        models = (settings.gemini_model_fast, settings.gemini_model_quality)
        return default_routes(*(f"{provider.name}/{model}" for model in models))
    return ()


def _named(providers: Mapping[str, Provider], settings: Settings, asked: Iterable[str], now: int) -> dict[str, Model]:
    """Models beyond the price list: those that the settings name, and those of `asked` that they or the price list allow."""
    kinds = {provider.name: provider.kind for provider in providers.values()}
    catalogue = Catalogue(providers.values(), settings.models)
    by_name = {f"{p}/{m}" for p, kind in kinds.items() for m in settings.models.get(kind, ()) if not PATTERN.search(m)}
    by_name |= {name for name in asked if catalogue.model(*_parted(name), now // DAY_US)}
    by_name |= {
        f"{p}/{m}"
        for p, kind in kinds.items()
        if kind == "google"
        for m in (settings.gemini_model_fast, settings.gemini_model_quality)
    }
    return {name: model_of(providers[_parted(name)[0]], _parted(name)[1]) for name in sorted(by_name)}


def _parted(full_name: str) -> tuple[str, str]:
    provider, _, model = full_name.partition("/")
    return provider, model
