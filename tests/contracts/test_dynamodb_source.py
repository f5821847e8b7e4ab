"""DynamoDB under the source contract: segments, and a filtered scan by a cursor attribute."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from matih_ray.model.ids import EndpointId, TenantId
from matih_ray.model.policy import IngestionPolicy, RunMode
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.dynamodb import DynamoSource
from matih_ray.testing.contracts.source import SourceCase, SourceContract
from matih_ray.testing.devstack.dynamodb import ACCESS_KEY_ID, REGION, DynamoServer

SECRET = "a secret key nobody may see"
# Several pages of 1 MB, so that a read is under way when it is abandoned.
ITEMS = 3000


def event(n: int) -> dict[str, Any]:
    item: dict[str, Any] = {
        "tenant": {"S": f"t{n % 11}"},
        "id": {"N": str(n)},
        "amount": {"N": f"{n}.5"},
        "tags": {"SS": [f"a{n % 3}", "b"]},
        "note": {"S": "x" * 900},
    }
    if n % 500 != 7:
        item["changedAt"] = {"N": str(n // 10)}
    return item


@pytest.fixture(scope="module")
def server() -> Iterator[DynamoServer]:
    with DynamoServer() as server:
        server.create_table("events", "tenant:S", "id:N")
        server.put("events", [event(n) for n in range(ITEMS)])
        server.create_table("nothing", "id:S")
        yield server


class TestTable(SourceContract):
    @pytest.fixture
    def case(self, server: DynamoServer) -> SourceCase:
        spec = EndpointSpec(
            tenant_id=TenantId("tenant"),
            endpoint_id=EndpointId("endpoint"),
            name="test",
            type="DYNAMODB",
            config={"region": REGION, "endpointOverride": server.url},
            secrets={"accessKeyId": ACCESS_KEY_ID, "secretAccessKey": SECRET},
        )
        incremental = IngestionPolicy(run_mode=RunMode.INCREMENTAL, cursor_column="changedAt")
        return SourceCase(
            build=lambda: DynamoSource(spec),
            unit_id="events",
            unknown_unit_id="nowhere",
            empty_unit_id="nothing",
            policies=(IngestionPolicy(), incremental),
            open_connections=server.open_connections,
            secret=SECRET,
        )
