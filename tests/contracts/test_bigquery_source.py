"""BigQuery under the source contract, on an emulator."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from matih_ray.model.ids import EndpointId, TenantId
from matih_ray.model.policy import IngestionPolicy, NullCursor, RunMode
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.bigquery import BigQuerySource
from matih_ray.testing.contracts.source import SourceCase, SourceContract
from matih_ray.testing.devstack.bigquery import BigQueryServer

TOKEN = "a token nobody may see"
ROWS = 6_000


def post(server: BigQueryServer, path: str, body: dict) -> None:
    url = f"http://{server.host}:{server.port}/bigquery/v2/projects/shop{path}"
    answer = requests.post(url, json=body, timeout=60)
    assert answer.ok, answer.text


def fields(**types: str) -> dict:
    return {"fields": [{"name": name, "type": type_} for name, type_ in types.items()]}


def table(server: BigQueryServer, name: str, schema: dict, key: list[str]) -> None:
    reference = {"projectId": "shop", "datasetId": "sales", "tableId": name}
    constraints = {"primaryKey": {"columns": key}}
    body = {"tableReference": reference, "schema": schema, "tableConstraints": constraints}
    post(server, "/datasets/sales/tables", body)


@pytest.fixture(scope="module")
def server() -> Iterator[BigQueryServer]:
    with BigQueryServer() as server:
        post(server, "/datasets", {"datasetReference": {"projectId": "shop", "datasetId": "sales"}})
        keyed = fields(region="STRING", id="INT64", changed_at="TIMESTAMP", note="STRING")
        table(server, "keyed", keyed, ["region", "id"])
        table(server, "nothing", fields(id="INT64"), ["id"])
        statement = (
            "INSERT INTO `shop.sales.keyed` SELECT IF(MOD(n, 10) = 0, 'nor\\\\th', 'so\\'uth'), n, "
            "TIMESTAMP_ADD(TIMESTAMP '2024-01-01 00:00:00.000001+00', INTERVAL n MINUTE), "
            f"REPEAT('x', MOD(n, 70)) FROM UNNEST(GENERATE_ARRAY(1, {ROWS})) AS n"
        )
        post(server, "/queries", {"query": statement, "useLegacySql": False})
        yield server


class TestBigQuery(SourceContract):
    # a page is one request: there is no connection that a read could keep at work
    test_abandoning_a_read_frees_the_connection = None

    @pytest.fixture
    def case(self, server: BigQueryServer) -> SourceCase:
        spec = EndpointSpec(
            tenant_id=TenantId("tenant"),
            endpoint_id=EndpointId("endpoint"),
            name="test",
            type="BIGQUERY",
            config={
                "projectId": "shop",
                "dataset": "sales",
                "endpointOverride": f"http://{server.host}:{server.port}",
            },
            secrets={"accessToken": TOKEN},
        )
        by = [
            IngestionPolicy(
                run_mode=RunMode.INCREMENTAL, cursor_column=name, null_cursor=NullCursor.IGNORE
            )
            for name in ("changed_at", "id")
        ]
        return SourceCase(
            build=lambda: BigQuerySource(spec),
            unit_id="sales.keyed",
            unknown_unit_id="sales.nowhere",
            empty_unit_id="sales.nothing",
            target_rows=2500,
            # the emulator keeps no keys, so a full run without a cursor is one slice
            policies=tuple(by),
            secret=TOKEN,
        )
