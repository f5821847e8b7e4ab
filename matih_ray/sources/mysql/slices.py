"""What a slice of a MySQL unit is: its parameters as values, and as SQL.

Values of bounds are kept as MySQL's own text (hexadecimal digits for binary columns) and compared
only by the database, in the column's own order and collation. Each is checked against the form of
its type before it becomes SQL: the server would take `'x'` for the number 0 without a word.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from matih_ray.errors import ValidationError
from matih_ray.model.plan import IngestionSlice
from matih_ray.model.value import Value
from matih_ray.sources.mysql.catalog import Column, Relation, text_literal
from matih_ray.sources.mysql.names import quoted
from matih_ray.sources.mysql.types import BINARIES
from matih_ray.sources.slices import parsed

BoundRow = tuple[str, ...]

INTEGERS = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint"})
_DATE = r"\d{4}-\d\d-\d\d"
_CLOCK = r"\d\d:\d\d:\d\d(\.\d{1,6})?"
_FORMS: dict[str, re.Pattern[str]] = {
    **dict.fromkeys(INTEGERS, re.compile(r"-?\d{1,20}")),
    "decimal": re.compile(r"-?\d{1,65}(\.\d{1,38})?"),
    "year": re.compile(r"\d{4}"),
    "date": re.compile(_DATE),
    "datetime": re.compile(f"{_DATE} {_CLOCK}"),
    "timestamp": re.compile(f"{_DATE} {_CLOCK}"),
    **dict.fromkeys(BINARIES, re.compile(r"([0-9A-F]{2})*")),
    **dict.fromkeys(("char", "varchar"), re.compile(r"(?s).*")),
}


class RangeSlice(Value):
    """Rows with `lower < columns <= upper`, compared as a row; None is an open end.

    With both ends open it is the whole unit.
    """

    kind: Literal["range"] = "range"
    columns: tuple[str, ...] = ()
    lower: BoundRow | None = None
    upper: BoundRow | None = None


class NullSlice(Value):
    """Rows whose `column` is NULL."""

    kind: Literal["null"] = "null"
    column: str


SliceParams = Annotated[RangeSlice | NullSlice, Field(discriminator="kind")]
_PARSER: TypeAdapter[RangeSlice | NullSlice] = TypeAdapter(SliceParams)


def parse(slice_: IngestionSlice) -> RangeSlice | NullSlice:
    """The parameters of a slice of ours.

    Raises:
        ValidationError: They are not ours.
    """
    return parsed(_PARSER, slice_)


def is_comparable(column: Column) -> bool:
    """Whether the column's values can be bounds: exact as text, and ordered as the text says.

    Not so are floats, bit, enum and set (ordered by number, compared by label), time, long texts.
    """
    return column.base in _FORMS


def is_value_of(column: Column, text: str) -> bool:
    """Whether the text is a value of the column, by its form."""
    form = _FORMS.get(column.base)
    return form is not None and form.fullmatch(text) is not None


def bound_expression(column: Column) -> str:
    """The column in a SELECT list whose result is a bound."""
    name = quoted(column.name)
    return f"HEX({name})" if column.base in BINARIES else name


def literal(column: Column, text: str) -> str:
    """A value of a column as SQL.

    Raises:
        ValidationError: The text is not a value of the column.
    """
    if not is_value_of(column, text):
        raise ValidationError(
            f"a bound of column {column.name!r} is not a value of {column.native_type}",
            field="params",
            column=column.name,
        )
    if column.base in INTEGERS or column.base == "decimal":
        return text
    return f"x'{text}'" if column.base in BINARIES else text_literal(text)


def condition(params: RangeSlice | NullSlice, relation: Relation) -> str:
    """The slice as an SQL condition on the relation's rows.

    Raises:
        SourceChangedError: A column of the bounds is gone.
        ValidationError: A bound is not a value of its column.
    """
    if isinstance(params, NullSlice):
        return f"{quoted(params.column)} IS NULL"
    return between(relation, params.columns, params.lower, params.upper)


def between(
    relation: Relation, columns: tuple[str, ...], lower: BoundRow | None, upper: BoundRow | None
) -> str:
    """`lower < columns <= upper` as SQL; TRUE when both ends are open."""
    present = [relation.existing_column(name) for name in columns]
    ends = []
    if lower is not None:
        ends.append(_compare(present, lower, ">", ">"))
    if upper is not None:
        ends.append(_compare(present, upper, "<", "<="))
    return " AND ".join(ends) if ends else "TRUE"


def _compare(columns: list[Column], bound: BoundRow, sign: str, last_sign: str) -> str:
    """A comparison of rows, written out: the server finds no index range in `(a, b) > (1, 2)`."""
    names = [quoted(column.name) for column in columns]
    values = [literal(column, text) for column, text in zip(columns, bound, strict=True)]
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
