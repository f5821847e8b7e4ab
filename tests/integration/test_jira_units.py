"""Every unit of Jira, value by value, and how each goes on from its checkpoint."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator

import pytest

from matih_ray.errors import ValidationError
from matih_ray.model.ids import UnitId
from matih_ray.model.policy import IngestionPolicy
from matih_ray.planning.planner import make_plan
from matih_ray.sources.jira import JiraSource
from matih_ray.testing.devstack.jira import JiraServer
from tests.integration.jira_lab import INCREMENTAL, NOON_MS, Loads, spec_of

FIRST = 10_001
NOON = dt.datetime(2026, 11, 20, 12, tzinfo=dt.timezone.utc)
MINUTE_MS = 60_000


@pytest.fixture(scope="module")
def server() -> Iterator[JiraServer]:
    with JiraServer() as server:
        yield server


@pytest.fixture
def jira(server: JiraServer) -> JiraServer:
    server.do("reset")
    server.do("set", frozen_ms=NOON_MS, zone_name="Pacific/Chatham")
    server.do("generate", project="SHOP", count=30)
    return server


@pytest.fixture
def source(jira: JiraServer) -> Iterator[JiraSource]:
    source = JiraSource(spec_of(jira))
    yield source
    source.close()


def later(jira: JiraServer, minutes: int) -> None:
    jira.do("set", frozen_ms=NOON_MS + minutes * MINUTE_MS)


def test_an_issue_is_the_same_without_what_nobody_wants(
    jira: JiraServer, source: JiraSource
) -> None:
    jira.do("edit", id_=FIRST + 3, fields={"timespent": 7200, "customfield_10020": [{"id": 5}]})
    unit = source.describe_unit(UnitId("jira.issues"))
    columns = tuple(column.name for column in unit.columns if column.name != "raw")
    everything, needed = Loads(source), Loads(source)
    jira.do("set", recording=True)
    needed.run(INCREMENTAL.model_copy(update={"columns": columns}))
    jira.do("set", recording=False)
    asked = [body["fields"] for _, path, body in jira.do("recorded") if "bulkfetch" in path]
    assert asked
    assert not [fields for fields in asked if "*all" in fields]
    everything.run()
    assert len(needed.read) == 30
    assert needed.read == [
        {name: row[name] for name in row if name != "raw"} for row in everything.read
    ]


def test_an_issue_arrives_with_all_its_fields(jira: JiraServer, source: JiraSource) -> None:
    jira.do("edit", id_=FIRST + 3, fields={"timespent": 7200, "customfield_10020": [{"id": 5}]})
    loads = Loads(source)
    loads.run()
    row = loads.table[str(FIRST + 3)]
    raw = json.loads(row.pop("raw"))
    assert raw["fields"]["summary"] == "Issue 3 of SHOP"
    assert json.loads(row.pop("description_adf"))["type"] == "doc"
    created = row.pop("created")
    assert created < NOON
    assert row == {
        "id": "10004",
        "_source_version": NOON_MS,
        "_deleted": False,
        "key": "SHOP-4",
        "project_id": "10000",
        "project_key": "SHOP",
        "issue_type_id": "10001",
        "issue_type": "Task",
        "is_subtask": False,
        "hierarchy_level": 0,
        "status_id": "1",
        "status": "To Do",
        "status_category": "new",
        "priority_id": "3",
        "priority": "Medium",
        "resolution_id": None,
        "resolution": None,
        "summary": "Issue 3 of SHOP",
        "description": "What Issue 3 of SHOP is about.\nMore of it.",
        "assignee_id": "5b10ac8d82e05b22cc7d0003",
        "reporter_id": "5b10ac8d82e05b22cc7d0004",
        "creator_id": "5b10ac8d82e05b22cc7d0004",
        "parent_id": None,
        "parent_key": None,
        "labels": ["label-3"],
        "components": [],
        "fix_versions": ["1.0"],
        "affects_versions": [],
        "sprint_ids": ["5"],
        "updated": NOON,
        "resolved": None,
        "due": None,
        "original_estimate_s": 10_800,
        "remaining_estimate_s": None,
        "time_spent_s": 7200,
        "url": f"{jira.url}/browse/SHOP-4",
    }
    assert loads.table[str(FIRST)]["due"] == dt.date(2026, 12, 24)


def test_all_comments_of_an_issue_arrive_however_many(jira: JiraServer, source: JiraSource) -> None:
    for n in range(130):
        jira.do("comment", id_=FIRST, text=f"comment {n}")
    loads = Loads(source, "jira.comments")
    loads.run()
    assert sorted(row["body"] for row in loads.read) == sorted(f"comment {n}" for n in range(130))
    assert {(r["issue_id"], r["issue_key"], r["project_key"]) for r in loads.read} == {
        ("10001", "SHOP-1", "SHOP")
    }
    later(jira, 30)
    jira.do("comment", id_=FIRST + 1, text="new")
    later(jira, 31)
    loads.run()
    assert len(loads.table) == 131


def test_changes_of_status_arrive_one_by_one(jira: JiraServer, source: JiraSource) -> None:
    jira.do("edit", id_=FIRST, fields={"status": "In Progress", "summary": "better"})
    jira.do("edit", id_=FIRST, fields={"status": "Done"})
    loads = Loads(source, "jira.changelogs")
    loads.run()
    changes = [(r["field"], r["from_text"], r["to_text"], r["position"]) for r in loads.read]
    assert changes == [
        ("status", "To Do", "In Progress", 0),
        ("summary", "Issue 0 of SHOP", "better", 1),
        ("status", "In Progress", "Done", 0),
    ]
    assert len({row["id"] for row in loads.read}) == 3
    assert loads.read[0]["created"] == NOON


def test_a_link_is_one_row_from_either_end(jira: JiraServer, source: JiraSource) -> None:
    link = jira.do("link", source=FIRST + 2, target=FIRST)
    loads = Loads(source, "jira.issue_links")
    loads.run()
    assert len(loads.read) == 2
    (row,) = loads.table.values()
    assert (row["id"], row["type"], row["outward"]) == (str(link), "Blocks", "blocks")
    assert (row["source_issue_key"], row["target_issue_key"]) == ("SHOP-3", "SHOP-1")


def test_worklogs_come_from_their_feeds_deletions_included(
    jira: JiraServer, source: JiraSource
) -> None:
    old = NOON_MS - 30 * MINUTE_MS
    ids = [jira.do("log_work", id_=FIRST + n, seconds=60 * n, at_ms=old + n) for n in range(5)]
    loads = Loads(source, "jira.worklogs")
    plan = loads.run()
    assert plan.strategy == "jira-worklog-feed"
    assert sorted(loads.alive) == sorted(map(str, ids))
    assert {row["issue_key"] for row in loads.read} == {f"SHOP-{n + 1}" for n in range(5)}
    jira.do("delete_worklog", id_=ids[0], at_ms=NOON_MS + MINUTE_MS)
    jira.do("log_work", id_=FIRST, seconds=30, at_ms=NOON_MS + MINUTE_MS)
    later(jira, 30)
    loads.run()
    assert len(loads.alive) == 5
    assert loads.table[str(ids[0])]["_deleted"]


def test_what_is_written_in_the_feeds_last_minute_comes_with_the_next_run(
    jira: JiraServer, source: JiraSource
) -> None:
    worklog = jira.do("log_work", id_=FIRST, seconds=60, at_ms=NOON_MS - 10_000)
    loads = Loads(source, "jira.worklogs")
    loads.run()
    assert not loads.read
    later(jira, 5)
    loads.run()
    assert list(loads.alive) == [str(worklog)]


@pytest.mark.parametrize(
    ("unit", "count", "column", "value"),
    [
        ("jira.projects", 1, "key", "SHOP"),
        ("jira.statuses", 3, "category", "new"),
        ("jira.users", 25, "display_name", "Person 0"),
        ("jira.sprints", 1, "state", "active"),
    ],
)
def test_small_units_are_read_whole(
    jira: JiraServer, source: JiraSource, unit: str, count: int, column: str, value: str
) -> None:
    jira.do("add_sprint", name="Sprint 1")
    loads = Loads(source, unit)
    loads.run()
    assert len(loads.read) == count
    assert value in {row[column] for row in loads.read}
    assert {row["_source_version"] for row in loads.read} == {NOON_MS}


def test_a_project_that_is_gone_becomes_a_deletion(jira: JiraServer, source: JiraSource) -> None:
    jira.do("add_project", key="WEB")
    loads = Loads(source, "jira.projects")
    loads.run()
    jira.do("set", hidden=["WEB"])
    later(jira, 10)
    loads.run()
    assert [row["key"] for row in loads.alive.values()] == ["SHOP"]


def test_a_filter_may_choose_from_what_is_there(jira: JiraServer, source: JiraSource) -> None:
    found = source.filter_options()
    assert [(option.value, option.label) for option in found["projectKeys"]] == [
        ("SHOP", "Project SHOP")
    ]
    assert [option.value for option in found["statuses"]] == ["Done", "In Progress", "To Do"]
    assert len(found["assigneeIds"]) == 23, "neither the app nor who has left"


@pytest.mark.parametrize(
    "policy",
    [
        IngestionPolicy(columns=("id", "key")),
        IngestionPolicy(columns=("id", "_source_version", "_deleted", "colour")),
        IngestionPolicy(encodings={"key": "json"}),
    ],
)
def test_a_policy_that_does_not_fit_is_refused(source: JiraSource, policy: IngestionPolicy) -> None:
    with pytest.raises(ValidationError):
        make_plan(source, Loads(source).unit, None, policy)


def test_reading_again_changes_nothing(jira: JiraServer, source: JiraSource) -> None:
    for unit in ("jira.issues", "jira.comments", "jira.projects"):
        loads = Loads(source, unit)
        loads.run()
        before = dict(loads.table)
        loads.run(INCREMENTAL)
        assert loads.table == before
