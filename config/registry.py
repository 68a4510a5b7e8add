"""What a deployment has to choose from: its database's registry, completed by the environment, the price list and shipped routes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib.resources import files

from sqlalchemy import Connection, select
from sqlalchemy.exc import SQLAlchemyError

from config.database import open_database, reading
from config.known_models import model_of, models_at
from config.prices import price_on
from config.registry_entries import Contents, RegistryInvalid
from config.registry_file import from_yaml
from config.registry_models import PROVIDERS
from config.registry_store import Changed, change, contents_of, version_of
from config.settings import PROVIDER_NAMES, ProviderSettings, Settings
from core.registry import Model, Provider, Registry, Route
from core.registry_rules import check, reachable

DAY_US = 86_400_000_000


def load(db: Connection, settings: Settings, now: int) -> Registry:
    """The registry as it stands, `now` in microseconds since 1970; `RegistryInvalid` lists all that keeps it from being used."""
    registry = complete(contents_of(db), settings, now, version_of(db))
    if problems := check(registry, PROVIDER_NAMES).problems:
        raise RegistryInvalid(problems)
    return registry


def from_environment(settings: Settings, now: int = 0) -> Registry:
    """The registry of a deployment whose database holds nothing."""
    return complete(Contents(), settings, now)


def complete(contents: Contents, settings: Settings, now: int, version: int = 0) -> Registry:
    """A registry from what the database holds.

    Without a provider, those of the environment serve; models come on top of those of the price list; without a route, the
    shipped ones hold as far as their models are there.
    """
    providers = {name: _addressed(provider, settings) for name, provider in contents.providers.items()}
    providers = providers or {
        name: Provider(name, name, settings.provider(name).base_url) for name in settings.served()
    }
    models = {model.full_name: model for provider in providers.values() for model in models_at(provider)}
    for provider in providers.values():
        models |= {model.full_name: model for model in _named_in(settings, provider)}
    models |= contents.models
    _name_fast_and_quality(models, providers.values(), settings)
    day = now // DAY_US
    for asked in {target.model for route in contents.routes.values() for target in route.targets} - models.keys():
        if (model := _described(providers.get(asked.partition("/")[0]), asked, settings, day)) is not None:
            models[asked] = model
    registry = Registry(providers, tuple(models.values()), tuple(contents.routes.values()), version, now)
    if contents.routes:
        return registry
    usable, _ = reachable(registry)
    return replace(registry, routes=tuple(r for r in shipped_routes() if any(t.model in usable for t in r.targets)))


def known_model(registry: Registry, asked: str, settings: Settings, now: int) -> Model | None:
    """The model called `provider/model`, also one that only a pattern of the settings or the price list knows; None for none."""
    for model in registry.models:
        if model.full_name == asked:
            return model
    return _described(registry.providers.get(asked.partition("/")[0]), asked, settings, now // DAY_US)


@lru_cache(maxsize=1)
def shipped_routes() -> tuple[Route, ...]:
    """The routes of a deployment that has none of its own."""
    text = (files("config") / "routes.yaml").read_text(encoding="utf-8")
    return tuple(from_yaml(text).routes.values())


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
    """How to reach a provider of the registry; the key of the environment is that of its kind."""
    own = settings.provider(provider.kind)
    return replace(own, name=provider.name, kind=provider.kind, base_url=provider.base_url)


def apply(db: Connection, edit: Callable[[Contents], Contents], settings: Settings, by: str, now: int) -> Changed:
    """Change the registry, in the transaction of `db`, to what `edit` makes of its contents; audited, and one version on.

    `RegistryInvalid` when the result could not be used. One that could not be used before may be changed in steps, as long as
    no step adds a problem.
    """

    def checked(before: Contents, after: Contents) -> None:
        problems = check(complete(after, settings, now), PROVIDER_NAMES).problems
        if problems and (added := set(problems) - set(check(complete(before, settings, now), PROVIDER_NAMES).problems)):
            raise RegistryInvalid([problem for problem in problems if problem in added])

    return change(db, edit, checked, by, now)


def _addressed(provider: Provider, settings: Settings) -> Provider:
    """A provider without an address of its own has the one that the environment gives to its name."""
    if provider.base_url is None and provider.name in PROVIDER_NAMES and provider.kind == provider.name:
        return replace(provider, base_url=settings.provider(provider.name).base_url)
    return provider


def _named_in(settings: Settings, provider: Provider) -> Iterable[Model]:
    """The models that the settings name for a provider, patterns aside."""
    names = settings.models.get(provider.name, ())
    return (model_of(provider, name) for name in names if not any(sign in name for sign in "*?["))


def _name_fast_and_quality(models: dict[str, Model], providers: Iterable[Provider], settings: Settings) -> None:
    """Give the Gemini models of the settings their aliases, unless a model has them already."""
    taken = {alias for model in models.values() for alias in model.aliases}
    for alias, name in (("fast", settings.gemini_model_fast), ("quality", settings.gemini_model_quality)):
        for provider in providers:
            if alias in taken or provider.kind != "google":
                continue
            model = models.get(f"{provider.name}/{name}") or model_of(provider, name)
            models[model.full_name] = replace(model, aliases=(*model.aliases, alias))


def _described(provider: Provider | None, asked: str, settings: Settings, day: int) -> Model | None:
    """A model that nobody listed, if the settings or the price list allow it."""
    name = asked.partition("/")[2]
    if provider is None or not name:
        return None
    allowed = any(fnmatchcase(name, pattern) for pattern in settings.models.get(provider.name, ()))
    return model_of(provider, name) if allowed or price_on(provider.kind, name, day) is not None else None
