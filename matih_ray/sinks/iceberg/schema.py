"""Schemas: which Iceberg columns an Arrow schema makes, whether it fits a table, and how batches
are laid out in its Parquet files.

All columns of a new table are optional: a source may drop its NOT NULL on any day, and its rows
must still load. Types without an exact Iceberg form are refused by name; nothing is narrowed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.io.pyarrow import pyarrow_to_schema, schema_to_pyarrow
from pyiceberg.schema import Schema, sanitize_column_names
from pyiceberg.types import IcebergType, NestedField

from matih_ray.errors import SchemaMismatchError
from matih_ray.model.policy import SchemaChange
from matih_ray.sinks.iceberg.evolution import can_become, fits, holds_parts, place_of
from matih_ray.sinks.iceberg.misfits import fitting

_FIELD_ID = b"PARQUET:field_id"
# Iceberg's decimals end here.
MAX_DECIMAL_PRECISION = 38

_WIDER: dict[pa.DataType, pa.DataType] = {
    pa.int8(): pa.int32(),
    pa.int16(): pa.int32(),
    pa.uint8(): pa.int32(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.decimal128(20, 0),
    pa.float16(): pa.float32(),
    pa.date64(): pa.date32(),
    pa.time32("s"): pa.time64("us"),
    pa.time32("ms"): pa.time64("us"),
    pa.string_view(): pa.string(),
    pa.binary_view(): pa.binary(),
}
_KEPT = frozenset(
    {
        pa.bool_(),
        pa.int32(),
        pa.int64(),
        pa.float32(),
        pa.float64(),
        pa.date32(),
        pa.time64("us"),
        pa.string(),
        pa.large_string(),
        pa.binary(),
        pa.large_binary(),
        pa.uuid(),
    }
)


@dataclass(frozen=True)
class FileLayout:
    """How batches of the schema `source` become rows of a Parquet file.

    `positions` are the places of the file's columns in a batch (-1: NULLs), `types` what they are
    cast to. `schema` has the file's names and carries Iceberg's field ids. `misfits` are positions
    whose values may not fit, and `unplaced` those of columns that are left out; of rows that have
    such a value only what fits is kept, or nothing if `drops_rows`.
    """

    source: pa.Schema
    positions: tuple[int, ...]
    types: tuple[pa.DataType, ...]
    schema: pa.Schema
    misfits: frozenset[int] = frozenset()
    unplaced: tuple[int, ...] = ()
    drops_rows: bool = False

    def arrange(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch in the file's column order and types; nothing is copied that need not be.

        Raises:
            SchemaMismatchError: The batch has another schema than the one that was prepared.
        """
        if not batch.schema.equals(self.source):
            raise SchemaMismatchError(
                f"a batch has the schema {_names(batch.schema)}, not the prepared "
                f"{_names(self.source)}; plan the run again"
            )
        arrays = []
        for position, kind in zip(self.positions, self.types, strict=True):
            if position < 0:
                arrays.append(pa.nulls(batch.num_rows, kind))
                continue
            array = batch.column(position)
            if position in self.misfits:
                array, _ = fitting(array, kind)
            arrays.append(array if array.type == kind else array.cast(kind))
        cast = pa.RecordBatch.from_arrays(arrays, self.schema.names)
        arranged: pa.RecordBatch = pa.record_batch(_Relabelled(cast, self.schema))
        return arranged

    def without_misfits(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, int]:
        """The rows of a batch that stay, and how many values of them have no place."""
        if not self.misfits and not (self.unplaced and self.drops_rows):
            return batch, 0
        masks = [batch.column(position).is_valid() for position in self.unplaced]
        if not self.drops_rows:
            masks = []
        for position, kind in zip(self.positions, self.types, strict=True):
            if position in self.misfits:
                masks.append(fitting(batch.column(position), kind)[1])
        if not self.drops_rows:
            return batch, sum(int(pc.sum(mask).as_py() or 0) for mask in masks)
        bad = masks[0]
        for mask in masks[1:]:
            bad = pc.or_(bad, mask)
        return batch.filter(pc.invert(bad)), 0


@dataclass(frozen=True)
class _Relabelled:
    """The same memory under another schema of the same layout, through Arrow's C interface.

    Not a cast: casting a struct looks for its fields by name and fills renamed ones with NULL.
    """

    batch: pa.RecordBatch
    schema: pa.Schema

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        return self.schema.__arrow_c_schema__(), self.batch.__arrow_c_array__()[1]


def iceberg_schema(schema: pa.Schema) -> Schema:
    """The Iceberg schema of a new table; its field ids are placeholders until the catalog assigns.

    Raises:
        SchemaMismatchError: A column has no exact Iceberg type, or no columns are there at all.
    """
    if len(schema) == 0:
        raise SchemaMismatchError("a table needs at least one column")
    numbers = count(1)

    def tag(path: str, field: pa.Field) -> tuple[int, str, bool]:  # noqa: ARG001 - see Tag
        return next(numbers), field.name, True

    writable = [pa.field(field.name, _writable(field.type, field.name)) for field in schema]
    return pyarrow_to_schema(pa.schema([_tagged(field, field.name, tag) for field in writable]))


def file_layout(
    table: Schema, source: pa.Schema, change: SchemaChange = SchemaChange.FAIL
) -> FileLayout:
    """How batches of `source` are written to a table, column by column.

    Raises:
        SchemaMismatchError: Names all columns that are missing, unknown or of another type, as far
            as `change` does not allow them.
    """
    incoming = iceberg_schema(source)
    places = {
        place_of(table, given) if change is SchemaChange.EVOLVE else given.name: given
        for given in incoming.fields
    }
    problems = list(_problems(table, places, change))
    if problems:
        raise SchemaMismatchError(
            f"the rows do not fit the table: {'; '.join(problems)}. Change the table to match, "
            "let it change with the policy's `schemaChange`, leave columns out with `columns`, or "
            "choose another `target`",
            columns=len(problems),
        )
    fields, positions, misfits = [], [], set()
    for field in table.fields:
        given = places.get(field.name)
        if given is None:
            positions.append(-1)
            fields.append(pa.field(field.name, _arrow_type(field.field_type)))
            continue
        position = source.get_field_index(given.name)
        kind = _writable(source.field(position).type, field.name)
        if field.field_type != given.field_type and (
            field.field_type.is_primitive or not fits(given.field_type, field.field_type)
        ):
            kind = _arrow_type(field.field_type)  # a promotion, or nested fields of the table's
        if not _holds(field.field_type, given.field_type, change):
            misfits.add(position)
        fields.append(pa.field(field.name, kind))
        positions.append(position)
    types = tuple(field.type for field in fields)
    return FileLayout(
        source,
        tuple(positions),
        types,
        _file_schema(table, fields),
        frozenset(misfits),
        tuple(n for n in range(len(source)) if n not in positions),
        drops_rows=change is SchemaChange.DISCARD_ROW,
    )


def _problems(
    table: Schema, places: Mapping[str, NestedField], change: SchemaChange
) -> Iterator[str]:
    for field in table.fields:
        if field.name not in places:
            if change is SchemaChange.FAIL:
                yield f"column {field.name!r} is missing"
            elif field.required:
                yield f"column {field.name!r} is required in the table and missing"
    known = {field.name: field for field in table.fields}
    discards = change in (SchemaChange.DISCARD_VALUE, SchemaChange.DISCARD_ROW)
    for name, given in places.items():
        stored = known.get(name)
        if stored is None:
            if change in (SchemaChange.FAIL, SchemaChange.EVOLVE):
                yield f"column {name!r} is not in the table"
        elif stored.required:
            yield f"column {name!r} is required in the table but may be NULL"
        elif not discards and not _holds(stored.field_type, given.field_type, change):
            yield f"column {name!r} is {given.field_type}, in the table {stored.field_type}"


def _holds(stored: IcebergType, given: IcebergType, change: SchemaChange) -> bool:
    """Whether a column takes all values of an incoming one, as far as it shall."""
    if fits(given, stored):
        return True
    if given.is_primitive or change in (SchemaChange.FAIL, SchemaChange.DISCARD_ROW):
        return False
    if change is SchemaChange.EVOLVE:
        return can_become(stored, given)  # nested fields that the rows lack are NULL
    return holds_parts(given, stored)


def _arrow_type(kind: IcebergType) -> pa.DataType:
    """A form of a nested type that can be compared without its field ids."""
    return schema_to_pyarrow(kind, include_field_ids=False)


def _file_schema(table: Schema, fields: list[pa.Field]) -> pa.Schema:
    """Names as readers of Iceberg's Parquet files expect them, with the table's field ids."""
    sanitized = sanitize_column_names(table)

    def tag(path: str, field: pa.Field) -> tuple[int, str, bool]:  # noqa: ARG001 - see Tag
        stored = table.find_field(path)
        return stored.field_id, sanitized.find_field(stored.field_id).name, not stored.required

    return pa.schema([_tagged(field, field.name, tag) for field in fields])


# From a field and its path in Iceberg's words to its id, its name and whether it may be NULL.
Tag = Callable[[str, pa.Field], tuple[int, str, bool]]


def _tagged(field: pa.Field, path: str, tag: Tag) -> pa.Field:
    """The field, and all below it, as `tag` says.

    Paths are `list.element`, `map.key`, `map.value` and `struct.name`.
    """
    number, name, nullable = tag(path, field)
    kind = field.type
    if pa.types.is_struct(kind):
        kind = pa.struct([_tagged(child, f"{path}.{child.name}", tag) for child in kind])
    elif pa.types.is_map(kind):
        key = _tagged(kind.key_field, f"{path}.key", tag)
        kind = pa.map_(
            key.with_nullable(nullable=False), _tagged(kind.item_field, f"{path}.value", tag)
        )
    elif pa.types.is_large_list(kind):
        kind = pa.large_list(_tagged(kind.value_field, f"{path}.element", tag))
    elif pa.types.is_list(kind):
        kind = pa.list_(_tagged(kind.value_field, f"{path}.element", tag))
    return pa.field(name, kind, nullable, {_FIELD_ID: str(number).encode()})


def _writable(kind: pa.DataType, column: str) -> pa.DataType:
    """The Arrow type in which values of this type are written, exactly."""
    types = pa.types
    if kind in _KEPT:
        return kind
    if kind in _WIDER:
        return _WIDER[kind]
    if types.is_dictionary(kind):
        return _writable(kind.value_type, column)
    if types.is_timestamp(kind) and kind.unit != "ns":
        return pa.timestamp("us", "UTC" if kind.tz else None)
    if types.is_decimal(kind) and kind.precision <= MAX_DECIMAL_PRECISION and kind.scale >= 0:
        return pa.decimal128(kind.precision, kind.scale)
    if types.is_fixed_size_binary(kind):
        return kind
    nested = _writable_nested(kind, column)
    if nested is not None:
        return nested
    raise SchemaMismatchError(
        f"column {column!r} is {kind}, which Iceberg cannot hold exactly; "
        f"give it an encoding in the policy, for example encodings: {{{column}: text}}",
        column=column,
    )


def _writable_nested(kind: pa.DataType, column: str) -> pa.DataType | None:
    types = pa.types
    if types.is_struct(kind):
        return pa.struct([pa.field(f.name, _writable(f.type, column)) for f in kind])
    if types.is_map(kind):
        return pa.map_(_writable(kind.key_type, column), _writable(kind.item_type, column))
    if types.is_large_list(kind):
        return pa.large_list(_writable(kind.value_type, column))
    if types.is_list(kind) or types.is_fixed_size_list(kind):
        return pa.list_(_writable(kind.value_type, column))
    return None


def _names(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)
