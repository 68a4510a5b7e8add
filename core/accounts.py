"""The accounts that a request is charged to: a tree whose root is the platform.

An account is written as its path: `/` is the platform, `/acme` a tenant, `/acme/project:search`, `/acme/user:ana` and
`/acme/key:k1` a project, a user and an API key of it. A `*` in a path stands for every tenant, project, user or key.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import unquote

PLATFORM = "/"
ANY = "*"
#: What stands below a tenant, in the order in which a request is charged to them.
KINDS = ("project", "user", "key")


def account(tenant: str | None = None, kind: str | None = None, name: str | None = None) -> str:
    """The path of the platform, of a tenant, or of a project, user or key of a tenant; names may hold any character."""
    if tenant is None:
        return PLATFORM
    return f"/{_label(tenant)}" if kind is None or name is None else f"/{_label(tenant)}/{kind}:{_label(name)}"


def path_of(tenant: str, project: str | None, user: str | None, key: str | None) -> tuple[str, ...]:
    """The accounts that a request of these is charged to, the platform first."""
    below = (account(tenant, kind, name) for kind, name in zip(KINDS, (project, user, key), strict=True) if name)
    return PLATFORM, account(tenant), *below


@lru_cache(maxsize=10_000)
def patterns_of(path: str) -> tuple[str, ...]:
    """The paths under which a limit for this account can stand, the most special first."""
    if path == PLATFORM:
        return (path,)
    tenant, _, below = path[1:].partition("/")
    if not below:
        return path, "/*"
    kind = below.partition(":")[0]
    return path, f"/{tenant}/{kind}:*", f"/*/{below}", f"/*/{kind}:*"


def tenant_of(path: str) -> str | None:
    """The tenant that an account belongs to; None for the platform and for patterns over tenants."""
    label = path[1:].partition("/")[0]
    return None if label in ("", ANY) else unquote(label)


def names_of(path: Sequence[str]) -> dict[str, str]:
    """The tenant, and the project, user and key where there are such, that `path_of` was given."""
    tenant, *below = (each.rpartition("/")[2] for each in path[1:])
    return {"tenant": unquote(tenant)} | {
        kind: unquote(name) for kind, _, name in (one.partition(":") for one in below)
    }


def problem_of(path: str) -> str | None:
    """What is wrong with a path that somebody wrote, None where nothing is."""
    tenant, _, below = path[1:].partition("/")
    kind, _, name = below.partition(":")
    unnamed = path != PLATFORM and (not tenant or path.endswith("/"))
    if not path.startswith("/") or unnamed or (below and (kind not in KINDS or not name or "/" in name)):
        return f"{path!r} is no account; write / for the platform, /TENANT, or /TENANT/user:NAME with user, project or key."
    return None


def canonical(path: str) -> str:
    """A path without a problem as `account` writes it: `/100%` is `/100%25`."""
    tenant, _, below = path[1:].partition("/")
    kind, _, name = below.partition(":")
    if not tenant:
        return PLATFORM
    return account(unquote(tenant), kind, unquote(name)) if below else account(unquote(tenant))


def is_pattern(path: str) -> bool:
    """Whether a path stands for many accounts."""
    tenant, _, below = path[1:].partition("/")
    return ANY in (tenant, below.partition(":")[2])


def _label(name: str) -> str:
    """A name as one part of a path: `*` alone stays, a slash and a percent sign are escaped as in a URL."""
    return name.replace("%", "%25").replace("/", "%2F")
