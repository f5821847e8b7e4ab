"""`state-transition-cdc.sql` as it is, from a real PostgreSQL into Iceberg, killed on the way."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from matih_ray.settings import Settings
from matih_ray.sinks.iceberg.catalog import CatalogConfig, open_catalog
from matih_ray.streaming.job import Script
from matih_ray.streaming.sql.script import parse_script
from matih_ray.testing.devstack.postgres import PostgresServer
from tests.integration.stream_lab import SEEDS, SLOTS, TRANSITIONS, run_in_process, steps_to_die_at

JOBS = Path(__file__).parents[2] / "jobs" / "sql"
START = datetime(2026, 1, 1)  # noqa: DTZ001 - TIMESTAMP has no zone
Row = tuple[object, ...]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer(options=SLOTS) as server:
        server.execute("CREATE ROLE ai_service LOGIN REPLICATION")
        yield server


@dataclass
class Archive:
    """The database, the job, and what its tables must hold."""

    server: PostgresServer
    processes: subprocess.Popen[str]
    home: Path
    database: str
    side_table: bool = True
    rows: dict[str, Row] = field(default_factory=dict)
    changes: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.server.create_database(self.database)
        self.server.execute(f'ALTER DATABASE "{self.database}" OWNER TO ai_service')
        self.server.execute(TRANSITIONS, self.database)
        ddl = (JOBS / "tables" / "state_transition_log.sql").read_text()
        script = Script(Settings(home=self.home), {}, sys.stderr)
        script.prepare(parse_script(ddl, {}))
        script.create_tables()

    def insert(self, chance: random.Random, count: int) -> list[str]:
        """Rows of one transaction."""
        made = []
        for _ in range(count):
            id_ = f"{chance.getrandbits(128):032x}"
            id_ = f"{id_[:8]}-{id_[8:12]}-{id_[12:16]}-{id_[16:20]}-{id_[20:]}"
            at = START + timedelta(microseconds=chance.randrange(10**13))
            by = chance.choice([None, "user", "tab\there", "back\\slash"])
            told = chance.choice([None, '{"duration_ms": 12.50}'])
            self.rows[id_] = (
                id_, "session_phase", f"e{chance.randrange(9)}", "acme", "new", "done", by,
                None, told, at.replace(microsecond=at.microsecond // 1000 * 1000),
            )  # fmt: skip
            made.append((*self.rows[id_][:-1], at))
        connection = self.server.connect(self.database, autocommit=False)
        with connection.cursor() as cursor:
            cursor.executemany(
                f"INSERT INTO fsm_state_transitions VALUES ({', '.join(['%s'] * 10)})", made
            )
        connection.commit()
        connection.close()
        return [str(row[0]) for row in made]

    def run(self, statement: str) -> list[Row]:
        return self.server.execute(statement, self.database)

    def start(self, meanwhile: Callable[[], None] = lambda: None, **more: object) -> dict:
        """Run the job in a process up to now; its exit code and what it did."""
        ((now,),) = self.run("SELECT pg_current_wal_insert_lsn()::text")
        told = {
            "home": str(self.home),
            "sql": (JOBS / "state-transition-cdc.sql").read_text(),
            "variables": {"DATABASE_USER": "ai_service", "DATABASE_PASSWORD": "unused"},
            "options": {
                "fsm_transitions_cdc.hostname": self.server.host,
                "fsm_transitions_cdc.port": str(self.server.port),
                "fsm_transitions_cdc.database-name": self.database,
                "fsm_transitions_cdc.slot.name": self.database,
            },
            "checkpoints": str(self.home / "checkpoints"),
            "job": "archive",
            "until": now,
            "side": self.side_table,
            **more,
        }
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(meanwhile)
            ended = run_in_process(self.processes, told)
            other.result()
        return ended

    def restart_database(self, after_s: float) -> None:
        """As a crash does, in a while."""
        time.sleep(after_s)
        self.server.stop("immediate")
        self.server.start()

    def complete(self) -> dict:
        ended = self.start()
        assert ended["code"] == 0, ended["error"]
        return ended

    def table(self, name: str) -> list[dict]:
        catalog = open_catalog(CatalogConfig.from_settings(Settings(home=self.home)))
        return catalog.load_table(("matih_analytics", name)).scan().to_arrow().to_pylist()

    def archived(self) -> list[Row]:
        return sorted(tuple(row.values()) for row in self.table("state_transition_log"))

    def expected(self) -> list[Row]:
        return sorted(self.rows.values())


@pytest.fixture
def archive(
    server: PostgresServer,
    processes: subprocess.Popen[str],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> Archive:
    name = "".join(one if one.isalnum() else "_" for one in request.node.name)[-40:]
    return Archive(server, processes, tmp_path, name)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_job_that_is_killed_anywhere_archives_every_row_once(archive: Archive, seed: int):
    chance = random.Random(seed)
    archive.insert(chance, 300)
    kills = 0
    for turn, die_at in enumerate(steps_to_die_at(chance, runs=4, most=16)):
        ended = archive.start(die_at=die_at)
        print(f"seed {seed}, turn {turn}, died at {die_at}: {ended['code']}")
        assert ended["code"] in (0, -signal.SIGKILL), ended
        kills += ended["code"] != 0
        for _ in range(chance.randrange(1, 6)):
            archive.insert(chance, chance.randrange(1, 50))
    archive.complete()
    assert kills > 0
    assert archive.archived() == archive.expected()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_database_that_restarts_on_the_way_costs_no_row(archive: Archive, seed: int):
    chance = random.Random(seed)
    archive.insert(chance, 300)
    for turn in range(3):
        after_s = chance.random()  # a run takes about as long
        ended = archive.start(meanwhile=lambda after_s=after_s: archive.restart_database(after_s))
        print(f"seed {seed}, turn {turn}, restart after {after_s:.2f} s: {ended['code']}")
        assert ended["code"] in (0, 1), ended
        if ended["code"] == 1:
            assert re.search("SourceUnavailable|ConnectionRefused", ended["error"]), ended["error"]
        for _ in range(chance.randrange(1, 6)):
            archive.insert(chance, chance.randrange(1, 50))
    archive.complete()
    assert archive.archived() == archive.expected()


@pytest.mark.parametrize("seed", SEEDS)
def test_updates_and_deletes_go_to_the_side_table_once(archive: Archive, seed: int):
    chance = random.Random(seed)
    archive.run("ALTER TABLE fsm_state_transitions REPLICA IDENTITY FULL")
    ids = archive.insert(chance, 50)
    assert archive.complete()["changed"] == 0
    expected = []
    for turn in range(3):
        for id_ in [ids.pop() for _ in range(4)]:
            archive.insert(chance, 2)
            archive.run(f"UPDATE fsm_state_transitions SET to_state = 'x' WHERE id = '{id_}'")
            archive.run(f"DELETE FROM fsm_state_transitions WHERE id = '{id_}'")
            expected += [(kind, id_) for kind in ("-U", "+U", "-D")]
        ended = archive.start(die_at=chance.randrange(16))
        print(f"seed {seed}, turn {turn}: {ended['code']}")
        assert ended["code"] in (0, -signal.SIGKILL), ended
    ended = archive.complete()
    assert archive.archived() == archive.expected()
    side = archive.table("state_transition_log_rejected")
    assert {row["reason"] for row in side} == {"CHANGED"}
    found = [(row["detail"][:2], json.loads(row["payload"])["id"]) for row in side]
    assert sorted(found) == sorted(expected)
    assert (ended["changed"], ended["rejected"]) == (len(expected), len(expected))


def test_without_a_side_table_an_update_stops_the_job(archive: Archive):
    archive.side_table = False
    (id_,) = archive.insert(random.Random(0), 1)
    archive.complete()
    archive.run(f"UPDATE fsm_state_transitions SET to_state = 'x' WHERE id = '{id_}'")
    ended = archive.start()
    assert "StreamRowError" in ended["error"]
    assert archive.archived() == archive.expected()
