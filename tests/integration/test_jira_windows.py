"""What Jira's search does to those who trust it, and that nothing is lost by it."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pytest

from matih_ray.errors import PartUnreadableError, PlanError, ValidationError
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.ids import UnitId
from matih_ray.model.plan import cursor_through
from matih_ray.model.policy import IngestionPolicy, RunMode
from matih_ray.planning.planner import make_plan
from matih_ray.sources.jira import JiraSource
from matih_ray.sources.jira.known_ids import unpacked
from matih_ray.testing.devstack.jira import JiraServer
from tests.integration.jira_lab import INCREMENTAL, NOON_MS, Loads, assert_true, spec_of

FIRST = 10_001
ISSUES = UnitId("jira.issues")
MINUTE_MS = 60_000
MANY_WINDOWS = INCREMENTAL.model_copy(update={"target_slice_rows": 20})


@pytest.fixture(scope="module")
def server() -> Iterator[JiraServer]:
    with JiraServer() as server:
        yield server


@pytest.fixture
def jira(server: JiraServer) -> JiraServer:
    server.do("reset")
    server.do("set", frozen_ms=NOON_MS)
    server.do("generate", project="SHOP", count=120)
    return server


@pytest.fixture
def source(jira: JiraServer) -> Iterator[JiraSource]:
    source = JiraSource(spec_of(jira))
    yield source
    source.close()


def later(jira: JiraServer, minutes: float) -> int:
    """Put the site's clock on; returns it."""
    now = NOON_MS + int(minutes * MINUTE_MS)
    jira.do("set", frozen_ms=now)
    return now


@pytest.mark.parametrize(
    "zone",
    ["UTC", "Pacific/Chatham", "America/St_Johns", "Asia/Kathmandu", "Pacific/Pago_Pago"],
)
def test_the_accounts_time_zone_moves_nothing_in_or_out(
    jira: JiraServer, source: JiraSource, zone: str
) -> None:
    # Chatham is at UTC+13:45 in November
    jira.do("set", zone_name=zone)
    loads = Loads(source)
    loads.run()
    assert_true(loads, jira)
    now = later(jira, 60)
    for n in range(10):
        jira.do("edit", id_=FIRST + n, fields={"summary": f"{n}"}, at_ms=now - n * MINUTE_MS // 3)
    later(jira, 61)
    loads.run()
    assert_true(loads, jira)
    assert {row["id"] for row in loads.read} == {str(FIRST + n) for n in range(10)} | {
        row["id"]
        for row in loads.table.values()
        if row["updated"].timestamp() > NOON_MS / 1000 - 300
    }


@pytest.mark.parametrize("minutes", range(0, 180, 13))
def test_the_hour_that_a_clock_shows_twice_hides_nothing(
    jira: JiraServer, source: JiraSource, minutes: int
) -> None:
    # Berlin's clocks went back on 2026-10-25 at 01:00 UTC
    change_ms = 1_792_890_000_000
    jira.do("set", zone_name="Europe/Berlin", frozen_ms=change_ms - 90 * MINUTE_MS)
    loads = Loads(source)
    loads.run()
    at = change_ms + (minutes - 80) * MINUTE_MS
    jira.do("set", frozen_ms=at)
    jira.do("edit", id_=FIRST, fields={"summary": "now"})
    jira.do("set", frozen_ms=at + 5_000)
    loads.run()
    assert loads.table[str(FIRST)]["summary"] == "now"


@pytest.mark.parametrize("hours", [-3, 3])
def test_a_clock_that_is_hours_off_loses_nothing(
    jira: JiraServer, source: JiraSource, hours: int
) -> None:
    jira.do("reset")
    jira.do("set", clock_offset_s=hours * 3600)
    jira.do("generate", project="SHOP", count=50)
    loads = Loads(source)
    loads.run()
    jira.do("edit", id_=FIRST, fields={"summary": "changed", "status": "Done"})
    jira.do("add_issue", project="SHOP", summary="new")
    # the newest second is the next run's upper bound; the open window reads it at once
    loads.run()
    assert_true(loads, jira)


@pytest.mark.parametrize("policy", [INCREMENTAL, MANY_WINDOWS], ids=["one", "many"])
def test_pages_that_move_while_they_are_read_hide_nothing(
    jira: JiraServer, source: JiraSource, policy: IngestionPolicy
) -> None:
    loads = Loads(source)
    loads.run(policy)
    now = later(jira, 30)
    for n in range(100):
        jira.do("edit", id_=FIRST + n, fields={"summary": f"a{n}"}, at_ms=now - 1000 - n)
    jira.do("set", page_max=7, edit_while_paging=True)
    later(jira, 31)
    loads.run(policy)
    jira.do("set", edit_while_paging=False)
    later(jira, 32)
    loads.run(policy)
    assert_true(loads, jira)


def test_windows_are_cut_where_there_are_many_issues_and_cover_all_times(
    jira: JiraServer, source: JiraSource
) -> None:
    loads = Loads(source)
    plan = loads.run(IngestionPolicy(target_slice_rows=20))
    windows = [slice_.params for slice_ in plan.slices if slice_.params["kind"] == "window"]
    assert len(windows) >= 6
    assert windows[0]["lower"] is None
    assert windows[-1]["upper"] is None
    assert [w["upper"] for w in windows[:-1]] == [w["lower"] for w in windows[1:]]
    assert len(loads.read) == len(loads.table) == 120
    assert_true(loads, jira)


def test_windows_are_cut_finer_where_issues_lie_close_together(
    jira: JiraServer, source: JiraSource
) -> None:
    now = later(jira, 60)
    for n in range(100):
        jira.do("add_issue", project="SHOP", summary=f"n{n}", at_ms=now - 60_000 - n * 20_000)
    loads = Loads(source)
    plan = loads.run(MANY_WINDOWS)
    windows = [slice_.params for slice_ in plan.slices if slice_.params["kind"] == "window"]
    updated = [row["_source_version"] * 1000 for row in loads.read]
    rows = [sum((w["lower"] or 0) < at <= (w["upper"] or at) for at in updated) for w in windows]
    assert sum(rows) == len(updated) == 220
    assert max(rows) <= 20
    assert_true(loads, jira)


def test_an_issue_that_changes_between_planning_and_reading_is_read(
    jira: JiraServer, source: JiraSource
) -> None:
    loads = Loads(source)
    plan = make_plan(source, loads.unit, None, INCREMENTAL)
    later(jira, 5)
    jira.do("edit", id_=FIRST, fields={"summary": "hot"})
    rows = [
        row
        for slice_ in plan.slices
        for batch in source.read(loads.unit, slice_, INCREMENTAL)
        for row in batch.to_pylist()
    ]
    assert "hot" in {row["summary"] for row in rows}


def test_a_zone_that_changes_between_planning_and_reading_hides_nothing(
    jira: JiraServer, source: JiraSource
) -> None:
    loads = Loads(source)
    jira.do("set", zone_name="Pacific/Pago_Pago")
    plan = make_plan(source, loads.unit, None, MANY_WINDOWS)
    jira.do("set", zone_name="Pacific/Chatham")  # a day later by its calendar
    batches = [
        batch for slice_ in plan.slices for batch in source.read(loads.unit, slice_, MANY_WINDOWS)
    ]
    ids = pa.Table.from_batches(batches).column("id").to_pylist()
    assert sorted(ids) == [str(FIRST + n) for n in range(120)]


def test_issues_that_change_while_ids_are_compared_are_among_them(
    jira: JiraServer, source: JiraSource
) -> None:
    jira.do("set", edit_while_searching=True)
    jira.do("forget_calls")
    plan = make_plan(source, source.describe_unit(ISSUES), None, MANY_WINDOWS)
    jira.do("set", edit_while_searching=False)
    windows = [slice_ for slice_ in plan.slices if slice_.params["kind"] == "window"]
    searches = [call for call in jira.do("calls") if call.endswith("/search/jql")]
    assert len(searches) == len(windows) + 1  # one each, and one for the oldest issue
    cursor = cursor_through(None, plan.slices)
    assert isinstance(cursor, dict)
    known = cursor["projects"]["SHOP"]["known"]  # type: ignore[call-overload,index]
    assert unpacked(str(known)) == {FIRST + n for n in range(120)}


@pytest.mark.parametrize("policy", [INCREMENTAL, MANY_WINDOWS], ids=["one", "many"])
def test_deleted_issues_become_deletions(
    jira: JiraServer, source: JiraSource, policy: IngestionPolicy
) -> None:
    loads = Loads(source)
    loads.run(policy)
    jira.do("delete", id_=FIRST)
    jira.do("delete", id_=FIRST + 50)
    now = later(jira, 120)
    for n in range(1, 50):
        jira.do("edit", id_=FIRST + n, fields={"summary": f"a{n}"}, at_ms=now - n * 60_000)
    plan = loads.run(policy)
    windows = [slice_ for slice_ in plan.slices if slice_.params["kind"] == "window"]
    assert (len(windows) > 1) == (policy is MANY_WINDOWS)
    gone = [row for row in loads.read if row["_deleted"]]
    assert {row["id"] for row in gone} == {str(FIRST), str(FIRST + 50)}
    assert {row["summary"] for row in gone} == {None}
    assert_true(loads, jira)
    loads.run()
    assert not [row for row in loads.read if row["_deleted"]]


def test_a_moved_issue_is_not_deleted(jira: JiraServer, source: JiraSource) -> None:
    jira.do("generate", project="WEB", count=5)
    loads = Loads(source)
    loads.run()
    later(jira, 10)
    jira.do("move", id_=FIRST, project="WEB")
    later(jira, 11)
    loads.run()
    assert loads.table[str(FIRST)]["project_key"] == "WEB"
    assert_true(loads, jira)


def test_an_issue_that_leaves_the_filter_is_deleted_and_comes_back_with_it(
    jira: JiraServer, source: JiraSource
) -> None:
    policy = INCREMENTAL.model_copy(update={"filter": {"statuses": ["To Do"]}})
    loads = Loads(source)
    loads.run(policy)
    assert {row["status"] for row in loads.alive.values()} == {"To Do"}
    count = len(loads.alive)
    later(jira, 10)
    jira.do("edit", id_=FIRST, fields={"status": "Done"})
    later(jira, 20)
    loads.run(policy)
    assert loads.table[str(FIRST)]["_deleted"]
    later(jira, 30)
    jira.do("edit", id_=FIRST, fields={"status": "To Do"})
    later(jira, 40)
    loads.run(policy)
    assert len(loads.alive) == count


def test_old_issues_that_become_visible_are_read(jira: JiraServer, source: JiraSource) -> None:
    filters = [{"assigneeIds": [user(3)]}, {"assigneeIds": [user(3), user(4)]}]
    loads = Loads(source)
    loads.run(INCREMENTAL.model_copy(update={"filter": filters[0]}))
    few = len(loads.alive)
    later(jira, 10)
    loads.run(INCREMENTAL.model_copy(update={"filter": filters[1]}))
    assert len(loads.alive) > few
    assert {row["assignee_id"] for row in loads.alive.values()} == {user(3), user(4)}


def user(n: int) -> str:
    return f"5b10ac8d82e05b22cc7d{n:04d}"


def test_a_project_that_is_new_begins_alone_at_updated_from(
    jira: JiraServer, source: JiraSource
) -> None:
    jira.do("generate", project="WEB", count=30)
    loads = Loads(source)
    loads.run(INCREMENTAL.model_copy(update={"filter": {"projectKeys": ["SHOP"]}}))
    later(jira, 10)
    since = "2026-10-20T00:00:00Z"
    both = {"projectKeys": ["SHOP", "WEB"], "updatedFrom": since}
    plan = loads.run(INCREMENTAL.model_copy(update={"filter": both}))
    lowers = {s.part: s.params["lower"] for s in plan.slices if s.params["kind"] == "window"}
    noon = NOON_MS * 1000
    assert lowers["SHOP"] == noon - 1_000_000 - 300 * 1_000_000
    assert lowers["WEB"] == 1_792_454_400_000_000 - 1
    web = [row for row in loads.read if row["project_key"] == "WEB"]
    assert 0 < len(web) < 30
    assert {row["updated"].isoformat() >= "2026-10-20" for row in web} == {True}
    assert set(loads.checkpoint.cursor["projects"]) == {"SHOP", "WEB"}  # type: ignore[union-attr,index,call-overload]


@pytest.mark.parametrize("how", ["hidden", "forbidden"])
def test_a_project_that_cannot_be_read_any_more_is_reported_and_nothing_is_deleted(
    jira: JiraServer, source: JiraSource, how: str
) -> None:
    jira.do("generate", project="WEB", count=20)
    loads = Loads(source)
    loads.run()
    jira.do("set", **{how: ["WEB"]})
    later(jira, 10)
    plan = make_plan(source, loads.unit, loads.checkpoint, INCREMENTAL)
    problems, rows = set(), []
    for slice_ in plan.slices:
        try:
            for batch in source.read(loads.unit, slice_, INCREMENTAL):
                rows += batch.to_pylist()
        except PartUnreadableError as error:
            problems.add((slice_.part, error.context["part"]))
    assert problems == {("WEB", "WEB")}
    assert not [row for row in rows if row["_deleted"]]


def test_an_unknown_project_in_the_filter_is_reported(jira: JiraServer, source: JiraSource) -> None:
    policy = IngestionPolicy(filter={"projectKeys": ["SHOP", "NONE"]})
    unit = source.describe_unit(UnitId("jira.issues"))
    plan = make_plan(source, unit, None, policy)
    (refused,) = [slice_ for slice_ in plan.slices if slice_.part == "NONE"]
    with pytest.raises(PartUnreadableError, match="NONE"):
        list(source.read(unit, refused, policy))


@pytest.mark.parametrize(
    "filter_",
    [
        {"projectkeys": ["SHOP"]},
        {"projectKeys": "SHOP"},
        {"updatedFrom": "yesterday"},
        {"updatedFrom": "2026-01-01T00:00:00"},
    ],
)
def test_a_filter_that_is_none_is_refused(source: JiraSource, filter_: dict[str, object]) -> None:
    unit = source.describe_unit(UnitId("jira.issues"))
    with pytest.raises(ValidationError):
        make_plan(source, unit, None, IngestionPolicy(filter=filter_))  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("awkward", ['A" OR project = "SHOP', "\\", "'; drop", "日本", "a\nb"])
def test_awkward_names_in_a_filter_stay_names(
    jira: JiraServer, source: JiraSource, awkward: str
) -> None:
    policy = IngestionPolicy(filter={"assigneeIds": [awkward]})
    loads = Loads(source)
    loads.run(policy)
    assert not loads.read


def test_a_checkpoint_of_another_shape_is_refused(source: JiraSource) -> None:
    unit = source.describe_unit(UnitId("jira.issues"))
    other = Checkpoint(cursor=17, cursor_column="_source_version")
    with pytest.raises(PlanError, match="reset"):
        make_plan(source, unit, other, INCREMENTAL)


def test_cdc_is_refused(source: JiraSource) -> None:
    unit = source.describe_unit(UnitId("jira.issues"))
    with pytest.raises(PlanError, match="cdc"):
        make_plan(source, unit, None, IngestionPolicy(run_mode=RunMode.CDC))
