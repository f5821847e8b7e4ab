"""Clients that look a name up again get no address that the policy does not allow."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from matih_ray.errors import DnsResolutionError, HostNotAllowedError
from matih_ray.model.ids import EndpointId, TenantId, UnitId
from matih_ray.model.policy import IngestionPolicy
from matih_ray.sources import guarded_names
from matih_ray.sources.base import EndpointSpec, IngestionContext, SourceEndpoint
from matih_ray.sources.dynamodb import DynamoSource
from matih_ray.sources.guarded_names import guarded
from matih_ray.sources.host_policy import HostPolicy
from matih_ray.sources.mongodb import MongoSource
from matih_ray.testing.devstack.dynamodb import ACCESS_KEY_ID, REGION, DynamoServer
from matih_ray.testing.devstack.mongodb import MongoServer
from matih_ray.testing.fakes import MemorySource

NAME = "db.changes-its-mind"
DENIES_LOOPBACK = HostPolicy(denied_networks=(ipaddress.ip_network("127.0.0.0/8"),))
TENANT = TenantId("t")


@pytest.fixture(autouse=True)
def rebinding(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name means this machine, whatever it meant when it was checked."""
    real = guarded_names._resolve

    def find(host: Any, *arguments: Any, **options: Any) -> Any:
        return real("127.0.0.1" if host == NAME else host, *arguments, **options)

    monkeypatch.setattr(guarded_names, "_resolve", find)


def spec_of(type_: str, config: dict[str, Any], **secrets: str) -> EndpointSpec:
    return EndpointSpec(TENANT, EndpointId("e"), "e", type_, config, secrets)


def dynamodb(server: DynamoServer) -> SourceEndpoint:
    url = f"http://{NAME}:{server.port}"
    keys = {"accessKeyId": ACCESS_KEY_ID, "secretAccessKey": "any"}
    return DynamoSource(spec_of("DYNAMODB", {"region": REGION, "endpointOverride": url}, **keys))


def mongodb(server: MongoServer) -> SourceEndpoint:
    with closing(server.client()) as client:
        client["shop"]["items"].replace_one({"_id": 1}, {}, upsert=True)
    config = {"host": NAME, "port": server.port, "database": "shop", "sslMode": "disable"}
    return MongoSource(spec_of("MONGODB", {**config, "connectTimeoutS": 2}))


@pytest.mark.parametrize(
    ("server_class", "source_of"),
    [(DynamoServer, dynamodb), (MongoServer, mongodb)],
    ids=["dynamodb", "mongodb"],
)
def test_a_name_that_changes_its_mind_gains_nothing(server_class: Any, source_of: Any):
    with server_class() as server:
        allowed = guarded(source_of(server), HostPolicy())
        assert allowed.test().latency_ms > 0
        allowed.close()
        denied = guarded(source_of(server), DENIES_LOOPBACK)
        with pytest.raises(DnsResolutionError):
            denied.test()
        with pytest.raises(DnsResolutionError):
            denied.list_units(IngestionContext(TENANT))
        denied.close()


class Reaching(MemorySource):
    """Looks a name up at each step of reading."""

    closed = 0

    def read(self, unit: Any, slice_: Any, policy: Any) -> Iterator[Any]:
        try:
            for _ in range(3):
                yield socket.getaddrinfo("127.0.0.1", 80)
        finally:
            type(self).closed += 1


def test_each_step_of_a_read_is_guarded_and_what_lies_between_is_not():
    source = Reaching(spec_of("MEMORY", {"tables": {"t": 1}}))
    unit = source.describe_unit(UnitId("t"))
    open_ = guarded(source, HostPolicy())
    steps = open_.read(unit, None, IngestionPolicy())  # type: ignore[arg-type]  # not looked at
    next(steps)
    closed = guarded(Reaching(spec_of("MEMORY", {"tables": {"t": 1}})), DENIES_LOOPBACK)
    with pytest.raises(socket.gaierror, match="denied"):
        next(closed.read(unit, None, IngestionPolicy()))  # type: ignore[arg-type]  # not looked at
    assert socket.getaddrinfo("127.0.0.1", 80)
    before = Reaching.closed
    steps.close()  # type: ignore[attr-defined]  # a generator
    assert Reaching.closed == before + 1


def test_addresses_that_others_resolved_are_checked_as_ours_are():
    policy = HostPolicy(denied_suffixes=(".internal",))
    loopback = {ipaddress.ip_address("127.0.0.1")}
    policy.check_addresses("db.example.com", loopback)
    with pytest.raises(HostNotAllowedError):
        policy.check_addresses("db.internal", loopback)
    with pytest.raises(HostNotAllowedError):
        policy.check_addresses("db.example.com", {ipaddress.ip_address("169.254.169.254")})
