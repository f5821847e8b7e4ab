"""The Jira test server speaks as Atlassian's OpenAPI document says, so that it cannot drift."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from matih_ray.testing.devstack.jira import TOKEN, USER, JiraServer
from matih_ray.testing.devstack.jira_calls import PATHS
from tests.fixtures.openapi_operations import Operations

ANSWERS = Operations(Path(__file__).parents[1] / "fixtures" / "jira.openapi.json.gz")
# The site's own API; that of boards is described elsewhere.
V3 = "/rest/api/3"
FIRST = 10_001


@pytest.fixture(scope="module")
def jira() -> Iterator[JiraServer]:
    with JiraServer() as server:
        server.do("generate", project="SHOP", count=150)
        server.do("edit", id_=FIRST, fields={"status": "Done", "summary": "x"})
        for n in range(25):
            server.do("comment", id_=FIRST, text=f"comment {n}")
        server.do("link", source=FIRST, target=FIRST + 1)
        old = server.do("now_ms") - 300_000
        logged = [server.do("log_work", id_=FIRST, seconds=60, at_ms=old) for _ in range(3)]
        server.do("delete_worklog", id_=logged[0], at_ms=old)
        yield server


@pytest.fixture(scope="module")
def client(jira: JiraServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=jira.url, auth=(USER, TOKEN), timeout=60, trust_env=False) as client:
        yield client


ASKED: list[tuple[str, str, Any]] = [
    (f"GET {V3}/myself", f"{V3}/myself", None),
    (f"GET {V3}/serverInfo", f"{V3}/serverInfo", None),
    (f"GET {V3}/mypermissions", f"{V3}/mypermissions?projectKey=SHOP", None),
    (f"GET {V3}/project/search", f"{V3}/project/search?expand=lead,insight", None),
    (f"GET {V3}/field", f"{V3}/field", None),
    (f"GET {V3}/status", f"{V3}/status", None),
    (f"GET {V3}/users/search", f"{V3}/users/search?maxResults=10", None),
    (
        f"POST {V3}/search/approximate-count",
        f"{V3}/search/approximate-count",
        {"jql": 'project = "SHOP"'},
    ),
    (
        f"POST {V3}/search/jql",
        f"{V3}/search/jql",
        {"jql": 'project = "SHOP"', "fields": ["id"], "maxResults": 20},
    ),
    (
        f"POST {V3}/search/jql",
        f"{V3}/search/jql",
        {"jql": 'project = "SHOP"', "fields": ["*all"], "maxResults": 500},
    ),
    (
        f"POST {V3}/issue/bulkfetch",
        f"{V3}/issue/bulkfetch",
        {"issueIdsOrKeys": [str(FIRST), "99"], "fields": ["*all", "-worklog"]},
    ),
    (
        f"POST {V3}/changelog/bulkfetch",
        f"{V3}/changelog/bulkfetch",
        {"issueIdsOrKeys": [str(FIRST)], "maxResults": 1},
    ),
    (f"GET {V3}/issue/{{issueIdOrKey}}/comment", f"{V3}/issue/{FIRST}/comment?startAt=20", None),
    (f"GET {V3}/worklog/updated", f"{V3}/worklog/updated?since=0", None),
    (f"GET {V3}/worklog/deleted", f"{V3}/worklog/deleted?since=0", None),
    (f"POST {V3}/worklog/list", f"{V3}/worklog/list", {"ids": [27, 28, 29]}),
]


@pytest.mark.parametrize(("operation", "path", "body"), ASKED)
def test_answers_and_requests_are_as_the_document_says(
    client: httpx.Client, operation: str, path: str, body: Any
) -> None:
    answer = client.get(path) if body is None else client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found
    assert ANSWERS.problems(operation, 200, found) == []
    if body is not None:
        assert ANSWERS.request_problems(operation, body) == []


def test_every_call_of_the_server_is_compared() -> None:
    served = {f"{method} {path}" for method, path, _ in PATHS if path.startswith(V3)}
    compared = {operation.replace("{issueIdOrKey}", "{id}") for operation, _, _ in ASKED}
    assert served == compared


def test_a_wrong_answer_would_be_found() -> None:
    wrong = {"issues": [{"id": 17}], "total": 1}
    assert len(ANSWERS.problems(f"POST {V3}/search/jql", 200, wrong)) == 2


@pytest.mark.parametrize("jql", ["", "ORDER BY key", 'project = "NONE"', "updated > yesterday"])
def test_queries_that_jira_refuses_are_refused(client: httpx.Client, jql: str) -> None:
    answer = client.post(f"{V3}/search/jql", json={"jql": jql})
    assert answer.status_code == 400
    assert answer.json()["errorMessages"]


def test_limits_are_the_vendors(client: httpx.Client) -> None:
    asked = {"jql": 'project = "SHOP"', "fields": ["summary"], "maxResults": 5000}
    page = client.post(f"{V3}/search/jql", json=asked).json()
    assert len(page["issues"]) == 100
    assert page["nextPageToken"]
    many = {"issueIdsOrKeys": [str(n) for n in range(101)]}
    assert client.post(f"{V3}/issue/bulkfetch", json=many).status_code == 400
    stranger = client.get(f"{V3}/myself", auth=("nobody", "nothing"))
    assert stranger.status_code == 401


def test_answers_are_given_again_without_their_work(jira: JiraServer, client: httpx.Client) -> None:
    question, other = {"jql": 'project = "SHOP"'}, {"jql": 'project = "NONE"'}

    def count(asked: dict[str, str]) -> httpx.Response:
        return client.post(f"{V3}/search/approximate-count", json=asked)

    jira.do("set", keeping=True)
    before = count(question).json()
    jira.do("set", keeping=False, replaying=True)
    jira.do("generate", project="SHOP", count=1)
    again, unknown = count(question), count(other)
    jira.do("set", replaying=False)
    assert again.json() == before == {"count": 150}
    assert unknown.status_code == 501
    assert count(question).json() == {"count": 151}
