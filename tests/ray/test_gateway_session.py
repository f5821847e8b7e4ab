"""A session of the SQL gateway from its beginning to its end, on a cluster."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from matih_ray.api.tokens import open_tokens
from matih_ray.control.authorization import Principal, Role
from matih_ray.control.ports import Ports, utc_now
from matih_ray.testing.devstack.kafka import KafkaServer
from serve_apps.local import LocalRuntime
from tests.ray.lab import TENANT
from tests.ray.test_stream_jobs import kafka, rows_of, until  # noqa: F401 a fixture

EVENTS = [{"n": n, "word": f"word {n}"} for n in range(2500)]


@pytest.fixture
def curl(runtime: LocalRuntime) -> Iterator[httpx.Client]:
    """What `curl -u any:$TOKEN` sends."""
    principal = Principal("ann", TENANT, frozenset({Role.DATA_ENGINEER}))
    token = open_tokens(runtime.settings).issue(principal, utc_now(), 600)
    with httpx.Client(base_url=runtime.url, auth=("any", token), timeout=60) as client:
        yield client


@dataclass
class Session:
    """A session, as a client has it."""

    curl: httpx.Client

    def __post_init__(self) -> None:
        told = self.curl.post("/v2/sessions", json={"sessionName": "first"}).json()
        self.path = f"/v2/sessions/{told['sessionHandle']}"

    def begin(self, statement: str) -> str:
        """The path of the operation."""
        answer = self.curl.post(f"{self.path}/statements", json={"statement": statement})
        assert answer.status_code == 200, answer.text
        return f"{self.path}/operations/{answer.json()['operationHandle']}"

    def run(self, statement: str) -> tuple[dict, list[list]]:
        """The first page, and the rows of all."""
        operation = self.begin(statement)

        def status() -> str:
            return self.curl.get(f"{operation}/status").json()["status"]

        until(lambda: status() != "RUNNING", statement)
        assert status() == "FINISHED", self.curl.get(f"{operation}/result/0?rowFormat=JSON").text
        page = first = self.curl.get(f"{operation}/result/0?rowFormat=JSON").json()
        rows = []
        while page["resultType"] == "PAYLOAD":
            rows += [row["fields"] for row in page["results"]["data"]]
            page = self.curl.get(page["nextResultUri"]).json()
        assert page["resultType"] == "EOS"
        return first, rows

    def job(self, statement: str) -> str:
        """The job that a statement starts."""
        page, ((job_id,),) = self.run(statement)
        assert page["jobID"] == job_id
        return job_id

    def state(self, job_id: str) -> str:
        return self.curl.get(f"/jobs/{job_id}/status").json()["status"]


def events(kafka: KafkaServer, name: str, bounded: str) -> str:  # noqa: F811
    return (
        f"CREATE TABLE {name} (n BIGINT, word STRING) WITH ('connector' = 'kafka', "
        f"'topic' = 'events', 'format' = 'json', 'scan.bounded.mode' = '{bounded}', "
        f"'properties.bootstrap.servers' = '{kafka.bootstrap}', "
        "'scan.startup.mode' = 'earliest-offset')"
    )


def test_a_session_declares_fills_asks_saves_and_cancels(
    runtime: LocalRuntime,
    ports: Ports,
    kafka: KafkaServer,  # noqa: F811
    curl: httpx.Client,
):
    kafka.create_topic("events", 2)
    kafka.produce("events", [json.dumps(event).encode() for event in EVENTS])
    session = Session(curl)
    for declared in (
        events(kafka, "past", "latest-offset"),
        events(kafka, "all_events", "unbounded"),
        "CREATE TABLE lake.streams.odd (n BIGINT, word STRING)",
    ):
        assert session.run(declared)[1] == [["OK"]]

    # a query runs on the cluster, in pages
    page, rows = session.run("SELECT n, word FROM past")
    assert page["isQueryResult"] is True
    assert len(page["results"]["data"]) == 1000
    assert sorted(rows) == [[event["n"], event["word"]] for event in EVENTS]
    assert len(session.run("SELECT n FROM past LIMIT 7")[1]) == 7

    # an INSERT is a job, which ends with its input
    filled = session.job(
        "INSERT INTO lake.streams.odd SELECT n, word FROM past WHERE MOD(n, 2) = 1"
    )
    until(lambda: session.state(filled) == "FINISHED", "the end of the job")
    odd = sorted((row["n"], row["word"]) for row in rows_of(ports.settings, "odd"))
    assert odd == [(event["n"], event["word"]) for event in EVENTS if event["n"] % 2]
    shown = {job["jid"]: job for job in curl.get("/jobs/overview").json()["jobs"]}
    assert shown[filled]["name"] == "insert-into_lake.streams.odd"
    assert shown[filled]["state"] == "FINISHED"

    # a table of a query
    made = session.job(
        "CREATE TABLE lake.streams.tens AS SELECT n * 10 AS ten FROM past WHERE n < 5"
    )
    until(lambda: session.state(made) == "FINISHED", "the end of the job")
    assert sorted(row["ten"] for row in rows_of(ports.settings, "tens")) == [0, 10, 20, 30, 40]

    # a job that goes on: saved, then cancelled
    session.run("SET 'execution.checkpointing.interval' = '1 s'")
    endless = session.job("CREATE TABLE lake.streams.copy AS SELECT n FROM all_events")
    until(lambda: len(rows_of(ports.settings, "copy")) >= len(EVENTS), "the rows")
    assert session.state(endless) == "RUNNING"
    asked = curl.post(f"/jobs/{endless}/savepoints", json={"cancel-job": False})
    assert asked.status_code == 202
    where = f"/jobs/{endless}/savepoints/{asked.json()['request-id']}"
    until(lambda: curl.get(where).json()["status"]["id"] == "COMPLETED", "the savepoint")
    assert "savepoint-" in curl.get(where).json()["operation"]["location"]
    assert sorted(row["n"] for row in rows_of(ports.settings, "copy")) == [
        event["n"] for event in EVENTS
    ]
    assert curl.patch(f"/jobs/{endless}?mode=cancel").status_code == 202
    until(lambda: session.state(endless) == "CANCELED", "the cancellation")

    # a query that nobody wants any more
    operation = session.begin("SELECT n FROM past")
    assert curl.post(f"{operation}/cancel").json()["status"] in ("CANCELED", "FINISHED")
    assert curl.request("DELETE", f"{operation}/close").json() == {"status": "CLOSED"}
    assert curl.request("DELETE", session.path).json() == {"status": "CLOSED"}
    assert session.state(filled) == "FINISHED"
