"""Oracle under the source contract, with a stand-in for the driver's connection."""

from __future__ import annotations

from collections.abc import Iterator

import oracledb
import pytest

from matih_ray.model.ids import EndpointId, TenantId
from matih_ray.model.policy import IngestionPolicy, LateCommits, NullCursor, RunMode
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.oracle import OracleSource
from matih_ray.testing.contracts.source import SourceCase, SourceContract
from matih_ray.testing.devstack import oracle_driver
from matih_ray.testing.devstack.oracle import OracleServer

PASSWORD = "a password nobody may see"
ROWS = 6_000

COLUMNS = {
    "REGION": "VARCHAR2(10)",
    "ID": "NUMBER(10,0)",
    "CHANGED_AT": "TIMESTAMP(9)",
    "STAMPED_AT": "DATE",
    "SEQUENCE": "NUMBER",
    "AMOUNT": "NUMBER(12,2)",
    "NOTE": "CLOB",
}
FILL = f"""
INSERT INTO "SHOP"."KEYED"
SELECT CASE WHEN n % 10 = 0 THEN 'north' ELSE 'so''uth' END, n,
       CASE WHEN n % 1000 <> 7 THEN TIMESTAMP '2024-01-01' + INTERVAL (n // 10) MINUTE END,
       TIMESTAMP '2024-01-01' + INTERVAL (n // 10) SECOND, n / 4.0,
       CASE WHEN n % 13 <> 0 THEN n / 7.0 END, repeat('x', n % 700)
FROM range(1, {ROWS + 1}) t(n)
"""


def by(cursor: str) -> IngestionPolicy:
    return IngestionPolicy(run_mode=RunMode.INCREMENTAL, cursor_column=cursor)


@pytest.fixture(autouse=True)
def driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oracledb, "connect", oracle_driver.connect)


@pytest.fixture(scope="module")
def server() -> Iterator[OracleServer]:
    with OracleServer({"READER": PASSWORD}) as server:
        server.create_table("SHOP", "KEYED", COLUMNS, key=("REGION", "ID"))
        server.run(FILL)
        server.create_view("SHOP", "A view", "SELECT ID, AMOUNT FROM SHOP.KEYED")
        columns = {"ID": "NUMBER(9,0)", "NOTE": "VARCHAR2(9)"}
        server.create_table("SHOP", "NOTHING", columns, key=("ID",))
        yield server


def case_of(server: OracleServer, unit_id: str, *policies: IngestionPolicy) -> SourceCase:
    spec = EndpointSpec(
        tenant_id=TenantId("tenant"),
        endpoint_id=EndpointId("endpoint"),
        name="test",
        type="ORACLE",
        config={
            "host": server.host,
            "port": server.port,
            "database": server.service,
            "user": "READER",
            "sslMode": "disable",
        },
        secrets={"password": PASSWORD},
    )
    return SourceCase(
        build=lambda: OracleSource(spec),
        unit_id=unit_id,
        unknown_unit_id="SHOP.NOWHERE",
        empty_unit_id="SHOP.NOTHING",
        target_rows=1250,
        policies=policies,
        open_connections=server.connections,
        secret=PASSWORD,
    )


class TestKeyOfTwoColumns(SourceContract):
    @pytest.fixture
    def case(self, server: OracleServer) -> SourceCase:
        ignoring = by("CHANGED_AT").model_copy(
            update={"null_cursor": NullCursor.IGNORE, "late_commits": LateCommits.IGNORE}
        )
        by_date, by_number = by("STAMPED_AT"), by("SEQUENCE")
        policies = (IngestionPolicy(), by("CHANGED_AT"), ignoring, by_date, by_number)
        return case_of(server, "SHOP.KEYED", *policies)


class TestViewByItsCursor(SourceContract):
    @pytest.fixture
    def case(self, server: OracleServer) -> SourceCase:
        return case_of(server, 'SHOP."A view"', by("ID"))
