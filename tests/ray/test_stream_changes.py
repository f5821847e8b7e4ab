"""`state-transition-cdc.sql` as it is, as a job on a cluster whose processes are killed, and whose
database restarts."""

from __future__ import annotations

import os
import signal
import uuid
from datetime import datetime
from pathlib import Path

import httpx
import ray

from matih_ray.control.ports import Ports
from matih_ray.sinks.iceberg.catalog import CatalogConfig, open_catalog
from matih_ray.streaming.runtime import NAMESPACE
from matih_ray.testing.devstack.postgres import PostgresServer
from serve_apps.local import LocalRuntime
from tests.ray.lab import TENANT
from tests.ray.test_connectors import http  # noqa: F401 a fixture
from tests.ray.test_stream_jobs import until

JOBS = Path(__file__).parents[2] / "jobs" / "sql"
AT = datetime(2026, 1, 1, 12, 30)  # noqa: DTZ001 - TIMESTAMP has no zone


def transitions(server: PostgresServer, database: str, first: int, last: int) -> None:
    """Rows first to last, in one transaction."""
    server.execute(
        "INSERT INTO fsm_state_transitions SELECT 'id' || lpad(n::text, 6, '0'), 'session_phase', "
        f"'e', 'acme', 'new', 'done', NULL, NULL, '{{}}', '{AT}' "
        f"FROM generate_series({first}, {last}) n",
        database,
    )


def test_the_archive_job_survives_its_process_and_the_database(
    runtime: LocalRuntime,
    ports: Ports,
    postgres: PostgresServer,
    http: httpx.Client,  # noqa: F811 a fixture
):
    database = f"ai_{uuid.uuid4().hex[:8]}"
    postgres.create_database(database)
    postgres.execute(
        "CREATE TABLE fsm_state_transitions (id text PRIMARY KEY, entity_type text, entity_id text,"
        " tenant_id text, from_state text, to_state text, triggered_by text, trigger_reason text, "
        "metadata jsonb, created_at timestamp)",
        database,
    )
    transitions(postgres, database, 1, 1000)
    ddl = (JOBS / "tables" / "state_transition_log.sql").read_text()
    body = {
        "name": "archive",
        "script": ddl + (JOBS / "state-transition-cdc.sql").read_text(),
        "options": {
            "fsm_transitions_cdc.hostname": postgres.host,
            "fsm_transitions_cdc.port": str(postgres.port),
            "fsm_transitions_cdc.database-name": database,
            "fsm_transitions_cdc.slot.name": database,
        },
        "checkpointIntervalS": 1,
    }
    answer = http.post("/jobs", json=body)
    assert answer.status_code == 201, answer.text
    (job,) = answer.json()
    path = f"/jobs/{job['jobId']}"

    def archived() -> list[str]:
        catalog = open_catalog(CatalogConfig.from_settings(ports.settings))
        table = catalog.load_table((str(TENANT), "matih_analytics", "state_transition_log"))
        return sorted(table.scan().to_arrow().column("transition_id").to_pylist())

    until(lambda: len(archived()) == 1000, "the snapshot in the table")
    epoch = http.get(path).json()["epoch"]
    actor = ray.get_actor(f"stream-{job['jobId']}-{epoch}", namespace=NAMESPACE)
    transitions(postgres, database, 1001, 1500)
    os.kill(ray.get(actor.ping.remote()), signal.SIGKILL)
    transitions(postgres, database, 1501, 2000)
    until(lambda: http.get(path).json()["epoch"] > epoch, "a new owner")
    until(lambda: len(archived()) >= 2000, "the rows behind the snapshot")
    transitions(postgres, database, 2001, 2500)
    postgres.stop("immediate")
    postgres.start()
    transitions(postgres, database, 2501, 3000)
    until(lambda: len(archived()) >= 3000, "the rows behind the restart")
    postgres.execute("DELETE FROM fsm_state_transitions WHERE id = 'id000001'", database)
    until(lambda: http.get(path).json()["progress"]["changedRows"] == 1, "the deleted row")
    assert archived() == [f"id{number:06}" for number in range(1, 3001)]
    assert "never-shown" not in http.get(path).text  # the password

    assert http.post(f"{path}/stop", json={}).status_code == 202
    until(lambda: http.get(path).json()["state"] == "FINISHED", "the end")
