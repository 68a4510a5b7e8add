"""The faults. Each is one entry in one of the modules here: a function that begins it, yields while it lasts, and ends it.

The decorator says what it strikes. A fault that is over at once, such as a kill, yields last; a process that ends by it is started again
by the supervisor.
"""

from __future__ import annotations

from collections.abc import Iterable

from cli.chaos.faults import network, processes, providers, records, servers  # noqa: F401 - to enter them
from cli.chaos.faults.entry import FAULTS, Fault
from cli.chaos.world import World
from cli.errors import CommandError

__all__ = ["FAULTS", "Fault", "chosen", "possible"]


def chosen(names: str) -> list[Fault]:
    """The faults of a comma list, or all; `CommandError` for a name that there is not."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if wanted == ["all"]:
        return list(FAULTS.values())
    if unknown := [name for name in wanted if name not in FAULTS]:
        raise CommandError(f"There is no fault {unknown[0]!r}; the faults are {', '.join(FAULTS)}, and all.")
    if not wanted:
        raise CommandError(f"--faults names no fault; the faults are {', '.join(FAULTS)}, and all.")
    return [FAULTS[name] for name in dict.fromkeys(wanted)]


def possible(faults: Iterable[Fault], world: World) -> tuple[list[Fault], dict[str, str]]:
    """Those that can be done in this world, and why the others cannot."""
    can, cannot = [], {}
    for one in faults:
        if (why := one.lacking(world)) is not None:
            cannot[one.name] = why
        else:
            can.append(one)
    return can, cannot
