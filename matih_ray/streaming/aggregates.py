"""Aggregate functions as partial aggregates that merge, with Flink's result types.

Counts, sums and extremes are one row for each group and window. COUNT(DISTINCT) keeps the distinct
values and PERCENTILE all values of a group: both are exact, and their state grows with the data.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from matih_ray.errors import SqlInvalidError, SqlNotSupportedError
from matih_ray.streaming.sql.types import BIGINT, BITS, DOUBLE, FlinkType

# Functions of a table's groups: column, Arrow's function; merged by summing or by itself.
_MERGE = {"count": "sum", "count_all": "sum", "sum": "sum", "min": "min", "max": "max"}
KEPT = ("COUNT_DISTINCT", "PERCENTILE")


@dataclass(frozen=True)
class Aggregate:
    """One aggregate: `argument` is a column of the operator's input, `output` of its result."""

    function: str  # COUNT_ALL, COUNT, COUNT_DISTINCT, SUM, AVG, MIN, MAX, PERCENTILE
    argument: str
    output: str
    input_type: FlinkType
    fraction: float = 0.0

    def __str__(self) -> str:
        return f"{self.output} = {self.function}({self.argument}) {self.type}"

    @property
    def type(self) -> FlinkType:
        """The result's type.

        Raises:
            SqlInvalidError: The function does not take its argument.
            SqlNotSupportedError: It does in Flink.
        """
        kind = self.input_type
        if self.function.startswith("COUNT"):
            return BIGINT
        if self.function in ("MIN", "MAX"):
            if kind.is_numeric or kind.is_time or kind.kind in ("STRING", "DATE"):
                return kind
            raise SqlNotSupportedError(f"{self.function} of {kind} is not supported", clause="MIN")
        if not kind.is_numeric:
            raise SqlInvalidError(f"{self.function} of {kind}: a number is needed")
        if self.function == "PERCENTILE":
            return DOUBLE
        if kind.kind != "DECIMAL":
            return kind
        if self.function == "SUM":
            return FlinkType("DECIMAL", 38, kind.scale)
        raise SqlNotSupportedError("AVG of DECIMAL is not supported", clause="AVG")

    @property
    def partials(self) -> tuple[str, ...]:
        """Arrow's functions of its partial aggregate."""
        if self.function == "AVG":
            return ("sum", "count")
        return (self.function.lower(),) if self.function not in KEPT else ()

    def finish(self, table: pa.Table) -> pa.Array:
        """The results of groups from their merged partial aggregates."""
        columns = [
            table.column(partial_name(self.argument, one)).combine_chunks() for one in self.partials
        ]
        kind = self.type.arrow
        if self.function != "AVG":
            return _narrowed(columns[0], self.type)
        total, count = columns
        filled = pc.if_else(pc.equal(count, 0), pa.scalar(None, pa.int64()), count)
        return pc.divide(total, filled.cast(total.type)).cast(kind)


def _narrowed(column: pa.Array, kind: FlinkType) -> pa.Array:
    """Sums of integers wrap around in their own type, as Java's do."""
    if kind.is_integer and BITS[kind.kind] < 64:
        return column.cast(kind.arrow, safe=False)
    return column.cast(kind.arrow)


def partial_name(argument: str, function: str) -> str:
    """The column of a partial aggregate."""
    return "count_all" if function == "count_all" else f"{argument}_{function}"


def partial_table(table: pa.Table, keys: list[str], aggregates: tuple[Aggregate, ...]) -> pa.Table:
    """One row for each group of the table."""
    wanted = {
        partial_name(one.argument, function): (one.argument, function)
        for one in aggregates
        for function in one.partials
    }
    plan: list[tuple[object, ...]] = [
        ([], function) if function == "count_all" else (argument, function)
        for argument, function in wanted.values()
    ]
    return table.group_by(keys, use_threads=False).aggregate(plan)


def merged_table(table: pa.Table, keys: list[str]) -> pa.Table:
    """One row for each group of partial aggregates."""
    names = [name for name in table.column_names if name not in keys]
    plan = [(name, _MERGE[_function_of(name)]) for name in names]
    merged = table.group_by(keys, use_threads=False).aggregate(plan)
    renamed = {f"{name}_{how}": name for name, how in plan}
    return merged.rename_columns([renamed.get(name, name) for name in merged.column_names])


def _function_of(name: str) -> str:
    return "count_all" if name == "count_all" else name.rpartition("_")[2]


def kept_values(table: pa.Table, keys: list[str], aggregate: Aggregate) -> pa.Table:
    """What COUNT(DISTINCT) and PERCENTILE keep of rows: the (distinct) values that are not NULL."""
    found = table.select([*keys, aggregate.argument])
    found = found.filter(pc.is_valid(found.column(aggregate.argument)))
    if aggregate.function == "COUNT_DISTINCT":
        return found.group_by([*keys, aggregate.argument], use_threads=False).aggregate([])
    return found


def finish_kept(
    kept: pa.Table, groups: pa.Table, keys: list[str], aggregate: Aggregate
) -> pa.Array:
    """The results for each row of `groups`, in their order."""
    if kept.num_rows == 0:
        counts_all = aggregate.function == "COUNT_DISTINCT"
        return pa.array([0 if counts_all else None] * groups.num_rows, aggregate.type.arrow)
    numbers = group_numbers(kept, groups, keys)
    if aggregate.function == "COUNT_DISTINCT":
        return pa.array(np.bincount(numbers, minlength=groups.num_rows), pa.int64())
    values = kept.column(aggregate.argument).cast(pa.float64()).to_numpy()
    found = percentiles(numbers, values, groups.num_rows, aggregate.fraction)
    return pa.array(found, pa.float64(), mask=np.bincount(numbers, minlength=groups.num_rows) == 0)


def percentiles(
    numbers: np.ndarray, values: np.ndarray, groups: int, fraction: float
) -> np.ndarray:
    """The percentile of each group's values, between the two that are next to it; of groups without
    values anything."""
    order = np.lexsort((values, numbers))
    values, numbers = values[order], numbers[order]
    counts = np.bincount(numbers, minlength=groups)
    firsts = np.concatenate(([0], np.cumsum(counts)[:-1]))
    # within the group, so that it does not depend on the others how this is rounded
    position = (np.maximum(counts, 1) - 1) * fraction
    values = np.append(values, 0.0)
    part = position - np.floor(position)
    low = firsts + np.floor(position).astype(np.int64)
    high = low + (part > 0)
    found: np.ndarray = np.where(
        low == high, values[low], values[low] * (1 - part) + values[high] * part
    )
    return found


def finish_counts(
    counts: list[pa.Table], groups: pa.Table, keys: list[str], counted: str
) -> pa.Array:
    """For each row of `groups` the sum of the column `counted` of all its rows in `counts`."""
    found = np.zeros(groups.num_rows, np.int64)
    for table in counts:
        np.add.at(found, group_numbers(table, groups, keys), table.column(counted).to_numpy())
    return pa.array(found)


def group_numbers(kept: pa.Table, groups: pa.Table, keys: list[str]) -> np.ndarray:
    """The row of `groups` that each kept value belongs to. A group always has rows."""
    numbered = groups.select(keys).append_column(
        "number", pa.array(np.arange(groups.num_rows), pa.int64())
    )
    empty = pa.nulls(kept.num_rows, pa.int64())
    both = pa.concat_tables([numbered, kept.select(keys).append_column("number", empty)])
    encoded = _encode(both, keys)
    lookup = np.zeros(encoded.max(initial=-1) + 1, np.int64)
    lookup[encoded[: groups.num_rows]] = np.arange(groups.num_rows)
    found: np.ndarray = lookup[encoded[groups.num_rows :]]
    return found


def _encode(table: pa.Table, keys: list[str]) -> np.ndarray:
    """One integer for each distinct combination of keys."""
    codes = np.zeros(table.num_rows, np.int64)
    for key in keys:
        column = table.column(key).combine_chunks()
        indices = pc.dictionary_encode(column, null_encoding="encode").indices.to_numpy()
        mixed = codes * (int(indices.max(initial=0)) + 1) + indices
        codes = np.unique(mixed, return_inverse=True)[1]
    return codes
