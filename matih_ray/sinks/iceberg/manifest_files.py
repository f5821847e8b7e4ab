"""Manifests and manifest lists: the Avro files between a snapshot and its data files."""

from __future__ import annotations

import uuid
from typing import cast

from pyiceberg.avro.codecs import AvroCompressionCodec
from pyiceberg.manifest import ManifestFile, ManifestWriter, write_manifest, write_manifest_list
from pyiceberg.table import Table, TableProperties
from pyiceberg.table.snapshots import Snapshot


def manifest_writer(table: Table, spec_id: int, snapshot_id: int) -> ManifestWriter:
    """A writer of one new manifest of a snapshot."""
    metadata = table.metadata
    path = table.location_provider().new_metadata_location(f"{uuid.uuid4()}-m0.avro")
    return write_manifest(
        format_version=metadata.format_version,
        spec=metadata.specs()[spec_id],
        schema=metadata.schema(),
        output_file=table.io.new_output(path),
        snapshot_id=snapshot_id,
        avro_compression=_compression(table),
    )


def manifest_list(
    table: Table,
    snapshot_id: int,
    parent: Snapshot | None,
    sequence_number: int,
    manifests: list[ManifestFile],
) -> str:
    """Write a snapshot's manifest list; returns its path."""
    path = table.location_provider().new_metadata_location(
        f"snap-{snapshot_id}-0-{uuid.uuid4()}.avro"
    )
    with write_manifest_list(
        format_version=table.metadata.format_version,
        output_file=table.io.new_output(path),
        snapshot_id=snapshot_id,
        parent_snapshot_id=None if parent is None else parent.snapshot_id,
        sequence_number=sequence_number,
        avro_compression=_compression(table),
    ) as writer:
        writer.add_manifests(manifests)
    return path


def live_manifests(table: Table, snapshot: Snapshot) -> list[ManifestFile]:
    """The manifests of a snapshot that still name a file."""
    return [
        manifest
        for manifest in snapshot.manifests(table.io)
        if manifest.has_added_files() or manifest.has_existing_files()
    ]


def _compression(table: Table) -> AvroCompressionCodec:
    codec = table.metadata.properties.get(
        TableProperties.WRITE_AVRO_COMPRESSION, TableProperties.WRITE_AVRO_COMPRESSION_DEFAULT
    )
    return cast("AvroCompressionCodec", codec)
