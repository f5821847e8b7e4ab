"""The Arrow schema of each unit. Mappers to the canonical data model rely on it: columns are added
and never renamed, retyped or taken away.

Every unit begins with the same three columns and ends with the same one:

- `id`: the key within the unit, text. For a changelog it is `<history>:<position>`, since one
  history entry changes several fields.
- `_source_version`: a number that grows with every version of the row, milliseconds since 1970:
  the object's own time of change where it has one, and otherwise, as for a deletion, the server's
  time when this was seen. Merges order by it.
- `_deleted`: the object is gone, or is no longer selected by the filter. All columns but the first
  three are then NULL, except the ids of the parents where they are known.
- `raw`: the object as the API sent it, JSON text; NULL for a deletion.

Times are instants in UTC. Durations are whole seconds. Users are account ids. Rich text comes
twice: as the API's document (`…_adf`, JSON text) and as plain text.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import pyarrow as pa

ID, VERSION, DELETED, RAW = "id", "_source_version", "_deleted", "raw"
_DOCUMENT = "_adf"

_TEXT, _WHOLE, _FLAG = pa.string(), pa.int64(), pa.bool_()
_TIME, _DATE = pa.timestamp("us", tz="UTC"), pa.date32()
_TEXTS = pa.list_(pa.string())


def _unit(*columns: tuple[str, pa.DataType]) -> pa.Schema:
    return pa.schema(
        [
            pa.field(ID, _TEXT),
            pa.field(VERSION, _WHOLE),
            pa.field(DELETED, _FLAG),
            *(pa.field(name, kind) for name, kind in columns),
            pa.field(RAW, _TEXT),
        ]
    )


PROJECTS = _unit(
    ("key", _TEXT),
    ("name", _TEXT),
    ("project_type", _TEXT),  # software, business, service_desk
    ("style", _TEXT),  # classic, next-gen
    ("description", _TEXT),
    ("lead_id", _TEXT),
    ("category", _TEXT),
    ("is_private", _FLAG),
    ("is_archived", _FLAG),
    ("url", _TEXT),
)

ISSUES = _unit(
    ("key", _TEXT),
    ("project_id", _TEXT),
    ("project_key", _TEXT),
    ("issue_type_id", _TEXT),
    ("issue_type", _TEXT),
    ("is_subtask", _FLAG),
    ("hierarchy_level", _WHOLE),  # -1 subtask, 0 base, 1 epic, more above
    ("status_id", _TEXT),
    ("status", _TEXT),
    ("status_category", _TEXT),  # new, indeterminate, done, undefined
    ("priority_id", _TEXT),
    ("priority", _TEXT),
    ("resolution_id", _TEXT),
    ("resolution", _TEXT),
    ("summary", _TEXT),
    ("description", _TEXT),
    ("description_adf", _TEXT),
    ("assignee_id", _TEXT),
    ("reporter_id", _TEXT),
    ("creator_id", _TEXT),
    ("parent_id", _TEXT),
    ("parent_key", _TEXT),
    ("labels", _TEXTS),
    ("components", _TEXTS),  # names
    ("fix_versions", _TEXTS),  # names
    ("affects_versions", _TEXTS),  # names
    ("sprint_ids", _TEXTS),
    ("created", _TIME),
    ("updated", _TIME),
    ("resolved", _TIME),
    ("due", _DATE),
    ("original_estimate_s", _WHOLE),
    ("remaining_estimate_s", _WHOLE),
    ("time_spent_s", _WHOLE),
    ("url", _TEXT),
)

COMMENTS = _unit(
    ("issue_id", _TEXT),
    ("issue_key", _TEXT),
    ("project_id", _TEXT),
    ("project_key", _TEXT),
    ("author_id", _TEXT),
    ("update_author_id", _TEXT),
    ("body", _TEXT),
    ("body_adf", _TEXT),
    ("is_public", _FLAG),  # of service projects; NULL elsewhere
    ("created", _TIME),
    ("updated", _TIME),
)

CHANGELOGS = _unit(
    ("history_id", _TEXT),
    ("position", _WHOLE),  # of the item within its history entry, from 0
    ("issue_id", _TEXT),
    ("issue_key", _TEXT),
    ("project_id", _TEXT),
    ("project_key", _TEXT),
    ("author_id", _TEXT),
    ("created", _TIME),
    ("field", _TEXT),
    ("field_id", _TEXT),  # `status` for changes of status
    ("field_type", _TEXT),  # jira, custom
    ("from_id", _TEXT),
    ("from_text", _TEXT),
    ("to_id", _TEXT),
    ("to_text", _TEXT),
)

WORKLOGS = _unit(
    ("issue_id", _TEXT),
    ("issue_key", _TEXT),
    ("project_id", _TEXT),
    ("project_key", _TEXT),
    ("author_id", _TEXT),
    ("update_author_id", _TEXT),
    ("comment", _TEXT),
    ("comment_adf", _TEXT),
    ("started", _TIME),
    ("time_spent_s", _WHOLE),
    ("created", _TIME),
    ("updated", _TIME),
)

# One row for each link, seen from either end: the source end is the one that the outward text
# ("blocks") begins with.
ISSUE_LINKS = _unit(
    ("type_id", _TEXT),
    ("type", _TEXT),
    ("outward", _TEXT),  # blocks
    ("inward", _TEXT),  # is blocked by
    ("source_issue_id", _TEXT),
    ("source_issue_key", _TEXT),
    ("target_issue_id", _TEXT),
    ("target_issue_key", _TEXT),
    ("project_id", _TEXT),  # of the issue that the link was read from
    ("project_key", _TEXT),
)

USERS = _unit(
    ("account_type", _TEXT),  # atlassian, app, customer
    ("display_name", _TEXT),
    ("email", _TEXT),  # as far as the person's privacy settings show it
    ("is_active", _FLAG),
    ("time_zone", _TEXT),
    ("locale", _TEXT),
    ("avatar_url", _TEXT),
)

STATUSES = _unit(
    ("name", _TEXT),
    ("description", _TEXT),
    ("category_id", _TEXT),
    ("category", _TEXT),  # new, indeterminate, done, undefined
    ("category_name", _TEXT),
    ("project_id", _TEXT),  # of a status that one project alone has
)

SPRINTS = _unit(
    ("name", _TEXT),
    ("state", _TEXT),  # future, active, closed
    ("goal", _TEXT),
    ("board_id", _TEXT),
    ("started", _TIME),
    ("ends", _TIME),
    ("completed", _TIME),
    ("created", _TIME),
)

# By unit id; the order of a listing.
SCHEMAS: Mapping[str, pa.Schema] = MappingProxyType(
    {
        "jira.changelogs": CHANGELOGS,
        "jira.comments": COMMENTS,
        "jira.issue_links": ISSUE_LINKS,
        "jira.issues": ISSUES,
        "jira.projects": PROJECTS,
        "jira.sprints": SPRINTS,
        "jira.statuses": STATUSES,
        "jira.users": USERS,
        "jira.worklogs": WORKLOGS,
    }
)

# What the canonical data model calls the rows of a unit.
CDM_MODELS: Mapping[str, str] = MappingProxyType(
    {
        "jira.changelogs": "cdm.work.status_change",
        "jira.comments": "cdm.work.comment",
        "jira.issue_links": "cdm.work.link",
        "jira.issues": "cdm.work.item",
        "jira.projects": "cdm.work.project",
        "jira.sprints": "cdm.work.sprint",
        "jira.users": "cdm.work.user",
        "jira.worklogs": "cdm.work.worklog",
    }
)


def is_json(column: str) -> bool:
    """Whether a column holds objects of the API, as JSON text."""
    return column == RAW or column.endswith(_DOCUMENT)
