"""OneDrive and SharePoint libraries to `cdm.doc`. Raw columns: `sources.onedrive.schemas`.

Graph tells no number that grows: an ETag is opaque, and a move need not change an item's time. So
rows have no `source_version`, and what arrives last is true; runs of one unit never overlap.
"""

from __future__ import annotations

from matih_ray.mappers.expressions import Column, Reference
from matih_ray.mappers.registry import CdmMapper, MapperFamily, register_cdm_mapper
from matih_ray.model.cdm.doc import ITEM, SPACE


class OneDriveMappers(MapperFamily):
    """Drives, and the files and folders in them."""


register_cdm_mapper(
    OneDriveMappers,
    "onedrive.drives",
    CdmMapper(
        SPACE,
        {
            "name": Column("name"),
            "description": Column("description"),
            "space_type": Column("drive_type"),
            "owner_id": Column("owner_id"),
            "created_at": Column("created"),
            "updated_at": Column("updated"),
            "url": Column("url"),
        },
        source_version=None,
    ),
)

register_cdm_mapper(
    OneDriveMappers,
    "onedrive.items",
    CdmMapper(
        ITEM,
        {
            "space_cdm_id": Reference(SPACE, "drive_id"),
            "parent_item_cdm_id": Reference(ITEM, "parent_id"),
            "title": Column("name"),
            "item_type": Column("kind"),
            "mime_type": Column("mime_type"),
            "path": Column("path"),
            "size_bytes": Column("size_bytes"),
            "version": Column("etag"),
            "author_id": Column("created_by_id"),
            "editor_id": Column("updated_by_id"),
            "content_hash": Column("quick_xor_hash"),
            "created_at": Column("created"),
            "updated_at": Column("updated"),
            "url": Column("url"),
        },
        source_version=None,
    ),
)
