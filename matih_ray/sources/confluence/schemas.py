"""The Arrow schema of each unit. Mappers to the canonical data model rely on it: columns are added
and never renamed, retyped or taken away.

Every unit begins with the same three columns and ends with the same one:

- `id`: the key within the unit, text. A revision's is `<page id>:<number>`, a link's
  `<page id>:<digest of its target>`, a label's `<page id>:<label id>`.
- `_source_version`: milliseconds since 1970: when the object's version was made; of a deletion, a
  space and a label, the server's time when it was seen. A page that is moved, or restored from the
  trash, keeps its version, so this is no order: merges go by arrival.
- `_deleted`: the object is gone, in the trash or purged. All columns but the first three are NULL
  then, except what the API still tells of it.
- `raw`: the object as the API sent it, JSON text; NULL for what is gone and was not told of.

Times are instants in UTC. Users are account ids. Bodies are in Confluence's storage format (XHTML).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import pyarrow as pa

ID, VERSION, DELETED, RAW = "id", "_source_version", "_deleted", "raw"

_TEXT, _WHOLE, _FLAG = pa.string(), pa.int64(), pa.bool_()
_TIME = pa.timestamp("us", tz="UTC")


def _unit(*columns: tuple[str, pa.DataType]) -> pa.Schema:
    return pa.schema(
        [
            pa.field(ID, _TEXT, nullable=False),
            pa.field(VERSION, _WHOLE, nullable=False),
            pa.field(DELETED, _FLAG, nullable=False),
            *(pa.field(name, kind) for name, kind in columns),
            pa.field(RAW, _TEXT),
        ]
    )


SPACES = _unit(
    ("key", _TEXT),
    ("name", _TEXT),
    ("space_type", _TEXT),  # global, collaboration, knowledge_base, personal
    ("status", _TEXT),  # current, archived
    ("description", _TEXT),  # plain text
    ("author_id", _TEXT),
    ("homepage_id", _TEXT),
    ("created", _TIME),
    ("url", _TEXT),
)

PAGES = _unit(
    ("space_id", _TEXT),
    ("space_key", _TEXT),
    ("status", _TEXT),  # current, archived, trashed, deleted
    ("title", _TEXT),
    ("parent_id", _TEXT),
    ("parent_type", _TEXT),  # page, folder, whiteboard, database, embed
    ("position", _WHOLE),
    ("author_id", _TEXT),
    ("owner_id", _TEXT),
    ("version", _WHOLE),
    ("version_author_id", _TEXT),
    ("version_message", _TEXT),
    ("is_minor_edit", _FLAG),
    ("created", _TIME),
    ("updated", _TIME),  # when the version was made
    ("body", _TEXT),
    ("url", _TEXT),
)

REVISIONS = _unit(
    ("page_id", _TEXT),
    ("space_id", _TEXT),
    ("space_key", _TEXT),
    ("number", _WHOLE),
    ("title", _TEXT),
    ("author_id", _TEXT),
    ("message", _TEXT),
    ("is_minor_edit", _FLAG),
    ("created", _TIME),
    ("body", _TEXT),
)

# One row for each different target of a page.
LINKS = _unit(
    ("source_page_id", _TEXT),
    ("source_space_id", _TEXT),
    ("source_space_key", _TEXT),
    ("source_version", _WHOLE),  # the page's version number
    ("kind", _TEXT),  # page, attachment, user, space, url, card
    ("target_page_id", _TEXT),  # resolved; NULL where there is no such page, or none is meant
    ("target_space_key", _TEXT),
    ("target_title", _TEXT),
    ("target_attachment", _TEXT),  # file name
    ("target_user_id", _TEXT),
    ("target_url", _TEXT),
    ("anchor", _TEXT),
    ("text", _TEXT),  # of the first link to this target
    ("occurrences", _WHOLE),
)

COMMENTS = _unit(
    ("kind", _TEXT),  # footer, inline
    ("status", _TEXT),
    ("page_id", _TEXT),
    ("blog_post_id", _TEXT),
    ("space_id", _TEXT),
    ("space_key", _TEXT),
    ("parent_comment_id", _TEXT),
    ("title", _TEXT),
    ("version", _WHOLE),
    ("author_id", _TEXT),  # of the version
    ("updated", _TIME),
    ("body", _TEXT),
    ("resolution_status", _TEXT),  # of an inline comment: open, reopened, resolved, dangling
    ("inline_selection", _TEXT),
    ("url", _TEXT),
)

# One row for each label of a page.
LABELS = _unit(
    ("page_id", _TEXT),
    ("space_id", _TEXT),
    ("space_key", _TEXT),
    ("label_id", _TEXT),
    ("name", _TEXT),
    ("prefix", _TEXT),  # global, my, team, system
)

# By unit id; the order of a listing.
SCHEMAS: Mapping[str, pa.Schema] = MappingProxyType(
    {
        "confluence.comments": COMMENTS,
        "confluence.labels": LABELS,
        "confluence.links": LINKS,
        "confluence.pages": PAGES,
        "confluence.revisions": REVISIONS,
        "confluence.spaces": SPACES,
    }
)

# What the canonical data model calls the rows of a unit.
CDM_MODELS: Mapping[str, str] = MappingProxyType(
    {
        "confluence.links": "cdm.doc.link",
        "confluence.pages": "cdm.doc.item",
        "confluence.revisions": "cdm.doc.revision",
        "confluence.spaces": "cdm.doc.space",
    }
)
