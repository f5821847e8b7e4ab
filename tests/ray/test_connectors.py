"""Connectors on a cluster: tests and discoveries are tasks, and hanging servers harm nobody."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from datetime import timedelta

import httpx
import pytest

from matih_ray.api.tokens import open_tokens
from matih_ray.control.authorization import Principal, Role
from matih_ray.control.discovery import changed_state
from matih_ray.control.ports import utc_now
from matih_ray.execution import health_sweep, source_calls
from matih_ray.execution.health_sweep import sweep_connectors
from matih_ray.execution.source_calls import RaySourceCalls
from matih_ray.model.connector import StageState
from matih_ray.model.ids import EndpointId
from matih_ray.settings import Settings
from matih_ray.testing.devstack.postgres import PostgresServer
from serve_apps.local import LocalRuntime
from tests.ray.lab import TENANT, Lab, create_table


def client_of(settings: Settings, url: str) -> httpx.Client:
    """A data engineer's client of the real API."""
    principal = Principal("ann", TENANT, frozenset({Role.DATA_ENGINEER}))
    token = open_tokens(settings).issue(principal, utc_now(), 1800)
    return httpx.Client(
        base_url=f"{url}/api/v1/tenants/{TENANT}",
        headers={"Authorization": f"Bearer {token}"},
        timeout=60,
    )


@pytest.fixture
def http(runtime: LocalRuntime) -> Iterator[httpx.Client]:
    """A client of the session's runtime."""
    with client_of(runtime.settings, runtime.url) as client:
        yield client


def draft(lab: Lab, **changes: object) -> dict[str, object]:
    return {
        "name": f"c_{lab.database}",
        "type": "POSTGRESQL",
        "host": lab.server.host,
        "port": lab.server.port,
        "database": lab.database,
        "credentials": {"username": lab.server.user},
        "sslEnabled": False,
        **changes,
    }


def test_a_connector_goes_from_creation_to_rows_in_a_table(lab: Lab, http: httpx.Client) -> None:
    create_table(lab.server, lab.database, "t", rows=20_000)
    created = http.post("/connectors", json=draft(lab))
    assert created.status_code == 201, created.text
    connector = created.json()
    assert (connector["status"], connector["tablesDiscovered"]) == ("ACTIVE", 1)
    body = {"endpointId": connector["id"], "unitId": "public.t"}
    started = http.post("/runs", json=body).json()
    run = lab.wait(started["runId"])
    assert run.rows == 20_000
    assert lab.sink_rows(run) == lab.source_rows("t")
    lab.server.execute("ALTER TABLE t ADD COLUMN extra int; CREATE TABLE u (id int)", lab.database)
    again = http.post(f"/connectors/{connector['id']}/discover")
    assert again.status_code == 202
    deadline = time.monotonic() + 60
    while (found := http.get(f"/connectors/{connector['id']}").json()["discovery"])[
        "state"
    ] == "RUNNING":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert found["changes"]["added"] == ["public.u"]
    assert found["changes"]["changed"] == ["public.t"]
    assert http.delete(f"/connectors/{connector['id']}").status_code == 204


@pytest.mark.parametrize(
    ("changes", "code", "stage"),
    [
        ({"host": "no-such-host.invalid"}, "DNS_RESOLUTION_FAILED", "dns"),
        ({"port": 1}, "CONNECTION_REFUSED", "tcp"),
        ({"sslEnabled": True}, "SSL_HANDSHAKE_FAILED", "tls"),
        ({"credentials": {"username": "nobody"}}, "AUTHENTICATION_FAILED", "authentication"),
        ({"database": "nowhere"}, "DATABASE_NOT_FOUND", "database"),
        ({"host": "169.254.169.254"}, "HOST_NOT_ALLOWED", "dns"),
    ],
)
def test_a_connector_that_cannot_connect_says_how_far_it_got(
    lab: Lab, http: httpx.Client, changes: dict[str, object], code: str, stage: str
) -> None:
    refused = http.post("/connectors", json=draft(lab, **changes))
    assert refused.status_code == 422, refused.text
    assert refused.json()["context"] == {"errorCode": code, "stage": stage}
    names = [item["name"] for item in http.get("/connectors?limit=500").json()["items"]]
    assert f"c_{lab.database}" not in names


def test_a_test_that_hangs_is_killed(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_calls, "TEST_DEADLINE", timedelta(seconds=3))
    record = lab.ports.metadata.get_endpoint(TENANT, lab.endpoint_id)
    with socket.socket() as listener:  # accepts and never says a word
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        silent = {**record.config, "port": listener.getsockname()[1], "connectTimeoutS": 60}
        outcome = RaySourceCalls(lab.ports.settings).test(
            lab.ports, record.model_copy(update={"config": silent})
        )
    assert (outcome.success, outcome.error_code) == (False, "TIMEOUT")
    assert StageState.FAILED in [stage.state for stage in outcome.stages]


def due_now(lab: Lab, connector_id: str) -> None:
    """Let the connector's health check be due."""
    past = utc_now() - timedelta(days=1)
    changed_state(
        lab.ports,
        TENANT,
        EndpointId(connector_id),
        lambda state: state.model_copy(update={"due_at": past}),
    )


def test_a_server_that_goes_and_comes_back_is_noticed(lab: Lab, http: httpx.Client) -> None:
    with PostgresServer() as server:
        where = {"port": server.port, "database": "postgres"}
        created = http.post("/connectors", json=draft(lab, **where))
        assert created.status_code == 201, created.text
        connector_id = created.json()["id"]
        for _ in range(2):
            server.stop()
            for _ in range(2):
                due_now(lab, connector_id)
                sweep_connectors(lab.ports.settings, lab.ports)
            assert http.get(f"/connectors/{connector_id}").json()["status"] == "ERROR"
            server.start()
            for _ in range(2):
                due_now(lab, connector_id)
                sweep_connectors(lab.ports.settings, lab.ports)
            assert http.get(f"/connectors/{connector_id}").json()["status"] == "ACTIVE"
        kinds = [
            item["kind"]
            for item in http.get("/notifications").json()["items"]
            if item["connectorId"] == connector_id
        ]
        assert kinds == ["CONNECTOR_RECOVERED", "CONNECTOR_ERROR"] * 2
        assert http.delete(f"/connectors/{connector_id}").status_code == 204


def test_checks_that_hang_are_killed_and_have_failed(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_sweep, "BATCH_DEADLINE_S", 5.0)
    record = lab.ports.metadata.get_endpoint(TENANT, lab.endpoint_id)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        silent = {**record.config, "port": listener.getsockname()[1], "connectTimeoutS": 60}
        lab.ports.metadata.put_endpoint(record.model_copy(update={"config": silent}))
        due_now(lab, record.endpoint_id)
        sweep_connectors(lab.ports.settings, lab.ports)
    state = lab.ports.metadata.get_connector_state(TENANT, record.endpoint_id)
    assert state is not None
    assert state.last_test is not None
    assert state.last_test.error_code == "TIMEOUT"
    lab.ports.metadata.delete_endpoint(TENANT, record.endpoint_id)
