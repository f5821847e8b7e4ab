"""PostgreSQL under the source contract: ranges of a key, pages, and an incremental cursor."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from matih_ray.model.ids import EndpointId, TenantId
from matih_ray.model.policy import IngestionPolicy, RunMode
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.postgres import PostgresSource
from matih_ray.testing.contracts.source import SourceCase, SourceContract
from matih_ray.testing.devstack.postgres import PostgresServer

PASSWORD = "a password nobody may see"
# Enough bytes that one read has several blocks under way when it is abandoned.
ROWS = 60_000

TABLES = f"""
CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}';
CREATE TABLE keyed (
    region text, id int, changed_at timestamptz, amount numeric(12,2), note text,
    PRIMARY KEY (region, id)
);
INSERT INTO keyed
SELECT CASE WHEN n % 10 = 0 THEN 'north' ELSE 'south' END, n,
       CASE WHEN n % 1000 <> 7 THEN timestamptz '2024-01-01' + (n / 50) * interval '1 minute' END,
       CASE WHEN n % 13 <> 0 THEN n / 7.0 END, repeat('x', n % 700)
FROM generate_series(1, {ROWS}) n;
CREATE TABLE keyless AS SELECT id, amount, note FROM keyed WHERE id % 3 = 0;
CREATE TABLE parted (id int, day date, note text) PARTITION BY LIST (day);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN ('2024-01-01');
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES IN ('2024-01-02') PARTITION BY RANGE (id);
CREATE TABLE parted_2a PARTITION OF parted_2 FOR VALUES FROM (0) TO (3000);
CREATE TABLE parted_2b PARTITION OF parted_2 DEFAULT;
CREATE TABLE parted_rest PARTITION OF parted DEFAULT;
INSERT INTO parted SELECT n, date '2024-01-01' + n % 2, 'note ' || n
FROM generate_series(1, 9000) n;
CREATE TABLE nothing (id int PRIMARY KEY, note text);
GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader;
ANALYZE;
"""

CHANGES = IngestionPolicy(run_mode=RunMode.CDC)
INCREMENTAL = IngestionPolicy(run_mode=RunMode.INCREMENTAL, cursor_column="changed_at")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    # ANALYZE in the background would change estimates, and plans with them, between two looks.
    with PostgresServer(options={"autovacuum": "off"}) as server:
        server.execute(TABLES)
        yield server


def case_of(
    server: PostgresServer, unit_id: str, *policies: IngestionPolicy, target_rows: int = 1000
) -> SourceCase:
    spec = EndpointSpec(
        tenant_id=TenantId("tenant"),
        endpoint_id=EndpointId("endpoint"),
        name="test",
        type="POSTGRESQL",
        config={
            "host": server.host,
            "port": server.port,
            "database": "postgres",
            "user": "reader",
        },
        secrets={"password": PASSWORD},
    )

    def open_connections() -> int:
        ((count,),) = server.execute(
            "SELECT count(*)::text FROM pg_stat_activity WHERE usename = 'reader'"
        )
        return int(str(count))

    return SourceCase(
        build=lambda: PostgresSource(spec),
        unit_id=unit_id,
        unknown_unit_id="public.nowhere",
        empty_unit_id="public.nothing",
        target_rows=target_rows,
        policies=policies or (IngestionPolicy(),),
        open_connections=open_connections,
        secret=PASSWORD,
    )


class TestKeyedTable(SourceContract):
    @pytest.fixture
    def case(self, server: PostgresServer) -> SourceCase:
        policies = (IngestionPolicy(), INCREMENTAL, CHANGES)
        return case_of(server, "public.keyed", *policies, target_rows=9000)


class TestTableWithoutKey(SourceContract):
    @pytest.fixture
    def case(self, server: PostgresServer) -> SourceCase:
        return case_of(server, "public.keyless", IngestionPolicy(), CHANGES, target_rows=2000)


class TestPartitionedTable(SourceContract):
    @pytest.fixture
    def case(self, server: PostgresServer) -> SourceCase:
        return case_of(server, "public.parted")
