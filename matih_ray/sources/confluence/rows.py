"""Objects of Confluence as rows of the units' schemas. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from matih_ray.sources.confluence.site import Json
from matih_ray.sources.confluence.storage import Link
from matih_ray.sources.declared import Row, at, flag, instant, text, whole
from matih_ray.sources.documents.exact_json import json_text

GONE = frozenset({"trashed", "deleted"})
Keys = Mapping[str, str]


def changed_at(thing: Json) -> int | None:
    """When a page's or comment's version was made, in microseconds since 1970."""
    return instant(thing, "version", "createdAt")


def version_of(thing: Json) -> int:
    """The number of a page's or comment's version."""
    return whole(thing, "version", "number") or 0


def version_ms(thing: Json, gone_ms: int = 0) -> int:
    """A row's `_source_version`: its own time; of what is gone, when that was seen, if later."""
    return max((changed_at(thing) or 0) // 1000, gone_ms)


def space_row(space: Json, seen_ms: int) -> Row:
    """A space."""
    return {
        "id": text(space, "id"),
        "_source_version": seen_ms,
        "_deleted": False,
        "key": text(space, "key"),
        "name": text(space, "name"),
        "space_type": text(space, "type"),
        "status": text(space, "status"),
        "description": text(space, "description", "plain", "value"),
        "author_id": text(space, "authorId"),
        "homepage_id": text(space, "homepageId"),
        "created": instant(space, "createdAt"),
        "url": text(space, "_links", "webui"),
        "raw": json_text(space),
    }


def page_row(page: Json, keys: Keys, seen_ms: int, *, wanted: bool) -> Row:
    """A page; a deletion if it is in the trash, or was moved to a space that is not `wanted`."""
    space_id = text(page, "spaceId")
    gone = not wanted or page.get("status") in GONE
    return {
        "id": text(page, "id"),
        "_source_version": version_ms(page, seen_ms if gone else 0),
        "_deleted": gone,
        "space_id": space_id,
        "space_key": keys.get(space_id or ""),
        "status": text(page, "status"),
        "title": text(page, "title"),
        "parent_id": text(page, "parentId"),
        "parent_type": text(page, "parentType"),
        "position": whole(page, "position"),
        "author_id": text(page, "authorId"),
        "owner_id": text(page, "ownerId"),
        "version": whole(page, "version", "number"),
        "version_author_id": text(page, "version", "authorId"),
        "version_message": text(page, "version", "message"),
        "is_minor_edit": flag(page, "version", "minorEdit"),
        "created": instant(page, "createdAt"),
        "updated": changed_at(page),
        "body": text(page, "body", "storage", "value"),
        "url": text(page, "_links", "webui"),
        "raw": json_text(page),
    }


def purged_row(page_id: str, space_id: str, keys: Keys, seen_ms: int) -> Row:
    """A page that is not there any more."""
    return {
        "id": page_id,
        "_source_version": seen_ms,
        "_deleted": True,
        "space_id": space_id,
        "space_key": keys.get(space_id),
        "status": "deleted",
    }


def revision_row(page: Json, revision: Json, keys: Keys) -> Row:
    """One version of a page."""
    space_id = text(page, "spaceId")
    number = whole(revision, "number")
    return {
        "id": f"{page['id']}:{number}",
        "_source_version": (instant(revision, "createdAt") or 0) // 1000,
        "_deleted": False,
        "page_id": text(page, "id"),
        "space_id": space_id,
        "space_key": keys.get(space_id or ""),
        "number": number,
        "title": text(revision, "page", "title"),
        "author_id": text(revision, "authorId"),
        "message": text(revision, "message"),
        "is_minor_edit": flag(revision, "minorEdit"),
        "created": instant(revision, "createdAt"),
        "body": text(revision, "page", "body", "storage", "value"),
        "raw": json_text(revision),
    }


def no_revision_row(page: Json, number: int, seen_ms: int) -> Row:
    """One version of a page that is gone."""
    return {
        "id": f"{page['id']}:{number}",
        "_source_version": version_ms(page, seen_ms),
        "_deleted": True,
        "page_id": text(page, "id"),
        "number": number,
    }


def link_row(page: Json, link: Link, target_page_id: str | None, keys: Keys) -> Row:
    """One target of a page."""
    space_id = text(page, "spaceId")
    space_key = keys.get(space_id or "")
    told = {
        "kind": link.kind,
        "target_page_id": target_page_id,
        "target_space_key": link.space_key or (space_key if link.title is not None else None),
        "target_title": link.title,
        "target_attachment": link.attachment,
        "target_user_id": link.user_id,
        "target_url": link.url,
        "anchor": link.anchor,
        "text": link.text,
        "occurrences": link.occurrences,
    }
    return {
        "id": f"{page['id']}:{link.digest}",
        "_source_version": version_ms(page),
        "_deleted": False,
        "source_page_id": text(page, "id"),
        "source_space_id": space_id,
        "source_space_key": space_key,
        "source_version": whole(page, "version", "number"),
        **told,
        "raw": json_text({name: value for name, value in told.items() if value is not None}),
    }


def no_link_row(page: Json, digest: str, seen_ms: int) -> Row:
    """A target that a page no longer has."""
    return {
        "id": f"{page['id']}:{digest}",
        "_source_version": version_ms(page, seen_ms),
        "_deleted": True,
        "source_page_id": text(page, "id"),
        "source_version": whole(page, "version", "number"),
    }


def comment_row(comment: Json, kind: str, space_id: str | None, keys: Keys) -> Row:
    """A comment."""
    return {
        "id": text(comment, "id"),
        "_source_version": version_ms(comment),
        "_deleted": comment.get("status") in GONE,
        "kind": kind,
        "status": text(comment, "status"),
        "page_id": text(comment, "pageId"),
        "blog_post_id": text(comment, "blogPostId"),
        "space_id": space_id,
        "space_key": keys.get(space_id or ""),
        "parent_comment_id": text(comment, "parentCommentId"),
        "title": text(comment, "title"),
        "version": whole(comment, "version", "number"),
        "author_id": text(comment, "version", "authorId"),
        "updated": changed_at(comment),
        "body": text(comment, "body", "storage", "value"),
        "resolution_status": text(comment, "resolutionStatus"),
        "inline_selection": text(comment, "properties", "inlineOriginalSelection")
        or text(at(comment, "properties"), "inline-original-selection"),
        "url": text(comment, "_links", "webui"),
        "raw": json_text(comment),
    }


def label_row(page: Json, label: tuple[str, str, str], keys: Keys, seen_ms: int) -> Row:
    """One label of a page."""
    label_id, name, prefix = label
    space_id = text(page, "spaceId")
    return {
        "id": f"{page['id']}:{label_id}",
        "_source_version": seen_ms,
        "_deleted": False,
        "page_id": text(page, "id"),
        "space_id": space_id,
        "space_key": keys.get(space_id or ""),
        "label_id": label_id,
        "name": name,
        "prefix": prefix,
        "raw": json_text({"id": label_id, "name": name, "prefix": prefix}),
    }
