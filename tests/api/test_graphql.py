"""GraphQL over HTTP: REST's use cases, errors and limits; a schema that only grows."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from graphql import build_schema
from graphql.utilities import find_breaking_changes
from sqlalchemy import event

import matih_ray.api.graphql
from matih_ray.api.graphql.schema import SCHEMA
from matih_ray.control.authorization import Role
from matih_ray.model.knowledge import KnowledgeEdge, KnowledgeNode, KnowledgePart, NodeKind
from matih_ray.model.run import RunState
from matih_ray.registry import load_registry
from matih_ray.state.sql import SqlMetadataStore
from matih_ray.testing.fakes import RecordingLauncher
from tests.api.lab import PASSWORD, TENANT, Lab, assert_problem, open_lab

PROMISED = Path(matih_ray.api.graphql.__file__).parent / "schema.graphql"
UNITS = """
query($id: ID!, $limit: Int! = 100, $offset: Int! = 0, $pattern: String) {
  ingestionUnits(endpointId: $id, limit: $limit, offset: $offset, pattern: $pattern) {
    hasMore items { unitId kind estimatedRows columns { name fidelity } status { state lastRunId } }
  }
}
"""
START = """
mutation($id: ID!, $unit: ID!, $policy: JSON, $key: String) {
  startIngestion(endpointId: $id, unitId: $unit, policy: $policy, idempotencyKey: $key) {
    runId state policy rows error { code }
  }
}
"""
CONFIGURE = """
mutation($id: ID!, $unit: ID!, $enabled: Boolean, $policy: JSON, $version: Int) {
  configureIngestionUnit(
    endpointId: $id, unitId: $unit, enabled: $enabled, policy: $policy, version: $version
  ) { unitId configuration { enabled policy version } }
}
"""
PAUSE = (
    "mutation($id: ID!, $unit: ID!) { pauseIngestion(endpointId: $id, unitId: $unit) { state } }"
)
RESET = (
    "mutation($id: ID!, $unit: ID!) { resetIngestionCheckpoint(endpointId: $id, unitId: $unit) }"
)
STATUS = """
query($id: ID!, $unit: ID!) {
  ingestionStatus(endpointId: $id, unitId: $unit) {
    status { state sinkId } lastRun { runId rows progress strategy } cursor
  }
}
"""


def ask(lab: Lab, query: str, headers: dict[str, str] | None = None, **variables: object) -> dict:
    answer = lab.call(
        "POST", "/graphql", json={"query": query, "variables": variables}, headers=headers or {}
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def data(lab: Lab, query: str, **variables: object) -> dict:
    answer = ask(lab, query, **variables)
    assert answer["errors"] is None, answer
    return answer["data"]


def error(lab: Lab, query: str, **variables: object) -> dict:
    (only,) = ask(lab, query, **variables)["errors"]
    return only


def test_the_schema_only_grows():
    """`UPDATE_SCHEMA=1` writes additions down; what would break a query is refused all the same."""
    current, promised = SCHEMA.as_str() + "\n", PROMISED.read_text()
    broken = find_breaking_changes(build_schema(promised), build_schema(current))
    assert [change.description for change in broken] == []
    if os.environ.get("UPDATE_SCHEMA"):
        PROMISED.write_text(current)
    assert PROMISED.read_text() == current, "run this test with UPDATE_SCHEMA=1"


def test_units_are_those_of_the_catalog(lab: Lab):
    empty = lab.endpoint("empty", collect=False)
    assert data(lab, UNITS, id=empty)["ingestionUnits"] == {"hasMore": False, "items": []}
    endpoint_id = lab.endpoint()
    found = data(lab, UNITS, id=endpoint_id)["ingestionUnits"]["items"]
    assert [unit["unitId"] for unit in found] == ["public.items", "public.orders", "sales.empty"]
    assert found[1]["estimatedRows"] == 1000
    assert found[1]["status"] is None
    assert found[1]["columns"][0] == {"name": "id", "fidelity": "EXACT"}
    page = data(lab, UNITS, id=endpoint_id, limit=1, offset=1)["ingestionUnits"]
    assert (page["hasMore"], page["items"][0]["unitId"]) == (True, "public.orders")
    matching = data(lab, UNITS, id=endpoint_id, pattern="sales.*")["ingestionUnits"]
    assert [unit["unitId"] for unit in matching["items"]] == ["sales.empty"]


def test_a_unit_is_configured_and_runs_follow_it_unless_they_say_otherwise(lab: Lab):
    endpoint_id = lab.endpoint()
    given = {"id": endpoint_id, "unit": "public.orders"}
    policy = {"targetSliceRows": 7}
    made = data(lab, CONFIGURE, **given, policy=policy)["configureIngestionUnit"]["configuration"]
    assert (made["enabled"], made["version"]) == (True, 1)
    assert made["policy"]["targetSliceRows"] == 7
    again = data(lab, CONFIGURE, **given, policy=policy)["configureIngestionUnit"]
    assert again["configuration"]["version"] == 1
    started = data(lab, START, **given)["startIngestion"]
    assert started["policy"]["targetSliceRows"] == 7
    other = {"id": endpoint_id, "unit": "public.items", "policy": {"targetSliceRows": 9}}
    assert data(lab, START, **other)["startIngestion"]["policy"]["targetSliceRows"] == 9
    stale = error(lab, CONFIGURE, **given, enabled=False, version=0)
    assert stale["extensions"]["code"] == "STATE_CONFLICT"
    wrong = error(lab, CONFIGURE, **given, policy={"cursorColumn": "phantom"})
    assert wrong["extensions"]["code"] == "VALIDATION_FAILED"
    jira_only = error(
        lab,
        "mutation($id: ID!, $unit: ID!) { configureIngestionUnit(endpointId: $id, unitId: $unit, "
        'filter: {projectKeys: ["SHOP"]}) { unitId } }',
        **given,
    )
    assert jira_only["extensions"]["context"]["field"] == "policy.filter"


def test_a_disabled_unit_is_hidden_and_cannot_be_loaded(lab: Lab):
    endpoint_id = lab.endpoint()
    given = {"id": endpoint_id, "unit": "public.orders"}
    data(lab, CONFIGURE, **given, enabled=False)
    shown = data(lab, UNITS, id=endpoint_id)["ingestionUnits"]["items"]
    assert [unit["unitId"] for unit in shown] == ["public.items", "sales.empty"]
    whole = data(
        lab,
        "query($id: ID!) { ingestionUnits(endpointId: $id, includeDisabled: true) "
        "{ items { unitId configuration { enabled } } } }",
        id=endpoint_id,
    )["ingestionUnits"]["items"]
    assert [unit["configuration"]["enabled"] for unit in whole] == [True, False, True]
    assert error(lab, START, **given)["extensions"]["code"] == "UNIT_DISABLED"
    lab.call("POST", f"/endpoints/{endpoint_id}/collect")
    assert error(lab, START, **given)["extensions"]["code"] == "UNIT_DISABLED"
    data(lab, CONFIGURE, **given, enabled=True)
    assert data(lab, START, **given)["startIngestion"]["state"] == "QUEUED"


def test_rows_are_previewed_without_a_run(lab: Lab):
    endpoint_id = lab.endpoint()
    query = """
    query($id: ID!, $limit: Int!) {
      previewMetadataDataset(endpointId: $id, unitId: "public.orders", limit: $limit) {
        columns { name arrowType } rows
      }
    }
    """
    found = data(lab, query, id=endpoint_id, limit=3)["previewMetadataDataset"]
    assert found["columns"][0] == {"name": "id", "arrowType": "int64"}
    assert [row[0] for row in found["rows"]] == [1, 2, 3]
    assert lab.call("GET", "/runs").json()["items"] == []
    assert error(lab, query, id=endpoint_id, limit=0)["extensions"]["code"] == "VALIDATION_FAILED"


def test_a_run_is_started_once_paused_and_seen(lab: Lab):
    endpoint_id = lab.endpoint()
    given = {"id": endpoint_id, "unit": "public.orders", "policy": {"targetSliceRows": 5}}
    started = data(lab, START, **given, key="k")["startIngestion"]
    assert started["state"] == "QUEUED"
    assert started["policy"]["targetSliceRows"] == 5
    assert data(lab, START, **given, key="k")["startIngestion"] == started
    overlapping = error(lab, START, **given)
    assert overlapping["extensions"]["code"] == "RUN_OVERLAP"
    assert overlapping["extensions"]["context"]["runId"] == started["runId"]
    shown = data(lab, UNITS, id=endpoint_id)["ingestionUnits"]["items"][1]["status"]
    assert shown == {"state": "QUEUED", "lastRunId": started["runId"]}
    paused = data(lab, PAUSE, id=endpoint_id, unit="public.orders")["pauseIngestion"]
    assert paused["state"] == "PAUSED"
    statuses = data(lab, "{ ingestionStatuses { hasMore items { unitId state } } }")
    assert statuses["ingestionStatuses"] == {
        "hasMore": False,
        "items": [{"unitId": "public.orders", "state": "PAUSED"}],
    }


def test_a_completed_run_shows_its_checkpoint_until_it_is_reset(running_lab: Lab):
    endpoint_id = running_lab.endpoint()
    given = {"id": endpoint_id, "unit": "public.orders"}
    policy = {"runMode": "incremental", "cursorColumn": "id"}
    run = data(running_lab, START, **given, policy=policy)["startIngestion"]
    stream = data(running_lab, STATUS, **given)["ingestionStatus"]
    assert stream["status"] == {"state": RunState.COMPLETED.value, "sinkId": "iceberg"}
    assert stream["lastRun"]["runId"] == run["runId"]
    assert (stream["lastRun"]["rows"], stream["lastRun"]["progress"]) == (1000, 1.0)
    assert stream["cursor"] == 1000
    assert data(running_lab, RESET, **given) == {"resetIngestionCheckpoint": True}
    assert data(running_lab, RESET, **given) == {"resetIngestionCheckpoint": False}
    assert data(running_lab, STATUS, **given)["ingestionStatus"]["cursor"] is None


def test_sinks_are_the_built_in_ones_and_the_tenants_own(lab: Lab):
    sinks = data(lab, "{ ingestionSinks { id type supportedCdmModels } }")["ingestionSinks"]
    assert {"id": "iceberg", "type": "iceberg", "supportedCdmModels": []} in sinks


@pytest.mark.parametrize(
    ("query", "variables", "code", "status"),
    [
        (UNITS, {"id": "nowhere"}, "NOT_FOUND", 404),
        (START, {"id": "nowhere", "unit": "u"}, "NOT_FOUND", 404),
        (START, {"id": "SHOP", "unit": "phantom"}, "UNKNOWN_UNIT", 404),
        (START, {"id": "SHOP", "unit": "u", "policy": {"color": 1}}, "VALIDATION_FAILED", 422),
        (START, {"id": "SHOP", "unit": "u", "policy": [1]}, "VALIDATION_FAILED", 422),
        (PAUSE, {"id": "SHOP", "unit": "public.items"}, "NOT_FOUND", 404),
        (UNITS, {"id": "SHOP", "limit": 0}, "VALIDATION_FAILED", 422),
        (UNITS, {"id": "SHOP", "offset": -1}, "VALIDATION_FAILED", 422),
        ('{ ingestionRun(runId: "none") { state } }', {}, "NOT_FOUND", 404),
        ("{ nothing }", {}, "BAD_REQUEST", 400),
        ("{ unfinished", {}, "BAD_REQUEST", 400),
        (UNITS, {}, "BAD_REQUEST", 400),
    ],
)
def test_errors_are_rests(lab: Lab, query: str, variables: dict, code: str, status: int):
    shop = lab.endpoint()
    filled = {name: shop if value == "SHOP" else value for name, value in variables.items()}
    shown = error(lab, query, **filled)["extensions"]
    assert (shown["code"], shown["status"]) == (code, status)


def test_roles_and_tenants_decide_as_in_rest(lab: Lab):
    endpoint_id = lab.endpoint()
    viewer = lab.as_(Role.VIEWER)
    assert ask(lab, UNITS, viewer, id=endpoint_id)["errors"] is None
    (refused,) = ask(lab, START, viewer, id=endpoint_id, unit="public.orders")["errors"]
    assert refused["extensions"]["code"] == "FORBIDDEN"
    stranger = lab.as_(Role.ADMIN, tenant="globex")
    answer = lab.call(
        "POST", "/graphql", json={"query": "{ ingestionSinks { id } }"}, headers=stranger
    )
    assert_problem(answer, 403, "FORBIDDEN")
    theirs = lab.client.request(
        "POST",
        lab.path("/graphql", "globex"),
        json={"query": UNITS, "variables": {"id": endpoint_id}},
        headers=stranger,
    ).json()
    assert theirs["errors"][0]["extensions"]["code"] == "NOT_FOUND"


@pytest.mark.parametrize(
    "query",
    [
        "{ " + " ".join(f"a{n}: ingestionSinks {{ id }}" for n in range(16)) + " }",
        "{ " + "ingestionSinks { id } " * 1000 + "}",
        "{__schema{types{fields{type{fields{type{fields{type{fields{type{name}}}}}}}}}}}",
    ],
    ids=["aliases", "tokens", "depth"],
)
def test_an_operation_that_costs_too_much_is_refused(lab: Lab, query: str):
    answer = ask(lab, query)
    assert answer["data"] is None
    assert {found["extensions"]["code"] for found in answer["errors"]} == {"BAD_REQUEST"}


def test_the_number_of_statements_does_not_grow_with_the_page(lab: Lab):
    metadata = lab.ports.metadata
    assert isinstance(metadata, SqlMetadataStore)
    endpoint_id = lab.endpoint(tables={f"public.t{n:04d}": n for n in range(900)})
    statements: list[str] = []
    event.listen(
        metadata.database.engine,
        "before_cursor_execute",
        lambda *arguments: statements.append(arguments[2]),
    )
    counts = []
    for limit in (1, 500):
        statements.clear()
        page = data(lab, UNITS, id=endpoint_id, limit=limit)["ingestionUnits"]
        assert len(page["items"]) == limit
        counts.append(len(statements))
    assert counts[0] == counts[1] <= 8, statements


def test_batches_and_strangers_in_the_body_are_refused(lab: Lab):
    assert_problem(
        lab.call("POST", "/graphql", json=[{"query": "{ x }"}]), 422, "VALIDATION_FAILED"
    )
    assert_problem(lab.call("POST", "/graphql", json={"q": "{ x }"}), 422, "VALIDATION_FAILED")
    assert TENANT == "acme"


def test_ac3_only_what_the_catalog_has_and_enables_can_be_started(lab: Lab):
    def code(id: str, unit: str = "public.orders") -> str:  # noqa: A002 the variable's name
        return error(lab, START, id=id, unit=unit)["extensions"]["code"]

    assert code("none") == "NOT_FOUND"
    endpoint_id = lab.endpoint(collect=False)
    assert data(lab, UNITS, id=endpoint_id)["ingestionUnits"]["items"] == []
    assert code(endpoint_id) == "UNKNOWN_UNIT"
    assert lab.call("POST", f"/endpoints/{endpoint_id}/collect").status_code == 200
    assert code(endpoint_id, "public.phantom") == "UNKNOWN_UNIT"
    chosen = {"id": endpoint_id, "unit": "public.orders"}
    data(lab, CONFIGURE, **chosen, enabled=False)
    assert "public.orders" not in str(data(lab, UNITS, id=endpoint_id))
    assert code(endpoint_id) == "UNIT_DISABLED"
    data(lab, CONFIGURE, **chosen, enabled=True)
    assert data(lab, START, **chosen)["startIngestion"]["state"] == "QUEUED"
    assert code(endpoint_id) == "RUN_OVERLAP"


PREVIEW_URL = """
query($url: String!, $unit: ID, $id: ID) {
  previewMetadataDataset(connectionUrl: $url, unitId: $unit, endpointId: $id, limit: 2) { rows }
}
"""


def test_a_source_is_previewed_by_its_connection_string_and_nothing_of_it_is_kept(lab: Lab, caplog):
    given = {
        "templateId": "memory.http",
        "parameters": {"tables": {"public.orders": 9}, "password": PASSWORD},
        "dataset": {"unitId": "public.orders"},
    }
    found = data(lab, PREVIEW_URL, url=json.dumps(given))["previewMetadataDataset"]
    assert [row[0] for row in found["rows"]] == [1, 2]
    unknown = error(lab, PREVIEW_URL, url=json.dumps(given), unit="public.none")
    assert unknown["extensions"]["code"] == "UNKNOWN_UNIT"
    for wrong in (
        "{",
        "[1]",
        "jdbc:unheard://h/d?password=" + PASSWORD,
        "postgresql://u:" + PASSWORD + "@h:x/d",
        "postgresql://u:" + PASSWORD + "@h/d?sslkey=/etc/passwd",
        json.dumps({**given, "parameters": {"password": PASSWORD, "phantom": 1}}),
        json.dumps({**given, "templateId": "phantom"}),
        json.dumps({**given, "dataset": {}}),
    ):
        refused = error(lab, PREVIEW_URL, url=wrong)
        assert refused["extensions"]["code"] in ("VALIDATION_FAILED", "UNKNOWN_PLUGIN"), wrong
        assert PASSWORD not in str(refused)
    both = error(lab, PREVIEW_URL, url=json.dumps(given), id="x", unit="y")
    assert both["extensions"]["context"]["field"] == "connectionUrl"
    assert PASSWORD not in caplog.text
    for file in lab.ports.settings.home.rglob("*"):
        assert not file.is_file() or PASSWORD.encode() not in file.read_bytes()


def test_a_connection_string_leads_only_to_hosts_that_the_operator_allows(tmp_path: Path):
    labs = open_lab(tmp_path, RecordingLauncher(), registry=load_registry(), private_hosts="false")
    lab = next(labs)
    refused = error(
        lab, PREVIEW_URL, url="jdbc:postgresql://127.0.0.1:5432/d?user=u", unit="public.t"
    )
    assert refused["extensions"]["code"] == "HOST_NOT_ALLOWED"
    viewer = lab.as_(Role.VIEWER)
    (denied,) = ask(lab, PREVIEW_URL, viewer, url="postgresql://u@h/d", unit="t")["errors"]
    assert denied["extensions"]["code"] == "FORBIDDEN"
    labs.close()


def test_the_knowledge_base_is_asked_by_words_edges_and_paths(lab: Lab):
    endpoint_id = lab.endpoint()
    nodes = tuple(
        KnowledgeNode(
            node_id=f"n{n}", kind=NodeKind.ISSUE, endpoint_id=endpoint_id, title=f"one {n}"
        )
        for n in range(3)
    )
    edges = tuple(
        KnowledgeEdge(owner_id=f"n{n}", from_id=f"n{n}", kind="part_of", to_id=f"n{n + 1}")
        for n in range(2)
    )
    lab.ports.metadata.put_knowledge(TENANT, KnowledgePart(nodes=nodes, edges=edges))
    asked = """{
      kbSearch(text: "one", kinds: [ISSUE], limit: 2) { hasMore items { id kind title } }
      kbNode(id: "n1") { title endpointId }
      kbNeighbours(id: "n1") { items { kind outgoing nodeId node { title } } }
      kbPath(fromId: "n0", toId: "n2") { complete nodes { id } edges { kind } }
    }"""
    found = data(lab, asked)
    assert found["kbSearch"] == {
        "hasMore": True,
        "items": [{"id": f"n{n}", "kind": "ISSUE", "title": f"one {n}"} for n in range(2)],
    }
    assert found["kbNode"] == {"title": "one 1", "endpointId": endpoint_id}
    assert [
        (one["kind"], one["outgoing"], one["nodeId"]) for one in found["kbNeighbours"]["items"]
    ] == [
        ("part_of", False, "n0"),
        ("part_of", True, "n2"),
    ]
    assert found["kbPath"] == {
        "complete": True,
        "nodes": [{"id": f"n{n}"} for n in range(3)],
        "edges": [{"kind": "part_of"}] * 2,
    }
    assert error(lab, '{ kbNode(id: "none") { id } }')["extensions"]["code"] == "NOT_FOUND"
    assert error(lab, '{ kbSearch(text: " ") { hasMore } }')["extensions"]["code"] == (
        "VALIDATION_FAILED"
    )
