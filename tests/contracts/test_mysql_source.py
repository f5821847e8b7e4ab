"""MySQL under the source contract, on a real MariaDB: keys of one and several columns, no key, a
binary key, a view, and incremental cursors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from matih_ray.model.ids import EndpointId, TenantId
from matih_ray.model.policy import IngestionPolicy, LateCommits, NullCursor, RunMode
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.mysql import MySqlSource
from matih_ray.testing.contracts.source import SourceCase, SourceContract
from matih_ray.testing.devstack.mariadb import MariaDbMissingError, MariaDbServer

PASSWORD = "a password nobody may see"
# Enough bytes that the server is still sending when a read is abandoned.
ROWS = 12_000

TABLES = (
    f"CREATE USER reader@'%' IDENTIFIED BY '{PASSWORD}'",
    "CREATE DATABASE shop",
    "USE shop",
    """
    CREATE TABLE keyed (
        region varchar(10), id int unsigned, changed_at timestamp(3) NULL, amount decimal(12,2),
        note text, PRIMARY KEY (region, id), KEY (changed_at), KEY (id)
    )
    """,
    f"""
    INSERT INTO keyed
    SELECT IF(seq % 10 = 0, 'north', 'South'), seq,
           IF(seq % 1000 <> 7, timestamp('2024-01-01') + INTERVAL seq DIV 10 MINUTE, NULL),
           IF(seq % 13 <> 0, seq / 7.0, NULL), repeat('x', seq % 700 * 5)
    FROM seq_1_to_{ROWS}
    """,
    "CREATE TABLE hashed (id binary(16) PRIMARY KEY, n int NOT NULL) ENGINE=Aria",
    "INSERT INTO hashed SELECT unhex(md5(seq)), seq FROM seq_1_to_5000",
    "CREATE TABLE nothing (id int PRIMARY KEY, note text)",
    "CREATE TABLE keyless (id bigint NOT NULL, note text, KEY (id))",
    "INSERT INTO keyless SELECT seq DIV 3, seq FROM seq_1_to_9000",
    "CREATE VIEW `a view` AS SELECT * FROM keyless WHERE id % 2 = 0",
    "GRANT SELECT ON shop.* TO reader@'%'",
    "GRANT PROCESS ON *.* TO reader@'%'",
    "ANALYZE TABLE keyed, hashed, nothing, keyless",
)

BY_TIME = IngestionPolicy(run_mode=RunMode.INCREMENTAL, cursor_column="changed_at")
BY_ID = IngestionPolicy(run_mode=RunMode.INCREMENTAL, cursor_column="id")


@pytest.fixture(scope="module")
def server() -> Iterator[MariaDbServer]:
    try:
        # Statistics renewed in the background would change estimates between two looks.
        server = MariaDbServer(options={"innodb-stats-auto-recalc": "OFF"})
    except MariaDbMissingError as missing:
        pytest.skip(str(missing))
    with server:
        server.execute(*TABLES)
        yield server


def case_of(
    server: MariaDbServer, unit_id: str, *policies: IngestionPolicy, target_rows: int = 1000
) -> SourceCase:
    spec = EndpointSpec(
        tenant_id=TenantId("tenant"),
        endpoint_id=EndpointId("endpoint"),
        name="test",
        type="MYSQL",
        config={"host": server.host, "port": server.port, "database": "shop", "user": "reader"},
        secrets={"password": PASSWORD},
    )

    def open_connections() -> int:
        ((count,),) = server.execute(
            "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = 'reader'"
        )
        return int(str(count))

    return SourceCase(
        build=lambda: MySqlSource(spec),
        unit_id=unit_id,
        unknown_unit_id="shop.nowhere",
        empty_unit_id="shop.nothing",
        target_rows=target_rows,
        policies=policies or (IngestionPolicy(),),
        open_connections=open_connections,
        secret=PASSWORD,
    )


class TestKeyOfTwoColumns(SourceContract):
    @pytest.fixture
    def case(self, server: MariaDbServer) -> SourceCase:
        ignoring = BY_TIME.model_copy(
            update={"null_cursor": NullCursor.IGNORE, "late_commits": LateCommits.IGNORE}
        )
        policies = (IngestionPolicy(), BY_TIME, ignoring, BY_ID)
        return case_of(server, "shop.keyed", *policies, target_rows=3000)


class TestBinaryKey(SourceContract):
    @pytest.fixture
    def case(self, server: MariaDbServer) -> SourceCase:
        return case_of(server, "shop.hashed")


class TestCursorWithoutKey(SourceContract):
    @pytest.fixture
    def case(self, server: MariaDbServer) -> SourceCase:
        return case_of(server, "shop.keyless", BY_ID)
