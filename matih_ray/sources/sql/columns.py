"""Which columns of a unit a policy reads, and how each arrives. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from matih_ray.errors import SourceChangedError, ValidationError
from matih_ray.model.policy import IngestionPolicy
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.sources.sql.dialect import Dialect, TypeMapping
from matih_ray.sources.sql.table import Table


@dataclass(frozen=True)
class SelectedColumn:
    """One column that is read; `expression` is it as an item of a SELECT list."""

    name: str
    native_type: str
    mapping: TypeMapping
    expression: str


def selected_columns(
    dialect: Dialect, unit: EndpointUnitDescriptor, policy: IngestionPolicy
) -> tuple[SelectedColumn, ...]:
    """The unit's columns that the policy asks for, in the unit's order.

    Raises:
        ValidationError: The policy names an unknown column, leaves out one that identifies or
            orders rows or all of them, or asks for an encoding that does not exist.
    """
    names = {column.name for column in unit.columns}
    _check_known(unit, "columns", policy.columns or (), names)
    _check_known(unit, "encodings", policy.encodings, names)
    wanted = names if policy.columns is None else set(policy.columns)
    _check_identifying(unit, policy, wanted)
    selected = []
    for column in unit.columns:
        if column.name not in wanted:
            continue
        encoding = policy.encodings.get(column.name)
        mapping = (
            dialect.mapping(column.native_type)
            if encoding is None
            else dialect.overridden(column.native_type, encoding, column.name)
        )
        expression = mapping.expression.format(dialect.quoted(column.name))
        selected.append(SelectedColumn(column.name, column.native_type, mapping, expression))
    if not selected:
        raise ValidationError(f"{unit.unit_id}: there is no column to read", field="columns")
    return tuple(selected)


def arrow_schema(columns: tuple[SelectedColumn, ...]) -> pa.Schema:
    """The schema of batches that hold these columns. Every field is nullable: a constraint of the
    source may be dropped tomorrow, and a table must not refuse NULLs then."""
    return pa.schema([pa.field(column.name, column.mapping.arrow) for column in columns])


def check_unchanged(table: Table, columns: tuple[SelectedColumn, ...]) -> None:
    """Compare what is there now with what was planned.

    Raises:
        SourceChangedError: A column is gone or has another type; names it.
    """
    for planned in columns:
        present = table.existing_column(planned.name)
        if present.native_type != planned.native_type:
            raise SourceChangedError(
                f"column {planned.name!r} of {table.unit_id} was {planned.native_type} when the "
                f"run was planned and is {present.native_type} now; start a new run",
                column=planned.name,
                planned=planned.native_type,
                present=present.native_type,
            )


def _check_known(
    unit: EndpointUnitDescriptor,
    field: str,
    asked: tuple[str, ...] | dict[str, str],
    names: set[str],
) -> None:
    unknown = [name for name in asked if name not in names]
    if unknown:
        raise ValidationError(
            f"{unit.unit_id} has no column {unknown[0]!r}; it has {', '.join(sorted(names))}",
            field=field,
            column=unknown[0],
        )


def _check_identifying(
    unit: EndpointUnitDescriptor, policy: IngestionPolicy, wanted: set[str]
) -> None:
    needed = [*unit.primary_key, *([policy.cursor_column] if policy.cursor_column else [])]
    # a cursor that the unit does not have is said where the run is planned
    existing = {column.name for column in unit.columns}
    missing = [name for name in needed if name not in wanted and name in existing]
    if missing:
        raise ValidationError(
            f"columns of {unit.unit_id} must include {missing[0]!r}, which is part of its primary "
            "key or its cursor",
            field="columns",
            column=missing[0],
        )
