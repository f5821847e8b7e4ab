"""Streaming jobs on a cluster: submitted, killed, brought back, saved, stopped."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

import httpx
import psutil
import pytest
import ray

from matih_ray.control.ports import Ports
from matih_ray.model.ids import TenantId
from matih_ray.settings import Settings
from matih_ray.sinks.iceberg.catalog import CatalogConfig, open_catalog
from matih_ray.streaming.runtime import NAMESPACE, SUPERVISOR
from matih_ray.testing.devstack.kafka import KafkaServer
from serve_apps.local import LocalRuntime
from tests.ray.lab import TENANT
from tests.ray.test_connectors import http  # noqa: F401 a fixture

START = datetime(2026, 1, 1)  # noqa: DTZ001 - TIMESTAMP has no zone
GIVE_UP_AFTER_S = 120
SCRIPT = """
CREATE TABLE lake.streams.minutes (at TIMESTAMP(3), n BIGINT, total BIGINT);
CREATE TABLE t (v BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '1' SECOND) WITH (
  'connector' = 'kafka', 'topic' = 'numbers', 'format' = 'json',
  'properties.bootstrap.servers' = 'elsewhere:9092', 'scan.startup.mode' = 'earliest-offset'
);
INSERT INTO lake.streams.minutes
SELECT TUMBLE_START(ts, INTERVAL '1' MINUTE), COUNT(*), SUM(v)
FROM t GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE);
"""


@pytest.fixture(scope="module")
def kafka() -> Iterator[KafkaServer]:
    with KafkaServer() as server:
        server.create_topic("numbers")
        yield server


def minutes(kafka: KafkaServer, first: int, last: int) -> None:
    """Sixty rows for each minute."""
    rows = [
        {"v": second, "ts": (START + timedelta(seconds=second)).isoformat(" ", "milliseconds")}
        for second in range(first * 60, last * 60)
    ]
    kafka.produce("numbers", [json.dumps(row).encode() for row in rows])


def until(
    look: Callable[[], object], what: str, instead: Callable[[], object] = lambda: ""
) -> None:
    deadline = time.monotonic() + GIVE_UP_AFTER_S
    while not look():
        assert time.monotonic() < deadline, f"never: {what}; {instead()}"
        time.sleep(0.3)


def rows_of(settings: Settings, table: str) -> list[dict]:
    catalog = open_catalog(CatalogConfig.from_settings(settings))
    return catalog.load_table((str(TENANT), "streams", table)).scan().to_arrow().to_pylist()


def table_rows(ports: Ports) -> list[tuple[datetime, int, int]]:
    return sorted(tuple(row.values()) for row in rows_of(ports.settings, "minutes"))


def expected(first: int, last: int) -> list[tuple[datetime, int, int]]:
    return [
        (START + timedelta(minutes=minute), 60, sum(range(minute * 60, minute * 60 + 60)))
        for minute in range(first, last)
    ]


def test_a_job_survives_its_process_and_is_stopped_with_a_savepoint(
    runtime: LocalRuntime,
    ports: Ports,
    kafka: KafkaServer,
    http: httpx.Client,  # noqa: F811 a fixture
):
    body = {
        "name": "minutes",
        "script": SCRIPT,
        "options": {"t.properties.bootstrap.servers": kafka.bootstrap},
        "checkpointIntervalS": 1,
    }
    answer = http.post("/jobs", json=body)
    assert answer.status_code == 201, answer.text
    (job,) = answer.json()
    path = f"/jobs/{job['jobId']}"

    def shown() -> dict:
        return http.get(path).json()

    minutes(kafka, 0, 10)
    until(lambda: len(table_rows(ports)) >= 9, "nine minutes in the table")
    assert shown()["state"] == "RUNNING"
    for round_ in range(2):
        epoch = shown()["epoch"]
        actor = ray.get_actor(f"stream-{job['jobId']}-{epoch}", namespace=NAMESPACE)
        os.kill(ray.get(actor.ping.remote()), signal.SIGKILL)
        minutes(kafka, 10 + 10 * round_, 20 + 10 * round_)
        until(lambda old=epoch: shown()["epoch"] > old, "a new owner")
        until(lambda n=19 + 10 * round_: len(table_rows(ports)) >= n, "the next minutes")
    assert table_rows(ports) == expected(0, 29)
    assert shown()["restarts"] == 2

    assert http.post(f"{path}/stop", json={}).status_code == 202
    until(lambda: shown()["state"] == "FINISHED", "the end")
    (savepoint,) = shown()["savepoints"]
    assert savepoint["state"] == "COMPLETED"
    assert http.post(f"{path}/cancel").status_code == 409

    minutes(kafka, 30, 40)
    answer = http.post("/jobs", json={**body, "savepointPath": savepoint["path"]})
    assert answer.status_code == 201, answer.text
    until(lambda: len(table_rows(ports)) >= 39, "the minutes behind the savepoint")
    assert table_rows(ports) == expected(0, 39)
    again = f"/jobs/{answer.json()[0]['jobId']}"
    assert http.post(f"{again}/cancel").status_code == 202
    until(lambda: http.get(again).json()["state"] == "CANCELED", "the cancellation")
    states = {one["jobId"]: one["state"] for one in http.get("/jobs").json()["items"]}
    assert states[job["jobId"]] == "FINISHED"
    assert states[answer.json()[0]["jobId"]] == "CANCELED"


@dataclass
class Killed:
    """A parallel job that counts by key, whose processes are killed while rows come."""

    http: httpx.Client
    settings: Settings
    kafka: KafkaServer
    chance: random.Random
    topic: str

    def __post_init__(self) -> None:
        self.events: list[tuple[int, int]] = []  # second, key
        self.bad = 0
        self.kafka.create_topic(self.topic, 3)
        ddl = f"CREATE TABLE lake.streams.{self.topic} (at TIMESTAMP(3), k INT, n BIGINT);"
        script = SCRIPT.partition("CREATE TABLE t")[2].partition("INSERT")[0]
        self.body = {
            "name": self.topic,
            "script": f"{ddl} CREATE TABLE t{script.replace('v BIGINT', 'v INT')} INSERT INTO "
            f"lake.streams.{self.topic} SELECT TUMBLE_START(ts, INTERVAL '1' MINUTE), v, COUNT(*) "
            "FROM t GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE), v",
            "options": {
                "t.properties.bootstrap.servers": self.kafka.bootstrap,
                "t.topic": self.topic,
            },
            "checkpointIntervalS": 1,
            "parallelism": 2,
        }
        (self.job,) = self.http.post("/jobs", json=self.body).json()

    def produce(self, first: int, last: int) -> None:
        """These minutes, in all partitions, with one message that is none."""
        for partition in range(3):
            events = [
                (second, self.chance.randrange(20)) for second in range(first * 60, last * 60, 2)
            ]
            rows = [
                json.dumps({"v": key, "ts": str(START + timedelta(seconds=second))}).encode()
                for second, key in events
            ]
            self.kafka.produce(self.topic, [*rows, b"{no"], partition)
            self.events += events
            self.bad += 1

    def shown(self) -> dict:
        """What the API tells of the job, as soon as it tells anything."""
        found: list[httpx.Response] = []

        def answers() -> bool:
            with suppress(httpx.TransportError):
                found.append(self.http.get(self.path))
            return bool(found) and found[-1].status_code == 200

        until(answers, "an answer")
        return found[-1].json()

    @property
    def path(self) -> str:
        return f"/jobs/{self.job['jobId']}"

    def kill_replica(self) -> None:
        """Kill the process that answers requests."""
        (replica,) = replicas()
        print(f"replica {replica.pid} dies")
        replica.kill()
        until(lambda: replicas() not in ([], [replica]), "another replica")

    def kill_within_savepoint(self) -> None:
        """Kill a worker as soon as a savepoint was asked for, which then is whole or failed."""
        answer = self.http.post(f"{self.path}/savepoints", json={})
        assert answer.status_code == 202, answer.text
        self.kill("worker")
        until(
            lambda: self.shown()["savepoints"][-1]["state"] in ("COMPLETED", "FAILED"),
            "the end of a savepoint",
            self.shown,
        )

    def kill(self, victim: str) -> None:
        """Kill the committer, a worker or the supervisor, whatever it does just now."""
        worker = self.chance.randrange(2)
        found: list[tuple[int, str, int]] = []

        def alive() -> bool:
            # an owner may be followed by another just now, which has other names
            epoch = self.shown()["epoch"]
            owner = f"stream-{self.job['jobId']}-{epoch}"
            names = {"committer": owner, "supervisor": SUPERVISOR}
            name = names.get(victim, f"{owner}-worker-{worker}")
            if (pid := actor_pid(name)) is not None:
                found.append((epoch, name, pid))
            return bool(found)

        until(alive, f"the {victim}", self.shown)
        epoch, name, pid = found[0]
        print(f"{victim} {name}: {pid} dies")
        os.kill(pid, signal.SIGKILL)
        if victim != "supervisor":
            until(lambda: self.shown()["epoch"] > epoch, "a new owner")

    def expected(self, before: int) -> list[tuple[datetime, int, int]]:
        """The windows before a minute."""
        counts = Counter((second // 60, key) for second, key in self.events)
        return sorted(
            (START + timedelta(minutes=minute), key, count)
            for (minute, key), count in counts.items()
            if minute < before
        )

    def rows(self) -> list[tuple[datetime, int, int]]:
        return sorted(tuple(row.values()) for row in rows_of(self.settings, self.topic))


def actor_pid(name: str) -> int | None:
    """The process of an actor, None while it has none."""
    try:
        actor = ray.get_actor(name, namespace=NAMESPACE)
        return int(ray.get(actor.ping.remote(), timeout=GIVE_UP_AFTER_S))
    except (ValueError, ray.exceptions.RayActorError):
        return None


def replicas() -> list[psutil.Process]:
    """The processes of the control API, of the runtime that this process has."""
    return [
        one
        for one in psutil.Process().children(recursive=True)
        if title_of(one).startswith("ray::ServeReplica:control")
    ]


def title_of(process: psutil.Process) -> str:
    try:
        return "".join(process.cmdline()[:1])
    except psutil.Error:  # it has just ended
        return ""


# STREAM_SEEDS=50 tries as many kills at random points.
@pytest.mark.parametrize("seed", range(int(os.environ.get("STREAM_SEEDS", "1"))))
def test_a_parallel_job_writes_every_window_once_whatever_is_killed(
    runtime: LocalRuntime,
    ports: Ports,
    kafka: KafkaServer,
    http: httpx.Client,  # noqa: F811 a fixture
    seed: int,
):
    chance = random.Random(seed)
    victims = [
        "worker", "committer", "broker", "supervisor", "worker", "replica", "within a savepoint",
    ]  # fmt: skip
    chance.shuffle(victims)
    job = Killed(http, ports.settings, kafka, chance, f"killed{seed}")
    for turn, victim in enumerate(victims):
        job.produce(turn * 10, turn * 10 + 10)
        written = chance.randrange(turn * 10 + 1)  # anywhere between reading and the last commit
        until(
            lambda n=written: len({row[0] for row in job.rows()}) >= n,
            f"{written} minutes",
            job.shown,
        )
        if victim == "broker":
            kafka.kill()
            kafka.start()
        elif victim == "replica":
            job.kill_replica()
        elif victim == "within a savepoint":
            job.kill_within_savepoint()
        else:
            job.kill(victim)
    job.produce(70, 72)
    expected = job.expected(71)
    until(lambda: len(job.rows()) >= len(expected), "all windows", job.shown)
    until(lambda: job.shown()["progress"]["rejectedRows"] == job.bad, "all that is left out")
    assert http.post(f"/jobs/{job.job['jobId']}/stop", json={}).status_code == 202
    until(lambda: job.shown()["state"] == "FINISHED", "the end")
    assert job.rows() == expected
    rejected = rows_of(ports.settings, f"{job.topic}_rejected")
    assert len(rejected) == job.bad
    assert {(row["reason"], row["payload"]) for row in rejected} == {("UNREADABLE", "{no")}
    assert len({(row["partition"], row["offset"]) for row in rejected}) == job.bad
    progress = job.shown()["progress"]
    assert (progress["rowsIn"], progress["lateRows"]) == (len(job.events), 0)


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("INSERT INTO lake.a.b SELECT n FROM lake.a.c", "NOT_FOUND"),
        ("SELEKT", "SQL_NOT_SUPPORTED"),
        (SCRIPT.replace("SUM(v)", "SUM(nothing)"), "SQL_INVALID"),
        (
            SCRIPT.replace("'format'", "'properties.sasl.password' = 'open', 'format'"),
            "SQL_INVALID",
        ),
        (
            SCRIPT.replace("'kafka'", "'filesystem', 'path' = '/etc/passwd'"),
            "FORBIDDEN",
        ),
        ("CREATE TABLE x (a INT) WITH ('connector' = 'print')", "SQL_INVALID"),
    ],
    ids=["target", "word", "column", "secret", "file", "print"],
)
def test_what_cannot_run_is_refused_when_it_is_submitted(
    runtime: LocalRuntime,
    http: httpx.Client,  # noqa: F811 a fixture
    script: str,
    code: str,
):
    answer = http.post("/jobs", json={"name": "x", "script": script})
    assert answer.json()["code"] == code, answer.text


def test_savepoints_of_others_are_out_of_reach(
    runtime: LocalRuntime,
    ports: Ports,
    http: httpx.Client,  # noqa: F811 a fixture
):
    home = ports.settings.home
    for path in (f"{home}/streams/other/savepoints/x", f"{home}/streams/{TENANT}/../other/x"):
        body = {"name": "x", "script": SCRIPT, "savepointPath": path}
        assert http.post("/jobs", json=body).json()["code"] == "FORBIDDEN"
    assert TenantId("other") != TENANT
