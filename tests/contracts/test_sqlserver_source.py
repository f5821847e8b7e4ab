"""SQL Server under the source contract, on a stand-in of our own that speaks its protocol."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from matih_ray.model.ids import EndpointId, TenantId
from matih_ray.model.policy import IngestionPolicy, LateCommits, NullCursor, RunMode
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.sqlserver import SqlServerSource
from matih_ray.testing.contracts.source import SourceCase, SourceContract
from matih_ray.testing.devstack.sqlserver import SqlServer

PASSWORD = "a password nobody may see"
# Enough bytes that the server is still sending when a read is abandoned.
ROWS = 6_000

COLUMNS = {
    "region": "uniqueidentifier",
    "id": "int",
    "changed_at": "datetime2(7)",
    "stamped_at": "datetime",
    "version": "rowversion NOT NULL",
    "amount": "decimal(12,2)",
    "note": "nvarchar(700)",
}
FILL = f"""
INSERT INTO dbo.keyed
SELECT CASE WHEN n % 10 = 0 THEN '6f9619ff-8b86-d011-b42d-00c04fc964ff'
            ELSE '00000000-0000-0000-0000-000000000001' END, n,
       CASE WHEN n % 1000 <> 7 THEN TIMESTAMP '2024-01-01' + INTERVAL (n // 10) MINUTE END,
       TIMESTAMP '2024-01-01' + INTERVAL (n // 10 * 10) MILLISECOND,
       n + 1000, CASE WHEN n % 13 <> 0 THEN n / 7.0 END, repeat('x', n % 700)
FROM range(1, {ROWS + 1}) t(n)
"""


def by(cursor: str) -> IngestionPolicy:
    return IngestionPolicy(run_mode=RunMode.INCREMENTAL, cursor_column=cursor)


@pytest.fixture(scope="module")
def server() -> Iterator[SqlServer]:
    with SqlServer({"reader": PASSWORD}) as server:
        server.create_table("dbo", "keyed", COLUMNS, key=("region", "id"))
        server.run(FILL)
        server.create_view("dbo", "a view", "SELECT id, amount, note FROM dbo.keyed")
        server.create_table("dbo", "nothing", {"id": "int", "note": "nvarchar(9)"}, key=("id",))
        yield server


def case_of(server: SqlServer, unit_id: str, *policies: IngestionPolicy) -> SourceCase:
    spec = EndpointSpec(
        tenant_id=TenantId("tenant"),
        endpoint_id=EndpointId("endpoint"),
        name="test",
        type="SQL_SERVER",
        config={
            "host": server.host,
            "port": server.port,
            "database": server.database,
            "user": "reader",
            "sslMode": "disable",
        },
        secrets={"password": PASSWORD},
    )
    return SourceCase(
        build=lambda: SqlServerSource(spec),
        unit_id=unit_id,
        unknown_unit_id="dbo.nowhere",
        empty_unit_id="dbo.nothing",
        target_rows=1250,
        policies=policies,
        open_connections=server.connections,
        secret=PASSWORD,
    )


class TestKeyOfTwoColumns(SourceContract):
    @pytest.fixture
    def case(self, server: SqlServer) -> SourceCase:
        ignoring = by("changed_at").model_copy(
            update={"null_cursor": NullCursor.IGNORE, "late_commits": LateCommits.IGNORE}
        )
        policies = (IngestionPolicy(), by("changed_at"), ignoring, by("version"), by("stamped_at"))
        return case_of(server, "dbo.keyed", *policies)


class TestViewByItsCursor(SourceContract):
    @pytest.fixture
    def case(self, server: SqlServer) -> SourceCase:
        return case_of(server, 'dbo."a view"', by("id"))
