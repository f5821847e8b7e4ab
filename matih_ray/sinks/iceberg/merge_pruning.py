"""Whether two data files can hold the same key, by their partitions and bounds. Pure."""

from __future__ import annotations

from typing import cast

from pyiceberg.conversions import from_bytes
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.types import PrimitiveType

from matih_ray.model.policy import MergeRule


def may_share_keys(table: Table, rule: MergeRule, one: DataFile, other: DataFile) -> bool:
    """False only if no key of one file can be in the other."""
    return _partitions_agree(table, rule, one, other) and _bounds_meet(table, rule, one, other)


def _partitions_agree(table: Table, rule: MergeRule, one: DataFile, other: DataFile) -> bool:
    """A partition field made from a key column is the same for all rows of a key."""
    if one.spec_id != other.spec_id:
        return True
    key = {table.schema().find_field(name).field_id for name in rule.key}
    spec = table.specs()[one.spec_id]
    return all(
        one.partition[position] == other.partition[position]
        for position, field in enumerate(spec.fields)
        if field.source_id in key
    )


def _bounds_meet(table: Table, rule: MergeRule, one: DataFile, other: DataFile) -> bool:
    """Bounds are compared as Iceberg's own values; a file without them may hold any key."""
    for name in rule.key:
        field = table.schema().find_field(name)
        kind = cast("PrimitiveType", field.field_type)
        lower, upper = _bounds(one, field.field_id)
        other_lower, other_upper = _bounds(other, field.field_id)
        if lower is not None and other_upper is not None and _less(kind, other_upper, lower):
            return False
        if upper is not None and other_lower is not None and _less(kind, upper, other_lower):
            return False
    return True


def _bounds(file: DataFile, field_id: int) -> tuple[bytes | None, bytes | None]:
    return (file.lower_bounds or {}).get(field_id), (file.upper_bounds or {}).get(field_id)


def _less(kind: PrimitiveType, one: bytes, other: bytes) -> bool:
    return bool(from_bytes(kind, one) < from_bytes(kind, other))
