"""Columns of documents: made of a sample, described, and chosen by a policy. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pyarrow as pa

from matih_ray.errors import ValidationError
from matih_ray.model.policy import IngestionPolicy
from matih_ray.model.unit import ColumnDescriptor, EndpointUnitDescriptor, Fidelity
from matih_ray.sources.documents.numbers import decimal_type, fitting_decimal, whole

EXTRA = "_extra"
# The native type of `_extra`, of a field whose sampled values were all null, and of alternatives.
REST = "fields without a column"
UNSEEN = "null"
ALTERNATIVE = " | "
# A collection whose documents use data as field names has more fields than any table should have;
# the commonest of the sample become columns, and the others stay in `_extra`.
MAX_COLUMNS = 500
# Names that table formats and query engines take for paths or commands stay in `_extra`.
_COLUMN_NAME = re.compile(r"[^$.\x00][^.\x00]{0,254}")

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Arrival:
    """How values of one native type arrive.

    `convert` gives the Arrow value and raises `ValueError` or `TypeError` for a value that does not
    fit. It is not called for null, except where `keeps_null`: there null is a value like others.
    """

    arrow: pa.DataType
    convert: Callable[[Any], Any]
    fidelity: Fidelity = Fidelity.EXACT
    encoding: str | None = None
    keeps_null: bool = False


@dataclass(frozen=True)
class Dialect:
    """What one source's values are.

    Args:
        native_type: The name of a value's type; None for null.
        arrivals: How each native type arrives; all others arrive as JSON.
        widened: The native type of a column that held these types, where there is one.
        json_text: A value as JSON text.
        fields_text: Fields by name as a JSON object, for `_extra`.
        json_name: What that JSON is called in a column's `encoding`.
        number: A number of the source's, exactly.
        numbers: The native types that `number` takes.
    """

    native_type: Callable[[Any], str | None]
    arrivals: Mapping[str, Arrival]
    widened: Mapping[frozenset[str], str]
    json_text: Callable[[Any], str]
    fields_text: Callable[[Document], str]
    json_name: str
    number: Callable[[Any], Decimal]
    numbers: frozenset[str]

    def json(self) -> Arrival:
        """How everything without a type of its own arrives."""
        return Arrival(
            pa.string(), self.json_text, Fidelity.ENCODED, self.json_name, keeps_null=True
        )

    def arrival(self, native_type: str) -> Arrival:
        """How a column of a native type arrives by default."""
        return self.arrivals.get(native_type) or self.json()

    def overridden(self, column: str, native_type: str, encoding: str) -> Arrival:
        """How a column arrives under `policy.encodings[column]`.

        Raises:
            ValidationError: There is no such encoding, or not for this type.
        """
        if encoding == "json":
            return self.json()
        if set(native_type.split(ALTERNATIVE)) <= self.numbers:
            if encoding == "int64":
                return self._numeric(pa.int64(), whole, encoding)
            if (type_ := decimal_type(encoding)) is not None:
                return self._numeric(type_, fitting_decimal(type_), encoding)
        raise ValidationError(
            f"column {column!r} of type {native_type} has no encoding {encoding!r}; there is "
            "`json` for all types, `int64` and `decimal(p,s)` with s ≤ p ≤ 38 for numbers",
            field=f"encodings.{column}",
        )

    def _numeric(self, arrow: pa.DataType, fit: Callable[[Decimal], Any], encoding: str) -> Arrival:
        return Arrival(arrow, lambda value: fit(self.number(value)), Fidelity.ENCODED, encoding)


@dataclass(frozen=True)
class SelectedColumn:
    """One column that is read. `without` is set for `_extra`: the fields that are not its own."""

    name: str
    arrival: Arrival
    without: frozenset[str] | None = None


def observed_columns(
    dialect: Dialect, sample: Iterable[Document], declared: Mapping[str, str]
) -> tuple[ColumnDescriptor, ...]:
    """Columns for the fields of a sample.

    Args:
        dialect: What the values are.
        sample: Documents.
        declared: Native types that are known without a sample, by field; UNSEEN if only the field
            is known to be there. These columns come first, in this order.

    Returns:
        The declared fields, the sample's by falling frequency up to `MAX_COLUMNS` and then by
        first appearance, and `_extra`.
    """
    seen: dict[str, set[str]] = {name: set() for name in declared}
    counts: Counter[str] = Counter()
    for document in sample:
        for name, value in document.items():
            if name != EXTRA and _COLUMN_NAME.fullmatch(name):
                counts[name] += 1
                native_type = dialect.native_type(value)
                seen.setdefault(name, set()).update([native_type] if native_type else [])
    common = {name for name, _ in counts.most_common(MAX_COLUMNS)} | set(declared)
    columns = [
        _described(dialect, name, _merged(dialect, types, declared.get(name, UNSEEN)))
        for name, types in seen.items()
        if name in common
    ]
    return (*columns, _described(dialect, EXTRA, REST))


def selected_columns(
    dialect: Dialect, unit: EndpointUnitDescriptor, policy: IngestionPolicy
) -> tuple[SelectedColumn, ...]:
    """The unit's columns that the policy asks for, in the unit's order.

    Raises:
        ValidationError: The policy names an unknown column, leaves out one that identifies or
            orders documents, or asks for an encoding that does not exist.
    """
    names = {column.name for column in unit.columns}
    _refuse_unknown(unit, "columns", policy.columns or (), names)
    _refuse_unknown(unit, "encodings", tuple(policy.encodings), names - {EXTRA})
    wanted = names if policy.columns is None else set(policy.columns)
    needed = [*unit.primary_key, *([policy.cursor_column] if policy.cursor_column else [])]
    for name in needed:
        if name in names and name not in wanted:
            raise ValidationError(
                f"columns of {unit.unit_id} must include {name!r}, which is part of its key or is "
                "its cursor",
                field="columns",
                column=name,
            )
    named = frozenset(names - {EXTRA})
    return tuple(
        SelectedColumn(
            column.name,
            _arrival(dialect, column, policy.encodings.get(column.name)),
            named if column.name == EXTRA else None,
        )
        for column in unit.columns
        if column.name in wanted
    )


def arrow_schema(columns: tuple[SelectedColumn, ...]) -> pa.Schema:
    """The schema of batches that hold these columns."""
    return pa.schema([pa.field(column.name, column.arrival.arrow) for column in columns])


def _arrival(dialect: Dialect, column: ColumnDescriptor, encoding: str | None) -> Arrival:
    if encoding is None:
        return dialect.arrival(column.native_type)
    return dialect.overridden(column.name, column.native_type, encoding)


def _merged(dialect: Dialect, types: set[str], declared: str) -> str:
    if declared != UNSEEN:
        return declared
    if not types:
        return UNSEEN
    widened = dialect.widened.get(frozenset(types))
    return widened or ALTERNATIVE.join(sorted(types))


def _described(dialect: Dialect, name: str, native_type: str) -> ColumnDescriptor:
    arrival = dialect.arrival(native_type)
    return ColumnDescriptor(
        name=name,
        native_type=native_type,
        arrow_type=str(arrival.arrow),
        fidelity=arrival.fidelity,
        encoding=arrival.encoding,
    )


def _refuse_unknown(
    unit: EndpointUnitDescriptor, option: str, asked: tuple[str, ...], names: set[str]
) -> None:
    unknown = [name for name in asked if name not in names]
    if unknown:
        raise ValidationError(
            f"{unit.unit_id} has no column {unknown[0]!r} for {option}; it has "
            f"{', '.join(sorted(names))}",
            field=option,
            column=unknown[0],
        )
