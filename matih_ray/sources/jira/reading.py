"""Slices to rows. What a query finds too much is left out here, by exact times."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import TypeAlias, TypeVar
from zoneinfo import ZoneInfo

from matih_ray.errors import PartUnreadableError, SourceRejectedError
from matih_ray.sources.jira import jql, rows
from matih_ray.sources.jira.api import (
    CHANGELOG_ISSUES_A_CALL,
    ISSUES_A_CALL,
    WORKLOGS_A_CALL,
    JiraApi,
    Record,
    SiteFacts,
)
from matih_ray.sources.jira.config import JiraFilter
from matih_ray.sources.jira.jql import zone_of
from matih_ray.sources.jira.reconciling import found_ids, is_selected
from matih_ray.sources.jira.rows import Row
from matih_ray.sources.jira.slices import (
    JiraSlice,
    ReconcileSlice,
    WholeSlice,
    WindowSlice,
    WorklogSlice,
)
from matih_ray.sources.read_ahead import both, read_ahead

T = TypeVar("T")

# Statuses that concern one project; all others concern the run.
_PART_STATUSES = frozenset({400, 403, 404, 410})
_PLACE = ("project", "updated")
_FIELDS = {
    "issues": ("*all", "-comment", "-worklog"),
    "comments": (*_PLACE, "comment"),
    "changelogs": _PLACE,
    "issue_links": (*_PLACE, "issuelinks"),
}


def read_rows(
    api: JiraApi, unit: str, params: JiraSlice, filter_: JiraFilter, *, with_raw: bool
) -> Iterator[Row]:
    """The rows of a slice; `unit` is its name without the namespace. Without the column `raw` an
    issue is asked for only the fields that its other columns need: sites may have hundreds.

    Raises:
        PartUnreadableError: The slice's project cannot be read.
    """
    fields_of = _all_fields if with_raw else _needed_fields
    if isinstance(params, WindowSlice):
        with _reported(params.project_key):
            yield from _window(api, unit, params, filter_, fields_of)
    elif isinstance(params, ReconcileSlice):
        with _reported(params.project_key):
            yield from _reconcile(api, params, filter_, fields_of)
    elif isinstance(params, WorklogSlice):
        yield from _worklogs(api, params, filter_)
    else:
        yield from _whole(api, unit, params, filter_)


@contextmanager
def _reported(project_key: str) -> Iterator[None]:
    try:
        yield
    except SourceRejectedError as error:
        if error.context.get("status") not in _PART_STATUSES:
            raise
        raise PartUnreadableError(
            f"project {project_key} cannot be read: {error.message}",
            part=project_key,
            status=error.context.get("status"),
        ) from None


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[i : i + size] for i in range(0, len(items), size))


# The fields of issues to ask for, by what is known of the site.
_FieldsOf: TypeAlias = Callable[[SiteFacts], tuple[str, ...]]


def _all_fields(_facts: SiteFacts) -> tuple[str, ...]:
    return _FIELDS["issues"]


def _needed_fields(facts: SiteFacts) -> tuple[str, ...]:
    return rows.ISSUE_FIELDS + ((facts.sprint_field,) if facts.sprint_field else ())


def _window(
    api: JiraApi, unit: str, params: WindowSlice, filter_: JiraFilter, fields_of: _FieldsOf
) -> Iterator[Row]:
    ids = sorted(_ids_inside(api, params, filter_))
    if not ids:
        return
    chunks = _chunks(ids, ISSUES_A_CALL)

    def inside(some: Sequence[int], fields: Sequence[str]) -> list[Record]:
        return [one for one in api.issues(some, fields) if _is_inside(one, params)]

    if unit != "issues":
        for found in read_ahead(lambda some: inside(some, _FIELDS[unit]), chunks):
            yield from _belongings(api, unit, found)
        return
    facts = params.facts or api.facts
    fields = fields_of(facts)

    def made(some: Sequence[int]) -> list[Row]:
        # where the issues were parsed, while they are in the processor's cache
        return [rows.issue(one, facts) for one in inside(some, fields)]

    yield from chain.from_iterable(read_ahead(made, chunks))


def _ids_inside(api: JiraApi, params: WindowSlice, filter_: JiraFilter) -> set[int]:
    """Ids of the window's issues, and some more. They are asked for in the zone of the plan, while
    the account is asked for its own: a query in another one would find another window."""

    def found(zone: ZoneInfo | None) -> set[int]:
        return found_ids(
            api, jql.issues(params.project_key, filter_, zone, params.lower, params.upper)
        )

    planned = zone_of(params.zone)
    if planned is None:
        return found(api.site.zone)
    ids, site = both(lambda: found(planned), lambda: api.site)
    return ids if site.zone == planned else found(site.zone)


def _is_inside(issue: Record, params: WindowSlice) -> bool:
    updated = rows.updated_of(issue)
    return (params.lower is None or params.lower < updated) and (
        params.upper is None or updated <= params.upper
    )


def _belongings(api: JiraApi, unit: str, issues: list[Record]) -> Iterator[Row]:
    """What belongs to issues."""
    if unit == "issue_links":
        for issue in issues:
            yield from rows.links(issue)
    elif unit == "comments":
        for issue in issues:
            yield from _comments(api, issue)
    else:
        yield from _changelogs(api, issues)


def _comments(api: JiraApi, issue: Record) -> Iterator[Row]:
    place = rows.place_of(issue)
    inline = (issue.get("fields") or {}).get("comment") or {}
    found = inline.get("comments") or []
    for comment in found:
        yield rows.comment(comment, place)
    if int(inline.get("total") or 0) > len(found):
        for comment in api.comments(str(issue["id"]), len(found)):
            yield rows.comment(comment, place)


def _changelogs(api: JiraApi, issues: list[Record]) -> Iterator[Row]:
    places = {str(issue["id"]): rows.place_of(issue) for issue in issues}
    for some in _chunks([int(id_) for id_ in places], CHANGELOG_ISSUES_A_CALL):
        for issue_id, histories in api.changelogs(some):
            for history in histories:
                yield from rows.changes(history, places[issue_id])


def _reconcile(
    api: JiraApi, params: ReconcileSlice, filter_: JiraFilter, fields_of: _FieldsOf
) -> Iterator[Row]:
    if params.unreadable is not None:
        raise PartUnreadableError(
            f"project {params.project_key}: {params.unreadable}; nothing was deleted",
            part=params.project_key,
        )
    if not params.appeared and not params.gone:
        return
    seen_ms, fields = params.seen // 1000, fields_of(api.facts)
    for some in _chunks(params.appeared, ISSUES_A_CALL):
        for issue in api.issues(some, fields):
            # later ones are in the windows
            if rows.updated_of(issue) <= params.lower:
                yield rows.issue(issue, api.facts, seen_ms)
    for some in _chunks(params.gone, ISSUES_A_CALL):
        present = {int(issue["id"]): issue for issue in api.issues(some, fields)}
        for id_ in some:
            found = present.get(id_)
            if found is None or not is_selected(found, filter_):
                yield rows.deleted(str(id_), seen_ms)
            elif rows.place_of(found)["project_key"] == params.project_key:
                # there after all: the index had not seen it
                yield rows.issue(found, api.facts, seen_ms)
            # otherwise it was moved, and its new project reads it


def _worklogs(api: JiraApi, params: WorklogSlice, filter_: JiraFilter) -> Iterator[Row]:
    since_ms, until_ms = params.since // 1000, params.until // 1000
    for changes in api.worklog_changes(params.feed, since_ms, until_ms):
        if params.feed == "deleted":
            yield from (rows.deleted(str(id_), time_ms) for id_, time_ms in changes)
            continue
        for some in _chunks([id_ for id_, _ in changes], WORKLOGS_A_CALL):
            found = api.worklogs(some)
            places = _places(api, [int(worklog["issueId"]) for worklog in found], filter_)
            for worklog in found:
                if (place := places.get(str(worklog["issueId"]))) is not None:
                    yield rows.worklog(worklog, place)


def _places(api: JiraApi, issue_ids: Iterable[int], filter_: JiraFilter) -> dict[str, Row]:
    """Where the selected ones of some issues are."""
    fields = ("project", "status", "assignee")
    return {
        str(issue["id"]): rows.place_of(issue)
        for some in _chunks(sorted(set(issue_ids)), ISSUES_A_CALL)
        for issue in api.issues(some, fields)
        if is_selected(issue, filter_)
    }


def _whole(api: JiraApi, unit: str, params: WholeSlice, filter_: JiraFilter) -> Iterator[Row]:
    seen_ms = params.seen // 1000
    objects, row = _WHOLE[unit]
    read: set[str] = set()
    for found in objects(api):
        made = row(found, seen_ms)
        if made["id"] in read:
            continue  # sprints of several boards, and users of moving pages, come twice
        read.add(made["id"])
        if unit == "projects" and filter_.project_keys and made["key"] not in filter_.project_keys:
            continue
        yield made
    yield from (rows.deleted(id_, seen_ms) for id_ in params.gone if id_ not in read)


_WHOLE: dict[str, tuple[Callable[[JiraApi], Iterable[Record]], Callable[[Record, int], Row]]] = {
    "projects": (lambda api: api.projects(), rows.project),
    "sprints": (lambda api: api.sprints(), rows.sprint),
    "statuses": (lambda api: api.statuses(), rows.status),
    "users": (lambda api: api.users(), rows.user),
}


def whole_ids(api: JiraApi, unit: str) -> list[str] | None:
    """The ids of a small unit now; None for users, of whom there may be very many."""
    if unit == "users":
        return None
    objects, row = _WHOLE[unit]
    return [row(found, 0)["id"] for found in objects(api)]
