"""The four production jobs, byte for byte, from a real Kafka and a real PostgreSQL into Iceberg, by
the SQL catalog and by Iceberg's own REST catalog.

Jobs run as in production: without end, with checkpoints and side tables, and their topics, groups,
slots and start-up modes are the scripts' own. Only addresses come from outside. DuckDB says what
the tables must hold, from the same events.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from matih_ray.settings import Settings
from matih_ray.sinks.iceberg.catalog import CatalogConfig, open_catalog
from matih_ray.streaming.checkpoints import CheckpointDirectory
from matih_ray.streaming.connectors.catalog_tables import Owner
from matih_ray.streaming.engine import Command, Engine
from matih_ray.streaming.job import Script
from matih_ray.streaming.sql.script import parse_script
from matih_ray.testing.devstack.iceberg_java import IcebergJavaServer
from matih_ray.testing.devstack.kafka import KafkaServer
from matih_ray.testing.devstack.postgres import PostgresServer
from tests.integration.stream_lab import TRANSITIONS

JOBS = Path(__file__).parents[2] / "jobs" / "sql"
START = datetime(2026, 1, 1)  # noqa: DTZ001 - TIMESTAMP has no zone
PARTITIONS = 3
EVENTS = 400  # of each partition
EVERY_S = 20
DELAY_S = 30  # of all watermarks
GIVE_UP_AFTER_S = 240
SEED = 5
VARIABLES = {"DATABASE_USER": "ai_service", "DATABASE_PASSWORD": "unused"}
# Of no use as an event, whatever the table; tombstones are none at all.
NOISE = (b"", b"{", b"7", b'"text"', b'{"tenant_id": ', b"\xff\xfe", b"nonsense")
Row = dict[str, object]
Pair = tuple[Row, bytes]


@dataclass(frozen=True)
class WindowJob:
    """A job with windows: its source table and topic, its target, the minutes of its windows, the
    random values of its events, one that no column takes, which events it wants, and what it makes
    of them: columns of DuckDB behind the window's bounds, before the time of the result."""

    source: str
    topic: str
    table: str
    minutes: int
    values: dict[str, tuple[object, ...]]
    mistyped: Row
    wanted: str
    results: str


TENANTS = ("acme", "globex", "")
COUNTS = (None, 0, 1, 7, 250, -3)
COSTS = (None, 0.0, 0.125, 12.5, -1.25)  # their sums are exact
METADATA = (
    None, "{}", '{"duration_ms": 12}', '{"duration_ms": 250, "turn_count": 3}',
    '{"turn_count": "5"}', '{"duration_ms": null, "turn_count": 2}',
)  # fmt: skip
WINDOW_JOBS = {
    "session-analytics": WindowJob(
        "state_changes_source",
        "matih.ai.state-changes",
        "session_analytics",
        15,
        {
            "tenant_id": TENANTS,
            "entity_type": ("session_phase", "session_phase", "agent", None),
            "entity_id": (None, *(f"s{number}" for number in range(40))),
            "to_state": ("completed", "failed", "", None),
            "triggered_by": (None, "user", "ü"),
            "metadata": METADATA,
        },
        {"tenant_id": "acme", "timestamp": "yesterday"},
        "entity_type = 'session_phase'",
        """count(DISTINCT entity_id),
           avg(CAST(metadata ->> '$.duration_ms' AS DOUBLE)),
           avg(CAST(metadata ->> '$.turn_count' AS DOUBLE)),
           count(*) FILTER (to_state = 'completed') / greatest(count(DISTINCT entity_id), 1),
           count(DISTINCT triggered_by)""",
    ),
    "agent-performance-agg": WindowJob(
        "agent_traces_source",
        "matih.ai.agent-traces",
        "agent_performance_metrics",
        5,
        {
            "tenant_id": TENANTS,
            "agent_id": ("planner", "coder"),
            "action": ("completed", "failed", "started", None),
            "latency_ms": COUNTS,
            "tokens_input": COUNTS,
            "tokens_output": COUNTS,
            "cost_usd": COSTS,
            "error_message": (None, None, "", "timeout"),
            "tools_used": (None, ["search", None], []),
        },
        {"tenant_id": "acme", "agent_id": "coder", "latency_ms": "many"},
        "action IN ('completed', 'failed')",
        """agent_id, NULL,
           count(*) FILTER (action = 'completed' AND error_message IS NULL) / count(*),
           avg(coalesce(latency_ms, 0)), NULL, NULL, NULL, count(*),
           sum(coalesce(tokens_input, 0) + coalesce(tokens_output, 0))::BIGINT,
           sum(coalesce(cost_usd, 0)), count(error_message) / count(*), 0.0::DOUBLE""",
    ),
    "llm-operations-agg": WindowJob(
        "llm_ops_source",
        "matih.ai.llm-ops",
        "llm_operations_metrics",
        15,
        {
            "tenant_id": TENANTS,
            "provider": ("openai", "unknown", None),
            "model": ("large", "", None),
            "cache_hit": (True, False, None),
            "tokens_input": COUNTS,
            "tokens_output": COUNTS,
            "cost_usd": COSTS,
            "latency_ms": COUNTS,
            "success": (True, False, None),
        },
        {"tenant_id": "acme", "tokens_input": [1]},
        "true",
        """coalesce(provider, 'unknown'), coalesce(model, 'unknown'),
           count(*) FILTER (cache_hit) / count(*), avg(coalesce(tokens_input, 0)),
           avg(coalesce(tokens_output, 0)), count(*), sum(coalesce(cost_usd, 0)),
           avg(coalesce(latency_ms, 0)), count(*) FILTER (NOT success) / count(*)""",
    ),
}
# What a window is of, beside the tenant.
KEYS = {"agent-performance-agg": ", agent_id", "llm-operations-agg": ", provider, model"}


# --- servers -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kafka() -> Iterator[KafkaServer]:
    with KafkaServer() as server:
        for job in WINDOW_JOBS.values():
            server.create_topic(job.topic, PARTITIONS)
        yield server


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        server.execute("CREATE ROLE ai_service LOGIN REPLICATION")
        yield server


@pytest.fixture(scope="module", params=["sql", "rest"])
def settings(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    home = tmp_path_factory.mktemp(request.param)
    if request.param == "sql":
        yield Settings(home=home)
        return
    with IcebergJavaServer(home / "warehouse") as server:
        yield Settings(home=home, iceberg_catalog_type="rest", iceberg_catalog_uri=server.uri)


# --- a job at work -------------------------------------------------------------------------------


@dataclass
class Running:
    """A job as it is written, with its addresses and what it is given while it runs: each of
    `steps` is done when all rows of the one before were read, and tells how many there are now."""

    settings: Settings
    name: str
    options: dict[str, str]
    steps: list = field(default_factory=list)
    expected: int = 0

    def run(self) -> Engine:
        table = (JOBS / "tables" / f"{target_of(self.name)}.sql").read_text()
        created = Script(self.settings, {}, sys.stderr)
        created.prepare(parse_script(table, {}))
        created.create_tables()
        script = Script(self.settings, self.options, sys.stderr)
        text = (JOBS / f"{self.name}.sql").read_text()
        (insert,) = script.prepare(parse_script(text, VARIABLES))
        directory = CheckpointDirectory(str(self.settings.home / f"checkpoints-{self.name}"))
        owner = Owner(job_id=self.name, epoch=directory.claim())
        engine = script.engine(insert, owner, side_table=True)
        engine.directory, engine.interval_s = directory, 0.2
        deadline = time.monotonic() + GIVE_UP_AFTER_S

        def at_step(step: str) -> None:
            counts = engine.pipeline.counts
            assert time.monotonic() < deadline, f"{counts} instead of {self.expected} rows"
            if step != "turn" or counts.read + counts.bad < self.expected:
                return
            if self.steps:
                self.expected += self.steps.pop(0)()
            else:
                engine.commands.put(Command(stop=True))

        engine.at_step = at_step
        assert not engine.run()  # stopped, since its input has no end
        assert counts_of(engine) == self.expected
        return engine


def counts_of(engine: Engine) -> int:
    return engine.pipeline.counts.read + engine.pipeline.counts.bad


def target_of(name: str) -> str:
    return WINDOW_JOBS[name].table if name in WINDOW_JOBS else "state_transition_log"


def table_of(settings: Settings, name: str) -> list[Row]:
    catalog = open_catalog(CatalogConfig.from_settings(settings))
    return catalog.load_table(("matih_analytics", name)).scan().to_arrow().to_pylist()


# --- events --------------------------------------------------------------------------------------


def at(second: float) -> datetime:
    return START + timedelta(milliseconds=round(second * 1000))


def event(job: WindowJob, chance: random.Random, second: float) -> Pair:
    """An event as the job sees it, and its message; what is NULL is not there, or null."""
    row: Row = {name: chance.choice(values) for name, values in job.values.items()}
    told: Row = {"event_id": f"e{chance.random()}"}
    for name, value in row.items():
        if value is None and chance.random() < 0.5:
            continue
        told[name] = value
        if name == "metadata" and isinstance(value, str) and chance.random() < 0.3:
            told[name] = json.loads(value)  # an object is taken as its text
        if isinstance(value, int) and not isinstance(value, bool) and chance.random() < 0.1:
            told[name] = str(value)  # and text as the number it is
    told["timestamp"] = at(second).isoformat(" ", "milliseconds")
    message = json.dumps(told, ensure_ascii=chance.random() < 0.5).encode()
    return {**row, "ts": at(second), "payload": message.decode()}, message


def noise(job: WindowJob, chance: random.Random) -> bytes:
    """What is left out: no JSON, a value of another type, no time."""
    untimed = {key: values[0] for key, values in job.values.items()}
    return chance.choice([*NOISE, json.dumps(job.mistyped).encode(), json.dumps(untimed).encode()])


@dataclass
class Feed:
    """The events of one job, and what becomes of them."""

    kafka: KafkaServer
    job: WindowJob
    chance: random.Random
    counted: list[Row] = field(default_factory=list)
    late: list[Row] = field(default_factory=list)
    bad: list[bytes] = field(default_factory=list)

    def in_time(self) -> int:
        """Events that are out of order by no more than the watermark waits for."""
        sent = 0
        for partition in range(PARTITIONS):
            messages: list[bytes | None] = []
            for number in range(EVENTS):
                behind_s = self.chance.choice([0, 0, 0, 5, 29.999, DELAY_S])
                behind_s = behind_s if number < EVENTS - 1 else 0
                pair = event(self.job, self.chance, DELAY_S + number * EVERY_S - behind_s)
                times = self.chance.choice([1] * 20 + [2, 3])
                self.counted += [pair[0]] * times
                messages += [pair[1]] * times
                if self.chance.random() < 0.05:
                    self.bad.append(noise(self.job, self.chance))
                    messages += [self.bad[-1], None]
            sent += self._send(messages, partition)
        return sent

    def behind(self) -> int:
        """Events of windows that have fired, and of some that have not."""
        second = (EVENTS - 1) * EVERY_S
        size = self.job.minutes * 60
        opened = second - second % size  # the watermark is at `second` exactly
        sent = 0
        for partition in range(PARTITIONS):
            messages = []
            for _ in range(40):
                back = self.chance.choice([opened - second, 1 - size, -second / 2, -second, 3])
                pair = event(self.job, self.chance, second + back)
                (self.counted if second + back >= opened else self.late).append(pair[0])
                messages.append(pair[1])
            sent += self._send(messages, partition)
        return sent

    def the_end(self) -> int:
        """What closes all windows before it, and is in none that does."""
        message = event(self.job, self.chance, 10**6)[1]
        return sum(self._send([message], partition) for partition in range(PARTITIONS))

    def _send(self, messages: list, partition: int) -> int:
        self.kafka.produce(self.job.topic, messages, partition)
        return sum(message is not None for message in messages)

    def expected(self, keys: str) -> list[tuple]:
        """The rows of the target, by DuckDB."""
        events = pa.Table.from_pylist(self.counted)
        span = f"INTERVAL {self.job.minutes} MINUTE"
        return by_duckdb(
            events,
            f"SELECT w, w + {span}, tenant_id, {self.job.results}, w + {span} "
            f"FROM (SELECT *, time_bucket({span}, ts) AS w FROM events WHERE {self.job.wanted}) "
            f"GROUP BY w, tenant_id{keys}",
        )

    def left_out(self) -> list[tuple]:
        """Reason and payload of the rows of the side table."""
        wanted = f"SELECT 'LATE', payload FROM events WHERE {self.job.wanted}"
        late = by_duckdb(pa.Table.from_pylist(self.late), wanted)
        return sorted([*late, *(("UNREADABLE", text_of(one)) for one in self.bad)])


def by_duckdb(events: pa.Table, query: str) -> list[tuple]:
    with duckdb.connect() as connection:
        connection.register("events", events)
        return sorted(connection.execute(query).fetchall(), key=repr)


def text_of(raw: bytes) -> str:
    return raw.decode(errors="backslashreplace")


def payload_of(row: dict) -> str:
    """What is kept of a row: text, or bytes."""
    return text_of(row["payload_bytes"]) if row["payload"] is None else row["payload"]


@pytest.mark.parametrize("name", WINDOW_JOBS)
def test_a_window_job_counts_every_event_of_its_topic_once(
    name: str, kafka: KafkaServer, settings: Settings
):
    job = WINDOW_JOBS[name]
    feed = Feed(kafka, job, random.Random(SEED))
    options = {f"{job.source}.properties.bootstrap.servers": kafka.bootstrap}
    steps = [feed.in_time, feed.behind, feed.the_end]
    engine = Running(settings, name, options, steps).run()

    rows = sorted((tuple(row.values()) for row in table_of(settings, job.table)), key=repr)
    assert rows == feed.expected(KEYS.get(name, ""))
    side = table_of(settings, f"{job.table}_rejected")
    found = [(row["reason"], payload_of(row)) for row in side]
    assert sorted(found) == feed.left_out()
    assert {row["topic"] for row in side} == {job.topic}
    assert {row["reason"] for row in side} == {"LATE", "UNREADABLE"}
    assert engine.progress.checkpoints > 2
    assert len(rows) > 25


# --- changes of the database ---------------------------------------------------------------------

SOURCE = f"{TRANSITIONS} ALTER TABLE fsm_state_transitions REPLICA IDENTITY FULL;"
DATABASE = "ai_service"
INSERT = f"INSERT INTO fsm_state_transitions VALUES ({', '.join(['%s'] * 10)})"


@pytest.fixture
def transitions(postgres: PostgresServer) -> Iterator[PostgresServer]:
    """The script's own database, gone when the job is, with the slot that the job has left."""
    postgres.create_database(DATABASE)
    postgres.execute(f"ALTER DATABASE {DATABASE} OWNER TO ai_service")
    postgres.execute(SOURCE, DATABASE)
    yield postgres
    postgres.drop_slot("flink_fsm_cdc")
    postgres.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")


def transition(chance: random.Random) -> tuple[object, ...]:
    """A row: NULLs, what text formats must escape, long texts, times out of order."""
    hexes = f"{chance.getrandbits(128):032x}"
    parts = (hexes[:8], hexes[8:12], hexes[12:16], hexes[16:20], hexes[20:])
    return (
        "-".join(parts),
        "session_phase",
        f"e{chance.randrange(9)}",
        chance.choice(TENANTS),
        "new",
        chance.choice(["done", "tab\there", "back\\slash", "a\nb", "ü"]),
        chance.choice([None, "user", "\\N"]),
        chance.choice([None, "", "x" * 9_000]),
        chance.choice([None, '{"duration_ms": 12.50}', "[]"]),
        at(chance.randrange(10**6)),
    )


def test_the_archive_has_every_transition_once(transitions: PostgresServer, settings: Settings):
    chance = random.Random(SEED)
    kept: list[tuple[object, ...]] = []

    def insert(count: int, *, commit: bool = True) -> int:
        rows = [transition(chance) for _ in range(count)]
        connection = transitions.connect(DATABASE, autocommit=False)
        with connection.cursor() as cursor:
            cursor.executemany(INSERT, rows)
        (connection.commit if commit else connection.rollback)()
        connection.close()
        kept.extend(rows if commit else [])
        return count if commit else 0

    def transactions() -> int:
        return sum(insert(size, commit=size != 7) for size in (1, 7, 30, 1, 200))

    def changes() -> int:
        for row in kept[:3]:
            where = f"WHERE id = '{row[0]}'"
            transitions.execute(
                f"UPDATE fsm_state_transitions SET to_state = 'x' {where}", DATABASE
            )
            transitions.execute(f"DELETE FROM fsm_state_transitions {where}", DATABASE)
        return 9 + insert(5)  # rows before and after the update, and the deleted one

    table = "fsm_transitions_cdc"
    options = {f"{table}.hostname": transitions.host, f"{table}.port": str(transitions.port)}
    job = Running(settings, "state-transition-cdc", options, [transactions, changes], insert(300))
    engine = job.run()

    rows = [tuple(row.values()) for row in table_of(settings, "state_transition_log")]
    assert sorted(rows, key=repr) == sorted(kept, key=repr)
    side = table_of(settings, "state_transition_log_rejected")
    found = [(row["reason"], row["detail"][:2], json.loads(row["payload"])["id"]) for row in side]
    expected = [("CHANGED", kind, row[0]) for row in kept[:3] for kind in ("-U", "+U", "-D")]
    assert sorted(found) == sorted(expected)
    assert engine.pipeline.counts.changed == 9


def test_no_script_is_left_out():
    scripts = {path.stem for path in JOBS.glob("*.sql")}
    assert scripts == {*WINDOW_JOBS, "state-transition-cdc"}
