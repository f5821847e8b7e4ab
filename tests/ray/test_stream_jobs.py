"""Streaming jobs on a cluster: submitted, killed, brought back, saved, stopped."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import httpx
import pytest
import ray

from matih_ray.control.ports import Ports
from matih_ray.model.ids import TenantId
from matih_ray.sinks.iceberg.catalog import CatalogConfig, open_catalog
from matih_ray.streaming.runtime import NAMESPACE
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


def until(look: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + GIVE_UP_AFTER_S
    while not look():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.3)


def table_rows(ports: Ports) -> list[tuple[datetime, int, int]]:
    catalog = open_catalog(CatalogConfig.from_settings(ports.settings))
    rows = catalog.load_table((str(TENANT), "streams", "minutes")).scan().to_arrow().to_pylist()
    return sorted(tuple(row.values()) for row in rows)


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
    assert [one["state"] for one in http.get("/jobs").json()["items"]] == ["CANCELED", "FINISHED"]


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("INSERT INTO lake.a.b SELECT 1", "SQL_NOT_SUPPORTED"),
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
    ids=["from", "word", "column", "secret", "file", "print"],
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
