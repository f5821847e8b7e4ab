"""What a slice is: its parameters as values, and as SQL. Bounds are texts; see `dialect`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from matih_ray.errors import ValidationError
from matih_ray.model.plan import IngestionSlice
from matih_ray.model.value import Value
from matih_ray.sources.slices import parsed
from matih_ray.sources.sql.bounds import is_bound
from matih_ray.sources.sql.table import Table

BoundRow = tuple[str, ...]

# Of every row; the databases have no common word for TRUE.
EVERY_ROW = "1 = 1"


class RangeSlice(Value):
    """Rows with `lower < columns <= upper`, compared as a row; None is an open end.

    A row with a NULL in one of the columns is in no range. Without columns it is the whole unit.
    """

    kind: Literal["range"] = "range"
    columns: tuple[str, ...] = ()
    lower: BoundRow | None = None
    upper: BoundRow | None = None


class NullSlice(Value):
    """Rows with a NULL in at least one of the columns."""

    kind: Literal["null"] = "null"
    columns: Annotated[tuple[str, ...], Field(min_length=1)]


SliceParams = Annotated[RangeSlice | NullSlice, Field(discriminator="kind")]
_PARSER: TypeAdapter[RangeSlice | NullSlice] = TypeAdapter(SliceParams)


def parse(slice_: IngestionSlice) -> RangeSlice | NullSlice:
    """The parameters of a slice of ours.

    Raises:
        ValidationError: They are not ours.
    """
    return parsed(_PARSER, slice_)


def condition(params: RangeSlice | NullSlice, table: Table) -> str:
    """The slice as an SQL condition on the table's rows.

    Raises:
        SourceChangedError: A column of the slice is gone.
        ValidationError: A bound is not a value of its column.
    """
    names = [table.existing_column(name).name for name in params.columns]
    quoted = [table.dialect.quoted(name) for name in names]
    if isinstance(params, NullSlice):
        return " OR ".join([f"{name} IS NULL" for name in quoted])
    # written for all columns, since those of a key that nobody enforces may hold NULLs tomorrow
    ends = [f"{name} IS NOT NULL" for name in quoted]
    if params.lower is not None:
        ends.append(_compare(quoted, _literals(table, names, params.lower), ">", ">"))
    if params.upper is not None:
        ends.append(_compare(quoted, _literals(table, names, params.upper), "<", "<="))
    return " AND ".join(ends) or EVERY_ROW


def _literals(table: Table, names: list[str], bound: BoundRow) -> list[str]:
    if len(bound) != len(names):
        raise ValidationError("a bound has one value for each column", field="params")
    return [_literal(table, name, text) for name, text in zip(names, bound, strict=True)]


def _literal(table: Table, name: str, text: str) -> str:
    column = table.existing_column(name)
    kind = table.mapping(column).bound
    if kind is None or not is_bound(kind, text):
        raise ValidationError(
            f"a bound of column {name!r} is not a value of {column.native_type}",
            field="params",
            column=name,
        )
    return table.dialect.literal(kind, text)


def _compare(names: list[str], values: list[str], sign: str, last_sign: str) -> str:
    """A comparison of rows, written out: few databases know `(a, b) > (1, 2)`, and those that do
    skip no blocks by it."""
    equal: list[str] = []
    ways = []
    for position, (name, value) in enumerate(zip(names, values, strict=True)):
        last = position == len(names) - 1
        ways.append(" AND ".join([*equal, f"{name} {last_sign if last else sign} {value}"]))
        equal.append(f"{name} = {value}")
    if len(ways) == 1:
        return ways[0]
    either = " OR ".join([f"({way})" for way in ways])
    return f"{names[0]} {sign}= {values[0]} AND ({either})"
