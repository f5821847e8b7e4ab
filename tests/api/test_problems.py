"""Every producer of errors answers with the same body, and none of them says too much."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog

from matih_ray import errors
from matih_ray.api.problems import FAMILIES, family_of, problem_of
from matih_ray.errors import MatihError, StateError
from tests.api.lab import PASSWORD, Lab, assert_problem, open_lab

ALL_ERRORS = [
    kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, MatihError)
]


def test_an_unknown_path_is_a_problem(lab: Lab):
    assert_problem(lab.call("GET", "/nothing-here"), 404, "NOT_FOUND")


def test_an_unknown_method_is_a_problem(lab: Lab):
    assert_problem(lab.call("PATCH", "/endpoints"), 405, "METHOD_NOT_ALLOWED")


def test_an_unreadable_body_is_a_problem(lab: Lab):
    response = lab.call("POST", "/runs", content=b"{", headers={"content-type": "application/json"})
    assert_problem(response, 422, "VALIDATION_FAILED")


def test_a_body_of_another_type_is_a_problem(lab: Lab):
    response = lab.call("POST", "/runs", content=b"<a/>", headers={"content-type": "text/xml"})
    assert_problem(response, 422, "VALIDATION_FAILED")


def test_every_wrong_field_is_named_and_no_value_is_repeated(lab: Lab):
    body = {
        "name": "x" * 200,
        "config": "hunter2",
        "secrets": {"password": ["hunter2"]},
        "hunter": "hunter2",
    }
    response = lab.call("POST", "/endpoints", json=body)
    problem = assert_problem(response, 422, "VALIDATION_FAILED")
    assert [item["field"] for item in problem["errors"]] == [
        "body.name",
        "body.type",
        "body.config",
        "body.secrets.password",
        "body.hunter",
    ]
    assert "hunter2" not in response.text
    assert problem["context"] == {"field": "body.name"}


def test_many_wrong_fields_are_cut(lab: Lab):
    body = {f"field{number}": 1 for number in range(500)}
    problem = assert_problem(lab.call("POST", "/endpoints", json=body), 422, "VALIDATION_FAILED")
    assert len(problem["errors"]) == 20
    assert "more)" in problem["detail"]


@pytest.mark.parametrize(
    "query",
    ["?limit=0", "?limit=501", "?offset=-1", "?limit=a", "?state=BROKEN"],
)
def test_a_wrong_query_is_a_problem(lab: Lab, query: str):
    assert_problem(lab.call("GET", f"/runs{query}"), 422, "VALIDATION_FAILED")


def test_a_body_over_the_limit_is_a_problem(lab: Lab):
    response = lab.call("POST", "/runs", content=b" " * (1024 * 1024 + 1))
    assert_problem(response, 413, "REQUEST_TOO_LARGE")


def test_a_body_over_the_limit_without_a_declared_length_is_a_problem(lab: Lab):
    class Stream:
        async def __aiter__(self):
            for _ in range(1025):
                yield b" " * 1024

    response = lab.call("POST", "/runs", content=Stream())
    assert_problem(response, 413, "REQUEST_TOO_LARGE")


def test_our_own_errors_keep_code_detail_and_context(lab: Lab):
    problem = assert_problem(lab.call("GET", "/runs/r1"), 404, "NOT_FOUND")
    assert problem["detail"] == "no run r1"
    assert problem["context"] == {"runId": "r1"}
    assert problem["title"] == "Not found"
    assert problem["retryable"] is False


@dataclass(frozen=True)
class Crash:
    """A launcher with a bug."""

    error: Exception

    def launch(self, tenant_id: str, run_id: str) -> None:
        raise self.error


@pytest.fixture
def crashing(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Lab]:
    yield from open_lab(tmp_path / "home", Crash(request.param))


@pytest.mark.parametrize(
    "crashing", [RuntimeError(f"no route to {PASSWORD}"), KeyError(PASSWORD)], indirect=True
)
def test_a_bug_is_masked_and_its_id_is_in_the_log(crashing: Lab):
    endpoint_id = crashing.endpoint()
    with structlog.testing.capture_logs(
        processors=[structlog.contextvars.merge_contextvars]
    ) as logs:
        response = crashing.start(endpoint_id)
    problem = assert_problem(response, 500, "INTERNAL")
    assert PASSWORD not in response.text
    request_id = problem["instance"].rpartition(":")[2]
    assert request_id in problem["detail"]
    crash = next(line for line in logs if line["event"] == "request_crashed")
    assert crash["request"] == request_id
    assert crash["tenant"] == "acme"


@pytest.mark.parametrize(
    "crashing", [StateError("cannot write /srv/secret/place", path="/srv/secret")], indirect=True
)
def test_what_only_the_operator_can_change_is_hidden_and_logged(crashing: Lab):
    endpoint_id = crashing.endpoint()
    with structlog.testing.capture_logs() as logs:
        response = crashing.start(endpoint_id)
    problem = assert_problem(response, 503, "STATE_FAILED")
    assert "/srv" not in response.text
    assert problem["retryable"] is True
    assert any("/srv/secret/place" in str(line.get("detail")) for line in logs)


def test_stores_that_do_not_answer_make_it_unready(lab: Lab):
    assert lab.client.get("/api/v1/health/ready").status_code == 200
    lab.ports.metadata.close()
    directory = lab.ports.settings.home / "metadata"
    directory.rename(directory.with_name("moved"))
    directory.write_text("a file where the directory was")
    assert_problem(lab.client.get("/api/v1/health/ready"), 503, "STATE_FAILED")
    assert lab.client.get("/api/v1/health").status_code == 200


def test_the_callers_request_id_is_kept_if_it_is_one(lab: Lab):
    for offered, kept in [("trace-1234567", True), ("short", False), ("a b" * 10, False)]:
        answer = lab.client.get("/api/v1/health", headers={"X-Request-Id": offered})
        assert (answer.headers["x-request-id"] == offered) is kept


@pytest.mark.parametrize("kind", ALL_ERRORS, ids=lambda kind: kind.code)
def test_every_error_has_a_status_and_becomes_a_problem(kind: type[MatihError]):
    problem = problem_of(kind("what, where and the remedy", run_id="r1"), "0123456789")
    assert problem.status == family_of(kind).status
    assert problem.code == kind.code
    assert 400 <= problem.status < 600


def test_the_table_has_no_row_that_is_never_reached():
    reached = {family_of(kind) for kind in ALL_ERRORS}
    assert reached == set(FAMILIES)
