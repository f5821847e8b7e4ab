"""Row estimates, and boundaries that cut a table into slices of about equal row counts.

Boundaries are quantiles of a sample of pages (`TABLESAMPLE SYSTEM … REPEATABLE`), not of
`pg_stats`: a sample shows the table as it is now, works for keys of several columns and for skewed
ones, needs no ANALYZE, and is the same again while the table does not change. Counting off rows
with OFFSET was rejected because it reads the whole index.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from psycopg2 import sql

from matih_ray.sources.postgres.catalog import SAMPLEABLE, Relation, stored_parts
from matih_ray.sources.postgres.session import Session
from matih_ray.sources.postgres.slices import TextRow

# With m sampled pages per slice a slice's size is off by about 1/sqrt(m): 10 %.
PAGES_PER_SLICE = 100
# Below this many pages (1.6 MB) all are read, and boundaries are exact.
MIN_SAMPLE_PAGES = 200
# 160 MB: seconds of reading. From 200 slices on, slices get less even: 30 % at 2,000 of them.
MAX_SAMPLE_PAGES = 20_000


@dataclass(frozen=True)
class Cut:
    """Where to cut: ascending, distinct boundaries over `columns`.

    `rows` estimates how many rows were cut, from a sample of `sampled_rows`.
    """

    columns: tuple[str, ...]
    boundaries: tuple[TextRow, ...]
    rows: int
    sampled_rows: int
    sampled_percent: float

    def ranges(
        self, lower: TextRow | None, upper: TextRow | None
    ) -> list[tuple[TextRow | None, TextRow | None]]:
        """Consecutive (lower, upper] pairs from `lower` to `upper`."""
        ends: list[TextRow | None] = [lower, *self.boundaries, upper]
        return list(pairwise(ends))


def estimated_rows(session: Session, relation: Relation) -> int:
    """The database's own estimate of a relation's rows, scaled to its present size."""
    statement = sql.SQL("EXPLAIN (FORMAT JSON) SELECT 1 FROM {}").format(relation.identifier)
    (plan,) = session.row(statement)
    return int(plan[0]["Plan"]["Plan Rows"])


def cut(
    session: Session,
    relation: Relation,
    columns: tuple[str, ...],
    condition: sql.Composable,
    rows: int,
    target_rows: int,
    max_slices: int,
) -> Cut | None:
    """Boundaries between slices of about `target_rows`; None if the relation has no pages.

    Args:
        session: A connection.
        relation: What to cut.
        columns: What to order by.
        condition: Which rows to cut.
        rows: Estimate of all rows of the relation, which decides how much is sampled.
        target_rows: Rows per slice.
        max_slices: At most this many slices, made larger if need be.
    """
    if relation.kind not in SAMPLEABLE:
        return None
    pages = sum(part.pages for part in stored_parts(session, relation))
    percent = _percent(pages, rows, target_rows)
    keys = [(sql.Identifier(name), sql.SQL(f"k{i}")) for i, name in enumerate(columns)]
    statement = _QUANTILES.format(
        named=sql.SQL(", ").join([sql.SQL("{} AS {}").format(*key) for key in keys]),
        names=sql.SQL(", ").join([name for name, _ in keys]),
        texts=sql.SQL(", ").join([sql.SQL("{}::text").format(alias) for _, alias in keys]),
        relation=relation.identifier,
        percent=sql.Literal(percent),
        condition=condition,
        scale=sql.Literal(percent / 100 * target_rows),
        max_slices=sql.Literal(max_slices),
    )
    found = session.rows(statement)
    if not found:
        return Cut(columns, (), 0, 0, percent)
    sampled_rows = int(found[0][0])
    boundaries = [tuple(row[2:]) for row in found if row[1]]
    kept_columns, kept = _distinct(columns, boundaries)
    return Cut(kept_columns, kept, round(sampled_rows * 100 / percent), sampled_rows, percent)


def _percent(pages: int, rows: int, target_rows: int) -> float:
    wanted = PAGES_PER_SLICE * math.ceil(rows / target_rows)
    wanted = min(max(wanted, MIN_SAMPLE_PAGES), MAX_SAMPLE_PAGES)
    return 100.0 if pages <= wanted else 100.0 * wanted / pages


def _distinct(
    columns: tuple[str, ...], boundaries: list[TextRow]
) -> tuple[tuple[str, ...], tuple[TextRow, ...]]:
    """The leading column alone if it tells all boundaries apart, else all columns."""
    leading = list(dict.fromkeys((row[0],) for row in boundaries))
    if len(leading) == len(boundaries):
        return columns[:1], tuple(leading)
    return columns, tuple(dict.fromkeys(boundaries))


# Ranks the sample and returns its last row, which carries the count, and the last row of each n-th
# part but the final one. Key columns get names of ours, so that none is taken for a helper column.
_QUANTILES = sql.SQL(
    """
    WITH ranked AS (
        SELECT {named}, row_number() OVER (ORDER BY {names}) AS position, count(*) OVER () AS total
        FROM {relation} TABLESAMPLE SYSTEM ({percent}) REPEATABLE (0)
        WHERE {condition}
    ), counted AS (
        SELECT *, least(ceil(total / {scale}), {max_slices})::bigint AS slices FROM ranked
    )
    SELECT total, position < total, {texts}
    FROM counted
    WHERE position = total OR position * slices / total > (position - 1) * slices / total
    ORDER BY position
    """
)
