"""Snowflake under the source contract, on an emulator of its HTTP protocol."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import snowflake.connector

from matih_ray.model.ids import EndpointId, TenantId
from matih_ray.model.policy import IngestionPolicy, LateCommits, NullCursor, RunMode
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.snowflake import SnowflakeSource
from matih_ray.testing.contracts.source import SourceCase, SourceContract
from matih_ray.testing.devstack.snowflake import SnowflakeServer

PASSWORD = "a password nobody may see"
ROWS = 12_000

TABLES = (
    """
    CREATE TABLE public.keyed (region varchar(10), id number(10,0), changed_at timestamp_ntz,
                               amount number(12,2), note text, PRIMARY KEY (id))
    """,
    f"""
    INSERT INTO public.keyed
    SELECT CASE WHEN n % 10 = 0 THEN 'nor\\\\th' ELSE 'so''uth' END, n,
           CASE WHEN n % 1000 <> 7
                THEN dateadd(minute, floor(n / 10), '2024-01-01'::timestamp_ntz) END,
           CASE WHEN n % 13 <> 0 THEN n / 7.0 END, repeat('x', n % 700)
    FROM (SELECT row_number() OVER (ORDER BY seq4()) AS n
          FROM table(generator(rowcount => {ROWS})))
    """,
    "CREATE TABLE public.thirds AS SELECT id, amount, note FROM public.keyed WHERE id % 3 = 0",
    "CREATE TABLE public.nothing (id int PRIMARY KEY, note text)",
)


def by(cursor: str) -> IngestionPolicy:
    return IngestionPolicy(run_mode=RunMode.INCREMENTAL, cursor_column=cursor)


@pytest.fixture(scope="module")
def server() -> Iterator[SnowflakeServer]:
    with SnowflakeServer() as server:
        with snowflake.connector.connect(
            account="shop",
            user="owner",
            password="any",
            host=server.host,
            port=server.port,
            protocol="http",
            database="SHOP",
            schema="PUBLIC",
        ) as connection:
            for statement in TABLES:
                connection.cursor().execute(statement)
        yield server


def case_of(server: SnowflakeServer, unit_id: str, *policies: IngestionPolicy) -> SourceCase:
    spec = EndpointSpec(
        tenant_id=TenantId("tenant"),
        endpoint_id=EndpointId("endpoint"),
        name="test",
        type="SNOWFLAKE",
        config={
            "account": "shop",
            "user": "reader",
            "database": "shop",
            "host": server.host,
            "port": server.port,
            "protocol": "http",
        },
        secrets={"password": PASSWORD},
    )
    return SourceCase(
        build=lambda: SnowflakeSource(spec),
        unit_id=unit_id,
        unknown_unit_id="PUBLIC.NOWHERE",
        empty_unit_id="PUBLIC.NOTHING",
        target_rows=2500,
        policies=policies or (IngestionPolicy(),),
        secret=PASSWORD,
    )


class TestTable(SourceContract):
    # the emulator does not count its sessions
    test_abandoning_a_read_frees_the_connection = None  # type: ignore[assignment]

    @pytest.fixture
    def case(self, server: SnowflakeServer) -> SourceCase:
        ignoring = by("CHANGED_AT").model_copy(
            update={"null_cursor": NullCursor.IGNORE, "late_commits": LateCommits.IGNORE}
        )
        policies = (IngestionPolicy(), by("CHANGED_AT"), ignoring, by("ID"))
        return case_of(server, "PUBLIC.KEYED", *policies)


class TestTableWithoutAKeyByItsCursor(SourceContract):
    # the emulator does not count its sessions
    test_abandoning_a_read_frees_the_connection = None  # type: ignore[assignment]

    @pytest.fixture
    def case(self, server: SnowflakeServer) -> SourceCase:
        return case_of(server, "PUBLIC.THIRDS", by("ID"))
