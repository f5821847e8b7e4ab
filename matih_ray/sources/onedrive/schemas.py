"""The Arrow schema of each unit. Mappers to the canonical data model rely on it: columns are added
and never renamed, retyped or taken away.

Every unit begins with the same three columns and ends with the same one:

- `id`: the key within the unit, text. An item's is `<drive id>:<item id>`, since Graph promises an
  item's own id to be unique within its drive only.
- `_source_version`: when the item was changed last, milliseconds since 1970; of a deletion, and of
  a drive, the server's time when the run that read it was planned. It is the same whenever the item
  is read again, and no order: a move or a restoration need not change an item's time. So merges go
  by arrival, in which delta tells the latest state last.
- `_deleted`: the item is gone. All columns but the first three, `drive_id` and `item_id` are NULL
  then, except what the API still tells of it.
- `raw`: the object as the API sent it, JSON text; NULL for what is gone and was not told of.

Times are instants in UTC. Sizes are bytes.
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


DRIVES = _unit(
    ("name", _TEXT),
    ("drive_type", _TEXT),  # personal, business, documentLibrary
    ("description", _TEXT),
    ("owner_id", _TEXT),
    ("owner_name", _TEXT),
    ("owner_email", _TEXT),
    ("quota_total_bytes", _WHOLE),
    ("quota_used_bytes", _WHOLE),
    ("created", _TIME),
    ("updated", _TIME),
    ("url", _TEXT),
)

ITEMS = _unit(
    ("drive_id", _TEXT),
    ("item_id", _TEXT),
    ("parent_id", _TEXT),  # `<drive id>:<item id>`, NULL for the root
    ("name", _TEXT),
    ("path", _TEXT),  # from the drive's root: `/`, `/Plans/2026.docx`
    ("kind", _TEXT),  # folder, file, package, other
    ("is_root", _FLAG),
    ("size_bytes", _WHOLE),
    ("mime_type", _TEXT),
    ("child_count", _WHOLE),  # of a folder
    ("created", _TIME),
    ("updated", _TIME),
    ("created_by_id", _TEXT),
    ("created_by_name", _TEXT),
    ("created_by_email", _TEXT),
    ("updated_by_id", _TEXT),
    ("updated_by_name", _TEXT),
    ("updated_by_email", _TEXT),
    ("quick_xor_hash", _TEXT),
    ("sha256_hash", _TEXT),
    ("etag", _TEXT),
    ("ctag", _TEXT),
    ("url", _TEXT),
)

# By unit id; the order of a listing.
SCHEMAS: Mapping[str, pa.Schema] = MappingProxyType(
    {
        "onedrive.drives": DRIVES,
        "onedrive.items": ITEMS,
    }
)

# What the canonical data model calls the rows of a unit.
CDM_MODELS: Mapping[str, str] = MappingProxyType(
    {
        "onedrive.drives": "cdm.doc.space",
        "onedrive.items": "cdm.doc.item",
    }
)
