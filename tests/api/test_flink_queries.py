"""Queries and tables made of queries, through the SQL gateway."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from matih_ray.control.sql_sessions import MAX_RESULTS
from matih_ray.control.sql_statements import MAX_QUERIES, QUERY_OVERDUE
from matih_ray.model.sql_session import QueryTask
from matih_ray.sinks.iceberg.catalog import CatalogConfig, open_catalog
from matih_ray.streaming.queries import run_query
from matih_ray.streaming.results import MAX_ROWS, PAGE_ROWS
from matih_ray.streaming.submission import TenantScripts
from matih_ray.testing.fakes import RecordingLauncher
from tests.api.flink_lab import PLAIN_SOURCE, Talk, refusal, rows
from tests.api.lab import TENANT, Lab, open_lab


def source(gateway: Lab, name: str, lines: str) -> str:
    """The declaration of a table of JSON lines that the tenant may read."""
    path = gateway.ports.settings.stream_files / TENANT / name
    path.mkdir()
    (path / "rows.json").write_text(lines)
    return (
        f"CREATE TABLE {name} (n BIGINT, word STRING, at TIMESTAMP(3)) WITH ("
        f"'connector' = 'filesystem', 'path' = '{path}', 'format' = 'json')"
    )


ROWS = """{"n": 1, "word": "one", "at": "2026-01-01 00:00:00"}
{"n": 2, "word": null, "at": "2026-01-01 00:00:01.5"}
{"n": 3, "word": "three", "at": null}
"""


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_query_gives_pages_of_typed_rows(gateway: Lab, version: str):
    talk = Talk(gateway, version)
    talk.run(source(gateway, f"typed_{version}", ROWS))
    page = talk.run(
        "SELECT n, word, `at`, CAST(n AS DECIMAL(10, 2)) AS d, CAST(n AS DOUBLE) / 2 AS half, "
        f"n > 1 AS more, CAST('2026-02-03' AS DATE) AS day FROM typed_{version} WHERE n < 3"
    )
    assert rows(page) == [
        [1, "one", "2026-01-01T00:00:00", "1.00", 0.5, False, "2026-02-03"],
        [2, None, "2026-01-01T00:00:01.5", "2.00", 1.0, True, "2026-02-03"],
    ]
    assert {row["kind"] for row in page["results"]["data"]} == {"INSERT"}
    kinds = {one["name"]: one["logicalType"] for one in page["results"]["columns"]}
    assert kinds["n"] == {"type": "BIGINT", "nullable": True}
    assert kinds["word"] == {"type": "VARCHAR", "nullable": True, "length": 2**31 - 1}
    assert kinds["d"] == {"type": "DECIMAL", "nullable": True, "precision": 10, "scale": 2}
    at = {"type": "TIMESTAMP_WITHOUT_TIME_ZONE", "nullable": True, "precision": 3}
    assert kinds["at"] == at
    assert [kinds[name]["type"] for name in ("half", "more", "day")] == [
        "DOUBLE",
        "BOOLEAN",
        "DATE",
    ]
    if version == "v2":
        assert (page["isQueryResult"], page["resultKind"]) == (True, "SUCCESS_WITH_CONTENT")
        assert len(page["jobID"]) == 32
    end = gateway.client.get(page["nextResultUri"]).json()
    assert (end["resultType"], end["results"]["data"]) == ("EOS", [])
    assert end["results"]["columns"] == page["results"]["columns"]


def test_a_query_has_pages_a_limit_and_an_end(gateway: Lab):
    talk = Talk(gateway)
    talk.run(source(gateway, "long", "".join(f'{{"n": {n}}}\n' for n in range(MAX_ROWS + 1))))
    page, found = talk.run(f"SELECT n FROM long WHERE n < {MAX_ROWS}"), []
    while page["resultType"] == "PAYLOAD":
        assert len(page["results"]["data"]) <= PAGE_ROWS
        found += [row[0] for row in rows(page)]
        page = gateway.client.get(page["nextResultUri"]).json()
    assert (page["resultType"], found) == ("EOS", list(range(MAX_ROWS)))
    assert rows(talk.run("SELECT n FROM long LIMIT 3")) == [[0], [1], [2]]
    assert rows(talk.run("SELECT n FROM long WHERE n < 0")) == []
    handle = talk.send("SELECT n FROM long").json()["operationHandle"]
    path = f"{talk.path}/operations/{handle}"
    assert gateway.client.get(f"{path}/status").json() == {"status": "ERROR"}
    answer = gateway.client.get(f"{path}/result/0")
    assert answer.status_code == 400
    assert "CREATE TABLE … AS SELECT" in refusal(answer)
    assert "QUERY_LIMIT" in refusal(answer)


def test_the_rows_of_a_query_are_removed_with_it(gateway: Lab):
    results = gateway.ports.settings.home / "streams" / TENANT / "results"
    talk = Talk(gateway)
    talk.run(source(gateway, "kept", ROWS))
    before = set(results.glob("*"))
    talk.run("SELECT n FROM kept")
    (first,) = set(results.glob("*")) - before
    assert gateway.client.request("DELETE", f"{talk.operation}/close").status_code == 200
    assert not first.exists()
    assert gateway.client.get(f"{talk.operation}/result/0").status_code == 404
    for _ in range(MAX_RESULTS + 2):
        talk.run("SELECT n FROM kept")
    assert len(set(results.glob("*")) - before) == MAX_RESULTS
    gateway.client.request("DELETE", talk.path)
    assert set(results.glob("*")) == before


def test_a_query_that_fails_tells_why(gateway: Lab):
    talk = Talk(gateway)
    talk.run(source(gateway, "broken", '{"n": 1}\n{no\n'))
    handle = talk.send("SELECT n FROM broken").json()["operationHandle"]
    answer = gateway.client.get(f"{talk.path}/operations/{handle}/result/0")
    assert answer.status_code == 502
    assert "STREAM_ROW" in refusal(answer)
    talk.run(PLAIN_SOURCE)
    assert "has no end" in refusal(talk.send("SELECT n FROM numbers"))


def test_queries_are_cancelled_overdue_and_bounded(tmp_path: Path):
    started: list[QueryTask] = []
    scripts = partial(TenantScripts, start=lambda _, task: started.append(task))
    files = tmp_path / "files"
    (files / TENANT).mkdir(parents=True)
    for lab in open_lab(tmp_path, RecordingLauncher(), scripts=scripts, stream_files=str(files)):
        talk = Talk(lab, "v2")
        talk.run(source(lab, "t", ROWS))
        paths = []
        for _ in range(MAX_QUERIES):
            handle = talk.send("SELECT n FROM t").json()["operationHandle"]
            paths.append(f"{talk.path}/operations/{handle}")
        assert "at a time" in refusal(talk.send("SELECT n FROM t"))
        first, second, third, fourth = paths
        assert lab.client.get(f"{first}/status").json() == {"status": "RUNNING"}
        page = lab.client.get(f"{first}/result/0?rowFormat=JSON").json()
        assert page == {
            "resultType": "NOT_READY",
            "nextResultUri": f"{first}/result/0?rowFormat=JSON",
        }
        # cancelled before it ran: what it finds is not kept
        assert lab.client.request("POST", f"{first}/cancel").json() == {"status": "CANCELED"}
        run_query(lab.ports.settings, started[0])
        assert lab.client.get(f"{first}/status").json() == {"status": "CANCELED"}
        assert "cancelled" in refusal(lab.client.get(f"{first}/result/0?rowFormat=JSON"))
        # closed likewise
        assert lab.client.request("DELETE", f"{second}/close").json() == {"status": "CLOSED"}
        run_query(lab.ports.settings, started[1])
        assert list((lab.ports.settings.home / "streams").rglob("results/*")) == []
        # run, and then cancelled: it has ended already
        run_query(lab.ports.settings, started[2])
        assert lab.client.request("POST", f"{third}/cancel").json() == {"status": "FINISHED"}
        assert rows(lab.client.get(f"{third}/result/0?rowFormat=JSON").json()) == [[1], [2], [3]]
        # never run: its process died
        later = lab.ports.clock() + QUERY_OVERDUE + timedelta(seconds=1)
        object.__setattr__(lab.ports, "clock", partial(lambda at: at, later))
        assert lab.client.get(f"{fourth}/status").json() == {"status": "ERROR"}
        assert "run it again" in refusal(lab.client.get(f"{fourth}/result/0?rowFormat=JSON"))
        assert talk.send("SELECT n FROM t").status_code == 200


def test_a_table_is_made_of_a_query_and_filled_by_a_job(gateway: Lab):
    talk = Talk(gateway, "v2")
    talk.run(source(gateway, "origin", ROWS))
    where = gateway.ports.settings.stream_files / TENANT / "copy"
    # as dbt writes it
    made = (
        "/** upgrade_mode('stateless') */ create table copy with ('connector' = 'filesystem', "
        f"'path' = '{where}', 'format' = 'json') as (SELECT n * 2 AS twice, word FROM origin);"
    )
    page = talk.run(made)
    job = gateway.ports.metadata.get_stream_job(TENANT, rows(page)[0][0])
    assert (page["jobID"], job.target, job.name) == (job.job_id, "copy", "insert-into_copy")
    assert "there twice" in refusal(talk.send(made))
    assert rows(talk.run("SHOW TABLES")) == [["copy"], ["origin"]]
    # it may be read and written like any other, and filling it again is no part of that
    again = rows(talk.run("INSERT INTO copy SELECT twice + 1, word FROM copy"))
    assert len(again) == 1
    (plan,) = rows(talk.run("EXPLAIN INSERT INTO copy SELECT twice, word FROM copy"))[0]
    assert "twice BIGINT, word STRING" in plan
    assert rows(talk.run(made.replace("create table", "create table if not exists")))[0][0]
    assert rows(talk.run("SHOW TABLES")) == [["copy"], ["origin"]]


def test_a_catalog_table_is_made_of_a_query_once(gateway: Lab):
    talk = Talk(gateway)
    talk.run(source(gateway, "rows", ROWS))
    assert "no column" in refusal(talk.send("CREATE TABLE lake.made.t AS SELECT nope FROM rows"))
    made = "CREATE TABLE lake.made.t PARTITIONED BY (day(`at`)) AS SELECT n, `at` FROM rows"
    assert rows(talk.run(made))[0][0]
    catalog = open_catalog(CatalogConfig.from_settings(gateway.ports.settings))
    table = catalog.load_table((TENANT, "made", "t"))
    assert table.schema().column_names == ["n", "at"]
    assert [field.name for field in table.spec().fields] == ["at_day"]
    other = Talk(gateway)
    other.run(source(gateway, "others", ROWS))
    refused = other.send("CREATE TABLE lake.made.t AS SELECT n FROM others")
    assert "is there already" in refusal(refused)
    assert rows(other.run("SHOW TABLES")) == [["others"]]


def test_what_a_table_of_a_query_cannot_be_is_refused(gateway: Lab):
    talk = Talk(gateway)
    talk.run(source(gateway, "plain", ROWS))
    for statement, words in (
        ("CREATE TABLE t AS SELECT n FROM plain", "needs option 'connector'"),
        ("CREATE TABLE lake.a.t AS SELECT NULL AS x FROM plain", "CAST"),
        ("CREATE TABLE lake.a.t (n BIGINT) AS SELECT n FROM plain", "from the query"),
        ("CREATE OR REPLACE TABLE lake.a.t AS SELECT n FROM plain", "OR REPLACE"),
        (
            "CREATE TABLE k WITH ('connector' = 'kafka', 'password' = 'x') AS SELECT n FROM plain",
            "is a secret",
        ),
    ):
        assert words in refusal(talk.send(statement))
    assert rows(talk.run("SHOW TABLES")) == [["plain"]]
