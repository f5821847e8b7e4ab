"""TLS against a real server with a certificate of our own making."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from matih_ray.errors import TlsHandshakeError
from matih_ray.model.ids import EndpointId, TenantId
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.postgres import PostgresSource
from matih_ray.testing.devstack.postgres import PostgresServer
from tests.integration.certificates import open_to_servers


def make_certificate(directory: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate for `localhost` and its key, as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = directory / f"{name}.crt", directory / f"{name}.key"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    key_file.chmod(0o600)
    return certificate_file, key_file


@dataclass(frozen=True)
class Encrypted:
    """A server that speaks TLS, the certificate it shows, and one it does not."""

    server: PostgresServer
    trusted: Path
    stranger: Path


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Encrypted]:
    directory = open_to_servers(tmp_path_factory.mktemp("tls"))
    certificate, key = make_certificate(directory, "server")
    stranger, _ = make_certificate(directory, "stranger")
    options = {"ssl": "on", "ssl_cert_file": str(certificate), "ssl_key_file": str(key)}
    server = PostgresServer(options=options)
    if server._account is not None:
        os.chown(key, server._account.pw_uid, server._account.pw_gid)
    try:
        server.start()
    except RuntimeError as error:
        if "SSL is not supported by this build" not in str(error):
            raise
        pytest.skip("this PostgreSQL was built without TLS")
    yield Encrypted(server, certificate, stranger)
    server.remove()


def connect(encrypted: Encrypted, host: str, ssl_mode: str, root: Path | None) -> None:
    spec = EndpointSpec(
        tenant_id=TenantId("tenant"),
        endpoint_id=EndpointId("endpoint"),
        name="test",
        type="POSTGRESQL",
        config={
            "host": host,
            "port": encrypted.server.port,
            "database": "postgres",
            "user": "postgres",
            "sslMode": ssl_mode,
            "sslRootCert": None if root is None else str(root),
        },
    )
    PostgresSource(spec).test()


def test_a_trusted_certificate_is_accepted(encrypted: Encrypted) -> None:
    connect(encrypted, "localhost", "verify-full", encrypted.trusted)
    connect(encrypted, "127.0.0.1", "verify-ca", encrypted.trusted)
    connect(encrypted, "127.0.0.1", "require", None)


@pytest.mark.parametrize(
    ("host", "ssl_mode", "trust"),
    [
        ("127.0.0.1", "verify-full", "trusted"),  # the certificate is for localhost
        ("localhost", "verify-full", "stranger"),
        ("localhost", "verify-ca", "stranger"),
    ],
)
def test_a_certificate_that_does_not_fit_is_refused(
    encrypted: Encrypted, host: str, ssl_mode: str, trust: str
) -> None:
    with pytest.raises(TlsHandshakeError):
        connect(encrypted, host, ssl_mode, getattr(encrypted, trust))
