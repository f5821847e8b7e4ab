"""What tests of streaming jobs share: a topic, a table, a job in processes that may die, and the
rows that the table must hold."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from matih_ray.settings import Settings
from matih_ray.sinks.iceberg.catalog import CatalogConfig, open_catalog
from matih_ray.streaming.job import Script
from matih_ray.streaming.sql.script import parse_script
from matih_ray.testing.devstack.kafka import KafkaServer

START = datetime(2026, 1, 1)  # noqa: DTZ001 - TIMESTAMP has no zone
PROCESS = Path(__file__).with_name("stream_process.py")
# A few by default; STREAM_SEEDS=50 tries as many kills at random points.
SEEDS = range(int(os.environ.get("STREAM_SEEDS", "2")))
# Of a server whose jobs, some for each seed, leave their slots behind.
_SLOTS = str(50 + 3 * len(SEEDS))
SLOTS = {"max_replication_slots": _SLOTS, "max_wal_senders": _SLOTS}
# Every run of a job takes so many steps; longer ones depend on how much a run has to do.
CERTAIN_STEPS = 5
WINDOW_MS = 10_000
PARTITIONS = 3
KEYS = [None, *(f"key {number}" for number in range(9))]
WINDOWS = {
    "TUMBLE": ("TUMBLE(ts, INTERVAL '10' SECOND)", "TUMBLE_START(ts, INTERVAL '10' SECOND)"),
    "SESSION": ("SESSION(ts, INTERVAL '3' SECOND)", "SESSION_START(ts, INTERVAL '3' SECOND)"),
}


# The table that `state-transition-cdc.sql` reads.
TRANSITIONS = """
    CREATE TABLE fsm_state_transitions (
        id uuid PRIMARY KEY, entity_type varchar(64) NOT NULL, entity_id text NOT NULL,
        tenant_id text NOT NULL, from_state text NOT NULL, to_state text NOT NULL,
        triggered_by text, trigger_reason text, metadata jsonb, created_at timestamp NOT NULL
    );
    ALTER TABLE fsm_state_transitions OWNER TO ai_service;
"""


def steps_to_die_at(chance: random.Random, runs: int, most: int) -> list[int]:
    """A step for each of the runs, one of which is certain to come that far."""
    steps = [chance.randrange(most) for _ in range(runs)]
    steps[chance.randrange(runs)] = chance.randrange(CERTAIN_STEPS)
    return steps


@contextmanager
def job_processes() -> Iterator[subprocess.Popen[str]]:
    """What starts the processes of jobs."""
    with subprocess.Popen(
        [sys.executable, str(PROCESS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROCESS.parents[2])},
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def run_in_process(processes: subprocess.Popen[str], told: dict) -> dict:
    """Run a job, told as `stream_process` reads it; its exit code and what it did."""
    assert processes.stdin is not None
    assert processes.stdout is not None
    processes.stdin.write(json.dumps(told) + "\n")
    processes.stdin.flush()
    return json.loads(processes.stdout.readline())


@dataclass
class Job:
    """One topic, one table, one job, and what its table must hold."""

    server: KafkaServer
    processes: subprocess.Popen[str]
    topic: str
    home: Path
    kind: str = "TUMBLE"
    job: str = "job-1"
    parallelism: int | None = None  # None: without tasks
    side: bool = False
    more: str = ""  # options of the source table
    partitions: int = PARTITIONS

    def __post_init__(self) -> None:
        self.events: list[tuple[int, str | None, int]] = []
        self.ends = dict.fromkeys(range(self.partitions), 0)
        self.server.create_topic(self.topic, self.partitions)
        ddl = (
            "CREATE TABLE lake.s.r (k STRING, ws TIMESTAMP(3), n BIGINT, u BIGINT, total BIGINT) "
            "PARTITIONED BY (hour(ws));"
        )
        script = Script(Settings(home=self.home), {}, sys.stderr)
        script.prepare(parse_script(ddl, {}))
        script.create_tables()

    @property
    def sql(self) -> str:
        window, start = WINDOWS[self.kind]
        return (
            "CREATE TABLE t (k STRING, u STRING, v BIGINT, ts TIMESTAMP(3), "
            "WATERMARK FOR ts AS ts - INTERVAL '5' SECOND) WITH ('connector' = 'kafka', "
            f"'topic' = '{self.topic}', 'format' = 'json', 'properties.group.id' = 'g', "
            f"'properties.bootstrap.servers' = '{self.server.bootstrap}', "
            f"'scan.startup.mode' = 'earliest-offset'{self.more});"
            f"INSERT INTO lake.s.r SELECT k, {start}, COUNT(*), COUNT(DISTINCT u), SUM(v) "
            f"FROM t GROUP BY {window}, k"
        )

    def produce(self, events: list[tuple[int, str | None, int]], partition: int) -> None:
        """Events as (milliseconds, key, value)."""
        rows = [self.raw(event) for event in events]
        self.server.produce(self.topic, rows, partition)
        self.ends[partition] += len(rows)
        self.events += events

    @staticmethod
    def raw(event: tuple[int, str | None, int]) -> bytes:
        """An event's message."""
        at, key, value = event
        ts = (START + timedelta(milliseconds=at)).isoformat(" ", "milliseconds")
        return json.dumps({"k": key, "u": f"u{value % 7}", "v": value, "ts": ts}).encode()

    def produce_raw(self, values: list[bytes], partition: int) -> None:
        """Messages that are no events."""
        self.server.produce(self.topic, values, partition)
        self.ends[partition] += len(values)

    def produce_some(self, chance: random.Random, first_ms: int, count: int = 200) -> None:
        """Out of order in all partitions, by less than the watermark's delay."""
        for partition in self.ends:
            self.produce(
                [
                    (
                        first_ms + number * 200 + chance.randrange(4_000),
                        chance.choice(KEYS),
                        chance.randrange(100),
                    )
                    for number in range(count)
                ],
                partition,
            )

    def finish(self, at: int) -> None:
        """Rows of a time that closes all windows before it; they stay open themselves."""
        for partition in self.ends:
            self.produce([(at, "end", 0)], partition)

    def told(self, **more: object) -> dict:
        return {
            "home": str(self.home),
            "sql": self.sql,
            "checkpoints": str(self.home / f"checkpoints-{self.job}"),
            "job": self.job,
            "until": sum(self.ends.values()),
            "parallelism": self.parallelism,
            "side": self.side,
            **more,
        }

    def start(self, **more: object) -> dict:
        """Run the job in a process; its exit code and what it did."""
        return run_in_process(self.processes, self.told(**more))

    def complete(self, **more: object) -> dict:
        ended = self.start(**more)
        assert ended["code"] == 0, ended["error"]
        return ended

    def rejected(self) -> list[dict]:
        """The side table."""
        catalog = open_catalog(CatalogConfig.from_settings(Settings(home=self.home)))
        return catalog.load_table(("s", "r_rejected")).scan().to_arrow().to_pylist()

    def rows(self) -> list[tuple]:
        catalog = open_catalog(CatalogConfig.from_settings(Settings(home=self.home)))
        table = catalog.load_table(("s", "r")).scan().to_arrow()
        found = [tuple(row.values()) for row in table.to_pylist()]
        return sorted(found, key=repr)

    def expected(self) -> list[tuple]:
        """One event after the other; the windows of the last time are open."""
        groups = defaultdict(list)
        if self.kind == "TUMBLE":
            for at, key, value in self.events:
                groups[key, at - at % WINDOW_MS].append(value)
        else:
            last: dict[str | None, tuple[int, int]] = {}
            for at, key, value in sorted(self.events, key=lambda event: event[0]):
                start, end = last.get(key, (0, -1))
                start = start if at <= end else at
                last[key] = (start, at + 3_000)
                groups[key, start].append(value)
        return sorted(
            (
                (
                    key,
                    START + timedelta(milliseconds=start),
                    len(values),
                    len({value % 7 for value in values}),
                    sum(values),
                )
                for (key, start), values in groups.items()
                if key != "end"
            ),
            key=repr,
        )
