"""Flink's SQL Gateway and job REST, as its documentation shows them with curl."""

from __future__ import annotations

import base64
import subprocess
from datetime import timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from matih_ray.api.flink.shapes import VERTEX
from matih_ray.control.authorization import Role
from matih_ray.control.sql_sessions import IDLE, MAX_OPERATIONS, MAX_SESSIONS
from matih_ray.errors import SourceChangedError
from matih_ray.model.run import RunError
from matih_ray.model.stream_job import SavepointState, StreamJobState
from matih_ray.testing.fakes import RecordingLauncher
from tests.api.flink_lab import INSERT, PLAIN_SOURCE, TARGET, Talk, refusal, rows
from tests.api.lab import TENANT, Lab, open_lab


@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
def test_the_session_of_flinks_documentation_works(gateway: Lab, version: str):
    told = gateway.client.get(f"/{version}/info").json()
    assert told["productName"] == "MATIH Ray"
    assert version.upper() in gateway.client.get("/api_versions").json()["versions"]
    talk = Talk(gateway, version, sessionName="docs", properties={"pipeline.name": "mine"})
    assert gateway.client.get(talk.path).json() == {"properties": {"pipeline.name": "mine"}}
    assert gateway.client.request("POST", f"{talk.path}/heartbeat").json() == {}
    for statement in (PLAIN_SOURCE, TARGET):
        page = talk.run(statement)
        assert rows(page) == [["OK"]]
        assert page["resultType"] == "PAYLOAD"
    page = talk.run(f"{INSERT};")
    ((job_id,),) = rows(page)
    assert [column["name"] for column in page["results"]["columns"]] == ["job id"]
    if version != "v1":
        assert (page["jobID"], page["resultKind"]) == (job_id, "SUCCESS_WITH_CONTENT")
        assert page["results"]["rowFormat"] == "JSON"
    end = gateway.client.get(page["nextResultUri"]).json()
    assert (end["resultType"], end["results"]["data"]) == ("EOS", [])
    assert "nextResultUri" not in end
    job = gateway.ports.metadata.get_stream_job(TENANT, job_id)
    assert (job.name, job.target) == ("mine", "nowhere")
    assert gateway.client.request("DELETE", f"{talk.operation}/close").json() == {
        "status": "CLOSED"
    }
    assert gateway.client.get(f"{talk.operation}/status").status_code == 404
    assert gateway.client.request("DELETE", talk.path).json() == {"status": "CLOSED"}
    assert "open another" in refusal(gateway.client.get(talk.path))


def test_options_of_a_session_and_of_a_statement_reach_the_job(gateway: Lab):
    talk = Talk(gateway)
    for statement in (
        "SET 'execution.checkpointing.interval' = '5 s'",
        "SET 'parallelism.default' = '2'",
        "SET 'execution.runtime-mode' = 'streaming'",
        PLAIN_SOURCE,
        TARGET,
    ):
        assert rows(talk.run(statement)) == [["OK"]]
    assert rows(talk.run("SET")) == [
        ["execution.checkpointing.interval", "5 s"],
        ["execution.runtime-mode", "streaming"],
        ["parallelism.default", "2"],
    ]
    assert rows(talk.run("RESET 'parallelism.default'")) == [["OK"]]
    page = talk.run(INSERT, executionConfig={"pipeline.name": "for-this-one"})
    job = gateway.ports.metadata.get_stream_job(TENANT, rows(page)[0][0])
    assert (job.name, job.parallelism, job.checkpoint_interval_s) == ("for-this-one", 1, 5.0)
    plain = gateway.ports.metadata.get_stream_job(TENANT, rows(talk.run(INSERT))[0][0])
    assert plain.name == "insert-into_nowhere"


def test_a_job_in_batch_mode_is_refused_and_declarations_are_not(gateway: Lab):
    talk = Talk(gateway)
    for statement in ("SET 'execution.runtime-mode' = 'batch'", PLAIN_SOURCE, TARGET):
        assert rows(talk.run(statement)) == [["OK"]]
    assert "streaming mode" in refusal(talk.send(INSERT))
    talk.run("SET 'execution.runtime-mode' = 'streaming'")
    assert rows(talk.run(INSERT))


def test_what_a_session_declared_is_listed_explained_and_dropped(gateway: Lab):
    talk = Talk(gateway)
    talk.run(PLAIN_SOURCE)
    talk.run(TARGET)
    # as dbt writes it
    talk.run("/** by dbt */ create view `even` /** mode('streaming')*/ as (SELECT n FROM numbers);")
    assert rows(talk.run("SHOW TABLES")) == [["even"], ["nowhere"], ["numbers"]]
    assert rows(talk.run("show views;")) == [["even"]]
    (plan,) = rows(talk.run(f"EXPLAIN {INSERT}"))[0]
    assert plan.startswith("Sink(nowhere)")
    assert "there twice" in refusal(talk.send(TARGET))
    assert rows(talk.run("drop view if exists `even`")) == [["OK"]]
    assert rows(talk.run("DROP VIEW IF EXISTS even")) == [["OK"]]
    assert "declares no even" in refusal(talk.send("DROP VIEW even"))
    assert rows(talk.run("SHOW VIEWS")) == []


def test_a_session_tells_where_it_is_and_what_its_tables_are(gateway: Lab):
    talk = Talk(gateway)
    for statement, column, place in (
        ("SHOW CATALOGS", "catalog name", "default_catalog"),
        ("SHOW CURRENT CATALOG;", "current catalog name", "default_catalog"),
        ("show databases", "database name", "default_database"),
        ("SHOW CURRENT  DATABASE", "current database name", "default_database"),
    ):
        page = talk.run(statement)
        assert ([one["name"] for one in page["results"]["columns"]], rows(page)) == (
            [column],
            [[place]],
        )
    assert rows(talk.run("USE CATALOG `default_catalog`")) == [["OK"]]
    assert rows(talk.run("USE default_catalog.default_database")) == [["OK"]]
    assert "in full" in refusal(talk.send("USE CATALOG lake"))
    table = (
        "CREATE TABLE facts (id BIGINT NOT NULL, `at` TIMESTAMP(3), day AS CAST(`at` AS DATE), "
        "part INT METADATA FROM 'partition' VIRTUAL, PRIMARY KEY (id) NOT ENFORCED, "
        "WATERMARK FOR `at` AS `at` - INTERVAL '5' SECOND) WITH ('connector' = 'kafka', "
        "'topic' = 't', 'format' = 'json', 'properties.sasl.jaas.config' = '${NOT_SHOWN}')"
    )
    assert "NOT_SHOWN is not set" in refusal(talk.send(table))
    table = table.replace(", 'properties.sasl.jaas.config' = '${NOT_SHOWN}'", "")
    talk.run(table)
    talk.run("CREATE VIEW v AS SELECT id, day FROM facts")
    assert rows(talk.run("SHOW CREATE TABLE facts")) == [[table]]
    assert "declares no nothing" in refusal(talk.send("SHOW CREATE TABLE nothing"))
    page = talk.run("DESCRIBE `facts`")
    assert page["results"]["columns"][2]["logicalType"] == {"type": "BOOLEAN", "nullable": True}
    assert rows(page) == [
        ["id", "BIGINT", False, "PRI(id)", None, None],
        ["at", "TIMESTAMP(3)", True, None, None, "`at` - INTERVAL '5' SECOND"],
        ["day", "DATE", True, None, "AS CAST(`at` AS DATE)", None],
        ["part", "INT", True, None, "METADATA FROM 'partition' VIRTUAL", None],
    ]
    assert rows(talk.run("DESC v")) == [
        ["id", "BIGINT", True, None, None, None],
        ["day", "DATE", True, None, None, None],
    ]
    assert "no table" in refusal(talk.send("DESCRIBE nothing"))


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("SELEC 1", "SQL"),
        ("SELECT 1", "without FROM"),
        ("INSERT INTO a SELECT n FROM missing", "missing"),
        ("SET 'table.exec.mini-batch.size' = '5'", "table.exec.mini-batch.size"),
        ("CREATE CATALOG c WITH ('type' = 'jdbc')", "catalogs come from settings"),
        (f"{TARGET}; {TARGET}", "one statement at a time"),
        ("STOP JOB '00000000000000000000000000000000'", "0000"),
        (
            "CREATE TABLE k (n BIGINT) WITH ('connector' = 'kafka', 'sasl.password' = 'hunter2')",
            "is a secret",
        ),
    ],
)
def test_a_statement_that_is_refused_leaves_nothing(gateway: Lab, statement: str, words: str):
    talk = Talk(gateway)
    answer = talk.send(statement)
    assert 400 <= answer.status_code < 500
    assert words in refusal(answer)
    assert "hunter2" not in answer.text
    assert rows(talk.run("SHOW TABLES")) == []


def test_a_job_is_shown_saved_and_stopped_in_flinks_words(gateway: Lab):
    talk = Talk(gateway)
    talk.run(PLAIN_SOURCE)
    talk.run(TARGET)
    job_id = rows(talk.run(INSERT))[0][0]
    get, ask = gateway.client.get, gateway.client.request
    assert {"id": job_id, "status": "CREATED"} in get("/jobs").json()["jobs"]
    (shown,) = [job for job in get("/jobs/overview").json()["jobs"] if job["jid"] == job_id]
    assert (shown["state"], shown["tasks"]["total"], shown["end-time"]) == ("CREATED", 1, -1)
    details = get(f"/jobs/{job_id}").json()
    assert details["vertices"][0]["id"] == VERTEX
    assert details["status-counts"]["CREATED"] == 1
    assert get(f"/jobs/{job_id}/status").json() == {"status": "CREATED"}
    assert get(f"/jobs/{job_id}/checkpoints/config").json()["interval"] == 60_000
    assert get(f"/jobs/{job_id}/checkpoints").json()["counts"]["completed"] == 0
    no_watermark = [{"id": "0.currentInputWatermark", "value": str(-(2**63))}]
    assert get(f"/jobs/{job_id}/vertices/{VERTEX}/watermarks").json() == no_watermark
    assert get(f"/jobs/{job_id}/vertices/other/watermarks").status_code == 404
    asked = ask("POST", f"/jobs/{job_id}/savepoints", json={"cancel-job": False})
    assert asked.status_code == 202
    where = f"/jobs/{job_id}/savepoints/{asked.json()['request-id']}"
    assert get(where).json() == {"status": {"id": "IN_PROGRESS"}}
    _taken(gateway, job_id, path="/savepoints/one")
    assert get(where).json()["operation"] == {"location": "/savepoints/one"}
    assert rows(talk.run(f"STOP JOB '{job_id}' WITH SAVEPOINT"))[0][0]
    assert "is being stopped" in refusal(ask("POST", f"/jobs/{job_id}/stop", json={}))
    _taken(gateway, job_id, error="no room")
    asked = ask("POST", f"/jobs/{job_id}/stop", json={"drain": False})
    request = asked.json()["request-id"]
    _taken(gateway, job_id, error="no room")
    failed = get(f"/jobs/{job_id}/savepoints/{request}").json()
    assert failed["operation"]["failure-cause"]["stack-trace"] == "no room"
    assert ask("PATCH", f"/jobs/{job_id}?mode=cancel").status_code == 202
    assert gateway.ports.metadata.get_stream_job(TENANT, job_id).cancel_requested
    _failed(gateway, job_id)
    (entry,) = get(f"/jobs/{job_id}/exceptions").json()["exceptionHistory"]["entries"]
    assert entry["stacktrace"] == "the topic is gone"
    assert ask("PATCH", f"/jobs/{job_id}?mode=cancel").status_code == 409
    assert [job_id, "insert-into_nowhere", "FAILED"] in [
        row[:3] for row in rows(talk.run("SHOW JOBS"))
    ]


def _taken(lab: Lab, job_id: str, path: str | None = None, error: str | None = None) -> None:
    """As the job's owner does when its last savepoint is there, or cannot be."""
    job = lab.ports.metadata.get_stream_job(TENANT, job_id)
    state = SavepointState.COMPLETED if error is None else SavepointState.FAILED
    told = job.savepoints[-1].model_copy(update={"state": state, "path": path, "error": error})
    lab.ports.metadata.put_stream_job(
        job.model_copy(update={"savepoints": (*job.savepoints[:-1], told)})
    )


def _failed(lab: Lab, job_id: str) -> None:
    job = lab.ports.metadata.get_stream_job(TENANT, job_id)
    error = RunError.of(SourceChangedError("the topic is gone"))
    lab.ports.metadata.put_stream_job(
        job.model_copy(update={"state": StreamJobState.FAILED, "error": error})
    )


def test_a_script_is_submitted_whole(gateway: Lab):
    script = f"{PLAIN_SOURCE};\n{TARGET};\n{INSERT};"
    answer = gateway.client.request("POST", "/v1/statements", content=script)
    assert answer.status_code == 200, answer.text
    (job,) = answer.json()["jobs"]
    assert job["target"] == "nowhere"
    assert gateway.client.get(f"/jobs/{job['id']}/status").json() == {"status": "CREATED"}
    assert "script" in refusal(gateway.client.request("POST", "/v1/statements", content=b""))


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/v9/info", None, 400),
        ("GET", "/v1/sessions/none", None, 404),
        ("POST", "/v1/sessions/none/statements", {"statement": "SHOW TABLES"}, 404),
        ("GET", "/jobs/notahandle", None, 400),
        ("GET", f"/jobs/{'0' * 32}", None, 404),
        ("GET", f"/jobs/{'0' * 32}/savepoints/none", None, 404),
        ("PATCH", f"/jobs/{'0' * 32}?mode=other", None, 400),
        ("POST", f"/jobs/{'0' * 32}/stop", {"drain": True}, 400),
    ],
)
def test_errors_are_flinks(gateway: Lab, method: str, path: str, body: object, status: int):
    answer = gateway.client.request(method, path, json=body)
    assert answer.status_code == status, answer.text
    assert refusal(answer)


def test_results_are_asked_for_by_tokens_that_exist(gateway: Lab):
    talk = Talk(gateway)
    talk.run("SHOW TABLES")
    for token, status in ((0, 200), (1, 200), (2, 404), (-1, 400)):
        answer = gateway.client.get(f"{talk.operation}/result/{token}")
        assert answer.status_code == status
    plain = gateway.client.get(f"{talk.operation}/result/0?rowFormat=PLAIN_TEXT")
    assert "JSON only" in refusal(plain)


@pytest.mark.parametrize(
    "who",
    [
        {"tenant": "globex"},
        {"subject": "bob"},
        {"roles": (Role.VIEWER,)},
    ],
    ids=["another tenant", "another user", "a reader"],
)
def test_a_session_is_its_owners(gateway: Lab, who: dict):
    talk = Talk(gateway)
    roles = who.pop("roles", (Role.DATA_ENGINEER,))
    headers = gateway.as_(*roles, **who)
    answer = gateway.client.request(
        "POST", f"{talk.path}/statements", json={"statement": "SHOW JOBS"}, headers=headers
    )
    assert answer.status_code == (403 if roles == (Role.VIEWER,) else 404)
    assert refusal(answer)


def test_a_token_may_come_as_a_password(gateway: Lab):
    token = gateway.as_(Role.DATA_ENGINEER)["Authorization"].removeprefix("Bearer ")
    for user, password, status in (("any", token, 200), ("any", "wrong", 401), ("", "", 401)):
        basic = base64.b64encode(f"{user}:{password}".encode()).decode()
        answer = gateway.client.get("/jobs", headers={"Authorization": f"Basic {basic}"})
        assert answer.status_code == status
    assert gateway.client.get("/jobs", headers={"Authorization": "Basic %%%"}).status_code == 401


def test_sessions_end_when_they_are_idle_and_are_bounded(tmp_path: Path):
    for lab in open_lab(tmp_path, RecordingLauncher()):
        first = Talk(lab)
        for _ in range(MAX_OPERATIONS + 5):
            first.run("SHOW TABLES")
        assert len(lab.ports.kv.keys(TENANT, "flink::operation::")) == MAX_OPERATIONS
        for _ in range(MAX_SESSIONS - 1):
            Talk(lab)
        full = lab.client.request("POST", "/v1/sessions", json={})
        assert full.status_code == 409
        assert "at most" in refusal(full)
        later = lab.ports.clock() + IDLE + timedelta(seconds=1)
        object.__setattr__(lab.ports, "clock", partial(lambda at: at, later))
        assert lab.client.get(first.path).status_code == 404
        Talk(lab)
        assert len(lab.ports.kv.keys(TENANT, "flink::session::")) == 1
        assert lab.ports.kv.keys(TENANT, "flink::operation::") == []


def test_the_requests_of_the_documentation_work(gateway: Lab):
    page = (Path(__file__).parents[2] / "docs" / "flink-api.md").read_text()
    lines = [line for line in page.splitlines() if line.startswith("curl ")]
    assert len(lines) > 5
    known = {"GATEWAY": "", "TOKEN": "", "SESSION": "", "OPERATION": "", "JOB": ""}
    for line in lines:
        words = _words(line, known)
        options = dict(pairwise(words))
        (path,) = [word for word in words if word.startswith("/")]
        answer = gateway.client.request(
            options.get("-X", "GET"),
            path,
            content=options.get("-d"),
            headers={"Content-Type": "application/x-www-form-urlencoded"},  # as curl does
        )
        assert answer.status_code in (200, 202), answer.text
        told = answer.json()
        known["SESSION"] = told.get("sessionHandle", known["SESSION"])
        known["OPERATION"] = told.get("operationHandle", known["OPERATION"])
        if "results" in told and told["results"]["columns"][0]["name"] == "job id":
            known["JOB"] = rows(told)[0][0]


def _words(line: str, variables: dict[str, str]) -> list[str]:
    """A line's arguments, as the shell reads them."""
    script = f'curl() {{ printf "%s\\0" "$@"; }}; {line}'
    told = subprocess.run(
        ["bash", "-c", script], env=variables, capture_output=True, check=True, text=True
    )
    return told.stdout.split("\0")[:-1]
