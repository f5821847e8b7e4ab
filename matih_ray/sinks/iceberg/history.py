"""What a table was, and what people change: snapshots to look back to, partitioning, names."""

from __future__ import annotations

from datetime import datetime, timezone

from pyiceberg.partitioning import PartitionField
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from matih_ray.errors import ValidationError
from matih_ray.model.receipt import CommitMarker
from matih_ray.model.tables import TableSnapshot
from matih_ray.sinks.iceberg.partitioning import partition_spec
from matih_ray.sinks.iceberg.snapshots import MARKER_SUMMARY


def snapshots_of(table: Table) -> list[TableSnapshot]:
    """All snapshots of a table, newest first."""
    metadata = table.metadata
    refs: dict[int, list[str]] = {}
    for name, ref in metadata.refs.items():
        refs.setdefault(ref.snapshot_id, []).append(name)
    current = metadata.current_snapshot_id
    found = sorted(metadata.snapshots, key=lambda one: (one.timestamp_ms, one.sequence_number or 0))
    return [
        _told(one, tuple(sorted(refs.get(one.snapshot_id, ()))), one.snapshot_id == current)
        for one in reversed(found)
    ]


def repartition(table: Table, partition_by: tuple[str, ...]) -> None:
    """Let new files of a table be partitioned in another way; old ones stay as they are.

    Nothing is rewritten: readers prune each file by the partitioning that it was written with, and
    compaction and merges write in the new one what they rewrite.

    Raises:
        ValidationError: A transform or a column is wrong.
    """
    schema = table.schema()
    wanted = partition_spec(partition_by, schema)
    held = {_identity(field): field for field in table.spec().fields}
    new = {_identity(field): field for field in wanted.fields}
    if held.keys() == new.keys():
        return
    with table.update_spec() as update:
        for identity, field in held.items():
            if identity not in new:
                update.remove_field(field.name)
        for identity, field in new.items():
            if identity not in held:
                column = schema.find_column_name(field.source_id)
                assert column is not None  # noqa: S101 - `partition_spec` has found it
                update.add_field(column, field.transform, field.name)


def rename_column(table: Table, column: str, name: str) -> None:
    """Give a column another name. Its field id stays, so that files written before are read right.

    Raises:
        ValidationError: There is no such column, or the name is taken.
    """
    names = [field.name for field in table.schema().fields]
    if column not in names:
        raise ValidationError(f"the table has no column {column!r}", field="column")
    if name in names or not name:
        raise ValidationError(f"{name!r} is no free name for a column", field="name")
    with table.update_schema() as update:
        update.rename_column((column,), name)


def _identity(field: PartitionField) -> tuple[int, str]:
    return field.source_id, str(field.transform)


def _told(snapshot: Snapshot, refs: tuple[str, ...], is_current: bool) -> TableSnapshot:  # noqa: FBT001 - one of a few values of a row
    summary = snapshot.summary
    told = dict(summary.additional_properties) if summary is not None else {}
    marker = told.get(MARKER_SUMMARY)
    parent = snapshot.parent_snapshot_id
    return TableSnapshot(
        snapshot_id=str(snapshot.snapshot_id),
        parent_id=None if parent is None else str(parent),
        at=datetime.fromtimestamp(snapshot.timestamp_ms / 1000, timezone.utc),
        operation="unknown" if summary is None else summary.operation.value,
        run_id=None if marker is None else CommitMarker.from_json(marker).run_id,
        rows=_number(told.get("total-records")),
        rows_added=_number(told.get("added-records")) or 0,
        files=_number(told.get("total-data-files")),
        refs=refs,
        is_current=is_current,
    )


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)
