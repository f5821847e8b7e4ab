"""Plans: windows of `updated` for each project, feeds of worklogs, and small units as a whole.

A checkpoint's cursor is

    {"projects": {"SHOP": {"id": "10000", "lastUpdated": "…Z", "asOf": "…Z", "known": "<ids>"}}}

(`asOf` is when that was looked at), so each project goes on from its own place, and one that is new
begins at the filter's `updatedFrom` while the others stay. Windows end at the server's clock, never
at ours. The last one is open: an issue that changes in every window would otherwise be moved on for
ever. What an open window reads beyond the checkpoint, and what the overlap reads again, is dropped
by (id, version) in a sink that appends.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from matih_ray.errors import (
    DatabaseNotFoundError,
    PlanError,
    SourcePermissionError,
    SourceRejectedError,
)
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.plan import IngestionPlan, IngestionSlice
from matih_ray.model.policy import MAX_SLICES_PER_PLAN
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.model.value import JsonValue
from matih_ray.sources.jira import jql
from matih_ray.sources.jira.api import JiraApi
from matih_ray.sources.jira.config import JiraConfig, JiraFilter
from matih_ray.sources.jira.reconciling import reconciled
from matih_ray.sources.jira.rows import instant
from matih_ray.sources.jira.schemas import ID, VERSION
from matih_ray.sources.jira.slices import WholeSlice, WindowSlice, WorklogSlice, make_slice
from matih_ray.sources.jira.windows import Window, cut
from matih_ray.sources.provider_services import SLICE_CPUS

STRATEGY, FEED_STRATEGY, WHOLE_STRATEGY = (
    "jira-project-window", "jira-worklog-feed", "jira-whole-unit",
)  # fmt: skip
# One page of ids, so that a window is seen at one moment; and some seconds of reading.
MAX_SLICE_ISSUES = 5000
# The feeds leave out the last minute, which is still being written.
FEED_LAG = 2 * jql.MINUTE
# Ids of a small unit that a checkpoint keeps, as text.
MAX_WHOLE_IDS = 20_000

DEDUPE_ON = (ID, VERSION)
_EVENTUAL_NOTE = (
    "the search index lags behind what was written; an overlap of {overlap_s} s is read again"
)


@dataclass(frozen=True)
class Planned:
    """What a plan is made for."""

    api: JiraApi
    config: JiraConfig
    filter: JiraFilter
    unit: EndpointUnitDescriptor
    target_rows: int
    overlap_s: float
    merges: bool

    @property
    def dedupe_on(self) -> tuple[str, ...]:
        """What a row that was loaded already is known by. Merging needs none, and would miss what
        changes without a version: that a comment's issue was moved."""
        return () if self.merges else DEDUPE_ON

    @property
    def window_issues(self) -> int:
        return min(self.target_rows, MAX_SLICE_ISSUES)


def plan_windows(planned: Planned, checkpoint: Checkpoint | None) -> IngestionPlan:
    """Windows of every selected project, and for issues what the comparison of ids found."""
    kept = _projects_of(checkpoint)
    now = planned.api.site.now
    upper = now - jql.SECOND
    slices: list[IngestionSlice] = []
    for project in _selected_projects(planned, kept):
        slices += _project_slices(planned, project, kept.get(project.key), upper)
    return _plan(
        planned, STRATEGY, slices, {"upper": jql.stored(upper)},
        (_EVENTUAL_NOTE.format(overlap_s=planned.overlap_s),),
    )  # fmt: skip


# After when, until when, and about how many issues; a bound that is None is open.
_Bounds: TypeAlias = tuple[int | None, int | None, int | None]


@dataclass(frozen=True)
class _Project:
    key: str
    id: str | None
    estimate: int | None


def _projects_of(checkpoint: Checkpoint | None) -> dict[str, dict[str, Any]]:
    cursor = None if checkpoint is None else checkpoint.cursor
    if cursor is None:
        return {}
    projects = cursor.get("projects") if isinstance(cursor, dict) else None
    if not isinstance(projects, dict):
        raise PlanError("the checkpoint is not one of Jira's projects; reset it")
    return {key: value for key, value in projects.items() if isinstance(value, dict)}


def _selected_projects(planned: Planned, kept: Mapping[str, Any]) -> Iterator[_Project]:
    """Projects to read, ordered by key: those that are visible, and those that should be."""
    wanted = set(planned.filter.project_keys)
    visible = {
        str(found["key"]): _Project(
            str(found["key"]), str(found["id"]), (found.get("insight") or {}).get("totalIssueCount")
        )
        for found in planned.api.projects()
    }
    known_ids = {project.id for project in visible.values()}
    # renamed projects are there under another key; all others that were there are asked for, so
    # that a lost permission is reported
    missed = {key for key, value in kept.items() if value.get("id") not in known_ids}
    for key in sorted(wanted or set(visible) | missed):
        yield visible.get(key) or _Project(key, None, None)


def _project_slices(
    planned: Planned, project: _Project, kept: Mapping[str, Any] | None, upper: int
) -> list[IngestionSlice]:
    start = planned.filter.updated_from
    first = None if start is None else jql.position(start, "updatedFrom") - 1
    lower = first
    if kept is not None and kept.get("lastUpdated") is not None:
        resumed = jql.position(str(kept["lastUpdated"]), "lastUpdated")
        seen = jql.position(str(kept.get("asOf", kept["lastUpdated"])), "asOf")
        # what the index had not seen then is younger than the overlap; older windows are complete
        lower = min(resumed, seen - int(planned.overlap_s * jql.SECOND))
        lower = lower if first is None else max(lower, first)
    try:
        bounds = _bounds(planned, project, lower, upper)
        extra = _reconcile_slices(planned, project, kept, first, bounds, upper)
    except (SourceRejectedError, SourcePermissionError, DatabaseNotFoundError) as error:
        if error.code == "AUTHENTICATION_FAILED":
            raise
        bounds, extra = [(lower, None, None)], []  # reading it says so and is reported
    # asked once instead of in each slice, and not where there is nothing to read
    needed = planned.unit.name == "issues" and any(count for _, _, count in bounds)
    facts = planned.api.facts if needed else None
    zone = None if planned.api.site.zone is None else planned.api.site.zone.key
    slices = []
    for after, until, count in bounds:
        reached = upper if until is None else until
        place: dict[str, JsonValue] = {
            "id": project.id,
            "lastUpdated": jql.stored(reached),
            "asOf": jql.stored(upper),
        }
        params = WindowSlice(
            project_key=project.key, lower=after, upper=until, zone=zone, facts=facts
        )
        patch: dict[str, JsonValue] = {"projects": {project.key: place}}
        # open windows read beyond the cursor, so even a window of new issues may meet old rows
        dedupe = planned.dedupe_on if kept is not None else ()
        slices.append(make_slice(params, count, patch, dedupe))
    # ids first: a run that is stopped between has compared, and its windows come again
    return extra + slices


def _bounds(planned: Planned, project: _Project, lower: int | None, upper: int) -> list[_Bounds]:
    """Windows in order; the last has no upper bound."""
    zone, filter_ = planned.api.site.zone, planned.filter

    def count(after: int | None, until: int | None) -> int:
        return planned.api.count(jql.issues(project.key, filter_, zone, after, until))

    total = count(lower, None)
    if total <= planned.window_issues:
        return [(lower, None, total)]
    start = lower
    if start is None:
        oldest = instant(planned.api.first_updated(jql.issues(project.key, filter_, zone)))
        start = upper if oldest is None else oldest - jql.MINUTE
    windows: list[_Bounds] = list(cut(Window(start, upper, total), planned.window_issues, count))
    windows[0] = (lower, *windows[0][1:])
    windows[-1] = (windows[-1][0], None, windows[-1][2])
    return windows


def _reconcile_slices(
    planned: Planned,
    project: _Project,
    kept: Mapping[str, Any] | None,
    first: int | None,
    bounds: list[_Bounds],
    upper: int,
) -> list[IngestionSlice]:
    if planned.unit.name != "issues" or not planned.config.deletions:
        return []
    known = None if kept is None else kept.get("known")
    lower = bounds[0][0]
    windows: list[tuple[int | None, int | None]] = [(first, None)]
    if len(bounds) > 1:  # many issues, of which those before the first window are in none
        windows = [(first, lower)] if lower != first else []
        windows += [(after, until) for after, until, _ in bounds]
    return reconciled(planned.api, planned.filter, project.key, known, windows, lower or 0, upper)


def plan_worklogs(planned: Planned, checkpoint: Checkpoint | None) -> IngestionPlan:
    """What the two feeds of worklogs say since the last run; the feeds are the site's, so a
    project that is new to the filter needs a full run."""
    cursor = None if checkpoint is None else checkpoint.cursor
    since = 0
    if isinstance(cursor, dict):
        since = jql.position(str(cursor.get("worklogs")), "worklogs")
    elif planned.filter.updated_from is not None:
        since = jql.position(planned.filter.updated_from, "updatedFrom")
    until = planned.api.myself().now - FEED_LAG
    if until <= since:
        return _plan(planned, FEED_STRATEGY, [], {})
    overlap = int(planned.overlap_s * jql.SECOND) if checkpoint is not None else 0
    after = max(since - overlap, 0)
    patch: dict[str, JsonValue] = {"worklogs": jql.stored(until)}
    dedupe = planned.dedupe_on if checkpoint is not None else ()
    slices = [make_slice(WorklogSlice(feed="updated", since=after, until=until), None, {}, dedupe)]
    if checkpoint is not None:
        gone = WorklogSlice(feed="deleted", since=after, until=until)
        slices.append(make_slice(gone, None, {}, dedupe))
    slices[-1] = slices[-1].model_copy(update={"cursor_patch": patch})
    return _plan(planned, FEED_STRATEGY, slices, {"upper": jql.stored(until)})


def plan_whole(
    planned: Planned, checkpoint: Checkpoint | None, ids: list[str] | None
) -> IngestionPlan:
    """The unit as one slice; `ids` are those of its objects now, None if they are not compared."""
    cursor = None if checkpoint is None else checkpoint.cursor
    before = cursor.get("ids") if isinstance(cursor, dict) else None
    gone: tuple[str, ...] = ()
    patch: dict[str, JsonValue] = {"ids": None}
    if ids is not None and len(ids) <= MAX_WHOLE_IDS:
        if isinstance(before, list):
            gone = tuple(sorted({str(id_) for id_ in before} - set(ids)))
        patch = {"ids": sorted(ids)}  # type: ignore[dict-item]  # a list of texts is JSON
    seen = planned.api.myself().now
    dedupe = planned.dedupe_on if checkpoint is not None else ()
    slices = [make_slice(WholeSlice(seen=seen, gone=gone), None, patch, dedupe)]
    return _plan(planned, WHOLE_STRATEGY, slices, {})


def _plan(
    planned: Planned,
    strategy: str,
    slices: list[IngestionSlice],
    statistics: dict[str, JsonValue],
    notes: tuple[str, ...] = (),
) -> IngestionPlan:
    if len(slices) > MAX_SLICES_PER_PLAN:
        raise PlanError(
            f"{planned.unit.unit_id} would take {len(slices)} slices; select fewer projects, or "
            "raise targetSliceRows",
            slices=len(slices),
        )
    numbered = tuple(
        slice_.model_copy(update={"sequence": number}) for number, slice_ in enumerate(slices)
    )
    return IngestionPlan(
        endpoint_id=planned.unit.endpoint_id,
        unit_id=planned.unit.unit_id,
        slices=numbered,
        strategy=strategy,
        statistics=statistics,
        cursor_column=VERSION,
        slice_cpus=SLICE_CPUS,
        notes=notes,
    )
