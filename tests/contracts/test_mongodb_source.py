"""MongoDB under the source contract: `_id`s of one type and of many, and incremental cursors."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import bson
import pytest

from matih_ray.model.ids import EndpointId, TenantId
from matih_ray.model.policy import IngestionPolicy, RunMode
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.mongodb import MongoSource
from matih_ray.testing.contracts.source import SourceCase, SourceContract
from matih_ray.testing.devstack.mongodb import MongoServer, MongoUser

PASSWORD = "a password nobody may see"
# More than one answer of the server, so that a read is under way when it is abandoned.
DOCUMENTS = 12_000
START = dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)


def order(n: int) -> dict[str, Any]:
    document: dict[str, Any] = {
        "_id": bson.ObjectId(f"{n * 7:024x}"),
        "n": n,
        "amount": bson.Decimal128(f"{n}.50"),
        "lines": [{"sku": f"s{n % 7}", "quantity": n % 3}],
        "note": "x" * (n % 90),
    }
    if n % 1000 != 7:
        document["changedAt"] = START + dt.timedelta(minutes=n // 50)
    return document


def mixed_id(n: int) -> Any:
    kinds = (
        n,
        f"key {n}",
        bson.ObjectId(f"{n:024x}"),
        START + dt.timedelta(seconds=n),
        n + 0.5,
        bson.Int64(n + 10**6),
        {"part": n},
        bson.Binary(n.to_bytes(4, "big")),
    )
    return kinds[n % len(kinds)]


@pytest.fixture(scope="module")
def server() -> Iterator[MongoServer]:
    users = {"owner": MongoUser("owner's"), "reader": MongoUser(PASSWORD, ("shop",))}
    with MongoServer(users) as server:
        with server.client(username="owner", password="owner's") as client:
            shop = client.get_database("shop")
            shop.create_collection("nothing")
            shop.get_collection("orders").create_index("changedAt")
            shop.get_collection("orders").insert_many(order(n) for n in range(DOCUMENTS))
            odd = [{"_id": None}, {"_id": float("nan")}, {"_id": True}, {"_id": bson.MaxKey()}]
            shop.get_collection("mixed").insert_many(
                [{"_id": mixed_id(n), "n": n} for n in range(4000)] + odd
            )
        yield server


def case_of(
    server: MongoServer, unit_id: str, *policies: IngestionPolicy, target_rows: int = 1000
) -> SourceCase:
    spec = EndpointSpec(
        tenant_id=TenantId("tenant"),
        endpoint_id=EndpointId("endpoint"),
        name="test",
        type="MONGODB",
        config={
            "host": server.host,
            "port": server.port,
            "database": "shop",
            "user": "reader",
        },
        secrets={"password": PASSWORD},
    )
    return SourceCase(
        build=lambda: MongoSource(spec),
        unit_id=unit_id,
        unknown_unit_id="shop.nowhere",
        empty_unit_id="shop.nothing",
        target_rows=target_rows,
        policies=policies or (IngestionPolicy(),),
        open_connections=server.open_connections,
        secret=PASSWORD,
    )


class TestCollection(SourceContract):
    @pytest.fixture
    def case(self, server: MongoServer) -> SourceCase:
        policies = [
            IngestionPolicy(run_mode=RunMode.INCREMENTAL, cursor_column=name)
            for name in ("_id", "changedAt")
        ]
        return case_of(server, "shop.orders", IngestionPolicy(), *policies, target_rows=3500)


class TestIdsOfManyTypes(SourceContract):
    @pytest.fixture
    def case(self, server: MongoServer) -> SourceCase:
        return case_of(server, "shop.mixed", target_rows=300)
