"""Deletions of issues: the ids that are found now, compared with those of the last run.

Jira has no feed of deleted issues. An id that is missing may be deleted, moved to another project,
no longer selected by the filter, or merely not visible any more. So the missing ones are asked for
by id; and nothing at all is concluded of a project whose issues the account may no longer see.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from matih_ray.model.plan import IngestionSlice
from matih_ray.model.value import JsonValue
from matih_ray.sources.jira import jql
from matih_ray.sources.jira.api import JiraApi, Record
from matih_ray.sources.jira.config import JiraFilter
from matih_ray.sources.jira.known_ids import MAX_IDS, packed, unpacked
from matih_ray.sources.jira.slices import ReconcileSlice, make_slice
from matih_ray.sources.read_ahead import PLAN_CALLS_AT_ONCE, read_ahead

# Ids of one slice: fifty calls.
MAX_SLICE_IDS = 5000
# A query whose pages may have moved is asked again until it finds nothing new, so often at most.
MAX_SWEEPS = 5


def found_ids(api: JiraApi, *queries: str) -> set[int]:
    """All ids that some queries find, up to `PLAN_CALLS_AT_ONCE` of them asked at a time.

    An issue that changes meanwhile leaves its query for the one without an upper bound. That must
    be the last, if there are several: it is asked when all others were answered. But what follows
    such an issue moves up across the border of a page. So if a query has more than one page, all
    are asked again, until no new id turns up.
    """

    def pages(query: str) -> list[list[int]]:
        return list(api.issue_ids(query))

    *bounded, open_ = queries
    found: set[int] = set()
    for _ in range(MAX_SWEEPS):
        before = len(found)
        answers = [*read_ahead(pages, bounded, PLAN_CALLS_AT_ONCE), pages(open_)]
        found.update(*chain.from_iterable(answers))
        if all(len(answer) == 1 for answer in answers) or len(found) == before:
            break
    return found


def reconciled(
    api: JiraApi,
    filter_: JiraFilter,
    project_key: str,
    known: str | None,
    windows: Sequence[tuple[int | None, int | None]],
    lower: int,
    seen: int,
) -> list[IngestionSlice]:
    """Slices for what is gone and what has appeared, the last of which keeps the ids of now.

    Args:
        api: The site.
        filter_: What is selected.
        project_key: The project.
        known: The ids of the last run, packed; None if there was none.
        windows: Times (lower, upper) in order that together are all that is selected; several for
            a large project, because pages of one query can only follow each other.
        lower: Where the windows of this run begin.
        seen: The server's clock.
    """
    zone = api.site.zone
    alive = found_ids(api, *(jql.issues(project_key, filter_, zone, *one) for one in windows))
    if len(alive) > MAX_IDS:
        return []
    before = set() if known is None else unpacked(known)
    gone = sorted(before - alive)
    appeared = sorted(alive - before) if known is not None else []
    if before and not alive and not api.may_browse(project_key):
        reason = "the account may no longer see the issues of the project"
        params = ReconcileSlice(project_key=project_key, lower=lower, seen=seen, unreadable=reason)
        return [make_slice(params)]
    patch: dict[str, JsonValue] = {"projects": {project_key: {"known": packed(alive)}}}
    pieces = [
        ReconcileSlice(project_key=project_key, lower=lower, seen=seen, **{name: tuple(part)})
        for name, ids in (("gone", gone), ("appeared", appeared))
        for part in _parts(ids)
    ] or [ReconcileSlice(project_key=project_key, lower=lower, seen=seen)]
    slices = [make_slice(params, _size(params)) for params in pieces]
    slices[-1] = slices[-1].model_copy(update={"cursor_patch": patch})
    return slices


def _parts(ids: list[int]) -> list[list[int]]:
    return [ids[i : i + MAX_SLICE_IDS] for i in range(0, len(ids), MAX_SLICE_IDS)]


def _size(params: ReconcileSlice) -> int:
    return len(params.gone) + len(params.appeared)


def is_selected(issue: Record, filter_: JiraFilter) -> bool:
    """Whether an issue, as it is now, belongs to what the filter selects (but for times)."""
    fields = issue.get("fields") or {}
    project = (fields.get("project") or {}).get("key")
    status = fields.get("status") or {}
    assignee = (fields.get("assignee") or {}).get("accountId")
    if filter_.project_keys and project not in filter_.project_keys:
        return False
    if filter_.statuses and not {status.get("name"), str(status.get("id"))} & {*filter_.statuses}:
        return False
    return not filter_.assignee_ids or assignee in filter_.assignee_ids
