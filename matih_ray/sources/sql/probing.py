"""What is asked of a table while planning: a number of rows, the greatest value, boundaries.

All of it is SQL that every vendor has: no LIMIT, no row values, no booleans. Only the remainder of
a division and the count of more rows than an integer holds are not the same everywhere; a vendor's
source says how they are written.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pyarrow as pa

from matih_ray.errors import PlanError, SourceError
from matih_ray.model.policy import MAX_SLICES_PER_PLAN
from matih_ray.sources.sql.bounds import texts_of
from matih_ray.sources.sql.dialect import BoundKind, SqlSession, TypeMapping
from matih_ray.sources.sql.slices import BoundRow, NullSlice, RangeSlice, condition
from matih_ray.sources.sql.table import Table

MODULO = "MOD({0}, {1})"
COUNT = "COUNT(*)"


@dataclass(frozen=True)
class Cut:
    """Where to cut: ascending, distinct boundaries, and the number of all rows."""

    boundaries: tuple[BoundRow, ...]
    step: int
    rows: int

    def ranges(
        self, lower: BoundRow | None, upper: BoundRow | None
    ) -> list[tuple[BoundRow | None, BoundRow | None, int | None]]:
        """Consecutive (lower, upper] pairs from `lower` to `upper`, each with a number of rows:
        exact where the key does not repeat."""
        ends: list[BoundRow | None] = [lower, *self.boundaries, upper]
        rest = self.rows - self.step * len(self.boundaries)
        rows = [self.step] * len(self.boundaries) + [max(rest, 0)]
        return [(a, b, n) for (a, b), n in zip(pairwise(ends), rows, strict=True)]


@dataclass(frozen=True)
class TableProbe:
    """A session and the table that it is asked about."""

    session: SqlSession
    table: Table
    modulo: str = MODULO
    counting: str = COUNT

    def count(self, params: RangeSlice | NullSlice) -> int:
        """The number of rows of a slice."""
        statement = _COUNT.format(
            counting=self.counting,
            relation=self.table.identifier,
            condition=condition(params, self.table),
        )
        found = self._values(statement, pa.schema([("rows", pa.int64())]))
        if len(found) != 1:
            raise SourceError(f"{self.table.unit_id}: the source did not say how many rows it has")
        return int(found.column(0)[0].as_py())

    def greatest(self, column: str, lower: str | None) -> str | None:
        """The greatest value of a column above `lower`; None if there is none."""
        params = RangeSlice(columns=(column,), lower=None if lower is None else (lower,))
        kind, mapping = self._bound(column)
        quoted = self.table.dialect.quoted
        statement = _GREATEST.format(
            # another name than the column's: some databases would take it for that in WHERE
            bound=mapping.expression.format(quoted(_GREATEST_NAME)),
            greatest=quoted(_GREATEST_NAME),
            name=quoted(column),
            relation=self.table.identifier,
            condition=condition(params, self.table),
        )
        found = self._values(statement, pa.schema([pa.field(column, mapping.arrow)]))
        values = found.column(0).drop_null()
        return texts_of(kind, values, column)[0] if len(values) else None

    def cut(
        self, params: RangeSlice, target_rows: int, max_slices: int = MAX_SLICES_PER_PLAN
    ) -> Cut:
        """Boundaries between slices of `target_rows` rows of a range, at most `max_slices`.

        Rows are numbered in the order of the columns and every so many-th one is taken: exact for
        skewed keys and for keys of several columns, and the same again while nothing changes. It is
        one scan of the key's columns and a sort, by the source alone. A value that repeats past
        a boundary stays whole, so its slice is larger.
        """
        rows = self.count(params)
        if rows <= target_rows:
            return Cut((), target_rows, rows)
        step = max(target_rows, -(-rows // max_slices))
        bounds = [self._bound(name) for name in params.columns]
        names = [self.table.dialect.quoted(name) for name in params.columns]
        # The last row needs no boundary. The number of rows is written out, so that rows which were
        # added since they were counted cannot make more boundaries than are allowed.
        statement = _NUMBERED.format(
            bounds=", ".join(
                [m.expression.format(name) for (_, m), name in zip(bounds, names, strict=True)]
            ),
            names=", ".join(names),
            relation=self.table.identifier,
            condition=condition(params, self.table),
            remainder=self.modulo.format("matih_row", step),
            rows=rows,
        )
        schema = pa.schema(
            [pa.field(n, m.arrow) for n, (_, m) in zip(params.columns, bounds, strict=True)]
        )
        found = self._values(statement, schema)
        texts = [
            texts_of(kind, found.column(name), name)
            for name, (kind, _) in zip(params.columns, bounds, strict=True)
        ]
        return Cut(tuple(dict.fromkeys(zip(*texts, strict=True))), step, rows)

    def _bound(self, name: str) -> tuple[BoundKind, TypeMapping]:
        column = self.table.existing_column(name)
        mapping = self.table.mapping(column).as_bound()
        if mapping.bound is None:
            raise PlanError(
                f"{self.table.unit_id} cannot be cut by {name!r} of type {column.native_type}",
                column=name,
            )
        return mapping.bound, mapping

    def _values(self, statement: str, schema: pa.Schema) -> pa.Table:
        """The whole result, which has at most as many rows as a plan has slices."""
        return pa.Table.from_batches(self.session.batches(statement, schema), schema)


_GREATEST_NAME = "matih_greatest"
_COUNT = "SELECT {counting} AS matih_rows FROM {relation} WHERE {condition}"
_GREATEST = (
    "SELECT {bound} FROM (SELECT MAX({name}) AS {greatest} FROM {relation} WHERE {condition}) "
    "matih_row"
)
_NUMBERED = (
    "SELECT {bounds} FROM (SELECT {names}, ROW_NUMBER() OVER (ORDER BY {names}) AS matih_row "
    "FROM {relation} WHERE {condition}) matih_rows "
    "WHERE {remainder} = 0 AND matih_row < {rows} ORDER BY matih_row"
)
