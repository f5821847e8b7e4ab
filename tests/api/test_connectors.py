"""Connectors over HTTP: tested before they are saved, discovered, changed with care, limited."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest

from matih_ray.control.building import endpoint_spec
from matih_ray.control.discovery import begin_discovery, run_discovery
from matih_ray.model.ids import EndpointId
from matih_ray.testing.fakes import MemorySource, RecordingLauncher
from tests.api.lab import PASSWORD, TABLES, TENANT, Lab, assert_problem, open_lab
from tests.api.test_endpoints import credential_files, files_with

DRAFT = {
    "name": "warehouse",
    "type": "MEMORY",
    "host": "acme.example.com",
    "port": 443,
    "database": "ANALYTICS",
    "schema": "PUBLIC",
    "credentials": {"username": "matih_reader", "password": PASSWORD},
    "sslEnabled": True,
    "metadata": {"tables": TABLES, "region": "us-east-1"},
}
FAILS = {"tables": TABLES, "failsAt": "test", "failsWith": "AUTHENTICATION_FAILED"}


def create(lab: Lab, **changes):
    headers = changes.pop("headers", {})
    return lab.client.request(
        "POST", lab.path("/connectors"), json={**DRAFT, **changes}, headers=headers
    )


@pytest.fixture
def connector_id(lab: Lab) -> str:
    created = create(lab)
    assert created.status_code == 201, created.text
    return created.json()["id"]


def show(lab: Lab, connector_id: str) -> dict:
    answer = lab.call("GET", f"/connectors/{connector_id}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def change(lab: Lab, connector_id: str, **changes):
    body = {
        name: value
        for name, value in {**DRAFT, **changes}.items()
        if name not in ("name", "type") and (name in changes or name != "credentials")
    }
    return lab.call("PUT", f"/connectors/{connector_id}", json=body)


def test_a_created_connector_is_tested_and_discovered(lab: Lab):
    created = create(lab)
    assert created.status_code == 201
    body = created.json()
    assert str(UUID(body["id"])) == body["id"]
    assert created.headers["location"] == f"connectors/{body['id']}"
    assert body == {
        "id": body["id"],
        "tenantId": TENANT,
        "name": "warehouse",
        "type": "MEMORY",
        "host": "acme.example.com",
        "port": 443,
        "database": "ANALYTICS",
        "schema": "PUBLIC",
        "credentialSecretName": f"connector-{body['id'][:8]}",
        "sslEnabled": True,
        "sslMode": "verify-full",
        "status": "ACTIVE",
        "lastTestedAt": body["lastTestedAt"],
        "lastTestResult": "Connection successful",
        "metadata": {
            "tables": TABLES,
            "region": "us-east-1",
            "user": "matih_reader",
            "failsAt": None,
            "failsWith": "CONNECTION_REFUSED",
        },
        "history": [
            {
                "testedAt": body["lastTestedAt"],
                "success": True,
                "latencyMs": 0.5,
                "errorCode": None,
            }
        ],
        "discovery": body["discovery"],
        "schemasDiscovered": 2,
        "tablesDiscovered": 3,
        "version": 1,
        "createdAt": body["createdAt"],
        "updatedAt": body["createdAt"],
    }
    assert body["discovery"]["state"] == "COMPLETED"
    assert show(lab, body["id"]) == body


def test_the_connector_is_the_endpoint_that_runs_use(running_lab: Lab):
    lab = running_lab
    connector_id = create(lab).json()["id"]
    started = lab.start(connector_id)
    assert started.status_code == 201, started.text
    run = lab.call("GET", f"/runs/{started.json()['runId']}").json()
    assert (run["state"], run["rows"]) == ("COMPLETED", 1000)
    assert lab.call("GET", f"/endpoints/{connector_id}").json()["name"] == "warehouse"


def test_credentials_are_stored_together_and_nowhere_else(lab: Lab, connector_id: str):
    spec = endpoint_spec(lab.ports, TENANT, EndpointId(connector_id))
    assert spec.secrets == {"username": "matih_reader", "password": PASSWORD}
    assert spec.config["user"] == "matih_reader"
    assert files_with(lab.ports.settings.home, PASSWORD) == []
    for path in ("", f"/{connector_id}", f"/{connector_id}/schemas"):
        assert PASSWORD not in lab.call("GET", f"/connectors{path}").text


@pytest.mark.parametrize(
    "code",
    [
        "CONNECTION_REFUSED",
        "AUTHENTICATION_FAILED",
        "SSL_HANDSHAKE_FAILED",
        "DATABASE_NOT_FOUND",
        "PERMISSION_DENIED",
        "TIMEOUT",
        "DNS_RESOLUTION_FAILED",
    ],
)
def test_a_connector_that_cannot_connect_is_not_saved(lab: Lab, code: str):
    response = create(lab, metadata={**FAILS, "failsWith": code})
    problem = assert_problem(response, 422, "CONNECTOR_TEST_FAILED")
    assert problem["context"]["errorCode"] == code
    assert problem["detail"].startswith("told to fail at test. ")
    assert lab.call("GET", "/connectors").json()["items"] == []
    assert credential_files(lab) == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"type": "COBOL"}, "type"),
        ({"type": "iceberg"}, "type"),
        ({"name": "a/b"}, "body.name"),
        ({"port": 0}, "body.port"),
        ({"sslMode": "maybe"}, "body.sslMode"),
        ({"sslMode": "disable"}, "sslMode"),
        ({"colour": 1}, "body.colour"),
        ({"metadata": {"tables": {"a": -1}}}, "config.tables.a"),
        ({"metadata": {"password": PASSWORD}}, "metadata.password"),
        ({"metadata": {"url": f"postgresql://u:{PASSWORD}@h/d"}}, "metadata.url"),
        ({"host": f"postgresql://u:{PASSWORD}@h/d"}, "metadata.host"),
        ({"credentials": {"passwort": PASSWORD}}, "secrets"),
    ],
)
def test_a_wrong_connector_is_refused_and_leaves_nothing(lab: Lab, changes: dict, field: str):
    response = create(lab, **changes)
    problem = assert_problem(response, 422, "VALIDATION_FAILED")
    assert problem["context"]["field"] == field
    assert PASSWORD not in response.text
    assert lab.call("GET", "/connectors").json()["items"] == []
    assert credential_files(lab) == []


def test_a_name_is_given_once(lab: Lab, connector_id: str):
    before = credential_files(lab)
    assert_problem(create(lab), 409, "CONFLICT")
    assert credential_files(lab) == before


def test_repeating_a_request_with_its_key_makes_one_connector(lab: Lab):
    key = {"Idempotency-Key": "k1"}
    first, second = create(lab, headers=key), create(lab, headers=key)
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.json() == first.json()
    assert len(lab.call("GET", "/connectors").json()["items"]) == 1
    other = create(lab, name="other", headers=key)
    assert_problem(other, 409, "CONFLICT")


def test_a_key_is_free_again_after_a_failure(lab: Lab):
    key = {"Idempotency-Key": "k1"}
    assert create(lab, metadata=FAILS, headers=key).status_code == 422
    assert create(lab, headers=key).status_code == 201


@pytest.mark.parametrize("key", ["", "k" * 256])
def test_a_key_has_a_length(lab: Lab, key: str):
    response = create(lab, headers={"Idempotency-Key": key})
    assert_problem(response, 422, "VALIDATION_FAILED")


def test_connectors_are_listed_in_pages_and_sinks_are_none(lab: Lab, tmp_path: Path):
    sink = {"uri": f"sqlite:///{tmp_path}/c.db", "warehouse": f"{tmp_path}/w"}
    body = {"name": "b-sink", "type": "iceberg", "config": sink}
    sink_id = lab.call("POST", "/endpoints", json=body).json()["endpointId"]
    for name in ("c", "a", "d"):
        assert create(lab, name=name).status_code == 201
    page = lab.call("GET", "/connectors?limit=2").json()
    assert [item["name"] for item in page["items"]] == ["a", "c"]
    last = lab.call("GET", f"/connectors{page['next']}").json()
    assert ([item["name"] for item in last["items"]], last["next"]) == (["d"], None)
    assert_problem(lab.call("GET", f"/connectors/{sink_id}"), 404, "NOT_FOUND")


def test_schemas_are_shown_in_the_shape_of_the_specification(lab: Lab, connector_id: str):
    body = lab.call("GET", f"/connectors/{connector_id}/schemas").json()
    assert body["connectorId"] == connector_id
    assert body["discoveredAt"] == body["discovery"]["discoveredAt"]
    assert [schema["name"] for schema in body["schemas"]] == ["public", "sales"]
    assert body["schemas"][0]["tables"][1] == {
        "name": "orders",
        "type": "TABLE",
        "unitId": "public.orders",
        "columns": 4,
        "estimatedRows": 1000,
        "sizeBytes": 40_000,
        "primaryKey": ["id"],
        "columnList": None,
    }
    detailed = lab.call("GET", f"/connectors/{connector_id}/schemas?columns=true&limit=1").json()
    [table] = detailed["schemas"][0]["tables"]
    assert [column["name"] for column in table["columnList"]] == ["id", "note", "score", "tags"]
    assert detailed["next"] == "?columns=true&offset=1&limit=1"


def test_a_second_discovery_tells_what_has_changed(lab: Lab, connector_id: str):
    tables = {"public.orders": 5, "public.new": 1}
    assert change(lab, connector_id, metadata={"tables": tables}).status_code == 200
    changes = show(lab, connector_id)["discovery"]["changes"]
    assert changes["added"] == ["public.new"]
    assert changes["removed"] == ["public.items", "sales.empty"]
    assert (changes["changed"], changes["changedTotal"]) == ([], 0)


def test_a_discovery_that_fails_leaves_the_catalog(lab: Lab, connector_id: str):
    # the test lists one unit, so a source that cannot describe them passes it
    failing = {"tables": TABLES, "failsAt": "describe", "failsWith": "TIMEOUT"}
    body = change(lab, connector_id, metadata=failing).json()
    assert body["status"] == "ACTIVE"
    assert body["discovery"]["state"] == "FAILED"
    assert body["discovery"]["error"]["code"] == "TIMEOUT"
    assert body["tablesDiscovered"] == 3
    shown = lab.call("GET", f"/connectors/{connector_id}/schemas").json()
    assert len(shown["schemas"][0]["tables"]) == 2
    again = lab.call("POST", f"/connectors/{connector_id}/discover")
    assert (again.status_code, again.json()["discovery"]["state"]) == (202, "FAILED")


def test_a_test_answers_in_the_shape_of_the_specification(lab: Lab, connector_id: str):
    answer = lab.call("POST", f"/connectors/{connector_id}/test")
    assert answer.status_code == 200
    body = answer.json()
    assert body["connectorId"] == connector_id
    assert (body["success"], body["latencyMs"], body["errorCode"]) == (True, 0.5, None)
    assert (body["serverVersion"], body["message"]) == ("Memory 1.0", "Connection successful")
    # this type has no host that could be probed
    assert {stage["name"]: stage["state"] for stage in body["stages"]} == {
        "dns": "SKIPPED",
        "tcp": "SKIPPED",
        "tls": "SKIPPED",
        "authentication": "PASSED",
        "database": "PASSED",
        "permission": "PASSED",
    }
    assert body["capabilities"] == {
        "connect": True,
        "list": True,
        "read": True,
        "incremental": True,
        "cdc": False,
    }
    assert show(lab, connector_id)["lastTestedAt"] == body["testedAt"]


@pytest.mark.parametrize(
    ("code", "stage"),
    [
        ("DNS_RESOLUTION_FAILED", "dns"),
        ("CONNECTION_REFUSED", "tcp"),
        ("PERMISSION_DENIED", "permission"),
    ],
)
def test_a_connector_whose_test_fails_later_is_in_error(lab: Lab, code: str, stage: str):
    endpoint_id = lab.endpoint(collect=False, failsAt="test", failsWith=code)
    body = lab.call("POST", f"/connectors/{endpoint_id}/test").json()
    assert (body["success"], body["errorCode"], body["latencyMs"]) == (False, code, None)
    assert [found["name"] for found in body["stages"] if found["state"] == "FAILED"] == [stage]
    assert body["remediation"]
    shown = show(lab, endpoint_id)
    assert (shown["status"], shown["lastTestResult"]) == ("ERROR", "told to fail at test")


def test_a_change_that_fails_its_test_changes_nothing(lab: Lab, connector_id: str):
    before, files = show(lab, connector_id), credential_files(lab)
    new = {"username": "other", "password": "other"}
    response = change(lab, connector_id, metadata=FAILS, credentials=new)
    assert_problem(response, 422, "CONNECTOR_TEST_FAILED")
    assert show(lab, connector_id) == before
    assert credential_files(lab) == files
    assert (
        endpoint_spec(lab.ports, TENANT, EndpointId(connector_id)).secrets["password"] == PASSWORD
    )


def test_a_change_without_credentials_keeps_the_stored_ones(lab: Lab, connector_id: str):
    body = change(lab, connector_id, host="other.example.com", sslEnabled=False).json()
    assert (body["host"], body["sslMode"], body["sslEnabled"]) == (
        "other.example.com",
        "disable",
        False,
    )
    spec = endpoint_spec(lab.ports, TENANT, EndpointId(connector_id))
    assert spec.secrets == {"username": "matih_reader", "password": PASSWORD}
    assert spec.config["user"] == "matih_reader"


def test_a_change_replaces_what_it_does_not_name(lab: Lab, connector_id: str):
    assert change(lab, connector_id, metadata={"region": "eu"}, schema=None).status_code == 200
    shown = show(lab, connector_id)
    assert (shown["schema"], shown["metadata"]["tables"]) == (None, {})
    assert (shown["metadata"]["region"], shown["metadata"]["user"]) == ("eu", "matih_reader")


def test_a_change_of_an_outdated_version_is_refused(lab: Lab, connector_id: str):
    assert_problem(change(lab, connector_id, version=7), 409, "STATE_CONFLICT")


def test_credentials_are_rotated_without_a_moment_without_any(lab: Lab, connector_id: str):
    new = {"credentials": {"username": "bob", "password": "new"}}
    changed = lab.call("PUT", f"/connectors/{connector_id}/credentials", json=new)
    assert changed.status_code == 200, changed.text
    assert changed.json()["metadata"]["region"] == "us-east-1"
    assert changed.json()["host"] == "acme.example.com"
    spec = endpoint_spec(lab.ports, TENANT, EndpointId(connector_id))
    assert spec.secrets == {"username": "bob", "password": "new"}
    assert spec.config["user"] == "bob"
    assert len(credential_files(lab)) == 1


def test_a_disabled_connector_is_inactive_until_it_is_enabled(lab: Lab, connector_id: str):
    assert change(lab, connector_id, status="INACTIVE").json()["status"] == "INACTIVE"
    assert_problem(lab.call("POST", f"/connectors/{connector_id}/discover"), 409, "CONFLICT")
    assert_problem(lab.start(connector_id), 409, "CONFLICT")
    assert change(lab, connector_id).json()["status"] == "INACTIVE"
    assert change(lab, connector_id, status="ACTIVE").json()["status"] == "ACTIVE"
    assert lab.start(connector_id).status_code == 201


def test_a_deleted_connector_leaves_no_credentials(lab: Lab, connector_id: str):
    assert lab.call("DELETE", f"/connectors/{connector_id}").status_code == 204
    assert_problem(lab.call("GET", f"/connectors/{connector_id}"), 404, "NOT_FOUND")
    assert credential_files(lab) == []


def test_people_are_told_when_two_tests_in_a_row_agree(lab: Lab):
    connector_id = lab.endpoint(collect=False)
    fails = {"config": {"failsAt": "test", "failsWith": "TIMEOUT"}}
    kinds = []
    # works, fails once, works, fails twice, fails, works once, fails, works twice
    for works in (True, False, True, False, False, False, True, False, True, True):
        body = {"config": {}} if works else fails
        assert lab.call("PUT", f"/endpoints/{connector_id}", json=body).status_code == 200
        assert lab.call("POST", f"/connectors/{connector_id}/test").json()["success"] is works
        found = lab.call("GET", "/notifications").json()["items"]
        kinds.append([item["kind"] for item in found])
    error, recovered = ["CONNECTOR_ERROR"], ["CONNECTOR_RECOVERED", "CONNECTOR_ERROR"]
    assert kinds == [[]] * 4 + [error] * 5 + [recovered]
    assert found[1]["test"]["errorCode"] == "TIMEOUT"
    assert found[1]["connectorId"] == connector_id
    assert len(show(lab, connector_id)["history"]) == 10


def limited(tmp_path: Path, tier: str):
    """A lab whose tenant has this plan."""
    tiers = json.dumps({TENANT: tier})
    return contextmanager(open_lab)(tmp_path / "home", RecordingLauncher(), tenant_tiers=tiers)


def test_the_free_plan_has_two_types_only(tmp_path: Path):
    with limited(tmp_path, "FREE") as lab:
        problem = assert_problem(create(lab), 403, "PLAN_LIMIT")
        assert problem["context"] == {"plan": "FREE", "type": "MEMORY"}


def test_a_plugins_type_needs_the_enterprise_plan(tmp_path: Path):
    with limited(tmp_path, "PROFESSIONAL") as lab:
        assert_problem(create(lab), 403, "PLAN_LIMIT")
        body = {"name": "x", "type": "MEMORY", "config": {}}
        assert_problem(lab.call("POST", "/endpoints", json=body), 403, "PLAN_LIMIT")


def test_creating_at_once_does_not_exceed_the_plan(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("matih_ray.control.tiers.FREE_TYPES", ("MEMORY",))
    with limited(tmp_path, "FREE") as lab:
        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(lambda number: create(lab, name=f"c{number}"), range(6)))
        statuses = sorted(answer.status_code for answer in answers)
        assert statuses == [201, 201, 403, 403, 403, 403]
        refused = next(answer for answer in answers if answer.status_code == 403)
        assert "FREE" in refused.json()["detail"]
        assert len(lab.call("GET", "/connectors").json()["items"]) == 2
        assert len(credential_files(lab)) == 2


def test_a_discovery_can_be_cancelled_and_leaves_the_catalog(lab: Lab, connector_id: str):
    metadata = lab.ports.metadata
    before = metadata.list_units(TENANT, EndpointId(connector_id))
    assert begin_discovery(lab.ports, TENANT, EndpointId(connector_id))
    assert show(lab, connector_id)["discovery"]["state"] == "RUNNING"
    change_source = metadata.get_endpoint(TENANT, EndpointId(connector_id))
    metadata.put_endpoint(
        change_source.model_copy(update={"config": {**change_source.config, "tables": {"a.b": 1}}})
    )
    cancelled = lab.call("DELETE", f"/connectors/{connector_id}/discover")
    assert cancelled.status_code == 200
    assert cancelled.json()["discovery"]["state"] == "CANCELLED"
    # the task that was under way comes to the end of its work
    run_discovery(lab.ports, TENANT, EndpointId(connector_id))
    assert show(lab, connector_id)["discovery"]["state"] == "CANCELLED"
    assert metadata.list_units(TENANT, EndpointId(connector_id)) == before
    again = lab.call("POST", f"/connectors/{connector_id}/discover").json()
    assert again["discovery"]["state"] == "COMPLETED"
    assert again["tablesDiscovered"] == 1


def test_a_discovery_is_cancelled_while_it_reads(lab: Lab, connector_id: str, monkeypatch):
    """Cancelled in the middle of its work, from elsewhere."""
    metadata, endpoint_id = lab.ports.metadata, EndpointId(connector_id)
    before = metadata.list_units(TENANT, endpoint_id)
    listed = MemorySource.list_units

    def list_and_cancel(source, context):
        assert lab.call("DELETE", f"/connectors/{connector_id}/discover").status_code == 200
        return listed(source, context)[:1]

    monkeypatch.setattr(MemorySource, "list_units", list_and_cancel)
    lab.call("POST", f"/connectors/{connector_id}/discover")
    assert show(lab, connector_id)["discovery"]["state"] == "CANCELLED"
    assert metadata.list_units(TENANT, endpoint_id) == before


def test_usage_counts_what_runs_have_read(running_lab: Lab):
    connector_id = create(running_lab).json()["id"]
    for unit_id in ("public.orders", "public.items"):
        assert running_lab.start(connector_id, unit_id).status_code == 201
    used = running_lab.call("GET", f"/connectors/{connector_id}/usage").json()
    assert (used["runs"], used["completedRuns"], used["rows"]) == (2, 2, 1050)
    assert used["lastUsedAt"] > used["since"]
    for days in (0, 100_000):
        answer = running_lab.call("GET", f"/connectors/{connector_id}/usage?days={days}")
        assert_problem(answer, 422, "VALIDATION_FAILED")
