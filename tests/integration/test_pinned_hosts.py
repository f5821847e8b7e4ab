"""Sources connect to the addresses that were checked, whatever the name means a moment later."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

import pytest

from matih_ray.errors import HostNotAllowedError
from matih_ray.model.ids import EndpointId, TenantId
from matih_ray.sources.base import EndpointSpec, IngestionContext, SourceEndpoint
from matih_ray.sources.host_policy import HostPolicy
from matih_ray.sources.http import RestSource
from matih_ray.sources.mysql import MySqlSource
from matih_ray.sources.postgres import PostgresSource
from matih_ray.testing.devstack.http_apis import HttpApis
from matih_ray.testing.devstack.mariadb import MariaDbServer
from matih_ray.testing.devstack.postgres import PostgresServer

NAME = "db.only-the-policy-knows"


@pytest.fixture
def known_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's resolver finds the name; whoever else asked for it would not."""
    real = socket.getaddrinfo

    def find(host: Any, *arguments: Any, **options: Any) -> Any:
        return real("127.0.0.1" if host == NAME else host, *arguments, **options)

    monkeypatch.setattr("matih_ray.sources.host_policy.socket.getaddrinfo", find)


def postgres_source(server: PostgresServer, policy: HostPolicy) -> SourceEndpoint:
    return PostgresSource(
        spec_of(
            "POSTGRESQL",
            {
                "host": NAME,
                "port": server.port,
                "database": "postgres",
                "user": server.user,
                "sslMode": "disable",
            },
            policy,
        )
    )


def rest_source(api: HttpApis, policy: HostPolicy) -> SourceEndpoint:
    stream = {"name": "items", "path": "everything"}
    config = {"baseUrl": f"http://{NAME}:{api.port}", "streams": [stream]}
    return RestSource(spec_of("REST", config, policy))


def spec_of(type_: str, config: dict[str, Any], policy: HostPolicy) -> EndpointSpec:
    return EndpointSpec(
        tenant_id=TenantId("t"),
        endpoint_id=EndpointId("e"),
        name="e",
        type=type_,
        config=config,
        host_policy=policy,
    )


@pytest.mark.usefixtures("known_once")
def test_postgresql_is_connected_to_by_its_checked_address(postgres: PostgresServer):
    source = postgres_source(postgres, HostPolicy())
    assert source.test().server_version
    source.list_units(IngestionContext(TenantId("t"), limit=1))
    source.close()


def test_mysql_is_connected_to_by_its_checked_address(monkeypatch: pytest.MonkeyPatch):
    """The name means the server once, and nothing when it is asked for again."""
    real, asked = socket.getaddrinfo, []

    def find(host: Any, *arguments: Any, **options: Any) -> Any:
        if host == NAME:
            asked.append(host)
            if len(asked) > 1:
                raise socket.gaierror
            return real("127.0.0.1", *arguments, **options)
        return real(host, *arguments, **options)

    with MariaDbServer() as server:
        monkeypatch.setattr(socket, "getaddrinfo", find)
        config = {"host": NAME, "port": server.port, "database": "mysql", "user": server.user}
        spec = spec_of("MYSQL", {**config, "sslMode": "disable"}, HostPolicy())
        source = MySqlSource(spec)
        assert source.test().server_version
        assert asked == [NAME]
        source.close()


@pytest.mark.usefixtures("known_once")
def test_an_api_is_connected_to_by_its_checked_address():
    with HttpApis([{"id": 1}]) as api:
        source = rest_source(api, HostPolicy())
        assert source.test().latency_ms > 0
        assert api.asked[0].headers["host"] == f"{NAME}:{api.port}"
        source.close()


@pytest.mark.usefixtures("known_once")
def test_a_denied_address_is_not_connected_to(postgres: PostgresServer):
    denied = HostPolicy(denied_networks=(ipaddress.ip_network("127.0.0.0/8"),))
    source = postgres_source(postgres, denied)
    with pytest.raises(HostNotAllowedError):
        source.test()
    source.close()
    with HttpApis() as api:
        source = rest_source(api, denied)
        with pytest.raises(HostNotAllowedError):
            source.test()
        source.close()
        assert api.asked == []
