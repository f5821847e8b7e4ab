"""Objects of the API to rows of the schemas. Pure.

A row is a plain mapping from column to value. Fields that an account may not see are missing from
an object and NULL in its row. Objects become JSON text where a batch has a column for them: few
readers want them, and they are most of what a batch holds.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any

import pyarrow as pa

from matih_ray.errors import UnrepresentableValueError
from matih_ray.sources.atlassian.documents import plain_text
from matih_ray.sources.base import TARGET_BATCH_BYTES
from matih_ray.sources.batching import joined, pieces
from matih_ray.sources.documents.exact_json import json_text
from matih_ray.sources.http.json_values import micros
from matih_ray.sources.jira.api import Record, SiteFacts
from matih_ray.sources.jira.schemas import DELETED, ID, RAW, VERSION, is_json

Row = dict[str, Any]
# Rows that are Python objects at a time, with the objects that they were made of.
PIECE_ROWS = 500


def batches(
    rows: Iterable[Row], schema: pa.Schema, target_bytes: int = TARGET_BATCH_BYTES
) -> Iterator[pa.RecordBatch]:
    """Rows as record batches of about `target_bytes` bytes."""
    return joined((_batch(piece, schema) for piece in pieces(rows, PIECE_ROWS)), target_bytes)


def _batch(rows: list[Row], schema: pa.Schema) -> pa.RecordBatch:
    arrays = []
    for field, values in zip(schema, _columns(rows, schema.names), strict=True):
        given = [_json(value) for value in values] if is_json(field.name) else values
        try:
            arrays.append(pa.array(given, type=field.type))
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            raise UnrepresentableValueError(
                f"column {field.name!r} holds a value that is no {field.type}; it is whole in "
                "column raw",
                column=field.name,
            ) from None
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _json(value: Any) -> str | None:
    return None if value is None else json_text(value)


def _columns(rows: list[Row], names: list[str]) -> Iterable[Sequence[Any]]:
    try:
        return zip(*map(itemgetter(*names), rows), strict=True)
    except KeyError:  # one of them is of a deleted object, which has few columns
        return [[row.get(name) for row in rows] for name in names]


def _row(found: Record, id_: Any, version_ms: int, columns: Mapping[str, Any]) -> Row:
    return {ID: str(id_), VERSION: version_ms, DELETED: False, **columns, RAW: found}


def deleted(id_: str, seen_ms: int, known: Mapping[str, Any] | None = None) -> Row:
    """A row that says that an object is gone."""
    return {**(known or {}), ID: id_, VERSION: seen_ms, DELETED: True}


def instant(value: Any) -> int | None:
    """A time of the API, text or milliseconds, as microseconds since 1970."""
    if value is None:
        return None
    return value * 1000 if isinstance(value, int) else _instant_of(str(value))


# an issue's times are asked for several times, one after the other
@lru_cache(maxsize=1000)
def _instant_of(text: str) -> int | None:
    try:
        return micros(text)[0]
    except ValueError:
        return None


def _ms(value: Any) -> int:
    return (instant(value) or 0) // 1000


def _date(value: Any) -> dt.date | None:
    try:
        return dt.date.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _of(found: Any, name: str) -> Any:
    return found.get(name) if isinstance(found, dict) else None


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _texts(values: Any, name: str | None = None) -> list[str] | None:
    if not isinstance(values, list):
        return None
    return [str(value if name is None else _of(value, name)) for value in values]


def _document(value: Any) -> Record | None:
    return value if isinstance(value, dict) else None


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)


def updated_of(issue: Record) -> int:
    """When an issue was changed last, in microseconds; 0 if it does not say."""
    return instant(_of(issue.get("fields"), "updated")) or 0


def place_of(issue: Record) -> Row:
    """The columns by which what belongs to an issue names it."""
    project = _of(issue.get("fields"), "project")
    return {
        "issue_id": _text(issue.get("id")),
        "issue_key": issue.get("key"),
        "project_id": _text(_of(project, "id")),
        "project_key": _of(project, "key"),
    }


def project(found: Record, seen_ms: int) -> Row:
    """A row of `jira.projects`."""
    columns = {
        "key": found.get("key"),
        "name": found.get("name"),
        "project_type": found.get("projectTypeKey"),
        "style": found.get("style"),
        "description": found.get("description"),
        "lead_id": _of(found.get("lead"), "accountId"),
        "category": _of(found.get("projectCategory"), "name"),
        "is_private": found.get("isPrivate"),
        "is_archived": bool(found.get("archived")),
        "url": found.get("url"),
    }
    return _row(found, found["id"], seen_ms, columns)


# What a row of `jira.issues` is made of, but for the object itself, and sprints: their field has
# another name at each site.
ISSUE_FIELDS = (
    "issuetype", "status", "project", "priority", "resolution", "summary", "description",
    "assignee", "reporter", "creator", "parent", "labels", "components", "fixVersions", "versions",
    "created", "updated", "resolutiondate", "duedate", "timeoriginalestimate", "timeestimate",
    "timespent",
)  # fmt: skip


def issue(found: Record, facts: SiteFacts, seen_ms: int = 0) -> Row:
    """A row of `jira.issues`; `seen_ms` is its version if that is later than its last change."""
    fields = found.get("fields") or {}
    type_, status, project_ = fields.get("issuetype"), fields.get("status"), fields.get("project")
    sprints = facts.sprint_field
    columns = {
        "key": found.get("key"),
        "project_id": _text(_of(project_, "id")),
        "project_key": _of(project_, "key"),
        "issue_type_id": _text(_of(type_, "id")),
        "issue_type": _of(type_, "name"),
        "is_subtask": _of(type_, "subtask"),
        "hierarchy_level": _whole(_of(type_, "hierarchyLevel")),
        "status_id": _text(_of(status, "id")),
        "status": _of(status, "name"),
        "status_category": _of(_of(status, "statusCategory"), "key"),
        "priority_id": _text(_of(fields.get("priority"), "id")),
        "priority": _of(fields.get("priority"), "name"),
        "resolution_id": _text(_of(fields.get("resolution"), "id")),
        "resolution": _of(fields.get("resolution"), "name"),
        "summary": fields.get("summary"),
        "description": plain_text(fields.get("description")),
        "description_adf": _document(fields.get("description")),
        "assignee_id": _of(fields.get("assignee"), "accountId"),
        "reporter_id": _of(fields.get("reporter"), "accountId"),
        "creator_id": _of(fields.get("creator"), "accountId"),
        "parent_id": _text(_of(fields.get("parent"), "id")),
        "parent_key": _of(fields.get("parent"), "key"),
        "labels": _texts(fields.get("labels")),
        "components": _texts(fields.get("components"), "name"),
        "fix_versions": _texts(fields.get("fixVersions"), "name"),
        "affects_versions": _texts(fields.get("versions"), "name"),
        "sprint_ids": _texts(fields.get(sprints), "id") if sprints else None,
        "created": instant(fields.get("created")),
        "updated": instant(fields.get("updated")),
        "resolved": instant(fields.get("resolutiondate")),
        "due": _date(fields.get("duedate")),
        "original_estimate_s": _whole(fields.get("timeoriginalestimate")),
        "remaining_estimate_s": _whole(fields.get("timeestimate")),
        "time_spent_s": _whole(fields.get("timespent")),
        "url": f"{facts.browse_url}/browse/{found.get('key')}" if facts.browse_url else None,
    }
    return _row(found, found["id"], max(_ms(fields.get("updated")), seen_ms), columns)


def comment(found: Record, place: Row) -> Row:
    """A row of `jira.comments`."""
    columns = {
        **place,
        "author_id": _of(found.get("author"), "accountId"),
        "update_author_id": _of(found.get("updateAuthor"), "accountId"),
        "body": plain_text(found.get("body")),
        "body_adf": _document(found.get("body")),
        "is_public": found.get("jsdPublic"),
        "created": instant(found.get("created")),
        "updated": instant(found.get("updated")),
    }
    return _row(found, found["id"], _ms(found.get("updated") or found.get("created")), columns)


def changes(history: Record, place: Row) -> Iterator[Row]:
    """Rows of `jira.changelogs`: one for each field that a history entry changed."""
    for position, item in enumerate(history.get("items") or ()):
        columns = {
            **place,
            "history_id": _text(history.get("id")),
            "position": position,
            "author_id": _of(history.get("author"), "accountId"),
            "created": instant(history.get("created")),
            "field": item.get("field"),
            "field_id": item.get("fieldId"),
            "field_type": item.get("fieldtype"),
            "from_id": item.get("from"),
            "from_text": item.get("fromString"),
            "to_id": item.get("to"),
            "to_text": item.get("toString"),
        }
        yield _row(item, f"{history['id']}:{position}", _ms(history.get("created")), columns)


def links(found: Record) -> Iterator[Row]:
    """Rows of `jira.issue_links`, the same from either end."""
    place = place_of(found)
    here = (place["issue_id"], place["issue_key"])
    for link in (found.get("fields") or {}).get("issuelinks") or ():
        outward, inward = link.get("outwardIssue"), link.get("inwardIssue")
        other = outward or inward
        there = (_text(_of(other, "id")), _of(other, "key"))
        source, target = (here, there) if outward else (there, here)
        type_ = link.get("type")
        columns = {
            "type_id": _text(_of(type_, "id")),
            "type": _of(type_, "name"),
            "outward": _of(type_, "outward"),
            "inward": _of(type_, "inward"),
            "source_issue_id": source[0],
            "source_issue_key": source[1],
            "target_issue_id": target[0],
            "target_issue_key": target[1],
            "project_id": place["project_id"],
            "project_key": place["project_key"],
        }
        yield _row(link, link["id"], updated_of(found) // 1000, columns)


def worklog(found: Record, place: Row) -> Row:
    """A row of `jira.worklogs`."""
    columns = {
        **place,
        "author_id": _of(found.get("author"), "accountId"),
        "update_author_id": _of(found.get("updateAuthor"), "accountId"),
        "comment": plain_text(found.get("comment")),
        "comment_adf": _document(found.get("comment")),
        "started": instant(found.get("started")),
        "time_spent_s": _whole(found.get("timeSpentSeconds")),
        "created": instant(found.get("created")),
        "updated": instant(found.get("updated")),
    }
    return _row(found, found["id"], _ms(found.get("updated") or found.get("created")), columns)


def user(found: Record, seen_ms: int) -> Row:
    """A row of `jira.users`."""
    columns = {
        "account_type": found.get("accountType"),
        "display_name": found.get("displayName"),
        "email": found.get("emailAddress") or None,
        "is_active": found.get("active"),
        "time_zone": found.get("timeZone"),
        "locale": found.get("locale"),
        "avatar_url": _of(found.get("avatarUrls"), "48x48"),
    }
    return _row(found, found["accountId"], seen_ms, columns)


def status(found: Record, seen_ms: int) -> Row:
    """A row of `jira.statuses`."""
    category = found.get("statusCategory")
    columns = {
        "name": found.get("name"),
        "description": found.get("description"),
        "category_id": _text(_of(category, "id")),
        "category": _of(category, "key"),
        "category_name": _of(category, "name"),
        "project_id": _text(_of(_of(found.get("scope"), "project"), "id")),
    }
    return _row(found, found["id"], seen_ms, columns)


def sprint(found: Record, seen_ms: int) -> Row:
    """A row of `jira.sprints`."""
    columns = {
        "name": found.get("name"),
        "state": found.get("state"),
        "goal": found.get("goal"),
        "board_id": _text(found.get("originBoardId")),
        "started": instant(found.get("startDate")),
        "ends": instant(found.get("endDate")),
        "completed": instant(found.get("completeDate")),
        "created": instant(found.get("createdDate")),
    }
    return _row(found, found["id"], seen_ms, columns)
