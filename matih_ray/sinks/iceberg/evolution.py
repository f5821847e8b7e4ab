"""What a table must become so that rows with other columns have a place in it.

Only additions that Iceberg allows without rewriting a file: new columns (nested ones, too), wider
types, NULLs where there were none. Field ids keep old files right. A value whose type the column
cannot become goes to a column of its own, named `<name>__<type>`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import (
    DecimalType,
    DoubleType,
    FloatType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    PrimitiveType,
    StructType,
)

from matih_ray.errors import SchemaMismatchError, SinkUnavailableError

# Others change the schema at the same moment only when runs of one table begin together.
MAX_ATTEMPTS = 20

# Iceberg's lossless promotions, besides those of decimals.
_PROMOTIONS = {(IntegerType, LongType), (FloatType, DoubleType)}

Path = tuple[str, ...]


@dataclass(frozen=True)
class Change:
    """Something to do to a schema: add, widen (`kind` is the new type) or make optional."""

    path: Path
    kind: IcebergType | None = None
    is_new: bool = False


@dataclass
class Evolution:
    """The changes that make room for some rows."""

    changes: list[Change] = field(default_factory=list)

    def text(self) -> str:
        """The changes in words."""
        return "; ".join(map(_told, self.changes))


def fits(given: IcebergType, stored: IcebergType) -> bool:
    """Whether all values of one type are values of the other."""
    if not (isinstance(given, PrimitiveType) and isinstance(stored, PrimitiveType)):
        return _plain(given) == _plain(stored)
    if isinstance(given, DecimalType) and isinstance(stored, DecimalType):
        return given.scale == stored.scale and given.precision <= stored.precision
    return given == stored or (type(given), type(stored)) in _PROMOTIONS


def holds_parts(given: IcebergType, stored: IcebergType) -> bool:
    """Whether what both types have fits, though one may have nested fields that the other lacks."""
    if isinstance(stored, StructType) and isinstance(given, StructType):
        known = {child.name: child.field_type for child in stored.fields}
        return all(
            child.name not in known or holds_parts(child.field_type, known[child.name])
            for child in given.fields
        )
    if isinstance(stored, ListType) and isinstance(given, ListType):
        return holds_parts(given.element_type, stored.element_type)
    if isinstance(stored, MapType) and isinstance(given, MapType):
        return fits(given.key_type, stored.key_type) and holds_parts(
            given.value_type, stored.value_type
        )
    return fits(given, stored)


def can_become(stored: IcebergType, given: IcebergType) -> bool:
    """Whether a column can change so that it holds both its own values and the given type's."""
    if isinstance(stored, StructType) and isinstance(given, StructType):
        known = {child.name: child for child in stored.fields}
        return all(
            child.name not in known or can_become(known[child.name].field_type, child.field_type)
            for child in given.fields
        )
    if isinstance(stored, ListType) and isinstance(given, ListType):
        return can_become(stored.element_type, given.element_type)
    if isinstance(stored, MapType) and isinstance(given, MapType):
        return fits(given.key_type, stored.key_type) and can_become(
            stored.value_type, given.value_type
        )
    return fits(given, stored) or fits(stored, given)


def place_of(table: Schema, given: NestedField) -> str:
    """The column that values of an incoming one go to: its own, or the one for its type."""
    stored = _column(table, given.name)
    if stored is None or can_become(stored.field_type, given.field_type):
        return given.name
    word = re.sub(r"[^a-z0-9]+", "_", _word(given.field_type)).strip("_")
    return f"{given.name}__{word}"


def evolution(table: Schema, incoming: Schema, fixed: frozenset[str]) -> Evolution:
    """What must change. `fixed` are columns that rows are told apart by.

    Raises:
        SchemaMismatchError: A fixed column has another type, or a column for values of another
            type is taken.
    """
    found = Evolution()
    placed = set()
    for given in incoming.fields:
        name = place_of(table, given)
        if name in placed:
            raise SchemaMismatchError(f"two columns want to be {name!r}", column=name)
        placed.add(name)
        if name != given.name and given.name in fixed:
            raise SchemaMismatchError(
                f"column {given.name!r} is {given.field_type} now, and rows are told apart by it; "
                "load into another target",
                column=given.name,
            )
        stored = _column(table, name)
        if stored is None:
            found.changes.append(Change((name,), given.field_type, is_new=True))
        elif not can_become(stored.field_type, given.field_type):
            raise SchemaMismatchError(
                f"column {given.name!r} is {given.field_type}, and {name!r} is taken by "
                f"{stored.field_type}",
                column=given.name,
            )
        else:
            found.changes += _changes((name,), stored, given.field_type)
    found.changes += [
        Change((stored.name,))
        for stored in table.fields
        if stored.name not in placed and stored.required
    ]
    return found


def evolve(catalog: Catalog, table: Table, incoming: Schema, fixed: frozenset[str]) -> Table:
    """The table once it has room for the rows; another process may have made some of it.

    Raises:
        SchemaMismatchError: See `evolution`.
    """
    for _ in range(MAX_ATTEMPTS):
        wanted = evolution(table.schema(), incoming, fixed)
        if not wanted.changes:
            return table
        try:
            with table.update_schema() as update:
                for change in wanted.changes:
                    if change.is_new and change.kind is not None:
                        update.add_column(change.path, change.kind)
                    elif change.kind is not None and isinstance(change.kind, PrimitiveType):
                        update.update_column(change.path, field_type=change.kind)
                    else:
                        update.update_column(change.path, required=False)
        except CommitFailedException:
            pass  # somebody has changed the table; perhaps to the same
        table = catalog.load_table(table.name())
    raise SinkUnavailableError(
        f"the schema of {'.'.join(table.name())} changed {MAX_ATTEMPTS} times in a row"
    )


def _changes(path: Path, stored: NestedField, given: IcebergType) -> Iterator[Change]:
    """What makes room for the given type below a column that can become it."""
    if stored.required and not _is_key(path):
        yield Change(path)
    kind = stored.field_type
    if isinstance(kind, StructType) and isinstance(given, StructType):
        known = {child.name: child for child in kind.fields}
        for child in given.fields:
            if child.name in known:
                yield from _changes((*path, child.name), known[child.name], child.field_type)
            else:
                yield Change((*path, child.name), child.field_type, is_new=True)
    elif isinstance(kind, ListType) and isinstance(given, ListType):
        yield from _changes((*path, "element"), kind.element_field, given.element_type)
    elif isinstance(kind, MapType) and isinstance(given, MapType):
        yield from _changes((*path, "value"), kind.value_field, given.value_type)
    elif not fits(given, kind):
        yield Change(path, given)


def _is_key(path: Path) -> bool:
    return path[-1] == "key" and len(path) > 1


def _column(table: Schema, name: str) -> NestedField | None:
    return next((field for field in table.fields if field.name == name), None)


def _word(kind: IcebergType) -> str:
    return str(kind) if kind.is_primitive else type(kind).__name__.removesuffix("Type").lower()


def _plain(kind: IcebergType) -> object:
    """A form of a nested type that can be compared without its field ids."""
    return schema_to_pyarrow(kind, include_field_ids=False)


def _told(change: Change) -> str:
    name = ".".join(change.path)
    if change.is_new:
        return f"column {name!r} added as {change.kind}"
    return f"column {name!r} " + (f"widened to {change.kind}" if change.kind else "made optional")
