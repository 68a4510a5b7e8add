"""What a local broker needs to ask its clients who they are: certificates, users, listeners and, if wished, an authorizer."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from confluent_kafka.admin import AdminClient, ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from local.processes import free_port

#: Listeners by their names on the broker: the protocol of each. That of SSL asks for a client's certificate.
PROTOCOLS = {"SECURE": "SASL_SSL", "SASL": "SASL_PLAINTEXT", "TLS": "SSL"}
_SCRAM = {"SCRAM-SHA-256": ScramMechanism.SCRAM_SHA_256, "SCRAM-SHA-512": ScramMechanism.SCRAM_SHA_512}
_JAAS = "org.apache.kafka.common.security"
_DAYS = 2


class BrokerSecurity:
    """Listeners for clients of `users` (passwords by name), beside the plain one, with certificates under `folder`.

    `authorize` turns Kafka's own authorizer on: what no ACL allows is refused to all but clients of the plain listener.
    """

    def __init__(self, folder: Path, users: Mapping[str, str], authorize: bool = False) -> None:
        self.ca, self.certificate, self.key = (folder / name for name in ("ca.pem", "client.pem", "client-key.pem"))
        self._users = dict(users)
        self._authorize = authorize
        self._store = folder / "broker.pem"
        self.ports = {name: free_port() for name in PROTOCOLS}
        folder.mkdir(parents=True, exist_ok=True)
        self._make_certificates()

    def environment(self, listener: str, user: str = "", mechanism: str = "SCRAM-SHA-512") -> dict[str, str]:
        """The settings by which a process reaches one of the listeners, as one of the users."""
        protocol = PROTOCOLS[listener]
        names = {"BOOTSTRAP": f"127.0.0.1:{self.ports[listener]}", "SECURITY_PROTOCOL": protocol}
        if protocol.startswith("SASL_"):
            names |= {"SASL_MECHANISM": mechanism, "SASL_USERNAME": user, "SASL_PASSWORD": self._users[user]}
        if protocol.endswith("SSL"):
            names["SSL_CA_LOCATION"] = str(self.ca)
        if protocol == "SSL":
            names |= {"SSL_CERTIFICATE_LOCATION": str(self.certificate), "SSL_KEY_LOCATION": str(self.key)}
        return {f"MILLSTREAM_KAFKA_{name}": value for name, value in names.items()}

    def properties(self) -> str:
        """What the broker's properties need beside the listeners themselves."""
        plain = " ".join(f'user_{name}="{password}"' for name, password in self._users.items())
        lines = ["ssl.keystore.type=PEM", f"ssl.keystore.location={self._store.as_posix()}"]
        lines += ["ssl.truststore.type=PEM", f"ssl.truststore.location={self.ca.as_posix()}"]
        lines += ["listener.name.tls.ssl.client.auth=required"]
        for listener in ("secure", "sasl"):
            lines.append(f"listener.name.{listener}.sasl.enabled.mechanisms=PLAIN,{','.join(_SCRAM)}")
            lines.append(
                f"listener.name.{listener}.plain.sasl.jaas.config={_JAAS}.plain.PlainLoginModule required {plain};"
            )
            for mechanism in _SCRAM:
                login = f"{_JAAS}.scram.ScramLoginModule required;"
                lines.append(f"listener.name.{listener}.{mechanism.lower()}.sasl.jaas.config={login}")
        if self._authorize:
            lines.append("authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer")
            lines.append("super.users=User:ANONYMOUS")
        return "\n".join(lines) + "\n"

    def create_users(self, admin: AdminClient) -> None:
        """Give the users of SCRAM to a broker that runs; `admin` is a client of its plain listener."""
        # Kafka takes one credential of a user in a request.
        for mechanism in _SCRAM.values():
            made = [
                UserScramCredentialUpsertion(name, ScramCredentialInfo(mechanism, 4_096), password.encode())
                for name, password in self._users.items()
            ]
            for done in admin.alter_user_scram_credentials(made).values():
                done.result(30)

    def _make_certificates(self) -> None:
        """An authority, and what it has signed: the broker's certificate for 127.0.0.1 and a client's."""
        ca_key = rsa.generate_private_key(65_537, 2_048)
        ca_name = _name("Millstream test authority")
        ca = _builder(ca_name, ca_name, ca_key).add_extension(x509.BasicConstraints(True, 0), critical=True)
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        identity = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
        signed = ca.add_extension(usage, True).add_extension(identity, False).sign(ca_key, hashes.SHA256())
        self.ca.write_bytes(signed.public_bytes(Encoding.PEM))
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
        made = []
        for name in ("broker", "client"):
            key = rsa.generate_private_key(65_537, 2_048)
            here = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("localhost")])
            leaf = _builder(_name(name), ca_name, key).add_extension(here, False).add_extension(issuer, False)
            pem = leaf.sign(ca_key, hashes.SHA256()).public_bytes(Encoding.PEM)
            made.append((key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), pem))
        (broker_key, broker), (client_key, client) = made
        for path, secret in ((self._store, broker_key + broker), (self.key, client_key)):
            path.touch(0o600)
            path.write_bytes(secret)
        self.certificate.write_bytes(client)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(subject: x509.Name, issuer: x509.Name, key: rsa.RSAPrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=_DAYS))
    )  # fmt: skip
