"""What a slice of a PostgreSQL unit is: its parameters as values, and as SQL.

Values of bounds are kept as PostgreSQL's own text and cast back to the column's type where they
are used, so they are exact for every type and compared only by the database, in the column's own
order and collation. They always travel as quoted literals.
"""

from __future__ import annotations

from typing import Annotated, Literal

from psycopg2 import sql
from pydantic import Field, TypeAdapter

from matih_ray.model.plan import IngestionSlice
from matih_ray.model.value import Value
from matih_ray.sources.postgres.catalog import Relation
from matih_ray.sources.slices import parsed

TextRow = tuple[str, ...]


class RangeSlice(Value):
    """Rows with `lower < columns <= upper`, compared as a row; None is an open end.

    With both ends open it is the whole unit.
    """

    kind: Literal["range"] = "range"
    columns: tuple[str, ...] = ()
    lower: TextRow | None = None
    upper: TextRow | None = None
    snapshot: None = None


class NullSlice(Value):
    """Rows whose `column` is NULL."""

    kind: Literal["null"] = "null"
    column: str
    snapshot: None = None


class PageSlice(Value):
    """Rows of `table` (the unit or one of its parts) in pages `first_page <= page < end_page`.

    `first_page` None means all of the table; `end_page` None means to the end of it. Valid only
    inside `snapshot`.
    """

    kind: Literal["pages"] = "pages"
    table: str
    first_page: int | None = None
    end_page: int | None = None
    snapshot: str | None = None


SliceParams = Annotated[RangeSlice | NullSlice | PageSlice, Field(discriminator="kind")]
_PARSER: TypeAdapter[RangeSlice | NullSlice | PageSlice] = TypeAdapter(SliceParams)


def parse(slice_: IngestionSlice) -> RangeSlice | NullSlice | PageSlice:
    """The parameters of a slice of ours.

    Raises:
        ValidationError: They are not ours.
    """
    return parsed(_PARSER, slice_)


def condition(params: RangeSlice | NullSlice | PageSlice, relation: Relation) -> sql.Composable:
    """The slice as an SQL condition on the relation's rows.

    Raises:
        SourceChangedError: A column of the bounds is gone.
    """
    if isinstance(params, NullSlice):
        return sql.SQL("{} IS NULL").format(sql.Identifier(params.column))
    if isinstance(params, PageSlice):
        return _pages(params)
    return between(relation, params.columns, params.lower, params.upper)


def between(
    relation: Relation, columns: tuple[str, ...], lower: TextRow | None, upper: TextRow | None
) -> sql.Composable:
    """`lower < columns <= upper` as SQL; TRUE when both ends are open."""
    ends = [
        _compare(relation, columns, sign, bound)
        for sign, bound in ((">", lower), ("<=", upper))
        if bound is not None
    ]
    return sql.SQL(" AND ").join(ends) if ends else sql.SQL("TRUE")


def literal(relation: Relation, column: str, text: str) -> sql.Composable:
    """A value of a column, written as its text cast to its type."""
    cast_type = sql.SQL(relation.existing_column(column).cast_type)  # written by the catalog query
    return sql.SQL("{}::{}").format(sql.Literal(text), cast_type)


def _compare(
    relation: Relation, columns: tuple[str, ...], sign: str, bound: TextRow
) -> sql.Composable:
    names = sql.SQL(", ").join([sql.Identifier(column) for column in columns])
    values = sql.SQL(", ").join(
        [literal(relation, column, text) for column, text in zip(columns, bound, strict=True)]
    )
    row = "({}) {} ({})" if len(columns) == 1 else "ROW({}) {} ROW({})"
    return sql.SQL(row).format(names, sql.SQL(sign), values)


def _pages(params: PageSlice) -> sql.Composable:
    if params.first_page is None:
        return sql.SQL("TRUE")
    first = sql.SQL("ctid >= {}::tid").format(sql.Literal(f"({params.first_page},0)"))
    if params.end_page is None:
        return first
    return sql.SQL("{} AND ctid < {}::tid").format(first, sql.Literal(f"({params.end_page},0)"))
