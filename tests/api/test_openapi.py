"""The machine-readable description is complete, and its examples are requests that are accepted."""

from __future__ import annotations

import pytest
from fastapi.routing import APIRoute

from matih_ray.api.graphql import GraphqlRequest
from matih_ray.api.wire import PROBLEM_MEDIA_TYPE, ProvisionRequest
from matih_ray.control.connectors import ConnectorChange, ConnectorDraft, CredentialsChange
from matih_ray.control.endpoints import EndpointChange, EndpointDraft
from matih_ray.control.loads import LoadRequest
from matih_ray.control.schedules import ScheduleChange, ScheduleDraft
from matih_ray.control.stream_jobs import JobDraft, SavepointDraft
from matih_ray.control.unit_configurations import UnitChange
from matih_ray.control.webhooks import WebhookDraft
from tests.api.lab import Lab

PROBLEM = {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
BODIES = {
    "createConnector": ConnectorDraft,
    "updateConnector": ConnectorChange,
    "rotateCredentials": CredentialsChange,
    "createEndpoint": EndpointDraft,
    "updateEndpoint": EndpointChange,
    "provision": ProvisionRequest,
    "plan": LoadRequest,
    "preview": LoadRequest,
    "configureUnit": UnitChange,
    "startRun": LoadRequest,
    "setWebhook": WebhookDraft,
    "executeGraphql": GraphqlRequest,
    "submitJobs": JobDraft,
    "stopJob": SavepointDraft,
    "saveJob": SavepointDraft,
    "createSchedule": ScheduleDraft,
    "changeSchedule": ScheduleChange,
}


@pytest.fixture
def description(lab: Lab) -> dict:
    return lab.client.get("/api/v1/openapi.json").json()


def operations(description: dict) -> list[tuple[str, dict]]:
    return [
        (f"{method.upper()} {path}", operation)
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    ]


def test_every_operation_has_words_an_id_and_a_success(description: dict):
    ids = [operation["operationId"] for _, operation in operations(description)]
    assert sorted(set(ids)) == sorted(ids)
    for name, operation in operations(description):
        assert operation["summary"], name
        assert operation["description"], name
        assert operation["tags"], name
        assert [code for code in operation["responses"] if code.startswith("2")], name


def test_every_operation_answers_errors_as_problems(description: dict):
    for name, operation in operations(description):
        assert operation["responses"]["default"]["content"] == PROBLEM, name
        assert operation["responses"].get("422", {}).get("content", PROBLEM) == PROBLEM, name
    assert "HTTPValidationError" not in description["components"]["schemas"]
    properties = description["components"]["schemas"]["Problem"]["properties"]
    assert {"type", "title", "status", "detail", "instance", "code"} <= set(properties)


def test_everything_but_health_asks_for_a_token(description: dict):
    for name, operation in operations(description):
        assert ("security" in operation) is ("/health" not in name), name
    (scheme,) = description["components"]["securitySchemes"].values()
    assert (scheme["type"], scheme["scheme"], scheme["bearerFormat"]) == ("http", "bearer", "JWT")


def test_names_are_camel_case(description: dict):
    for name, operation in operations(description):
        for parameter in operation.get("parameters", []):
            if parameter["in"] != "header":
                assert "_" not in parameter["name"], name
    for schema in description["components"]["schemas"].values():
        assert not [name for name in schema.get("properties", {}) if "_" in name]


def test_every_body_has_examples_that_its_model_accepts(description: dict):
    seen = set()
    for name, operation in operations(description):
        if "requestBody" not in operation:
            continue
        examples = operation["requestBody"]["content"]["application/json"]["examples"]
        assert examples, name
        for example in examples.values():
            assert example["summary"]
            BODIES[operation["operationId"]].from_json(example["value"])
        seen.add(operation["operationId"])
    assert seen == set(BODIES)


def test_secrets_are_write_only(description: dict):
    schemas = description["components"]["schemas"]
    field = schemas["EndpointDraft"]["properties"]["secrets"]["additionalProperties"]
    assert (field["format"], field["writeOnly"]) == ("password", True)
    assert "secrets" not in schemas["EndpointBody"]["properties"]
    assert "credentialName" not in schemas["EndpointBody"]["properties"]


def test_nothing_else_is_served(lab: Lab):
    for path in ("/docs", "/redoc", "/openapi.json", "/"):
        assert lab.client.get(path).status_code == 404
    routes = [route for route in lab.app.routes if not isinstance(route, APIRoute)]
    assert [getattr(route, "path", None) for route in routes if hasattr(route, "path")] == [
        "/api/v1/openapi.json"
    ]
