"""What workers tell each other of how calls go, and how it comes together as the standing of providers and models."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from core.health import Calls, ProviderHealth
from core.standing import Standing

#: The credential of a provider that has none in the registry: the key of the environment.
ENVIRONMENT = ("",)
NO_CREDENTIALS: Mapping[str, Collection[str]] = {}
#: Of fewer, the slowest call alone would be the p95.
LEAST_FOR_P95 = 20


@dataclass(frozen=True, slots=True)
class Signal:
    """How one worker's latest calls to a model with one credential went; times in microseconds since 1970.

    `credential_id` is empty for the key of the environment. `p50_us` is the median time of the good calls; the p95s are those of the
    first tokens of streamed calls and of the answers of the others.
    """

    provider: str
    model: str
    credential_id: str
    owner: str
    good: int
    bad: int
    p50_us: int | None
    open_until: int | None
    resting_until: int | None
    at: int
    #: When the latest bad call ended, None where there was none.
    bad_at: int | None = None
    first_token_p95_us: int | None = None
    answer_p95_us: int | None = None


def calls_of(provider: str, signals: Iterable[Signal]) -> Calls:
    """How the latest calls to a provider ended, by what all workers say."""
    own = [signal for signal in signals if signal.provider == provider]
    latest = max((signal.bad_at or 0 for signal in own), default=0)
    return Calls(sum(signal.good for signal in own), sum(signal.bad for signal in own), latest)


def standings(
    health: Mapping[str, ProviderHealth], signals: Iterable[Signal], credentials: Mapping[str, Collection[str]] = NO_CREDENTIALS
) -> dict[str, Standing]:  # fmt: skip
    """The standings of providers (by name, from their checks) and of models (by `provider/model`, from calls).

    `credentials` are the platform's by provider; one without any has the key of the environment. A credential is out for as
    long as the most cautious worker says, a model until the first of the provider's credentials is back. The median is that
    of the workers' medians, each as often as it has calls.
    """
    found = {provider: Standing(one.state, of_the_key=one.of_the_key) for provider, one in health.items()}
    by_model: dict[tuple[str, str], list[Signal]] = defaultdict(list)
    for signal in signals:
        by_model[signal.provider, signal.model].append(signal)
    for (provider, model), told in by_model.items():
        found[f"{provider}/{model}"] = _standing(told, credentials.get(provider) or ENVIRONMENT)
    return found


def p95(times: Sequence[int]) -> int | None:
    """What 95 % of these times are at most; None where there are too few to say."""
    if len(times) < LEAST_FOR_P95:
        return None
    return sorted(times)[-(-len(times) * 95 // 100) - 1]


def _standing(told: list[Signal], credentials: Collection[str]) -> Standing:
    opened, resting = dict.fromkeys(credentials, 0), dict.fromkeys(credentials, 0)
    for signal in told:
        if (of := signal.credential_id) in opened:
            opened[of] = max(opened[of], signal.open_until or 0)
            resting[of] = max(resting[of], signal.resting_until or 0)
    # The breaker of one key may be open while the other rests: the model is out until either is free of both.
    first = min(credentials, key=lambda one: max(opened[one], resting[one]))
    good, ended = sum(signal.good for signal in told), sum(signal.good + signal.bad for signal in told)
    times = [time for signal in told if (time := signal.p50_us) is not None for _ in range(max(1, signal.good))]
    first_tokens = [time for signal in told if (time := signal.first_token_p95_us) is not None]
    answers = [time for signal in told if (time := signal.answer_p95_us) is not None]
    return Standing(
        breaker_open_until=opened[first] or None,
        resting_until=resting[first] or None,
        p50_ms=median(times) / 1_000 if times else None,
        success_rate=good / ended if ended else None,
        # The most cautious worker is believed, as of everything else: a hedge costs a second call.
        first_token_p95_ms=max(first_tokens) / 1_000 if first_tokens else None,
        answer_p95_ms=max(answers) / 1_000 if answers else None,
    )
