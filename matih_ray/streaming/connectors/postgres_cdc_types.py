"""PostgreSQL's types as Flink's: which declarations fit a column, and how its text is decoded.

| declared              | PostgreSQL                                                          |
|-----------------------|---------------------------------------------------------------------|
| STRING                | every type, as PostgreSQL's own text (`t` and `f` of boolean)       |
| BOOLEAN               | boolean                                                             |
| SMALLINT, INT, BIGINT | smallint, integer, bigint that are not larger; BIGINT also oid      |
| FLOAT, DOUBLE         | real, double precision that is not larger                           |
| DECIMAL(p, s)         | numeric and integers; a value that does not fit stops the job       |
| DATE                  | date                                                                |
| TIMESTAMP(n)          | timestamp, and timestamptz in UTC; digits beyond n are cut off      |
| TIMESTAMP_LTZ(n)      | timestamptz; likewise                                               |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pyarrow as pa

from matih_ray.errors import SourceChangedError, UnrepresentableValueError
from matih_ray.sources.postgres.decoding import BlockDecoder
from matih_ray.sources.postgres.exact_values import TIMESTAMP_INFINITY_US
from matih_ray.sources.postgres.types import mapping_of
from matih_ray.streaming.sql.types import FlinkType

_INTEGERS = {"smallint": "SMALLINT", "integer": "INT", "bigint": "BIGINT"}
_WIDTHS = ("SMALLINT", "INT", "BIGINT")
_US_DIGITS = 6

Finish = Callable[[pa.Array], pa.Array]


@dataclass(frozen=True)
class Arrival:
    """How a column's text becomes its values: decoded as a type, `loose` if each value must be
    checked against it, then finished."""

    decoded: pa.DataType
    finish: Finish
    loose: bool = False


class Columns:
    """The declared columns of a table and how each arrives."""

    def __init__(self, arrivals: Mapping[str, Arrival]) -> None:
        self._arrivals = dict(arrivals)
        schema = pa.schema([(name, one.decoded) for name, one in arrivals.items()])
        self.decoder = BlockDecoder(schema, [name for name, one in arrivals.items() if one.loose])

    def finished(self, decoded: pa.RecordBatch) -> pa.RecordBatch:
        """The columns as they were declared.

        Raises:
            UnrepresentableValueError: A value does not fit.
        """
        if not self._arrivals:
            return decoded
        columns = [
            one.finish(decoded.column(place)) for place, one in enumerate(self._arrivals.values())
        ]
        return pa.record_batch(columns, names=list(self._arrivals))


def arrival_of(column: str, native: str, declared: FlinkType, table: str) -> Arrival:
    """How a column of a native type arrives as what it was declared.

    Raises:
        SourceChangedError: The declaration does not fit.
    """
    if declared.kind == "STRING":
        return Arrival(pa.string(), _same)
    mapping = mapping_of(native)
    base = native.rpartition(" over ")[2].partition("(")[0].strip()
    integer = _INTEGERS.get(base)
    if declared.kind == "DECIMAL" and (integer is not None or base == "numeric"):
        return Arrival(declared.arrow, _same, loose=True)
    if declared.is_time and (mapped := _time(column, mapping.arrow, declared)) is not None:
        return mapped
    if _fits(declared.kind, base, integer):
        return Arrival(mapping.arrow, lambda array: array.cast(declared.arrow))
    raise SourceChangedError(
        f"column {column!r} of {table} is {native}, which does not fit {declared}; declare it "
        "otherwise (STRING takes everything)",
        column=column,
        native_type=native,
    )


def _fits(kind: str, base: str, integer: str | None) -> bool:
    if kind in _WIDTHS and integer is not None:
        return _WIDTHS.index(integer) <= _WIDTHS.index(kind)
    return (kind, base) in {
        ("BOOLEAN", "boolean"),
        ("BIGINT", "oid"),
        ("FLOAT", "real"),
        ("DOUBLE", "real"),
        ("DOUBLE", "double precision"),
        ("DATE", "date"),
    }


def _time(column: str, arrow: pa.DataType, declared: FlinkType) -> Arrival | None:
    if not pa.types.is_timestamp(arrow):
        return None
    if declared.kind == "TIMESTAMP_LTZ" and arrow.tz is None:
        return None  # nobody says which zone it is in

    def finish(array: pa.Array) -> pa.Array:
        return _cut(array, declared, column)

    return Arrival(arrow, finish)


def _cut(array: pa.Array, declared: FlinkType, column: str) -> pa.Array:
    """Cut off digits that the type does not have, to the past as PostgreSQL's date_trunc."""
    ticks = array.cast(pa.int64())
    step = 10 ** max(0, _US_DIGITS - declared.precision)
    if step > 1:
        values = ticks.fill_null(0).to_numpy(zero_copy_only=False)
        if (abs(values) == TIMESTAMP_INFINITY_US).any():
            raise UnrepresentableValueError(
                f"column {column!r} holds an infinite timestamp, which {declared} cannot; declare "
                "precision 6, or STRING",
                column=column,
            )
        ticks = pa.array(values - values % step, mask=_nulls(array))
    target = declared.arrow
    try:
        cut = ticks.cast(pa.timestamp("us")).cast(pa.timestamp(target.unit))
    except pa.ArrowInvalid:
        raise UnrepresentableValueError(
            f"column {column!r} holds a timestamp beyond {declared}; declare precision 6, "
            "or STRING",
            column=column,
        ) from None
    return cut.cast(target)


def _nulls(array: pa.Array) -> object:
    return array.is_null().to_numpy(zero_copy_only=False)


def _same(array: pa.Array) -> pa.Array:
    return array
