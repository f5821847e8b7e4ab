"""What goes wrong with a Kafka cluster, provoked for real: connecting, TLS, rights, losses."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AclOperation

from matih_ray.errors import (
    AuthenticationFailedError,
    ConnectionRefusedByHostError,
    DatabaseNotFoundError,
    DnsResolutionError,
    HostNotAllowedError,
    MatihError,
    SourcePermissionError,
    SourceTimeoutError,
    SourceUnavailableError,
    TlsHandshakeError,
    UnknownUnitError,
    ValidationError,
)
from matih_ray.model.ids import TenantId, UnitId
from matih_ray.model.policy import IngestionPolicy
from matih_ray.sources.base import IngestionContext
from matih_ray.sources.host_policy import HostPolicy
from matih_ray.testing.devstack.kafka import KafkaServer
from matih_ray.testing.devstack.ports import free_port
from tests.integration.certificates import Authority
from tests.integration.kafka_lab import planned, read, source_of, unit_of

PASSWORD = 'p@ss w\\rd/%:?"'
USERS = {"reader": PASSWORD, "stranger": "stranger's", "looker": "looker's"}
PAGE = IngestionContext(TenantId("t"))


@pytest.fixture(scope="module")
def server() -> Iterator[KafkaServer]:
    with KafkaServer(USERS) as server:
        server.create_topic("orders", 2)
        server.create_topic("secret")
        server.allow("reader", AclOperation.READ, "orders")
        server.allow("looker", AclOperation.DESCRIBE, "orders")
        server.produce("orders", [b'{"id":%d}' % n for n in range(1000)])
        yield server


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_password_with_any_characters_logs_in(server: KafkaServer, mechanism: str):
    source = source_of(server, PASSWORD, user="reader", saslMechanism=mechanism)
    assert source.test().server_version.startswith("Apache Kafka, cluster ")
    assert len(read(source, "orders")) == 1000
    source.close()


def test_each_cause_has_its_code_and_no_secret(server: KafkaServer):
    login: dict[str, Any] = {"password": PASSWORD, "user": "reader"}
    causes: list[tuple[dict[str, Any], type[MatihError]]] = [
        ({**login, "password": "wr0ng"}, AuthenticationFailedError),
        ({**login, "password": "wr0ng", "saslMechanism": "PLAIN"}, AuthenticationFailedError),
        ({**login, "user": "nobody"}, AuthenticationFailedError),
        ({}, AuthenticationFailedError),  # a login is wanted and none is given
        ({**login, "host": "no-such-host.invalid"}, DnsResolutionError),
        ({**login, "port": free_port()}, ConnectionRefusedByHostError),
        ({**login, "sslMode": "require"}, TlsHandshakeError),
        ({**login, "topics": [{"name": "orders"}]}, MatihError),
        ({**login, "topics": [{"name": "secret"}]}, SourcePermissionError),
        (
            {"user": "looker", "password": "looker's", "topics": [{"name": "orders"}]},
            SourcePermissionError,
        ),
    ]
    for config, kind in causes:
        source = source_of(server, **config)
        if kind is MatihError:
            assert source.test().latency_ms > 0
            continue
        with pytest.raises(kind) as caught:
            source.test()
        assert type(caught.value) is kind
        for secret in (PASSWORD, "wr0ng", "looker's"):
            assert secret not in str(caught.value)
            assert secret not in repr(caught.value.context)
        source.close()


def test_a_configured_topic_that_does_not_exist_is_not_found():
    with KafkaServer() as server:
        source = source_of(server, topics=[{"name": "nowhere"}])
        with pytest.raises(DatabaseNotFoundError, match="no topic 'nowhere'"):
            source.test()
        assert source.list_units(PAGE) == []  # nothing is there, and that is allowed
        source.close()


def test_only_topics_that_may_be_read_are_listed(server: KafkaServer):
    source = source_of(server, PASSWORD, user="reader")
    assert [unit.unit_id for unit in source.list_units(PAGE)] == ["orders"]
    with pytest.raises(UnknownUnitError, match="may not see it"):
        source.describe_unit(UnitId("secret"))
    source.close()


def test_listing_without_the_right_to_is_no_empty_list(server: KafkaServer):
    for user in ("stranger", "looker"):
        source = source_of(server, USERS[user], user=user)
        with pytest.raises(SourcePermissionError, match="may read no topic"):
            source.list_units(PAGE)
        source.close()


def test_a_right_that_is_taken_away_is_a_permission_and_not_a_change(server: KafkaServer):
    reader = source_of(server, PASSWORD, user="reader")
    unit, plan = unit_of(reader, "orders"), planned(reader, "orders")
    reader.close()
    source = source_of(server, USERS["stranger"], user="stranger")
    with pytest.raises(SourcePermissionError):
        list(source.read(unit, plan.slices[0], IngestionPolicy()))
    source.close()


def test_a_server_that_accepts_and_says_nothing_is_a_timeout(server: KafkaServer):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        for mode in ("disable", "require"):
            source = source_of(server, port=port, connectTimeoutS=1, sslMode=mode)
            with pytest.raises(SourceTimeoutError):
                source.test()


def test_another_broker_is_asked_when_the_first_is_away(server: KafkaServer):
    source = source_of(
        server,
        PASSWORD,
        user="reader",
        port=free_port(),
        hosts=[f"127.0.0.1:{server.port}"],
    )
    assert source.test().latency_ms > 0
    assert len(read(source, "orders")) == 1000
    source.close()


def test_a_broker_that_dies_while_it_is_read_is_unavailable_and_comes_back():
    with KafkaServer() as server:
        server.create_topic("orders")
        server.produce("orders", (b"x" * 1000 for _ in range(60_000)))
        source = source_of(server, readTimeoutS=3)
        unit, plan = unit_of(source, "orders"), planned(source, "orders")
        policy = IngestionPolicy()
        batches = iter(source.read(unit, plan.slices[0], policy))
        rows = next(batches).num_rows
        server.kill()
        with pytest.raises(SourceUnavailableError):
            # what was read ahead still comes
            rows += sum(batch.num_rows for batch in batches)
        source.close()
        assert rows < 60_000
        server.start()
        source = source_of(server)
        read_again = source.read(unit, plan.slices[0], policy)
        assert sum(batch.num_rows for batch in read_again) == 60_000
        source.close()


# --- where brokers may be --------------------------------------------------------------------


def test_a_broker_that_points_to_a_denied_host_is_not_followed():
    """The first broker is allowed, and says that the cluster is somewhere else."""
    with KafkaServer(USERS, host="localhost") as server:
        policy = HostPolicy(denied_suffixes=("localhost",))
        source = source_of(server, PASSWORD, policy, user="reader")
        with pytest.raises(HostNotAllowedError, match="localhost"):
            source.test()
        source.close()


def test_a_denied_broker_is_not_connected_to(server: KafkaServer):
    policy = HostPolicy(denied_networks=(ipaddress.ip_network("127.0.0.0/8"),))
    source = source_of(server, PASSWORD, policy, user="reader")
    with pytest.raises(HostNotAllowedError):
        source.list_units(PAGE)
    source.close()


# --- configuration ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        {"hosts": ["broker"]},
        {"hosts": ["SASL_SSL://u:p@h:1"]},
        {"sslMode": "prefer"},
        {"saslMechanism": "GSSAPI"},
        {"token": "t"},
        {"topics": [{"name": "a b"}]},
        {"topics": [{"name": "a"}, {"name": "a"}]},
        {"topics": [{"name": "a", "format": "raw", "schema": [{"name": "x", "type": "text"}]}]},
        {"topics": [{"name": "a", "schema": [{"name": "x", "type": "float"}]}]},
        {"topics": [{"name": "a", "missingOffsets": "ignore"}]},
    ],
    ids=str,
)
def test_a_configuration_that_cannot_be_is_refused(server: KafkaServer, config: dict[str, Any]):
    with pytest.raises(ValidationError):
        source_of(server, **config)


# --- TLS -------------------------------------------------------------------------------------


def test_tls_modes_check_what_they_promise(tmp_path: Path):
    authority = Authority(tmp_path)
    trusted, stranger = str(authority.root), str(Authority(tmp_path, "stranger").root)
    pair = authority.server("server")
    with KafkaServer(USERS, certificate=pair.certificate, key=pair.key, host="localhost") as server:
        server.create_topic("orders")
        server.produce("orders", [b"x"])
        server.allow("reader", AclOperation.READ, "orders")
        login: dict[str, Any] = {"password": PASSWORD, "user": "reader"}
        good: list[dict[str, Any]] = [
            {"sslMode": "require"},
            {"sslMode": "verify-ca", "sslRootCert": trusted},
            {"sslMode": "verify-full", "sslRootCert": trusted, "host": "localhost"},
        ]
        for config in good:
            source = source_of(server, **login, **config)
            assert source.test().latency_ms > 0
            assert len(read(source, "orders")) == 1
            source.close()
        bad: list[tuple[dict[str, Any], int]] = [
            ({"sslMode": "verify-ca", "sslRootCert": stranger}, 20),
            ({"sslMode": "verify-full"}, 20),
            ({"sslMode": "verify-full", "sslRootCert": trusted}, 64),  # by address
        ]
        for config, verify_code in bad:
            with pytest.raises(TlsHandshakeError) as caught:
                source_of(server, **login, **config).test()
            assert caught.value.context["verify_code"] == verify_code
        with pytest.raises(TlsHandshakeError):
            source_of(server, **login, sslMode="disable").test()


def test_a_broker_named_differently_than_the_first_is_not_trusted(tmp_path: Path):
    """`verify-full` holds for the names that brokers give each other too."""
    authority = Authority(tmp_path)
    pair = authority.server("server")
    with KafkaServer(certificate=pair.certificate, key=pair.key, host="127.0.0.1") as server:
        server.create_topic("orders")
        source = source_of(
            server, sslMode="verify-full", sslRootCert=str(authority.root), host="localhost"
        )
        with pytest.raises((TlsHandshakeError, SourceUnavailableError)):
            source.list_units(PAGE)
        source.close()
