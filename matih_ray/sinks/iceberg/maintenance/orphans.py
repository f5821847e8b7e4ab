"""Orphans: files below a table's location that none of its snapshots names.

They come from writers that died between writing and committing. A file of a living writer looks the
same, so only files older than an age far beyond any writer's, and older than the start of every run
that is going on, are taken. Files are listed before the table is read: what is committed in between
is found to be named.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone

import pyarrow.fs as pafs
from pyiceberg.catalog import Catalog
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata

from matih_ray.errors import SinkError
from matih_ray.sinks.iceberg.boundary import mapped
from matih_ray.sinks.iceberg.catalog import CatalogConfig
from matih_ray.sinks.iceberg.file_io import WarehouseIO, location_of
from matih_ray.sinks.iceberg.maintenance.expiry import data_files, delete_all
from matih_ray.sinks.iceberg.maintenance.listing import tables_below

# What writers of Iceberg leave behind; anything else below a table's location is somebody's own.
_SUFFIXES = (".parquet", ".avro", ".metadata.json")
_DIRECTORIES = ("data", "metadata")


@dataclass(frozen=True)
class Orphans:
    """Files that no snapshot names, and their bytes."""

    files: int = 0
    bytes: int = 0


def remove_orphans(
    catalog: Catalog,
    config: CatalogConfig,
    identifier: tuple[str, ...],
    cutoff: datetime,
    *,
    dry_run: bool,
) -> Orphans:
    """Delete files of a table that were last changed before the cutoff and belong to nothing.

    Raises:
        SinkError: Catalog or storage cannot be asked, or the storage cannot list files.
    """
    with mapped(f"look for orphans of {'.'.join(identifier)}", config):
        table = catalog.load_table(identifier)
        # locations of tables whose names begin with this table's may be below its own
        others = tables_below(catalog, identifier)
        within = [_path(catalog.load_table(one).location()) for one in others]
        found = {
            info.path: info
            for info in _listed(table, cutoff)
            if not any(info.path.startswith(f"{other}/") for other in within)
        }
        if not found:
            return Orphans()
        table = catalog.load_table(identifier)
        named = {_path(path) for path in named_files(table)}
        orphans = {path: info for path, info in found.items() if path not in named}
        if not dry_run:
            scheme, host, _ = _parsed(table.location())
            delete_all(table.io, [location_of(scheme, host, path) for path in orphans])
    return Orphans(len(orphans), sum(info.size for info in orphans.values()))


def named_files(table: Table) -> Iterator[str]:
    """All files that some snapshot of the table, or its metadata, names."""
    metadata: TableMetadata = table.metadata
    yield table.metadata_location
    yield from (entry.metadata_file for entry in metadata.metadata_log)
    yield from (one.statistics_path for one in metadata.statistics)
    yield from (one.statistics_path for one in metadata.partition_statistics)
    manifests = {}
    for snapshot in metadata.snapshots:
        if snapshot.manifest_list:
            yield snapshot.manifest_list
        manifests.update({one.manifest_path: one for one in snapshot.manifests(table.io)})
    yield from manifests
    yield from data_files(table.io, manifests.values())


def _listed(table: Table, cutoff: datetime) -> Iterator[pafs.FileInfo]:
    io = table.io
    if not isinstance(io, PyArrowFileIO):
        raise SinkError(f"cannot look for orphans: {type(io).__name__} cannot list files")
    scheme, netloc, path = _parsed(table.location())
    filesystem = io.fs_by_scheme(scheme, netloc)
    for directory in _DIRECTORIES:
        selector = pafs.FileSelector(
            f"{path.rstrip('/')}/{directory}", allow_not_found=True, recursive=True
        )
        for info in filesystem.get_file_info(selector):
            is_ours = info.type == pafs.FileType.File and info.path.endswith(_SUFFIXES)
            if is_ours and info.mtime is not None and _in_utc(info.mtime) < cutoff:
                yield info


def _in_utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def _parsed(location: str) -> tuple[str, str, str]:
    return WarehouseIO.parse_location(location)


def _path(location: str) -> str:
    return _parsed(location)[2]
