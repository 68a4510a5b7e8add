"""How Kafka is reached: one set of settings, and what each of the two client libraries calls them.

librdkafka: https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md
aiokafka: https://aiokafka.readthedocs.io/en/stable/api.html
"""

from __future__ import annotations

from ssl import SSLContext, create_default_context
from typing import Any, Literal, Self

from pydantic import SecretStr, model_validator
from pydantic_settings import BaseSettings


class KafkaSettings(BaseSettings):
    """The brokers, and how a client proves to them who it is and they to it; a combination that cannot work is refused."""

    kafka_bootstrap: str = "127.0.0.1:9092"
    #: PLAINTEXT, said and not left to the default, turns off whatever else is set below.
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None
    #: PEM files: who vouches for the brokers (the system's authorities by default), and a client's certificate and its key.
    kafka_ssl_ca_location: str | None = None
    kafka_ssl_certificate_location: str | None = None
    kafka_ssl_key_location: str | None = None
    kafka_ssl_key_password: SecretStr | None = None

    @property
    def kafka_sasl(self) -> bool:
        """Whether clients give a name and a password."""
        return self.kafka_security_protocol.startswith("SASL_")

    @property
    def kafka_tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.kafka_security_protocol.endswith("SSL")

    @model_validator(mode="after")
    def _can_work(self) -> Self:
        protocol = self.kafka_security_protocol
        if protocol == "PLAINTEXT" and "kafka_security_protocol" in self.model_fields_set:
            return self
        for needed, names, with_it in ((self.kafka_sasl, _SASL, "SASL_SSL"), (self.kafka_tls, _TLS, "SSL or SASL_SSL")):
            given = [name for name in names if getattr(self, name)]
            if given and not needed:
                raise ValueError(
                    f"{_variable(given[0])} is set, but MILLSTREAM_KAFKA_SECURITY_PROTOCOL is {protocol}, which does not use it; "
                    f"set it to {with_it}, or say PLAINTEXT there to turn it off."
                )
        for name in _SASL if self.kafka_sasl else ():
            if not getattr(self, name):
                raise ValueError(f"MILLSTREAM_KAFKA_SECURITY_PROTOCOL is {protocol}, which needs {_variable(name)}.")
        if bool(self.kafka_ssl_certificate_location) != bool(self.kafka_ssl_key_location):
            raise ValueError(
                "MILLSTREAM_KAFKA_SSL_CERTIFICATE_LOCATION and MILLSTREAM_KAFKA_SSL_KEY_LOCATION go together; set both or neither."
            )
        if self.kafka_ssl_ca_location or self.kafka_ssl_certificate_location:
            _context(self)
        return self


_SASL = ("kafka_sasl_username", "kafka_sasl_password")
_TLS = (
    "kafka_ssl_ca_location", "kafka_ssl_certificate_location", "kafka_ssl_key_location", "kafka_ssl_key_password",
)  # fmt: skip


def librdkafka(settings: KafkaSettings) -> dict[str, Any]:
    """The properties by which a client of confluent-kafka reaches Kafka; what else it is told stands beside them."""
    found = {"bootstrap.servers": settings.kafka_bootstrap, "security.protocol": settings.kafka_security_protocol}
    if settings.kafka_sasl:
        found |= {
            "sasl.mechanism": settings.kafka_sasl_mechanism,
            "sasl.username": settings.kafka_sasl_username or "",
            "sasl.password": _secret(settings.kafka_sasl_password),
        }
    if settings.kafka_tls:
        files = {
            "ssl.ca.location": settings.kafka_ssl_ca_location,
            "ssl.certificate.location": settings.kafka_ssl_certificate_location,
            "ssl.key.location": settings.kafka_ssl_key_location,
            "ssl.key.password": _secret(settings.kafka_ssl_key_password),
        }
        found |= {name: value for name, value in files.items() if value}
    return found


def aiokafka(settings: KafkaSettings) -> dict[str, Any]:
    """The keyword arguments by which a client of aiokafka reaches Kafka."""
    found: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_bootstrap,
        "security_protocol": settings.kafka_security_protocol,
    }
    if settings.kafka_sasl:
        found |= {
            "sasl_mechanism": settings.kafka_sasl_mechanism,
            "sasl_plain_username": settings.kafka_sasl_username,
            "sasl_plain_password": _secret(settings.kafka_sasl_password),
        }
    if settings.kafka_tls:
        found["ssl_context"] = _context(settings)
    return found


def _context(settings: KafkaSettings) -> SSLContext:
    """What TLS connections need; ValueError names the file that cannot be used. Names of brokers are always checked."""
    ca, certificate = settings.kafka_ssl_ca_location, settings.kafka_ssl_certificate_location
    try:
        context = create_default_context(cafile=ca or None)
    except OSError as why:
        raise ValueError(
            f"MILLSTREAM_KAFKA_SSL_CA_LOCATION is {ca}, which cannot be used ({_reason(why)}); name a PEM file of certificates."
        ) from None
    if certificate:
        key = settings.kafka_ssl_key_location
        try:
            # With None, OpenSSL would ask for the password of an encrypted key at the terminal.
            context.load_cert_chain(certificate, key, _secret(settings.kafka_ssl_key_password))
        except OSError as why:
            raise ValueError(
                f"The client certificate {certificate} with the key {key} cannot be used ({_reason(why)}); see "
                "MILLSTREAM_KAFKA_SSL_CERTIFICATE_LOCATION, _SSL_KEY_LOCATION and _SSL_KEY_PASSWORD."
            ) from None
    return context


def _reason(why: OSError) -> str:
    return why.strerror or type(why).__name__


def _secret(value: SecretStr | None) -> str:
    return value.get_secret_value() if value else ""


def _variable(name: str) -> str:
    return f"MILLSTREAM_{name.upper()}"
