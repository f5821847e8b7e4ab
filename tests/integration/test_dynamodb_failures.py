"""What goes wrong with DynamoDB, provoked for real: keys, rights, networks, losses."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from matih_ray.errors import (
    AuthenticationFailedError,
    ConnectionRefusedByHostError,
    DnsResolutionError,
    MatihError,
    SourcePermissionError,
    SourceTimeoutError,
    SourceUnavailableError,
    TlsHandshakeError,
    ValidationError,
)
from matih_ray.model.ids import EndpointId, TenantId, UnitId
from matih_ray.model.policy import IngestionPolicy
from matih_ray.planning.planner import make_plan
from matih_ray.sources.base import EndpointSpec, IngestionContext
from matih_ray.sources.dynamodb import DynamoSource
from matih_ray.testing.devstack.dynamodb import (
    ACCESS_KEY_ID,
    REGION,
    DynamoServer,
    MotoServer,
)
from matih_ray.testing.devstack.ports import free_port

SECRET = "wJalrXUtnFEMI/K7MDENG/secret"


@pytest.fixture(scope="module")
def moto() -> Iterator[MotoServer]:
    with MotoServer() as server:
        yield server


def source_of(
    url: str, key: str = ACCESS_KEY_ID, secret: str = SECRET, **config: Any
) -> DynamoSource:
    defaults = {"region": REGION, "endpointOverride": url, "connectTimeoutS": 2, "readTimeoutS": 2}
    return DynamoSource(
        EndpointSpec(
            TenantId("t"),
            EndpointId("e"),
            "test",
            "DYNAMODB",
            {**defaults, **config},
            {"accessKeyId": key, "secretAccessKey": secret},
        )
    )


def refused(source: DynamoSource, kind: type[MatihError], *secrets: str) -> None:
    with pytest.raises(kind) as caught:
        source.test()
    assert type(caught.value) is kind
    for secret in (SECRET, *secrets):
        assert secret not in str(caught.value)
        assert secret not in repr(caught.value.context)


def test_keys_and_rights_are_told_apart(moto: MotoServer):
    reader = moto.create_user("reader", "dynamodb:ListTables")
    stranger = moto.create_user("stranger", "s3:ListAllMyBuckets")
    moto.enforce()
    assert source_of(moto.url, *reader).test().latency_ms > 0
    refused(source_of(moto.url, "AKIAUNKNOWNUNKNOWN00", SECRET), AuthenticationFailedError)
    refused(source_of(moto.url, reader[0], SECRET), AuthenticationFailedError, reader[1])
    refused(source_of(moto.url, *stranger), SourcePermissionError, stranger[1])
    source = source_of(moto.url, *stranger)
    with pytest.raises(SourcePermissionError, match="AccessDenied"):
        source.list_units(IngestionContext(TenantId("t")))


def test_a_key_that_the_service_does_not_know_is_refused():
    with DynamoServer() as server:
        refused(source_of(server.url, "no key!"), AuthenticationFailedError)


def test_a_connector_without_keys_does_not_borrow_ours(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    refused(source_of("http://127.0.0.1:1", "", ""), AuthenticationFailedError)


def test_profiles_of_this_machine_are_not_read(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_PROFILE", "somebody")
    refused(source_of(f"http://127.0.0.1:{free_port()}"), ConnectionRefusedByHostError)


def test_a_closed_port_an_unknown_name_and_silence_are_told_apart():
    refused(source_of(f"http://127.0.0.1:{free_port()}"), ConnectionRefusedByHostError)
    refused(source_of("http://no-such-host.invalid:80"), DnsResolutionError)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        refused(source_of(url, readTimeoutS=1), SourceTimeoutError)


def test_a_server_without_tls_fails_the_handshake(moto: MotoServer):
    refused(source_of(moto.url.replace("http:", "https:")), TlsHandshakeError)


def test_a_server_that_dies_while_it_is_read_is_unavailable():
    with DynamoServer() as server:
        server.create_table("items", "id:N")
        server.put("items", [{"id": {"N": "1"}}])
        source = source_of(server.url)
        unit = source.describe_unit(UnitId("items"))
        plan = make_plan(source, unit, None, IngestionPolicy())
        server.kill()
        with pytest.raises(SourceUnavailableError):
            list(source.read(unit, plan.slices[0], IngestionPolicy()))
        source.close()


@pytest.mark.parametrize(
    "config",
    [
        {"region": "nowhere"},
        {"region": REGION, "endpointOverride": "http://key:secret@host"},
        {"region": REGION, "secretAccessKey": "s"},
    ],
    ids=str,
)
def test_a_configuration_that_cannot_be_is_refused(config: dict[str, Any]):
    with pytest.raises(ValidationError):
        DynamoSource(EndpointSpec(TenantId("t"), EndpointId("e"), "test", "DYNAMODB", config))
