"""Databricks SQL under the source contract, on a stand-in that the vendor's client talks to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from matih_ray.model.ids import EndpointId, TenantId
from matih_ray.model.policy import IngestionPolicy, LateCommits, NullCursor, RunMode
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.databricks import DatabricksSource
from matih_ray.testing.contracts.source import SourceCase, SourceContract
from matih_ray.testing.devstack.databricks import HTTP_PATH, DatabricksServer

TOKEN = "a-token-nobody-may-see"
ROWS = 6_000
VALUES = f"""
    SELECT CASE WHEN n % 10 = 0 THEN 'nor\\th ${{x}}' ELSE 'so''uth' END AS region, n AS id,
           CASE WHEN n % 1000 <> 7 THEN TIMESTAMPTZ '2024-01-01 00:00:00+00'
                + (n // 10) * INTERVAL 90000001 MICROSECOND END AS changed_at,
           CASE WHEN n % 13 <> 0 THEN n / 7.0 END AS amount, repeat('x', n % 700) AS note
    FROM range(1, {ROWS} + 1) t(n)
"""
COLUMNS = {
    "region": "varchar(20)",
    "id": "bigint",
    "changed_at": "timestamp",
    "amount": "decimal(12,2)",
    "note": "string",
}


def by(cursor: str) -> IngestionPolicy:
    return IngestionPolicy(run_mode=RunMode.INCREMENTAL, cursor_column=cursor)


@pytest.fixture(scope="module")
def server() -> Iterator[DatabricksServer]:
    with DatabricksServer(TOKEN) as server:
        server.create_table("public", "keyed", COLUMNS, ("region", "id"))
        server.create_table("public", "thirds", COLUMNS)
        server.create_table("public", "nothing", {"id": "int", "note": "string"}, ("id",))
        server.run(f"INSERT INTO public.keyed {VALUES}")
        server.run("INSERT INTO public.thirds SELECT * FROM public.keyed WHERE id % 3 = 0")
        server.create_view("public", "seen", "SELECT id, amount FROM public.keyed")
        yield server


def case_of(server: DatabricksServer, unit_id: str, *policies: IngestionPolicy) -> SourceCase:
    spec = EndpointSpec(
        tenant_id=TenantId("tenant"),
        endpoint_id=EndpointId("endpoint"),
        name="test",
        type="DATABRICKS_SQL",
        config={
            "host": server.host,
            "port": server.port,
            "httpPath": HTTP_PATH,
            "database": "shop",
            "sslMode": "disable",
        },
        secrets={"token": TOKEN},
    )
    return SourceCase(
        build=lambda: DatabricksSource(spec),
        unit_id=unit_id,
        unknown_unit_id="public.nowhere",
        empty_unit_id="public.nothing",
        target_rows=1250,
        policies=policies or (IngestionPolicy(),),
        open_connections=lambda: len(server.sessions),
        secret=TOKEN,
    )


class TestTable(SourceContract):
    @pytest.fixture
    def case(self, server: DatabricksServer) -> SourceCase:
        ignoring = by("changed_at").model_copy(
            update={"null_cursor": NullCursor.IGNORE, "late_commits": LateCommits.IGNORE}
        )
        policies = (IngestionPolicy(), by("changed_at"), ignoring, by("id"))
        return case_of(server, "public.keyed", *policies)


class TestTableWithoutAKeyByItsCursor(SourceContract):
    @pytest.fixture
    def case(self, server: DatabricksServer) -> SourceCase:
        return case_of(server, "public.thirds", by("id"), by("region"))


class TestView(SourceContract):
    @pytest.fixture
    def case(self, server: DatabricksServer) -> SourceCase:
        return case_of(server, "public.seen", by("id"))
