"""Confluence to `cdm.doc`. Raw columns: `sources.confluence.schemas`.

Comments and labels have no model; they are loaded raw. A page's version is its number: moves and
the way into the trash and back give it no other one, and the last word on them is what arrives
last. Spaces have no version.
"""

from __future__ import annotations

from matih_ray.mappers.expressions import Column, Constant, Reference, Text
from matih_ray.mappers.registry import CdmMapper, MapperFamily, register_cdm_mapper
from matih_ray.model.cdm.doc import ITEM, LINK, REVISION, SPACE


class ConfluenceMappers(MapperFamily):
    """Spaces, pages, their revisions and links."""


register_cdm_mapper(
    ConfluenceMappers,
    "confluence.spaces",
    CdmMapper(
        SPACE,
        {
            "space_key": Column("key"),
            "name": Column("name"),
            "description": Column("description"),
            "space_type": Column("space_type"),
            "status": Column("status"),
            "owner_id": Column("author_id"),
            "created_at": Column("created"),
            "url": Column("url"),
        },
        source_version=None,
    ),
)

register_cdm_mapper(
    ConfluenceMappers,
    "confluence.pages",
    CdmMapper(
        ITEM,
        {
            "space_cdm_id": Reference(SPACE, "space_id"),
            "parent_item_cdm_id": Reference(ITEM, "parent_id"),
            "title": Column("title"),
            "item_type": Constant("page"),
            "status": Column("status"),
            "version": Text("version"),
            "author_id": Column("author_id"),
            "editor_id": Column("version_author_id"),
            "body": Column("body"),
            "created_at": Column("created"),
            "updated_at": Column("updated"),
            "url": Column("url"),
        },
        source_version="version",
    ),
)

register_cdm_mapper(
    ConfluenceMappers,
    "confluence.revisions",
    CdmMapper(
        REVISION,
        {
            "item_cdm_id": Reference(ITEM, "page_id"),
            "version": Text("number"),
            "title": Column("title"),
            "author_id": Column("author_id"),
            "message": Column("message"),
            "is_minor": Column("is_minor_edit"),
            "body": Column("body"),
            "created_at": Column("created"),
        },
    ),
)

register_cdm_mapper(
    ConfluenceMappers,
    "confluence.links",
    CdmMapper(
        LINK,
        {
            "from_item_cdm_id": Reference(ITEM, "source_page_id"),
            "to_item_cdm_id": Reference(ITEM, "target_page_id"),
            "to_url": Column("target_url"),
            "to_space_key": Column("target_space_key"),
            "to_title": Column("target_title"),
            "to_attachment": Column("target_attachment"),
            "to_user_id": Column("target_user_id"),
            "anchor": Column("anchor"),
            "link_type": Column("kind"),
            "text": Column("text"),
            "occurrences": Column("occurrences"),
        },
        source_version="source_version",
    ),
)
