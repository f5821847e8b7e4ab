"""Objects of Graph as rows of the units' schemas. Pure."""

from __future__ import annotations

from typing import Any

from matih_ray.sources.declared import Row, at, instant, text, whole
from matih_ray.sources.documents.exact_json import json_text
from matih_ray.sources.onedrive.graph import Json

ROOT = "/"
_KINDS = (("folder", "folder"), ("file", "file"), ("package", "package"))


def item_key(drive_id: str, item_id: str) -> str:
    """An item's `id`."""
    return f"{drive_id}:{item_id}"


def is_deleted(item: Json) -> bool:
    """The item is gone."""
    return item.get("deleted") is not None


def is_folder(item: Json) -> bool:
    """The item can hold others; a package (a notebook) can as well."""
    return item.get("folder") is not None or item.get("package") is not None


def is_root(item: Json) -> bool:
    """The item is its drive's root folder."""
    return item.get("root") is not None


def parent_of(item: Json) -> str | None:
    """The own id of an item's folder."""
    return None if is_root(item) else text(item, "parentReference", "id")


def name_of(item: Json) -> str:
    """An item's name within its folder."""
    return text(item, "name") or ""


def joined(folder: str | None, name: str) -> str | None:
    """The path of what is in a folder; None if the folder's is not known."""
    if folder is None:
        return None
    return f"{'' if folder == ROOT else folder}/{name}"


def drive_row(drive: Json, seen_ms: int) -> Row:
    """A drive."""
    owner = at(drive, "owner", "user") or at(drive, "owner", "group") or {}
    return {
        "id": text(drive, "id"),
        "_source_version": seen_ms,
        "_deleted": False,
        "name": text(drive, "name"),
        "drive_type": text(drive, "driveType"),
        "description": text(drive, "description"),
        "owner_id": text(owner, "id"),
        "owner_name": text(owner, "displayName"),
        "owner_email": text(owner, "email"),
        "quota_total_bytes": whole(drive, "quota", "total"),
        "quota_used_bytes": whole(drive, "quota", "used"),
        "created": instant(drive, "createdDateTime"),
        "updated": instant(drive, "lastModifiedDateTime"),
        "url": text(drive, "webUrl"),
        "raw": json_text(drive),
    }


def item_row(drive_id: str, item: Json, path: str | None, seen_ms: int) -> Row:
    """An item, or what is still told of one that is gone."""
    deleted = is_deleted(item)
    parent = parent_of(item)
    item_id = str(item["id"])
    return {
        "id": item_key(drive_id, item_id),
        "_source_version": _version_ms(item, seen_ms),
        "_deleted": deleted,
        "drive_id": drive_id,
        "item_id": item_id,
        "parent_id": None if parent is None else item_key(drive_id, parent),
        "name": text(item, "name"),
        "path": None if deleted else path,
        "kind": _kind(item),
        "is_root": is_root(item),
        "size_bytes": whole(item, "size"),
        "mime_type": text(item, "file", "mimeType"),
        "child_count": whole(item, "folder", "childCount"),
        "created": instant(item, "createdDateTime"),
        "updated": instant(item, "lastModifiedDateTime"),
        **_person("created_by", at(item, "createdBy", "user")),
        **_person("updated_by", at(item, "lastModifiedBy", "user")),
        "quick_xor_hash": text(item, "file", "hashes", "quickXorHash"),
        "sha256_hash": text(item, "file", "hashes", "sha256Hash"),
        "etag": text(item, "eTag"),
        "ctag": text(item, "cTag"),
        "url": text(item, "webUrl"),
        "raw": json_text(item),
    }


def gone_row(drive_id: str, item_id: str, seen_ms: int) -> Row:
    """An item that is not there any more, and that nothing was told of."""
    return {
        "id": item_key(drive_id, item_id),
        "_source_version": seen_ms,
        "_deleted": True,
        "drive_id": drive_id,
        "item_id": item_id,
    }


def _version_ms(item: Json, seen_ms: int) -> int:
    """When an item was changed; of one that is gone, when that was seen."""
    changed = None if is_deleted(item) else instant(item, "lastModifiedDateTime")
    return seen_ms if changed is None else changed // 1000


def _kind(item: Json) -> str | None:
    for facet, kind in _KINDS:
        if item.get(facet) is not None:
            return kind
    return None if is_deleted(item) else "other"


def _person(role: str, user: Any) -> Row:
    return {
        f"{role}_id": text(user, "id"),
        f"{role}_name": text(user, "displayName"),
        f"{role}_email": text(user, "email"),
    }
