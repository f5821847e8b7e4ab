"""Jobs that are killed, fenced, restored: the table has every window once, and nothing else."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from matih_ray.errors import FencedError, StateConflictError, StateError
from matih_ray.settings import Settings
from matih_ray.sinks.iceberg.catalog import CatalogConfig, open_catalog
from matih_ray.streaming.connectors.catalog_tables import CatalogSink
from matih_ray.streaming.engine import Engine
from matih_ray.streaming.job import Script
from matih_ray.streaming.sql.script import parse_script
from matih_ray.testing.devstack.kafka import KafkaServer
from tests.integration.stream_process import engine_of

START = datetime(2026, 1, 1)  # noqa: DTZ001 - TIMESTAMP has no zone
PROCESS = Path(__file__).with_name("stream_process.py")
WAIT_S = 120
WINDOW_MS = 10_000
PARTITIONS = 3
WINDOWS = {
    "TUMBLE": ("TUMBLE(ts, INTERVAL '10' SECOND)", "TUMBLE_START(ts, INTERVAL '10' SECOND)"),
    "SESSION": ("SESSION(ts, INTERVAL '3' SECOND)", "SESSION_START(ts, INTERVAL '3' SECOND)"),
}
# A few by default; STREAM_SEEDS=50 is what was run before a release.
SEEDS = range(int(os.environ.get("STREAM_SEEDS", "4")))


@pytest.fixture(scope="module")
def server() -> Iterator[KafkaServer]:
    with KafkaServer() as server:
        yield server


@pytest.fixture(scope="module")
def processes() -> Iterator[subprocess.Popen[str]]:
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


@dataclass
class Job:
    """One topic, one table, one job, and what its table must hold."""

    server: KafkaServer
    processes: subprocess.Popen[str]
    topic: str
    home: Path
    kind: str = "TUMBLE"
    job: str = "job-1"

    def __post_init__(self) -> None:
        self.events: list[tuple[int, str | None, int]] = []
        self.ends = dict.fromkeys(range(PARTITIONS), 0)
        self.server.create_topic(self.topic, PARTITIONS)
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
            "'scan.startup.mode' = 'earliest-offset');"
            f"INSERT INTO lake.s.r SELECT k, {start}, COUNT(*), COUNT(DISTINCT u), SUM(v) "
            f"FROM t GROUP BY {window}, k"
        )

    def produce(self, events: list[tuple[int, str | None, int]], partition: int) -> None:
        """Events as (milliseconds, key, value)."""
        rows = []
        for at, key, value in events:
            ts = (START + timedelta(milliseconds=at)).isoformat(" ", "milliseconds")
            rows.append(json.dumps({"k": key, "u": f"u{value % 7}", "v": value, "ts": ts}).encode())
        self.server.produce(self.topic, rows, partition)
        self.ends[partition] += len(rows)
        self.events += events

    def produce_some(self, chance: random.Random, first_ms: int, count: int = 200) -> None:
        """Out of order in all partitions, by less than the watermark's delay."""
        for partition in range(PARTITIONS):
            self.produce(
                [
                    (
                        first_ms + number * 200 + chance.randrange(4_000),
                        chance.choice(["a", "b", None]),
                        chance.randrange(100),
                    )
                    for number in range(count)
                ],
                partition,
            )

    def finish(self, at: int) -> None:
        """Rows of a time that closes all windows before it; they stay open themselves."""
        for partition in range(PARTITIONS):
            self.produce([(at, "end", 0)], partition)

    def told(self, **more: object) -> dict:
        return {
            "home": str(self.home),
            "sql": self.sql,
            "checkpoints": str(self.home / f"checkpoints-{self.job}"),
            "job": self.job,
            "until": {f"{self.topic}/{number}": end for number, end in self.ends.items()},
            **more,
        }

    def start(self, **more: object) -> dict:
        """Run the job in a process; its exit code and what it did."""
        assert self.processes.stdin is not None
        assert self.processes.stdout is not None
        self.processes.stdin.write(json.dumps(self.told(**more)) + "\n")
        self.processes.stdin.flush()
        return json.loads(self.processes.stdout.readline())

    def complete(self, **more: object) -> dict:
        ended = self.start(**more)
        assert ended["code"] == 0, ended["error"]
        return ended

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


@pytest.fixture
def job(
    server: KafkaServer,
    processes: subprocess.Popen[str],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> Job:
    name = request.node.name.translate(str.maketrans("[]", "--"))
    return Job(server, processes, name, tmp_path)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", WINDOWS)
def test_a_job_that_is_killed_anywhere_writes_every_window_once(
    job: Job, kind: str, seed: int, tmp_path: Path
):
    chance = random.Random(f"{kind} {seed}")
    job.kind = kind
    kills = 0
    for turn in range(3):
        job.produce_some(chance, turn * 40_000)
        die_at = chance.randrange(14)
        ended = job.start(die_at=die_at)
        print(f"seed {seed}, turn {turn}, died at {die_at}: {ended['code']}")
        assert ended["code"] in (0, -signal.SIGKILL), ended
        kills += ended["code"] != 0
    job.finish(400_000)
    assert job.complete()["late"] == 0
    assert kills > 0
    assert job.rows() == job.expected()


@pytest.mark.parametrize(
    "step", ["opened", "preparing", "writing", "written", "committed", "recovering", "recovered"]
)
def test_a_job_that_is_killed_at_a_step_goes_on(job: Job, step: str):
    job.produce_some(random.Random(step), 0)
    if step.startswith("recover"):
        job.start(die_at=6, die_in="written")
    # the second time: there is something in the files, and not only the beginning
    die_at = 0 if step in ("opened", "recovering", "recovered") else 6
    assert job.start(die_at=die_at, die_in=step)["code"] == -signal.SIGKILL
    job.finish(400_000)
    job.complete()
    assert job.rows() == job.expected()


def test_a_closed_window_stays_closed_after_a_restore(job: Job):
    for partition in range(PARTITIONS):
        job.produce([(1_000, "a", 1), (30_000, "a", 2)], partition)
    assert job.complete()["late"] == 0
    before = job.rows()
    assert len(before) == 1
    job.produce([(2_000, "a", 5)], 0)  # of the window that is closed
    job.events.pop()
    assert job.complete()["late"] == 1
    assert job.rows() == before


def test_a_zombie_is_fenced_and_leaves_nothing(job: Job):
    """An owner that was only slow goes on when another one has begun."""
    job.produce_some(random.Random(0), 0)
    arrived, go_on = threading.Event(), threading.Event()
    zombie = engine_of(job.told())
    failed: list[Exception] = []

    def at_step(name: str) -> None:
        if name == "written" and zombie.pipeline.counts.read:
            arrived.set()
            go_on.wait(WAIT_S)

    def work() -> None:
        try:
            zombie.run()
        except FencedError as error:
            failed.append(error)

    zombie.at_step = at_step
    thread = threading.Thread(target=work)
    thread.start()
    assert arrived.wait(WAIT_S)
    job.complete()
    go_on.set()
    thread.join(WAIT_S)
    assert len(failed) == 1
    job.finish(400_000)
    job.complete()
    assert job.rows() == job.expected()


def test_a_savepoint_starts_another_job_behind_it(job: Job):
    job.produce_some(random.Random(1), 0)
    saved = job.complete(savepoints=str(job.home / "savepoints"))["saved"]
    job.produce_some(random.Random(2), 40_000)
    job.finish(400_000)
    job.job = "job-2"
    job.complete(savepoint=saved[0])
    assert job.rows() == job.expected()


def test_state_of_another_query_is_refused(job: Job):
    job.produce_some(random.Random(1), 0)
    job.complete()
    told = job.told()
    told["sql"] = told["sql"].replace("SUM(v)", "MAX(v)")
    with pytest.raises(StateConflictError, match="another query"):
        engine_of(told).run()


def test_a_job_without_its_checkpoints_does_not_start_over(job: Job):
    job.produce_some(random.Random(1), 0)
    job.complete()
    told = job.told(checkpoints=str(job.home / "elsewhere"))
    with pytest.raises(StateError, match="no checkpoint of it is left"):
        engine_of(told).run()


def test_a_lost_commit_reply_does_not_write_twice(job: Job, monkeypatch: pytest.MonkeyPatch):
    """The commit was applied, and its answer never came."""
    job.produce_some(random.Random(1), 0)
    engine = engine_of(job.told())
    commit, lost = CatalogSink.commit, []

    def losing(sink: CatalogSink, prepared) -> None:
        commit(sink, prepared)
        if engine.pipeline.counts.read and not lost:
            lost.append(1)
            raise ConnectionResetError("the answer is lost")

    monkeypatch.setattr(CatalogSink, "commit", losing)
    with pytest.raises(ConnectionResetError):
        engine.run()
    assert lost
    job.finish(400_000)
    job.complete()
    assert job.rows() == job.expected()


def test_the_last_checkpoints_are_kept_and_older_ones_removed(job: Job):
    job.produce_some(random.Random(1), 0)
    for _ in range(3):
        job.complete()
    engine: Engine = engine_of(job.told())
    assert engine.directory is not None
    names = engine.directory.names()
    assert len(names) == 3
    metadata = engine.directory.metadata(names[0])
    assert metadata is not None
    assert metadata.epoch == 3
    assert metadata.counts["read"] == 600
    assert metadata.marker is not None
