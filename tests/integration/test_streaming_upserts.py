"""Changes of a PostgreSQL table merged by key into an Iceberg table, killed on the way."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from matih_ray.errors import SqlInvalidError, SqlNotSupportedError, ValidationError
from matih_ray.settings import Settings
from matih_ray.sinks.iceberg.catalog import CatalogConfig, open_catalog
from matih_ray.streaming.connectors import catalog_upserts
from matih_ray.streaming.connectors.catalog_tables import CatalogTables, Owner
from matih_ray.streaming.job import Script
from matih_ray.streaming.sql.script import parse_script
from matih_ray.testing.devstack.postgres import PostgresServer
from tests.integration.stream_lab import SEEDS, SLOTS, run_in_process, steps_to_die_at

COLUMNS = "id INT, part STRING, v STRING, n DECIMAL(20, 4)"
MERGED = f"""
    CREATE TABLE lake.s.items ({COLUMNS}, PRIMARY KEY (id) NOT ENFORCED)
    PARTITIONED BY (part) WITH ('write.upsert.enabled' = 'true')
"""
Row = tuple[object, ...]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer(options=SLOTS) as server:
        yield server


@dataclass
class Mirror:
    """A table of a database, and the job that keeps an Iceberg table like it."""

    server: PostgresServer
    processes: subprocess.Popen[str]
    home: Path
    database: str
    ddl: str = MERGED
    query: str = "SELECT * FROM source"
    options: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.server.create_database(self.database)
        self.run("CREATE TABLE items (id int PRIMARY KEY, part text, v text, n numeric(20, 4))")

    def run(self, statement: str) -> list[Row]:
        return self.server.execute(statement, self.database)

    def script(self, sql: str) -> Script:
        script = Script(Settings(home=self.home), self.options, sys.stderr)
        self.inserts = script.prepare(parse_script(sql, {}))
        script.create_tables()
        return script

    @property
    def sql(self) -> str:
        return (
            f"CREATE TEMPORARY TABLE source ({COLUMNS}) WITH ('connector' = 'postgres-cdc', "
            f"'hostname' = '{self.server.host}', 'port' = '{self.server.port}', 'username' = "
            f"'postgres', 'database-name' = '{self.database}', 'table-name' = 'items', "
            f"'slot.name' = '{self.database}'); INSERT INTO lake.s.items {self.query}"
        )

    def start(self, **more: object) -> dict:
        """Run the job in a process up to now; its exit code and what it did."""
        ((now,),) = self.run("SELECT pg_current_wal_insert_lsn()::text")
        told = {
            "home": str(self.home), "sql": self.sql, "options": self.options, "until": now,
            "checkpoints": str(self.home / "checkpoints"), "job": "mirror", "side": True, **more,
        }  # fmt: skip
        return run_in_process(self.processes, told)

    def complete(self) -> dict:
        ended = self.start()
        assert ended["code"] == 0, ended["error"]
        return ended

    def mirrored(self) -> list[Row]:
        catalog = open_catalog(CatalogConfig.from_settings(Settings(home=self.home)))
        rows = catalog.load_table(("s", "items")).scan().to_arrow().to_pylist()
        return sorted(tuple(row.values()) for row in rows)

    def held(self) -> list[Row]:
        return sorted(self.run("SELECT * FROM items"))

    def change(self, chance: random.Random, count: int) -> None:
        """Transactions of what happens to rows: among few keys, so that it happens often."""
        for _ in range(count):
            self.run("; ".join(self._statement(chance) for _ in range(chance.randrange(1, 5))))

    def _statement(self, chance: random.Random) -> str:
        one, other = chance.randrange(40), chance.randrange(40)
        part, v = chance.choice("abc"), chance.choice(["NULL", f"'v{chance.random()}'"])
        if chance.random() < 0.4:
            return (
                f"INSERT INTO items VALUES ({one}, '{part}', {v}, {other}.5) "
                f"ON CONFLICT (id) DO UPDATE SET part = '{part}', v = {v}"
            )
        if chance.random() < 0.5:
            return f"DELETE FROM items WHERE id = {one}"
        key = f"UPDATE items SET id = {other} WHERE id = {one} AND NOT EXISTS "
        free = f"(SELECT FROM items WHERE id = {other})"
        return chance.choice([key + free, f"UPDATE items SET part = '{part}', n = n + 0.0001"])


@pytest.fixture
def mirror(
    server: PostgresServer,
    processes: subprocess.Popen[str],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> Mirror:
    name = "".join(one if one.isalnum() else "_" for one in request.node.name)[-40:]
    return Mirror(server, processes, tmp_path, name.lower())


@pytest.mark.parametrize("seed", SEEDS)
def test_a_job_that_is_killed_anywhere_keeps_the_table_like_its_source(mirror: Mirror, seed: int):
    chance = random.Random(seed)
    identity = ("FULL", "DEFAULT")[seed % 2]
    mirror.script(mirror.ddl)
    mirror.run(f"ALTER TABLE items REPLICA IDENTITY {identity}")
    mirror.change(chance, 20)
    kills = 0
    for turn, die_at in enumerate(steps_to_die_at(chance, runs=3, most=12)):
        ended = mirror.start(die_at=die_at)
        print(f"seed {seed}, turn {turn}, died at {die_at}: {ended['code']}")
        assert ended["code"] in (0, -signal.SIGKILL), ended
        kills += ended["code"] != 0
        mirror.change(chance, chance.randrange(1, 15))
    ended = mirror.complete()
    assert kills > 0
    assert mirror.held() == mirror.mirrored() != []
    assert ended["rejected"] == 0
    mirror.run("DELETE FROM items")
    mirror.complete()
    assert mirror.mirrored() == []


def test_parts_of_one_checkpoint_are_merged_in_their_order(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(catalog_upserts, "PART_ROWS", 3)
    mirror.script(mirror.ddl)
    rows = [(number % 4, "ab"[number % 2], number, number % 3 == 0) for number in range(50)]
    schema = pa.schema(
        {"id": pa.int32(), "part": pa.string(), "v": pa.string(), "n": pa.decimal128(20, 4)}
    )
    tables = CatalogTables(Settings(home=mirror.home))
    path = ("lake", "s", "items")
    for turn in range(2):  # into an empty table, and over what is there
        sink = tables.open_upserts(path, schema, Owner(job_id=f"job {turn}"), ("id",))
        for id_, part, n, gone in rows:
            columns = [[id_], [part], [None], [Decimal(n + turn)]]
            sink.change(pa.record_batch(columns, schema=schema), np.array([gone]))
        sink.commit(sink.prepare())
        last = {id_: (id_, part, None, n + turn, gone) for id_, part, n, gone in rows}
        left = [row[:-1] for row in last.values() if not row[-1]]
        assert mirror.mirrored() == sorted(left) != []


def test_rows_that_are_only_inserted_replace_those_with_their_key(mirror: Mirror):
    source = mirror.home / "rows.csv"
    source.write_text("1,a,first,1\n2,a,second,1\n1,b,third,1\n")
    script = mirror.script(
        f"{MERGED}; CREATE TEMPORARY TABLE source ({COLUMNS}) WITH ('connector' = 'filesystem', "
        f"'path' = '{source}', 'format' = 'csv'); INSERT INTO lake.s.items SELECT * FROM source "
        "WHERE v <> 'nothing'"
    )
    script.run(mirror.inserts[0])
    script.run(mirror.inserts[0])
    assert mirror.mirrored() == [(1, "b", "third", 1), (2, "a", "second", 1)]


def test_a_job_may_choose_to_merge_into_a_table_that_others_declared(mirror: Mirror):
    mirror.script(
        MERGED.replace("'write.upsert.enabled' = 'true'", "'write.upsert.enabled' = 'false'")
    )
    mirror.run("INSERT INTO items VALUES (1, 'a', 'v', 1)")
    mirror.options = {"lake.s.items.upsert-enabled": "true"}
    mirror.complete()
    mirror.run("UPDATE items SET n = 2")
    mirror.complete()
    assert mirror.mirrored() == [(1, "a", "v", 2)]
    mirror.options = {"lake.s.items.upsert-enabled": "false"}
    mirror.run("UPDATE items SET n = 3")
    assert mirror.complete()["rejected"] == 1  # of a job that appends
    assert mirror.mirrored() == [(1, "a", "v", 2)]


NO_KEY = MERGED.replace(", PRIMARY KEY (id) NOT ENFORCED", "")


@pytest.mark.parametrize(
    ("ddl", "query", "options", "refused"),
    [
        (NO_KEY, "SELECT * FROM source", {}, (SqlInvalidError, "PRIMARY KEY")),
        (MERGED, "SELECT * FROM source WHERE n > 1", {}, (SqlNotSupportedError, "would stay")),
        (
            MERGED,
            "SELECT * FROM source",
            {"source.changelog-mode": "upsert"},
            (SqlNotSupportedError, "needs 'all'"),
        ),
        (
            MERGED,
            "SELECT * FROM source",
            {"lake.s.items.write-parallelism": "2"},
            (SqlInvalidError, "none of a catalog table"),
        ),
        (
            MERGED.replace("id INT", "id DOUBLE"),
            "SELECT CAST(id AS DOUBLE), part, v, n FROM source",
            {},
            (ValidationError, "cannot be told apart"),
        ),
    ],
)
def test_what_would_not_be_kept_exactly_is_refused(
    mirror: Mirror,
    ddl: str,
    query: str,
    options: dict[str, str],
    refused: tuple[type[Exception], str],
):
    mirror.script(ddl)
    mirror.query, mirror.options = query, options
    with pytest.raises(refused[0], match=refused[1]):
        mirror.script(mirror.sql).engine(mirror.inserts[0], Owner(job_id="job"))
