"""Every route, every role, every tenant: who gets in is a table, and the table is complete."""

from __future__ import annotations

import pytest

from matih_ray.control.authorization import Role
from tests.api.lab import Lab, assert_problem

PUBLIC, READ, WRITE = "public", "read", "write"

# method and path -> who may
ROUTES = {
    ("GET", "/health"): PUBLIC,
    ("GET", "/health/ready"): PUBLIC,
    ("GET", "/plugins"): READ,
    ("POST", "/connectors"): WRITE,
    ("GET", "/connectors"): READ,
    ("GET", "/connectors/{connectorId}"): READ,
    ("PUT", "/connectors/{connectorId}"): WRITE,
    ("DELETE", "/connectors/{connectorId}"): WRITE,
    ("POST", "/connectors/{connectorId}/test"): WRITE,
    ("POST", "/connectors/{connectorId}/discover"): WRITE,
    ("DELETE", "/connectors/{connectorId}/discover"): WRITE,
    ("GET", "/connectors/{connectorId}/schemas"): READ,
    ("GET", "/connectors/{connectorId}/usage"): READ,
    ("PUT", "/connectors/{connectorId}/credentials"): WRITE,
    ("GET", "/notifications"): READ,
    ("PUT", "/notifications/webhook"): WRITE,
    ("GET", "/notifications/webhook"): READ,
    ("DELETE", "/notifications/webhook"): WRITE,
    ("POST", "/notifications/webhook/test"): WRITE,
    ("POST", "/endpoints"): WRITE,
    ("GET", "/endpoints"): READ,
    ("GET", "/endpoints/{endpointId}"): READ,
    ("PUT", "/endpoints/{endpointId}"): WRITE,
    ("DELETE", "/endpoints/{endpointId}"): WRITE,
    ("POST", "/endpoints/{endpointId}/test"): WRITE,
    ("POST", "/endpoints/{endpointId}/collect"): WRITE,
    ("POST", "/endpoints/{endpointId}/provision"): WRITE,
    ("GET", "/endpoints/{endpointId}/units"): READ,
    ("GET", "/endpoints/{endpointId}/units/{unitId}"): READ,
    ("GET", "/endpoints/{endpointId}/unit-configurations/{unitId}"): READ,
    ("PATCH", "/endpoints/{endpointId}/unit-configurations/{unitId}"): WRITE,
    ("POST", "/plans"): WRITE,
    ("POST", "/previews"): WRITE,
    ("POST", "/runs"): WRITE,
    ("GET", "/runs"): READ,
    ("GET", "/runs/{runId}"): READ,
    ("GET", "/runs/{runId}/slices"): READ,
    ("POST", "/runs/{runId}/pause"): WRITE,
    ("POST", "/runs/{runId}/resume"): WRITE,
    ("POST", "/runs/{runId}/cancel"): WRITE,
    ("POST", "/runs/{runId}/rollback"): WRITE,
    ("POST", "/graphql"): READ,
    ("POST", "/jobs"): WRITE,
    ("GET", "/jobs"): READ,
    ("GET", "/jobs/{jobId}"): READ,
    ("POST", "/jobs/{jobId}/cancel"): WRITE,
    ("POST", "/jobs/{jobId}/stop"): WRITE,
    ("POST", "/jobs/{jobId}/savepoints"): WRITE,
    ("POST", "/schedules"): WRITE,
    ("GET", "/schedules"): READ,
    ("GET", "/schedules/{scheduleId}"): READ,
    ("PATCH", "/schedules/{scheduleId}"): WRITE,
    ("DELETE", "/schedules/{scheduleId}"): WRITE,
    ("GET", "/checkpoints"): READ,
    ("DELETE", "/checkpoints"): WRITE,
}
TENANT_ROUTES = [
    (method, path, needs)
    for (method, path), needs in ROUTES.items()
    if path not in ("/health", "/health/ready", "/plugins")
]
BODIES = {
    ("POST", "/connectors"): {"name": "new", "type": "MEMORY"},
    ("POST", "/endpoints/{endpointId}/provision"): {"cdmModelId": "cdm.work.item"},
    ("PUT", "/connectors/{connectorId}"): {},
    ("PUT", "/connectors/{connectorId}/credentials"): {"credentials": {"password": "p"}},
    ("PUT", "/notifications/webhook"): {"url": "http://127.0.0.1:9/"},
    ("POST", "/endpoints"): {"name": "new", "type": "MEMORY", "config": {}},
    ("PUT", "/endpoints/{endpointId}"): {"config": {}},
    ("PATCH", "/endpoints/{endpointId}/unit-configurations/{unitId}"): {},
    ("POST", "/plans"): {"endpointId": "-", "unitId": "public.orders"},
    ("POST", "/previews"): {"endpointId": "-", "unitId": "public.orders"},
    ("POST", "/runs"): {"endpointId": "-", "unitId": "public.orders"},
    ("POST", "/graphql"): {"query": "{ ingestionSinks { id } }"},
    ("POST", "/jobs"): {"name": "new", "script": "SELECT 1"},
    ("POST", "/jobs/{jobId}/stop"): {},
    ("POST", "/jobs/{jobId}/savepoints"): {},
    ("POST", "/schedules"): {
        "endpointId": "-",
        "unitId": "public.orders",
        "timing": {"everyS": 60},
    },
    ("PATCH", "/schedules/{scheduleId}"): {"enabled": False},
}


def routes_of(app) -> set[tuple[str, str]]:
    found = set()
    for path, operations in app.openapi()["paths"].items():
        bare = path.removeprefix("/api/v1").removeprefix("/tenants/{tenantId}")
        found |= {(method.upper(), bare) for method in operations}
    return found


def test_the_table_names_every_route(lab: Lab):
    assert routes_of(lab.app) == set(ROUTES)


def send(lab: Lab, method: str, path: str, endpoint_id: str, run_id: str, tenant: str, **headers):
    ids = {
        "connectorId": endpoint_id,
        "endpointId": endpoint_id,
        "jobId": "no-such-job",
        "runId": run_id,
        "scheduleId": "no-such-schedule",
        "unitId": "public.orders",
    }
    body = BODIES.get((method, path))
    if body is not None:
        body = {
            name: endpoint_id if value == "{endpointId}" else value for name, value in body.items()
        }
    params = ids if path == "/checkpoints" else None
    return lab.client.request(
        method,
        lab.path(path.format(**ids), tenant),
        json=body,
        params=params,
        headers=headers,
    )


@pytest.mark.parametrize(("method", "path", "needs"), TENANT_ROUTES)
def test_roles_decide_within_the_tenant(lab: Lab, method: str, path: str, needs: str):
    endpoint_id = lab.endpoint()
    run_id = lab.start(endpoint_id, unit_id="public.items").json()["runId"]
    for roles in ([], [Role.VIEWER], [Role.DATA_ENGINEER], [Role.ADMIN], [Role.VIEWER, Role.ADMIN]):
        writer = bool({Role.ADMIN, Role.DATA_ENGINEER} & set(roles))
        allowed = bool(roles) if needs == READ else writer
        if allowed and method == "DELETE":
            continue  # would change what the next role finds; see below
        response = send(lab, method, path, endpoint_id, run_id, "acme", **lab.as_(*roles))
        if allowed:
            assert response.status_code not in (401, 403), response.text
        else:
            assert_problem(response, 403, "FORBIDDEN")


@pytest.mark.parametrize("role", [Role.ADMIN, Role.DATA_ENGINEER])
def test_writers_may_delete(lab: Lab, role: Role):
    endpoint_id = lab.endpoint()
    for path in ("/checkpoints", "/endpoints/{endpointId}"):
        assert (
            send(lab, "DELETE", path, endpoint_id, "-", "acme", **lab.as_(role)).status_code == 204
        )


@pytest.mark.parametrize(("method", "path", "needs"), TENANT_ROUTES)
def test_another_tenants_paths_are_forbidden_whether_they_exist_or_not(
    lab: Lab, method: str, path: str, needs: str
):
    endpoint_id = lab.endpoint()
    run_id = lab.start(endpoint_id).json()["runId"]
    stranger = lab.as_(*Role, tenant="globex")
    real = send(lab, method, path, endpoint_id, run_id, "acme", **stranger)
    made_up = send(lab, method, path, "no-such", "no-such", "nobody", **stranger)
    first, second = (
        assert_problem(real, 403, "FORBIDDEN"),
        assert_problem(made_up, 403, "FORBIDDEN"),
    )
    del first["instance"], second["instance"]
    assert first == second
    assert lab.call("GET", f"/endpoints/{endpoint_id}").status_code == 200


def test_a_tenant_cannot_reach_anothers_resources_by_their_ids(lab: Lab):
    endpoint_id = lab.endpoint()
    run_id = lab.start(endpoint_id).json()["runId"]
    stranger = lab.as_(Role.ADMIN, tenant="globex")
    for method, path in ROUTES:
        if "{" not in path and path not in ("/plans", "/runs", "/checkpoints"):
            continue
        if (method, path) == ("GET", "/runs"):
            continue
        response = send(lab, method, path, endpoint_id, run_id, "globex", **stranger)
        assert response.status_code == 404, (method, path, response.text)
        assert_problem(response, 404, "NOT_FOUND")
    for listing in ("/endpoints", "/runs"):
        answer = lab.client.get(lab.path(listing, "globex"), headers=stranger)
        assert answer.json()["items"] == []


def test_plugins_need_a_role(lab: Lab):
    assert_problem(lab.client.get("/api/v1/plugins", headers=lab.as_()), 403, "FORBIDDEN")
    viewer = lab.as_(Role.VIEWER)
    answer = lab.client.get("/api/v1/plugins?kind=sources", headers=viewer)
    assert {"MEMORY", "POSTGRESQL"} <= {plugin["name"] for plugin in answer.json()}
