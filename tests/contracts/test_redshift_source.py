"""Redshift under the source contract, on a real PostgreSQL: its protocol and the SQL they share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from matih_ray.model.ids import EndpointId, TenantId
from matih_ray.model.policy import IngestionPolicy, LateCommits, NullCursor, RunMode
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.redshift import RedshiftSource
from matih_ray.testing.contracts.source import SourceCase, SourceContract
from matih_ray.testing.devstack.postgres import PostgresServer

PASSWORD = "a password nobody may see"
# Enough bytes that the server is still sending when a read is abandoned.
ROWS = 12_000

TABLES = f"""
CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}';
CREATE TABLE keyed (
    region varchar(10), id int, changed_at timestamptz, amount numeric(12,2), note text,
    PRIMARY KEY (region, id)
);
INSERT INTO keyed
SELECT CASE WHEN n % 10 = 0 THEN 'nor\\th' ELSE 'so''uth' END, n,
       CASE WHEN n % 1000 <> 7 THEN timestamptz '2024-01-01' + (n / 10) * interval '1 minute' END,
       CASE WHEN n % 13 <> 0 THEN n / 7.0 END, repeat('x', n % 700)
FROM generate_series(1, {ROWS}) n;
CREATE VIEW "a view" AS SELECT id, amount, note FROM keyed WHERE id % 3 = 0;
CREATE TABLE nothing (id int PRIMARY KEY, note text);
GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader;
ANALYZE;
"""


def by(cursor: str) -> IngestionPolicy:
    return IngestionPolicy(run_mode=RunMode.INCREMENTAL, cursor_column=cursor)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    # ANALYZE in the background would change estimates between two looks.
    with PostgresServer(options={"autovacuum": "off"}) as server:
        server.execute(TABLES)
        yield server


def case_of(server: PostgresServer, unit_id: str, *policies: IngestionPolicy) -> SourceCase:
    spec = EndpointSpec(
        tenant_id=TenantId("tenant"),
        endpoint_id=EndpointId("endpoint"),
        name="test",
        type="REDSHIFT",
        config={
            "host": server.host,
            "port": server.port,
            "database": "postgres",
            "user": "reader",
            "sslMode": "disable",
        },
        secrets={"password": PASSWORD},
    )

    def open_connections() -> int:
        ((count,),) = server.execute(
            "SELECT count(*)::text FROM pg_stat_activity WHERE usename = 'reader'"
        )
        return int(str(count))

    return SourceCase(
        build=lambda: RedshiftSource(spec),
        unit_id=unit_id,
        unknown_unit_id="public.nowhere",
        empty_unit_id="public.nothing",
        target_rows=2500,
        policies=policies or (IngestionPolicy(),),
        open_connections=open_connections,
        secret=PASSWORD,
    )


class TestKeyOfTwoColumns(SourceContract):
    @pytest.fixture
    def case(self, server: PostgresServer) -> SourceCase:
        ignoring = by("changed_at").model_copy(
            update={"null_cursor": NullCursor.IGNORE, "late_commits": LateCommits.IGNORE}
        )
        policies = (IngestionPolicy(), by("changed_at"), ignoring, by("id"))
        return case_of(server, "public.keyed", *policies)


class TestViewByItsCursor(SourceContract):
    @pytest.fixture
    def case(self, server: PostgresServer) -> SourceCase:
        return case_of(server, 'public."a view"', by("id"))
