"""What goes wrong with a MongoDB server, provoked for real: connecting, TLS, rights, losses."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from matih_ray.errors import (
    AuthenticationFailedError,
    ConnectionRefusedByHostError,
    DatabaseNotFoundError,
    DnsResolutionError,
    MatihError,
    SourceChangedError,
    SourcePermissionError,
    SourceTimeoutError,
    SourceUnavailableError,
    TlsHandshakeError,
    ValidationError,
)
from matih_ray.model.ids import EndpointId, TenantId, UnitId
from matih_ray.model.plan import IngestionPlan
from matih_ray.model.policy import IngestionPolicy
from matih_ray.planning.planner import make_plan
from matih_ray.sources.base import EndpointSpec, IngestionContext
from matih_ray.sources.mongodb import MongoSource
from matih_ray.testing.devstack.mongodb import MongoServer, MongoUser
from matih_ray.testing.devstack.ports import free_port
from tests.integration.certificates import Authority

PASSWORD = "p@ss word/%:?"
DOCUMENTS = 12_000


@pytest.fixture(scope="module")
def server() -> Iterator[MongoServer]:
    with started() as server:
        yield server


@pytest.fixture
def doomed() -> Iterator[MongoServer]:
    """A server of the test's own."""
    with started() as server:
        yield server


@contextmanager
def started() -> Iterator[MongoServer]:
    users = {
        "owner": MongoUser("owner's"),
        "reader": MongoUser(PASSWORD, ("shop",)),
        "stranger": MongoUser("stranger's", ("other",)),
    }
    with MongoServer(users) as server:
        with server.client(username="owner", password="owner's") as client:
            orders = client.get_database("shop").get_collection("orders")
            orders.insert_many({"_id": n, "note": "x" * 100} for n in range(DOCUMENTS))
        yield server


def source_of(server: MongoServer, password: str = PASSWORD, **config: Any) -> MongoSource:
    defaults = {
        "host": server.host,
        "port": server.port,
        "database": "shop",
        "user": "reader",
        "connectTimeoutS": 3,
    }
    spec = EndpointSpec(
        TenantId("t"),
        EndpointId("e"),
        "test",
        "MONGODB",
        {**defaults, **config},
        {"password": password},
    )
    return MongoSource(spec)


def test_a_password_with_any_characters_logs_in(server: MongoServer):
    assert source_of(server).test().server_version == "MongoDB 5.0.0"


def test_each_cause_has_its_code_and_no_secret(server: MongoServer):
    causes: list[tuple[MongoSource, type[MatihError]]] = [
        (source_of(server, password="wr0ng"), AuthenticationFailedError),
        (source_of(server, user="nobody"), AuthenticationFailedError),
        (source_of(server, host="no-such-host.invalid"), DnsResolutionError),
        (source_of(server, port=free_port()), ConnectionRefusedByHostError),
        (source_of(server, sslMode="require"), TlsHandshakeError),
        (
            source_of(server, user="owner", password="owner's", database="nowhere"),
            DatabaseNotFoundError,
        ),
        (source_of(server, user="stranger", password="stranger's"), SourcePermissionError),
    ]
    for source, kind in causes:
        with pytest.raises(kind) as caught:
            source.test()
        assert type(caught.value) is kind
        for secret in (PASSWORD, "wr0ng", "owner's", "stranger's"):
            assert secret not in str(caught.value)
            assert secret not in repr(caught.value.context)


def test_a_server_that_accepts_and_says_nothing_is_a_timeout(server: MongoServer):
    with socket.create_server((server.host, 0)) as silent:
        source = source_of(server, port=silent.getsockname()[1], connectTimeoutS=1)
        with pytest.raises(SourceTimeoutError):
            source.test()


def test_listing_without_the_right_to_is_no_empty_list(server: MongoServer):
    source = source_of(server, user="stranger", password="stranger's")
    with pytest.raises(SourcePermissionError, match="not authorized on shop"):
        source.list_units(IngestionContext(TenantId("t")))
    source.close()


@pytest.mark.parametrize(
    "config",
    [
        {"database": "a.b"},
        {"hosts": ["mongodb://u:p@h:1"]},
        {"sslMode": "prefer"},
        {"password": "p"},
    ],
    ids=str,
)
def test_a_configuration_that_cannot_be_is_refused(config: dict[str, Any]):
    with pytest.raises(ValidationError):
        MongoSource(
            EndpointSpec(
                TenantId("t"),
                EndpointId("e"),
                "test",
                "MONGODB",
                {"host": "h", "database": "d", **config},
            )
        )


def planned(source: MongoSource) -> tuple[Any, IngestionPlan, IngestionPolicy]:
    policy = IngestionPolicy(target_slice_rows=100_000)
    unit = source.describe_unit(UnitId("shop.orders"))
    return unit, make_plan(source, unit, None, policy), policy


def test_a_collection_that_is_dropped_is_a_change_and_not_empty(doomed: MongoServer):
    source = source_of(doomed)
    unit, plan, policy = planned(source)
    with doomed.client(username="owner", password="owner's") as client:
        client.get_database("shop").drop_collection("orders")
    with pytest.raises(SourceChangedError, match="gone"):
        list(source.read(unit, plan.slices[0], policy))
    with pytest.raises(SourceChangedError, match="gone"):
        make_plan(source, unit, None, policy)
    source.close()


def test_a_server_that_dies_while_it_is_read_is_unavailable(doomed: MongoServer):
    source = source_of(doomed)
    # pages of few documents, so that the rest is not under way when the server dies
    unit, plan, policy = planned(source)
    unit = unit.model_copy(update={"estimated_rows": 1, "estimated_bytes": 1 << 20})
    doomed.kill()
    with pytest.raises(SourceUnavailableError):
        list(source.read(unit, plan.slices[0], policy))
    source.close()


# --- TLS -------------------------------------------------------------------------------------


def test_tls_modes_check_what_they_promise(tmp_path: Path):
    authority = Authority(tmp_path)
    trusted, stranger = authority.root, Authority(tmp_path, "stranger").root
    pair = authority.server("server")
    users = {"reader": MongoUser(PASSWORD)}
    with MongoServer(users, certificate=pair.certificate, key=pair.key) as server:
        options = {"tls": True, "tlsCAFile": str(trusted), "tlsAllowInvalidHostnames": True}
        with server.client(username="reader", password=PASSWORD, **options) as client:
            client.get_database("shop").get_collection("orders").insert_one({})
        good: list[dict[str, Any]] = [
            {"sslMode": "require"},
            {"sslMode": "verify-ca", "sslRootCert": str(trusted)},
            {"sslMode": "verify-full", "sslRootCert": str(trusted), "host": "localhost"},
        ]
        for config in good:
            assert source_of(server, **config).test().latency_ms > 0
        bad: list[tuple[dict[str, Any], int]] = [
            ({"sslMode": "verify-ca", "sslRootCert": str(stranger)}, 20),
            ({"sslMode": "verify-full"}, 20),
            ({"sslMode": "verify-full", "sslRootCert": str(trusted)}, 64),  # by address
        ]
        for config, verify_code in bad:
            with pytest.raises(TlsHandshakeError) as caught:
                source_of(server, **{"connectTimeoutS": 1, **config}).test()
            assert caught.value.context["verify_code"] == verify_code
