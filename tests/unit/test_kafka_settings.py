"""How Kafka is reached: combinations that are refused, secrets that stay secret, and no client that goes its own way."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth

from config.kafka import aiokafka, librdkafka
from config.settings import Settings, SettingsError, settings_in
from local.kafka_security import PROTOCOLS, BrokerSecurity
from streams.app import credentials

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("agents", "cli", "config", "core", "schemas", "sinks", "streams")
CLIENTS = {"Consumer", "Producer", "AdminClient", "AIOKafkaConsumer", "AIOKafkaProducer", "AIOKafkaAdminClient"}
SECRET = "planted-0123456789-kafka"
LOGIN = {"SASL_USERNAME": "ana", "SASL_PASSWORD": SECRET}


@pytest.fixture(scope="module")
def security(tmp_path_factory: pytest.TempPathFactory) -> BrokerSecurity:
    return BrokerSecurity(tmp_path_factory.mktemp("security"), {"ana": SECRET})


def of(**values: str) -> Settings:
    return settings_in({f"MILLSTREAM_KAFKA_{name}": value for name, value in values.items()})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"SECURITY_PROTOCOL": "SASL"}, ["KAFKA_SECURITY_PROTOCOL", "SASL_SSL"]),
        ({"SECURITY_PROTOCOL": "SASL_SSL", "SASL_MECHANISM": "OAUTHBEARER", **LOGIN}, ["SASL_MECHANISM", "SCRAM-SHA-512"]),
        ({"SECURITY_PROTOCOL": "SASL_SSL", "SASL_PASSWORD": SECRET}, ["needs MILLSTREAM_KAFKA_SASL_USERNAME"]),
        ({"SECURITY_PROTOCOL": "SASL_SSL", "SASL_USERNAME": "ana"}, ["needs MILLSTREAM_KAFKA_SASL_PASSWORD"]),
        ({"SECURITY_PROTOCOL": "SASL_SSL", **LOGIN, "SASL_PASSWORD": ""}, ["needs MILLSTREAM_KAFKA_SASL_PASSWORD"]),
        (LOGIN, ["SASL_USERNAME is set", "PROTOCOL is PLAINTEXT", "SASL_SSL"]),
        ({"SECURITY_PROTOCOL": "SSL", **LOGIN}, ["SASL_USERNAME is set", "PROTOCOL is SSL"]),
        ({"SECURITY_PROTOCOL": "SASL_PLAINTEXT", **LOGIN, "SSL_CA_LOCATION": "/x"}, ["SSL_CA_LOCATION is set"]),
        ({"SECURITY_PROTOCOL": "SSL", "SSL_CERTIFICATE_LOCATION": "/x"}, ["SSL_KEY_LOCATION go together"]),
        ({"SECURITY_PROTOCOL": "SSL", "SSL_CA_LOCATION": "/no/such"}, ["SSL_CA_LOCATION is /no/such", "No such file"]),
        ({"SECURITY_PROTOCOL": "SSL", "SSL_CA_LOCATION": __file__}, ["SSL_CA_LOCATION", "PEM"]),
        (
            {"SECURITY_PROTOCOL": "SASL_SSL", **LOGIN, "SSL_CERTIFICATE_LOCATION": "/no/such", "SSL_KEY_LOCATION": "/x"},
            ["/no/such", "SSL_CERTIFICATE_LOCATION"],
        ),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_at_the_start(values: dict[str, str], words: list[str]) -> None:
    """Each bad combination is one sentence that names the setting, and never the password."""
    with pytest.raises(SettingsError) as refused:
        of(**values)
    assert all(word in str(refused.value) for word in words), str(refused.value)
    assert SECRET not in str(refused.value) and "\n" not in str(refused.value)


def test_plaintext_that_is_said_turns_the_rest_off() -> None:
    """With PLAINTEXT given, a user, a password and files that are set elsewhere reach no client."""
    settings = of(SECURITY_PROTOCOL="PLAINTEXT", SSL_CA_LOCATION="/no/such", **LOGIN)
    assert set(librdkafka(settings)) == {"bootstrap.servers", "security.protocol"}
    assert set(aiokafka(settings)) == {"bootstrap_servers", "security_protocol"}


def test_an_encrypted_key_needs_its_password(security: BrokerSecurity, tmp_path: Path) -> None:
    """With the right password the key is loaded; with none or another the setting is named, and nothing is asked at the terminal."""
    key = load_pem_private_key(security.key.read_bytes(), None)
    locked = tmp_path / "locked.pem"
    locked.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(SECRET.encode())))
    names = {
        "SECURITY_PROTOCOL": "SSL", "SSL_CERTIFICATE_LOCATION": str(security.certificate), "SSL_KEY_LOCATION": str(locked)
    }  # fmt: skip
    for password in ("", "another"):
        with pytest.raises(SettingsError, match="_SSL_KEY_PASSWORD"):
            of(**names, SSL_KEY_PASSWORD=password)
    settings = of(**names, SSL_KEY_PASSWORD=SECRET)
    assert librdkafka(settings)["ssl.key.password"] == SECRET
    assert SECRET not in repr(settings) + str(settings) + settings.model_dump_json()


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("listener", PROTOCOLS)
def test_the_libraries_are_told_the_same(listener: str, mechanism: str, security: BrokerSecurity) -> None:
    """librdkafka, aiokafka and Faust get the same brokers, protocol, mechanism, user and password; nothing shows the password."""
    settings = settings_in(security.environment(listener, "ana", mechanism))
    ours, theirs = librdkafka(settings), aiokafka(settings)
    given = credentials(settings)
    faust = credentials_to_aiokafka_auth(given)
    assert ours["security.protocol"] == theirs["security_protocol"] == faust["security_protocol"] == PROTOCOLS[listener]
    assert ours["bootstrap.servers"] == theirs["bootstrap_servers"] == settings.kafka_bootstrap
    for name, other in (("mechanism", "mechanism"), ("username", "plain_username"), ("password", "plain_password")):
        assert ours.get(f"sasl.{name}") == theirs.get(f"sasl_{other}") == faust.get(f"sasl_{other}")
    assert ours.get("sasl.password") == (SECRET if "SASL" in PROTOCOLS[listener] else None)
    assert ("ssl.ca.location" in ours) == ("ssl_context" in theirs) == (faust.get("ssl_context") is not None)
    assert SECRET not in repr(settings) + repr(given) + settings.model_dump_json()


def calls_in(path: Path) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            yield node


def name_of(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def test_no_client_reaches_kafka_by_settings_of_its_own() -> None:
    """A module that makes a client takes the brokers from `config.kafka`, and no other module names them to a library."""
    made: dict[str, set[str]] = {}
    for path in (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))):
        text = path.read_text("utf-8")
        where = path.relative_to(ROOT).as_posix()
        if where != "config/kafka.py":
            assert "bootstrap.servers" not in text and "bootstrap_servers" not in text, where
        names = {name_of(call) for call in calls_in(path)}
        if "confluent_kafka" in text or "aiokafka" in text:
            made[where] = names & CLIENTS
            own = {"librdkafka"} if names & {"Consumer", "Producer", "AdminClient"} else set()
            own |= {"aiokafka"} if any(name.startswith("AIO") for name in made[where]) else set()
            assert own <= names, f"{where} makes {made[where]} without config.kafka"
    assert set().union(*made.values()) >= CLIENTS - {"AIOKafkaProducer"}
    (app,) = (call for call in calls_in(ROOT / "streams/app.py") if name_of(call) == "App")
    assert "broker_credentials" in {keyword.arg for keyword in app.keywords}
