"""Limits as people write them: one by one, such as `usd_per_month: 500`, and all of a deployment as one YAML file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, get_args

from config.limits import Edit
from config.registry_entries import RegistryInvalid
from config.registry_file import dump, load
from core.accounts import ANY, account, canonical, problem_of
from core.admission import LONGEST_LABEL
from core.limits import NANO, Limit, Limits, Meter
from core.windows import Window

SECTIONS = ("accounts", "time_zones")
#: What can be limited, by the word that it is written with.
LIMITED: Mapping[str, tuple[Meter, Window | None]] = {
    **{
        f"{meter}_per_{window}": (meter, window)
        for meter in ("requests", "tokens", "usd")
        for window in get_args(Window)
    },
    "concurrent": ("concurrent", None),
}  # type: ignore[dict-item]
_TERMS = ("sliding", "soft", "task", "model")
_LARGEST = 2**63 - 1
#: The audit's column holds so many characters.
_LONGEST_SUBJECT = 400


def account_of(text: str) -> str:
    """The account in a text: a path, which begins with a slash, or the name of a tenant; `RegistryInvalid` for none."""
    path = text if text.startswith("/") else account(text)
    problem = (
        problem_of(path)
        if text
        else "The name of the account is empty; write a tenant's name or a path such as /acme/user:ana."
    )
    if problem is None and ("\x00" in path or any(len(part) > LONGEST_LABEL for part in path.split("/"))):
        problem = f"{text[:80]!r} is no account; a name has at most {LONGEST_LABEL} characters and no NUL."
    if problem is None and path.count(ANY) != len(re.findall(r"(?<=[/:])\*(?=/|$)", path)):
        problem = f"{text!r} is no account; a * stands for every name and cannot be a part of one."
    if problem is not None:
        raise RegistryInvalid([problem])
    return canonical(path)


def limit_of(
    path: str, word: str, amount: object, *, sliding: bool = False, soft: bool = False, task: str | None = None,
    model: str | None = None,
) -> Limit:  # fmt: skip
    """The limit of so much for an account; `word` is of `LIMITED`. `RegistryInvalid` says what cannot be used.

    Money is in USD with up to nine decimals, everything else in whole numbers. What has no window does not slide.
    """
    meter, window = LIMITED[word]
    limit = Limit(path, meter, window, _most(word, amount), sliding and window is not None, not soft, task, model)
    for name, value in (("task", task), ("model", model)):
        if value is not None and not 0 < len(value) <= LONGEST_LABEL:
            raise RegistryInvalid([f"The {name} of {word} has {len(value)} characters; write 1 to {LONGEST_LABEL}."])
    if len(f"limit {path} {limit.subject}") > _LONGEST_SUBJECT:
        raise RegistryInvalid([f"The account, task and model of {word} are too long together; use shorter patterns."])
    return limit


def _most(word: str, amount: object) -> int:
    unit, wanted = (NANO, "an amount of USD such as 0.50") if word.startswith("usd") else (1, "a whole number")
    try:
        given = Decimal(str(amount))
    except InvalidOperation:
        given = Decimal("nan")
    if isinstance(amount, bool) or not given.is_finite():
        raise RegistryInvalid([f"{word} is {amount!r}; write {wanted}."])
    # Compared before it is multiplied: a number of more digits than a Decimal computes with cannot be.
    if not 0 <= given <= _LARGEST // unit or given * unit != int(given * unit):
        raise RegistryInvalid([f"{word} is {amount}; write {wanted}, from 0 to {_LARGEST // unit:,}."])
    return int(given * unit)


def word_of(limit: Limit) -> str:
    """The word that a limit is written with."""
    return next(word for word, limited in LIMITED.items() if limited == (limit.meter, limit.window))


def to_yaml(limits: Limits) -> str:
    """All limits and time zones as YAML, the same text for the same limits."""
    accounts: dict[str, list[dict[str, Any]]] = {}
    for limit in sorted(limits.limits, key=lambda each: (each.account, each.subject)):
        accounts.setdefault(limit.account, []).append(_written(limit))
    document: dict[str, Any] = {"accounts": accounts}
    if limits.zones:
        document["time_zones"] = dict(sorted(limits.zones.items()))
    return dump(document)


def _written(limit: Limit) -> dict[str, Any]:
    amount: object = limit.most
    if limit.meter == "usd":
        whole, rest = divmod(limit.most, NANO)
        # As text, for a float does not hold every amount.
        amount = f"{whole}.{rest:09d}".rstrip("0") if rest else whole
    terms = {"sliding": limit.sliding, "soft": not limit.hard, "task": limit.task, "model": limit.model}
    return {word_of(limit): amount, **{name: value for name, value in terms.items() if value}}


def from_yaml(text: str) -> Limits:
    """The limits in YAML; `RegistryInvalid` lists everything in it that cannot be used."""
    document, problems = load(text, SECTIONS)
    found: dict[tuple[str, str], Limit] = {}
    for name, entries in _section(document, "accounts", problems):
        for entry in entries if isinstance(entries, list) else [entries]:
            try:
                limit = _read(account_of(name), entry)
                if found.setdefault((limit.account, limit.subject), limit) is not limit:
                    raise RegistryInvalid([f"it has {limit.subject} twice; keep one."])
            except RegistryInvalid as wrong:
                problems += [f"Account {name}: {problem}" for problem in wrong.problems]
    zones = {name: str(zone) for name, zone in _section(document, "time_zones", problems)}
    if problems:
        raise RegistryInvalid(problems)
    return Limits(0, list(found.values()), {name: zone for name, zone in zones.items() if zone != "UTC"})


def _section(document: Mapping[str, Any], key: str, problems: list[str]) -> Iterator[tuple[str, Any]]:
    section = document.get(key) or {}
    if isinstance(section, dict):
        yield from ((str(name), value) for name, value in section.items())
    else:
        problems.append(f"{key} is no mapping of names.")


def _read(path: str, entry: object) -> Limit:
    if not isinstance(entry, dict):
        raise RegistryInvalid([f"{entry!r} is no limit; write one such as usd_per_month: 500."])
    if unknown := [key for key in entry if key not in LIMITED and key not in _TERMS]:
        known = ", ".join((*LIMITED, *_TERMS))
        raise RegistryInvalid([f"it has the unknown key {key!r}; the keys are {known}." for key in unknown])
    words = [key for key in entry if key in LIMITED]
    if len(words) != 1:
        raise RegistryInvalid([f"a limit has {len(words)} amounts; write one in each, such as usd_per_month: 500."])
    terms = {name: value for name, value in entry.items() if name in _TERMS and value is not None}
    for name, kind, wanted in (("sliding", bool, "true or false"), ("soft", bool, "true or false"), ("task", str, "a text"), ("model", str, "a text")):  # fmt: skip
        if name in terms and not isinstance(terms[name], kind):
            raise RegistryInvalid([f"{name} is {terms[name]!r}; write {wanted}."])
    return limit_of(path, words[0], entry[words[0]], **terms)


def edit_to(before: Limits, wanted: Limits) -> Edit:
    """The change that makes `wanted` of what stands."""
    stays = {(limit.account, limit.subject) for limit in wanted.limits}
    gone = [limit for limit in before.limits if (limit.account, limit.subject) not in stays]
    zones = [(tenant, wanted.zones.get(tenant)) for tenant in {**before.zones, **wanted.zones}]
    return Edit(wanted.limits, gone, zones)
