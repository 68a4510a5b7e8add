"""Every setting of Millstream, from the environment and a TOML file.

`MILLSTREAM_…` variables win over the file that `MILLSTREAM_CONFIG` names (default `millstream.toml`), which wins over
the defaults here. Provider keys and addresses have the names that the providers' own SDKs use.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cache
from typing import Annotated, Literal, Self

from pydantic import AliasChoices, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from config.kafka import KafkaSettings
from core.pricing import Tiers, flat


class SettingsError(ValueError):
    """A setting has a value that cannot be used; the message names the setting and what it needs."""


@dataclass(frozen=True, slots=True)
class Key:
    """A provider's key for one call; `name` is what messages call it, without the secret."""

    secret: str = field(repr=False)
    name: str


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """How to reach one provider: its key (None when missing), base URL (None for the SDK's own) and the key's setting.

    `kind` is the API that it speaks, `name` what it is called here.
    """

    name: str
    api_key: str | None = field(repr=False)
    base_url: str | None
    key_setting: str
    kind: str = ""
    stream_stall_seconds: float = 30.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", self.kind or self.name)

    def with_key(self, key: Key | None) -> ProviderSettings:
        """The same provider reached with this key, or with its own when there is none."""
        return self if key is None else replace(self, api_key=key.secret, key_setting=key.name)


def _named(*names: str) -> AliasChoices:
    return AliasChoices(*names, *(name.lower() for name in names))


Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]


class Settings(KafkaSettings, BaseSettings):
    """The settings of one process; unknown keys in the file are refused, so that a typing error is seen."""

    model_config = SettingsConfigDict(
        env_prefix="MILLSTREAM_", extra="forbid", populate_by_name=True, hide_input_in_errors=True
    )

    topic_prefix: str = ""
    topic_partitions: Count = 6
    topic_replication: Count = 1
    schema_registry_url: str | None = None
    clickhouse_url: str = "http://127.0.0.1:8123"
    clickhouse_database: str = "millstream"
    database_url: str = "sqlite:///millstream.db"
    #: A second ledger, which admits requests unchecked while the ledger has been away for longer than `spare_after_seconds`.
    spare_database_url: str | None = None
    spare_after_seconds: Seconds = 5.0
    #: Where the keys are that encrypt the credentials in the database; see `config.key_encryption`.
    key_encryption: str | None = None

    #: Models beyond the price list, by provider, as shell patterns; they are called and, without a price, unpriced.
    models: dict[str, list[str]] = {"openai": ["ft:*"], "openai-compatible": ["*"], "echo": ["*"]}
    #: USD per million tokens of a model that no price list has, both or none; without them its calls have no cost.
    default_input_usd_per_mtok: Annotated[Decimal, Field(gt=0)] | None = None
    default_output_usd_per_mtok: Annotated[Decimal, Field(gt=0)] | None = None
    max_request_bytes: Count = 1_000_000
    default_max_output_tokens: Count = 4_096

    #: Whether requests say by themselves whom they are for (`topic`: whoever may write the topic is trusted), or are signed.
    trust: Literal["topic", "signed"] = "topic"
    #: Tenants with a request topic of their own, `llm.requests.TENANT.v1`: what stands there is theirs, whatever it says.
    request_tenants: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,128}$")]] = []
    #: The key that this process signs its own requests with, as `millstream keys issue` printed it.
    api_key: SecretStr | None = None

    #: Topics that requests may name for a copy of their answer, as shell patterns of names on the broker; `{tenant}` stands
    #: for the request's own; none by default.
    reply_topics: list[str] = []

    #: Provider calls that one lane has under way at once, and records it holds, those waiting for a retry included.
    lane_concurrency: Count = 256
    lane_in_flight: Count = 1_024
    call_timeout_seconds: Seconds = 600.0
    #: How long a streamed answer that has begun may be silent before its call is given up.
    stream_stall_seconds: Seconds = 30.0
    max_attempts: Count = 3
    backoff_base_seconds: Seconds = 0.5
    backoff_max_seconds: Seconds = 30.0

    #: How long a worker that says nothing still counts as alive, so that its calls are not repeated.
    lease_seconds: Seconds = 10.0
    drain_seconds: Seconds = 25.0
    commit_interval_seconds: Seconds = 1.0
    session_timeout_seconds: Seconds = 30.0
    rebalance_timeout_seconds: Seconds = 60.0
    ledger_batch_max: Count = 200
    ledger_linger_seconds: Annotated[float, Field(ge=0)] = 0.005
    ledger_keep_days: Count = 8
    reserve_seconds: Count = 86_400
    #: Whether requests of tenants, and of users where some of a tenant are named, are served that no limit names.
    unknown_accounts: Literal["create", "refuse"] = "create"
    #: How long a request that says so waits at most for room in a limit, from when Kafka took it.
    limit_wait_seconds: Seconds = 300.0
    #: What a tenant spends in a day is unusual from this many times its usual on, and from so much money on.
    spend_anomaly_factor: Annotated[Decimal, Field(ge=1)] = Decimal(3)
    spend_anomaly_floor_usd: Annotated[Decimal, Field(ge=0)] = Decimal(10)
    #: How often workers read the registry again, beside each time that they are told to.
    registry_refresh_seconds: Seconds = 300.0
    #: How far back a circuit breaker counts the calls of a model, and how long an open one lets none through.
    breaker_window_seconds: Seconds = 60.0
    breaker_open_seconds: Seconds = 30.0
    #: How often a provider's health is checked; one that is not well is checked five times as often.
    health_check_seconds: Seconds = 300.0

    #: A folder with tasks of the deployment's own, in place of shipped ones of the same name.
    tasks_dir: str | None = None
    #: Whether a task's `url` input is fetched where its text is not given; never from a private address.
    task_fetch_urls: bool = False

    sink_batch_rows: Count = 20_000
    sink_batch_seconds: Seconds = 3.0
    #: What ClickHouse keeps of prompts and answers, for 30 days: all, their SHA-256, or nothing.
    bodies: Literal["full", "hash", "off"] = "full"
    #: Where `millstream sink webhooks` sends alerts, the key that signs them, and whether they may go to private addresses.
    alert_webhooks: list[str] = []
    alert_webhook_secret: SecretStr | None = None
    alert_webhooks_private: bool = False
    log_level: str = "INFO"

    #: Where `/metrics`, `/healthz` and `/readyz` are served; port 0 serves none.
    metrics_port: Annotated[int, Field(ge=0, le=65_535)] = 0
    metrics_host: str = "127.0.0.1"

    openai_api_key: SecretStr | None = Field(None, validation_alias=_named("OPENAI_API_KEY"))
    openai_base_url: str | None = Field(None, validation_alias=_named("OPENAI_BASE_URL"))
    anthropic_api_key: SecretStr | None = Field(None, validation_alias=_named("ANTHROPIC_API_KEY"))
    anthropic_base_url: str | None = Field(None, validation_alias=_named("ANTHROPIC_BASE_URL"))
    gemini_api_key: SecretStr | None = Field(None, validation_alias=_named("GEMINI_API_KEY", "GOOGLE_API_KEY"))
    gemini_base_url: str | None = Field(None, validation_alias=_named("GOOGLE_GEMINI_BASE_URL"))
    #: The models that the routes of a deployment without routes of its own lead to.
    gemini_model_fast: str = Field("gemini-2.5-flash", validation_alias=_named("GEMINI_MODEL_FAST"), min_length=1)
    gemini_model_quality: str = Field("gemini-2.5-pro", validation_alias=_named("GEMINI_MODEL_QUALITY"), min_length=1)
    openai_compatible_api_key: SecretStr | None = Field(
        None, validation_alias=_named("MILLSTREAM_OPENAI_COMPATIBLE_API_KEY")
    )
    openai_compatible_base_url: str | None = Field(
        None, validation_alias=_named("MILLSTREAM_OPENAI_COMPATIBLE_BASE_URL")
    )

    @model_validator(mode="after")
    def _one_way_to_know(self) -> Self:
        if self.request_tenants and self.trust == "signed":
            raise ValueError(
                "MILLSTREAM_REQUEST_TENANTS is set, and MILLSTREAM_TRUST=signed knows tenants by their keys; leave one of them out."
            )
        return self

    @model_validator(mode="after")
    def _both_default_prices(self) -> Self:
        if (self.default_input_usd_per_mtok is None) != (self.default_output_usd_per_mtok is None):
            raise ValueError(
                "Only one of MILLSTREAM_DEFAULT_INPUT_USD_PER_MTOK and MILLSTREAM_DEFAULT_OUTPUT_USD_PER_MTOK is set; "
                "set both, or none."
            )
        return self

    @model_validator(mode="after")
    def _another_ledger(self) -> Self:
        if self.spare_database_url == self.database_url:
            raise ValueError(
                "MILLSTREAM_SPARE_DATABASE_URL is the ledger's own database, which it has to outlast; name another, or leave it out."
            )
        return self

    @property
    def default_price(self) -> Tiers | None:
        """What a model without a price is held and charged at; None where it has no cost, and no room in a limit of money."""
        usd_in, usd_out = self.default_input_usd_per_mtok, self.default_output_usd_per_mtok
        return None if usd_in is None or usd_out is None else flat(usd_in, usd_out)

    @property
    def max_record_bytes(self) -> int:
        """The largest record on any topic: a dead letter carries a whole request, and an answer may be longer than its request."""
        return self.max_request_bytes * 2 + 1_000_000

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the arguments first, then the environment, then the TOML file."""
        path = os.environ.get("MILLSTREAM_CONFIG", "millstream.toml")
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, path)

    def provider(self, name: str) -> ProviderSettings:
        """How to reach the provider called `name`; KeyError when there is no such provider."""
        prefix, setting = _PROVIDER_SETTINGS[name]
        if prefix is None:
            return ProviderSettings(name, None, None, setting)
        key: SecretStr | None = getattr(self, f"{prefix}_api_key")
        return ProviderSettings(
            name,
            key.get_secret_value() if key else None,
            getattr(self, f"{prefix}_base_url"),
            setting,
            stream_stall_seconds=self.stream_stall_seconds,
        )

    def served(self) -> tuple[str, ...]:
        """The providers that can be called here: all but a compatible server whose address is not set."""
        return tuple(
            name
            for name in PROVIDER_NAMES
            if name != "openai-compatible" or self.openai_compatible_base_url is not None
        )


_PROVIDER_SETTINGS: dict[str, tuple[str | None, str]] = {
    "openai": ("openai", "OPENAI_API_KEY"),
    "anthropic": ("anthropic", "ANTHROPIC_API_KEY"),
    "google": ("gemini", "GEMINI_API_KEY"),
    "openai-compatible": ("openai_compatible", "MILLSTREAM_OPENAI_COMPATIBLE_API_KEY"),
    "echo": (None, ""),
}

PROVIDER_NAMES = tuple(_PROVIDER_SETTINGS)


@cache
def settings() -> Settings:
    """This process's settings, read once; `SettingsError` names the first value that cannot be used."""
    return _read()


def settings_in(environment: Mapping[str, str]) -> Settings:
    """The settings that a process with this environment would have; `SettingsError` as for `settings`."""
    own = dict(os.environ)
    try:
        os.environ.clear()
        os.environ.update(environment)
        return _read()
    finally:
        os.environ.clear()
        os.environ.update(own)


def _read() -> Settings:
    try:
        return Settings()
    except ValidationError as invalid:
        first = invalid.errors(include_url=False, include_input=False)[0]
        if not first["loc"]:
            raise SettingsError(str(first["ctx"]["error"])) from None
        name = "_".join(str(part) for part in first["loc"]).upper()
        name = (
            name if name.startswith(("OPENAI", "ANTHROPIC", "GEMINI", "GOOGLE", "MILLSTREAM")) else f"MILLSTREAM_{name}"
        )
        raise SettingsError(f"Setting {name} cannot be used: {first['msg']}.") from None
