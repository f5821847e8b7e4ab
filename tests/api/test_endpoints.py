"""Endpoints over HTTP: stored without their secrets, changed as a whole, deleted with care."""

from __future__ import annotations

from pathlib import Path

import pytest

from matih_ray.control.building import endpoint_spec
from matih_ray.model.ids import EndpointId
from matih_ray.model.run import RunState
from tests.api.lab import PASSWORD, TABLES, TENANT, Lab, assert_problem


def files_with(directory: Path, text: str) -> list[Path]:
    return [
        path
        for path in directory.rglob("*")
        if path.is_file() and text.encode() in path.read_bytes()
    ]


def credential_files(lab: Lab) -> list[Path]:
    return list((lab.ports.settings.home / "credentials" / TENANT).glob("[!.]*"))


def test_an_endpoint_is_shown_without_its_secrets(lab: Lab):
    endpoint_id = lab.endpoint()
    shown = lab.call("GET", f"/endpoints/{endpoint_id}")
    assert shown.json() == {
        "endpointId": endpoint_id,
        "tenantId": TENANT,
        "name": "shop",
        "type": "MEMORY",
        "config": {
            "tables": TABLES,
            "failsAt": None,
            "failsWith": "CONNECTION_REFUSED",
            "user": "reader",
        },
        "hasSecrets": True,
        "version": 1,
        "createdAt": shown.json()["createdAt"],
        "updatedAt": shown.json()["createdAt"],
    }


def test_secrets_are_stored_where_no_file_shows_them(lab: Lab):
    endpoint_id = lab.endpoint()
    assert files_with(lab.ports.settings.home, PASSWORD) == []
    spec = endpoint_spec(lab.ports, TENANT, EndpointId(endpoint_id))
    assert spec.secrets == {"password": PASSWORD}
    assert PASSWORD not in repr(spec)


def test_a_created_endpoint_says_where_it_is(lab: Lab):
    body = {"name": "a", "type": "MEMORY", "config": {}}
    created = lab.call("POST", "/endpoints", json=body)
    assert created.headers["location"] == f"endpoints/{created.json()['endpointId']}"
    assert created.json()["hasSecrets"] is False
    assert credential_files(lab) == []


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"type": "COBOL"}, "type"),
        ({"type": "iceberg\n[red]"}, "type"),
        ({"name": ""}, "body.name"),
        ({"name": "a/b"}, "body.name"),
        ({"name": " a"}, "body.name"),
        ({"name": "a\x1b[31m"}, "body.name"),
        ({"config": {"tables": {"a": -1}}}, "config.tables.a"),
        ({"config": {"colour": 1}}, "config.colour"),
        ({"config": {"password": PASSWORD}}, "config.password"),
        ({"config": {"nested": {"api_key": PASSWORD}}}, "config.nested.api_key"),
        ({"config": {"user": f"postgresql://u:{PASSWORD}@h/d"}}, "config.user"),
        ({"config": {"user": f"host=h password={PASSWORD}"}}, "config.user"),
        ({"secrets": {"passwort": PASSWORD}}, "secrets"),
        ({"secrets": {"password": PASSWORD * 10_000}}, "secrets.password"),
        ({"tenantId": "globex"}, "body.tenantId"),
    ],
)
def test_a_wrong_endpoint_is_refused_and_leaves_nothing(lab: Lab, change: dict, field: str):
    body = {"name": "a", "type": "MEMORY", "config": {}, "secrets": {"password": PASSWORD}}
    response = lab.call("POST", "/endpoints", json={**body, **change})
    problem = assert_problem(response, 422, "VALIDATION_FAILED")
    assert problem["context"]["field"] == field
    assert PASSWORD not in response.text
    assert lab.call("GET", "/endpoints").json()["items"] == []
    assert credential_files(lab) == []


def test_two_endpoints_cannot_have_one_name_and_the_second_leaves_no_credentials(lab: Lab):
    lab.endpoint("shop")
    before = credential_files(lab)
    body = {"name": "shop", "type": "MEMORY", "config": {}, "secrets": {"password": "other"}}
    assert_problem(lab.call("POST", "/endpoints", json=body), 409, "CONFLICT")
    assert credential_files(lab) == before


def test_names_are_free_in_another_tenant(lab: Lab):
    from matih_ray.control.authorization import Role

    lab.endpoint("shop")
    body = {"name": "shop", "type": "MEMORY", "config": {}}
    answer = lab.client.request(
        "POST",
        lab.path("/endpoints", "globex"),
        json=body,
        headers=lab.as_(Role.ADMIN, tenant="globex"),
    )
    assert answer.status_code == 201


def test_endpoints_are_listed_in_pages_that_lead_on(lab: Lab):
    for name in ("c", "a", "d", "b", "e"):
        lab.endpoint(name, collect=False)
    url, seen = lab.path("/endpoints?limit=2"), []
    for _ in range(3):
        page = lab.client.get(url).json()
        seen += [item["name"] for item in page["items"]]
        url = lab.path("/endpoints") + (page["next"] or "")
    assert seen == ["a", "b", "c", "d", "e"]
    assert page["next"] is None


@pytest.mark.parametrize("name", ["b b", "ü&x=1", "100%", "nobody"])
def test_an_endpoint_is_found_by_its_name(lab: Lab, name: str):
    lab.endpoint("other", collect=False)
    if name != "nobody":
        lab.endpoint(name, collect=False)
    found = lab.call("GET", "/endpoints", params={"name": name}).json()
    assert [item["name"] for item in found["items"]] == ([] if name == "nobody" else [name])


def test_a_change_replaces_the_configuration_and_keeps_the_secrets(lab: Lab):
    endpoint_id = lab.endpoint()
    changed = lab.call("PUT", f"/endpoints/{endpoint_id}", json={"config": {"user": "bob"}})
    assert changed.json()["config"]["user"] == "bob"
    assert changed.json()["config"]["tables"] == {}
    assert changed.json()["version"] == 2
    spec = endpoint_spec(lab.ports, TENANT, EndpointId(endpoint_id))
    assert spec.secrets == {"password": PASSWORD}


@pytest.mark.parametrize("secrets", [{"clientKey": "new"}, {}])
def test_new_secrets_replace_all_old_ones(lab: Lab, secrets: dict):
    endpoint_id = lab.endpoint()
    change = {"config": {}, "secrets": secrets}
    assert lab.call("PUT", f"/endpoints/{endpoint_id}", json=change).status_code == 200
    assert endpoint_spec(lab.ports, TENANT, EndpointId(endpoint_id)).secrets == secrets
    assert len(credential_files(lab)) == len(secrets)


def test_a_change_of_an_outdated_version_is_refused_and_leaves_nothing(lab: Lab):
    endpoint_id = lab.endpoint()
    change = {"config": {"user": "bob"}, "secrets": {"password": "new"}, "version": 7}
    response = lab.call("PUT", f"/endpoints/{endpoint_id}", json=change)
    assert_problem(response, 409, "STATE_CONFLICT")
    assert lab.call("GET", f"/endpoints/{endpoint_id}").json()["config"]["user"] == "reader"
    spec = endpoint_spec(lab.ports, TENANT, EndpointId(endpoint_id))
    assert spec.secrets == {"password": PASSWORD}
    assert len(credential_files(lab)) == 1


def test_name_and_type_cannot_be_changed(lab: Lab):
    endpoint_id = lab.endpoint()
    for change in ({"name": "other"}, {"type": "POSTGRESQL"}):
        response = lab.call("PUT", f"/endpoints/{endpoint_id}", json={"config": {}, **change})
        assert_problem(response, 422, "VALIDATION_FAILED")


def test_deleting_removes_credentials_catalog_and_checkpoints(running_lab: Lab):
    lab = running_lab
    endpoint_id = lab.endpoint()
    run_id = lab.start(endpoint_id).json()["runId"]
    assert len(lab.ports.kv.keys(TENANT, "ingest::")) == 1
    assert lab.call("DELETE", f"/endpoints/{endpoint_id}").status_code == 204
    assert_problem(lab.call("GET", f"/endpoints/{endpoint_id}"), 404, "NOT_FOUND")
    assert_problem(lab.call("DELETE", f"/endpoints/{endpoint_id}"), 404, "NOT_FOUND")
    assert_problem(lab.call("GET", f"/endpoints/{endpoint_id}/units"), 404, "NOT_FOUND")
    assert credential_files(lab) == []
    assert lab.ports.kv.keys(TENANT, "") == []
    assert lab.call("GET", f"/runs/{run_id}").json()["state"] == "COMPLETED"


def test_an_endpoint_with_an_active_run_is_not_deleted(lab: Lab):
    endpoint_id = lab.endpoint()
    run_id = lab.start(endpoint_id).json()["runId"]
    response = lab.call("DELETE", f"/endpoints/{endpoint_id}")
    assert assert_problem(response, 409, "CONFLICT")["context"] == {"runId": run_id}
    assert lab.call("POST", f"/runs/{run_id}/cancel").status_code == 202
    assert lab.call("DELETE", f"/endpoints/{endpoint_id}").status_code == 204


def test_a_connection_that_works_says_so(lab: Lab):
    answer = lab.call("POST", f"/endpoints/{lab.endpoint()}/test")
    assert answer.status_code == 200
    body = answer.json()
    assert (body["success"], body["serverVersion"], body["errorCode"]) == (True, "Memory 1.0", None)


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
def test_a_connection_that_fails_is_a_successful_answer(lab: Lab, code: str):
    endpoint_id = lab.endpoint(collect=False, failsAt="test", failsWith=code)
    answer = lab.call("POST", f"/endpoints/{endpoint_id}/test")
    assert answer.status_code == 200
    body = answer.json()
    assert (body["success"], body["errorCode"], body["latencyMs"]) == (False, code, None)
    assert body["message"] == "told to fail at test"


@pytest.mark.parametrize("action", ["test", "collect"])
def test_an_unknown_endpoint_cannot_be_reached(lab: Lab, action: str):
    assert_problem(lab.call("POST", f"/endpoints/none/{action}"), 404, "NOT_FOUND")


@pytest.fixture
def sink_id(lab: Lab, tmp_path: Path) -> str:
    body = {
        "name": "lake",
        "type": "iceberg",
        "config": {"uri": f"sqlite:///{tmp_path}/c.db", "warehouse": f"{tmp_path}/w"},
    }
    created = lab.call("POST", "/endpoints", json=body)
    assert created.status_code == 201, created.text
    return created.json()["endpointId"]


def test_a_sink_can_be_an_endpoint_and_has_no_units(lab: Lab, sink_id: str):
    for action in ("test", "collect"):
        response = lab.call("POST", f"/endpoints/{sink_id}/{action}")
        assert_problem(response, 422, "VALIDATION_FAILED")
    endpoint_id = lab.endpoint()
    body = {"endpointId": endpoint_id, "unitId": "public.orders", "sinkId": sink_id}
    started = lab.call("POST", "/runs", json=body)
    assert started.json()["sinkId"] == sink_id
    assert started.json()["state"] == RunState.QUEUED.value


def test_a_sinks_secret_is_refused_in_its_configuration(lab: Lab):
    config = {"uri": f"postgresql+psycopg2://u:{PASSWORD}@h/d"}
    body = {"name": "lake", "type": "iceberg", "config": config}
    response = lab.call("POST", "/endpoints", json=body)
    assert_problem(response, 422, "VALIDATION_FAILED")
    assert PASSWORD not in response.text
