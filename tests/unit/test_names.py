"""Our top-level packages are nobody else's."""

from __future__ import annotations

from importlib.metadata import distributions, packages_distributions

OURS = {"agents", "cli", "config", "core", "local", "schemas", "sinks", "streams"}


def test_no_installed_distribution_shadows_our_names() -> None:
    """A dependency that brings a module of one of our names would be imported in its place."""
    found = packages_distributions()
    clashes = {name: owners for name in OURS if (owners := [o for o in found.get(name, ()) if o != "millstream"])}
    assert clashes == {}
    assert len(list(distributions())) > 10
