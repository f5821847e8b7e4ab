"""TLS against a real MariaDB with certificates of our own making."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from matih_ray.errors import AuthenticationFailedError, TlsHandshakeError
from matih_ray.model.ids import EndpointId, TenantId
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.mysql import MySqlSource
from matih_ray.testing.devstack.mariadb import MariaDbMissingError, MariaDbServer
from tests.integration.certificates import DAY, Authority, Pair, open_to_servers


@dataclass(frozen=True)
class Encrypted:
    """A server that speaks TLS, who signed its certificate, and somebody who did not."""

    server: MariaDbServer
    trusted: Path
    stranger: Path


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return open_to_servers(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def encrypted(directory: Path) -> Iterator[Encrypted]:
    authority, stranger = Authority(directory), Authority(directory, "stranger")
    with start(authority.server("server")) as server:
        yield Encrypted(server, authority.root, stranger.root)


def start(pair: Pair) -> MariaDbServer:
    try:
        server = MariaDbServer(
            options={"ssl-cert": str(pair.certificate), "ssl-key": str(pair.key)}
        )
    except MariaDbMissingError as missing:
        pytest.skip(str(missing))
    if server.account is not None:
        os.chown(pair.key, server.account.pw_uid, server.account.pw_gid)
    server.start()
    server.execute("CREATE DATABASE shop", "CREATE USER secret@'%' REQUIRE SSL")
    server.execute("GRANT SELECT ON shop.* TO secret@'%'")
    return server


def connect(server: MariaDbServer, host: str, ssl_mode: str, root: Path | None = None) -> None:
    """As an account that may only come over TLS."""
    spec = EndpointSpec(
        tenant_id=TenantId("tenant"),
        endpoint_id=EndpointId("endpoint"),
        name="test",
        type="MYSQL",
        config={
            "host": host,
            "port": server.port,
            "database": "shop",
            "user": "secret",
            "sslMode": ssl_mode,
            "sslRootCert": None if root is None else str(root),
        },
    )
    MySqlSource(spec).test()


def test_a_trusted_certificate_is_accepted(encrypted: Encrypted) -> None:
    connect(encrypted.server, "localhost", "verify-full", encrypted.trusted)
    connect(encrypted.server, "127.0.0.1", "verify-ca", encrypted.trusted)


def test_only_the_mode_disable_does_without_tls(encrypted: Encrypted) -> None:
    connect(encrypted.server, "127.0.0.1", "prefer")
    connect(encrypted.server, "127.0.0.1", "require")
    with pytest.raises(AuthenticationFailedError):
        connect(encrypted.server, "127.0.0.1", "disable")


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
    with pytest.raises(TlsHandshakeError) as caught:
        connect(encrypted.server, host, ssl_mode, getattr(encrypted, trust))
    assert caught.value.context["verify_code"]


def test_an_expired_certificate_is_refused_with_its_code(directory: Path) -> None:
    authority = Authority(directory, "old")
    pair = authority.server("expired", after=-2 * DAY, until=timedelta(hours=-1))
    with start(pair) as server, pytest.raises(TlsHandshakeError) as caught:
        connect(server, "localhost", "verify-full", authority.root)
    assert caught.value.context["verify_code"] == 10
