"""The agent on a cluster: the shortest conversation from the first message to rows in Iceberg."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from matih_ray.api.tokens import open_tokens
from matih_ray.control.authorization import Principal, Role
from matih_ray.control.ports import utc_now
from matih_ray.model.ids import EndpointId, RunId
from matih_ray.model.run import RunState
from serve_apps.local import LocalRuntime
from tests.ray.lab import TENANT, Lab, create_table
from tests.ray.test_every_connector import expected, loaded
from tests.ray.walks import WALKS

PASSWORD = "n0t-for-anyb0dy"


@pytest.fixture
def http(runtime: LocalRuntime) -> Iterator[httpx.Client]:
    """A data engineer's client of the agent."""
    principal = Principal("ann", TENANT, frozenset({Role.DATA_ENGINEER}))
    token = open_tokens(runtime.settings).issue(principal, utc_now(), 600)
    with httpx.Client(
        base_url=f"{runtime.url}/api/v1/agents/ingestion",
        headers={"Authorization": f"Bearer {token}"},
        timeout=90,
    ) as client:
        yield client


def test_four_messages_lead_from_nothing_to_rows_in_iceberg(lab: Lab, http: httpx.Client) -> None:
    create_table(lab.server, lab.database, "t", rows=20_000)
    opened = http.post("/sessions")
    assert opened.status_code == 201, opened.text
    session = opened.json()["session_id"]

    def say(text: str) -> dict[str, object]:
        answer = http.post(f"/sessions/{session}/chat", json={"message": text})
        assert answer.status_code == 200, answer.text
        body: dict[str, object] = answer.json()
        return body

    first = say(
        f"postgres at {lab.server.host} port {lab.server.port}, database {lab.database}, "
        f"user {lab.server.user}, password {PASSWORD}"
    )
    assert first["state"] == "select_streams", first
    assert say("all")["state"] == "configure_sync"
    assert say("ok")["state"] == "review"
    last = say("go")
    assert last["state"] == "execute"
    data = last["data"]
    assert isinstance(data, dict)
    [outcome] = data["outcomes"]
    run = lab.wait(RunId(outcome["run_id"]))
    assert (run.state, run.rows) == (RunState.COMPLETED, 20_000)
    assert lab.sink_rows(run) == lab.source_rows("t")
    record = lab.ports.metadata.get_endpoint(TENANT, EndpointId(data["connector_id"]))
    assert record.credential_name is not None
    stored = lab.ports.credentials.get(TENANT, record.credential_name)
    assert stored["password"] == PASSWORD
    assert PASSWORD not in http.get(f"/sessions/{session}").text
    assert http.delete(f"/sessions/{session}").status_code == 204
    assert http.get(f"/sessions/{session}").status_code == 404
    # what was loaded with stays when the conversation ends
    assert lab.ports.metadata.get_endpoint(TENANT, record.endpoint_id) == record


def message_of(draft: dict[str, Any]) -> str:
    """What a user would write for a walk's connector."""
    lines = [draft["type"].lower()]
    for name in ("host", "port", "database"):
        lines += [f"{name}: {draft[name]}"] if name in draft else []
    names = {"accessKeyId": "access key", "secretAccessKey": "secret key"}
    lines += [f"{names.get(n, n)}: {value}" for n, value in draft["credentials"].items()]
    lines += ["password: none"] if draft["type"] == "POSTGRESQL" else []
    if draft["type"] == "SNOWFLAKE":
        lines += ["warehouse: COMPUTE_WH", "schema: PUBLIC", "role: READER"]
    names = {"endpointOverride": "endpoint"}
    lines += [f"{names.get(n, n)}: {value}" for n, value in draft.get("metadata", {}).items()]
    lines += ["ssl: off"] if draft.get("sslEnabled") is False else []
    return "\n".join(lines)


@pytest.mark.parametrize("name", ["POSTGRESQL", "MYSQL", "SNOWFLAKE", "S3"])
def test_each_template_leads_to_the_rows_of_its_source(
    lab: Lab, http: httpx.Client, name: str
) -> None:
    with WALKS[name]() as walk:
        walk.add(1, 500)
        session = http.post("/sessions").json()["session_id"]
        said: list[dict[str, Any]] = []
        for text in (message_of(walk.draft), walk.unit_id, "ok", "go"):
            answer = http.post(f"/sessions/{session}/chat", json={"message": text})
            assert answer.status_code == 200, answer.text
            said.append(answer.json())
        assert said[-1]["state"] == "execute", said
        [outcome] = said[-1]["data"]["outcomes"]
        assert outcome["problem"] is None
        assert loaded(lab, lab.wait(RunId(outcome["run_id"]))) == expected(500)
