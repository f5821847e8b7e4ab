"""Plans of incremental runs: `lower < cursor <= upper`, with the upper bound fixed before reading.

`lower` is the checkpoint's cursor, open on the first run; `upper` is chosen as the policy's
`late_commits` says (see the module of that name). Cursor values are kept in checkpoints as
PostgreSQL's own text and compared by the database only.

Rows whose cursor is NULL are in no range. `nullCursor=load` reads them once and keeps their number
in the checkpoint's details; a different number later is an error, because new ones cannot be told
from old ones. An exchange of one such row for another keeps the number and is not noticed. Their
slice comes first, because the details become true with the first commit of a run.
"""

from __future__ import annotations

from psycopg2 import sql

from matih_ray.errors import PlanError
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.plan import IngestionPlan, IngestionSlice
from matih_ray.model.policy import (
    MAX_SLICES_PER_PLAN,
    IngestionPolicy,
    LateCommits,
    NullCursor,
)
from matih_ray.model.value import JsonValue
from matih_ray.sources.postgres.cursor_scan import CursorScan
from matih_ray.sources.postgres.late_commits import Bound, Greatest, safe_bound
from matih_ray.sources.postgres.sampling import Cut, cut, estimated_rows
from matih_ray.sources.postgres.slices import NullSlice, RangeSlice, between
from matih_ray.sources.slices import keyed_slice

CURSOR = "jdbc-cursor"
NULL_ROWS = "nullRows"
# The slices of NULL cursors and of the look-back come before those of new rows.
_MAX_NEW_SLICES = MAX_SLICES_PER_PLAN - 2
# Without an index on the cursor each slice reads the whole table. At ten times the cost of passing
# over a row for delivering one, eight slices cost less than twice as much as one.
MAX_UNINDEXED_SLICES = 8

_STANDBY_NOTE = (
    "this server is a standby: transactions of the primary that had not written anything when the "
    "upper bound was chosen are not seen, and rows that they commit below it would be missed"
)

_UNINDEXED_NOTE = (
    "no index begins with {0}, so every slice reads the whole table; there are at most {1} slices"
)


def plan_incremental(
    scan: CursorScan,
    checkpoint: Checkpoint | None,
    policy: IngestionPolicy,
    target_rows: int,
) -> IngestionPlan:
    """Slices after the checkpoint's cursor; none when nothing is new.

    Raises:
        PlanError: The column cannot be a cursor, or the checkpoint's cursor is not one of it.
        NullCursorError: Rows without a cursor value exist that the policy does not allow.
        OpenTransactionError: See `late_commits`.
    """
    notes: list[str] = []
    lower = _lower(scan, checkpoint)
    slices, details = _null_rows(scan, checkpoint, policy, notes)
    slices += _looked_back(scan, lower, policy, len(slices))
    upper = _upper(scan, lower, policy, notes)
    facts: dict[str, JsonValue] = {"totalRows": 0}
    if upper is not None:
        new, facts = _new_rows(scan, lower, upper, len(slices), target_rows)
        slices += new
        if len(new) > 1 and scan.column.name not in scan.relation.indexed:
            notes.append(_UNINDEXED_NOTE.format(scan.column.name, MAX_UNINDEXED_SLICES))
    return IngestionPlan(
        endpoint_id=scan.unit.endpoint_id,
        unit_id=scan.unit.unit_id,
        slices=tuple(slices),
        strategy=CURSOR,
        statistics={"lower": lower, "upper": upper, **facts, "checkpointDetails": details},
        cursor_column=scan.column.name,
        notes=tuple(notes),
    )


def _lower(scan: CursorScan, checkpoint: Checkpoint | None) -> str | None:
    cursor = None if checkpoint is None else checkpoint.cursor
    if cursor is not None and not isinstance(cursor, str):
        raise scan.foreign_cursor()
    return cursor


def _null_rows(
    scan: CursorScan, checkpoint: Checkpoint | None, policy: IngestionPolicy, notes: list[str]
) -> tuple[list[IngestionSlice], dict[str, JsonValue]]:
    """A slice of the rows without a cursor value if they are to be read now, and their number."""
    if not scan.column.nullable:
        return [], {NULL_ROWS: 0}
    known = None if checkpoint is None else checkpoint.details.get(NULL_ROWS)
    if policy.null_cursor is NullCursor.IGNORE:
        notes.append(f"rows whose {scan.column.name} is NULL are left out")
        return [], {} if known is None else {NULL_ROWS: known}
    found = scan.count(sql.SQL("{} IS NULL").format(sql.Identifier(scan.column.name)))
    if found and policy.null_cursor is NullCursor.REFUSE:
        raise scan.null_error(f"{found} row(s) have no value", found)
    if known is not None and known != found:
        raise scan.null_error(
            f"{known} row(s) had no value when they were loaded and {found} have none now", found
        )
    if known is not None or not found:
        return [], {NULL_ROWS: found}
    return [keyed_slice(0, NullSlice(column=scan.column.name), found)], {NULL_ROWS: found}


def _looked_back(
    scan: CursorScan, lower: str | None, policy: IngestionPolicy, sequence: int
) -> list[IngestionSlice]:
    """The rows just below the cursor, which are read again."""
    if policy.late_commits is not LateCommits.LOOKBACK or lower is None:
        return []
    start = scan.minus(lower, policy.lookback)
    params = RangeSlice(columns=scan.columns, lower=(start,), upper=(lower,))
    if scan.relation.key:
        identity = dict.fromkeys((*scan.relation.key, scan.column.name))
    else:
        everything = tuple(column.name for column in scan.relation.columns)
        identity = dict.fromkeys(policy.columns or everything)
    return [keyed_slice(sequence, params, dedupe_on=tuple(identity))]


def _upper(
    scan: CursorScan, lower: str | None, policy: IngestionPolicy, notes: list[str]
) -> str | None:
    """The upper bound; None when there is nothing above the lower one that may be read now."""
    greatest = scan.greatest_after(lower)
    if greatest is None:
        return None
    if policy.late_commits is not LateCommits.SAFE_BOUND:
        return greatest.text
    bound = _safe_bound(scan, greatest, policy.open_transaction_wait_s)
    if greatest.horizon is not None:
        notes.append(_STANDBY_NOTE)
    if bound.note is None:
        return bound.upper
    notes.append(bound.note)
    return bound.upper if lower is None or scan.is_above(bound.upper, lower) else None


def _safe_bound(scan: CursorScan, greatest: Greatest, wait_s: float) -> Bound:
    if scan.relation.kind == "foreign_table":
        raise PlanError(
            f"{scan.unit.unit_id} is a foreign table, and transactions of the other server cannot "
            "be seen from here; use lateCommits=lookback or ignore",
            unit_id=scan.unit.unit_id,
        )
    return safe_bound(scan.session, scan.column.cast_type, greatest, wait_s)


def _new_rows(
    scan: CursorScan, lower: str | None, upper: str, first_sequence: int, target_rows: int
) -> tuple[list[IngestionSlice], dict[str, JsonValue]]:
    """Slices of `lower < cursor <= upper`, and what is known about them."""
    found = _cut(scan, lower, upper, target_rows)
    low, high = None if lower is None else (lower,), (upper,)
    ranges = [(low, high)] if found is None else found.ranges(low, high)
    rows = None if found is None else found.rows
    slices = [
        keyed_slice(
            first_sequence + index,
            RangeSlice(columns=scan.columns, lower=after, upper=until),
            estimated_rows=None if rows is None else round(rows / len(ranges)),
            cursor_after=until[0] if until else upper,
        )
        for index, (after, until) in enumerate(ranges)
    ]
    facts: dict[str, JsonValue] = {"totalRows": rows}
    if found is not None:
        facts["sampledRows"] = found.sampled_rows
        facts["sampledPercent"] = round(found.sampled_percent, 3)
    return slices, facts


def _cut(scan: CursorScan, lower: str | None, upper: str, target_rows: int) -> Cut | None:
    """Boundaries; None for a table of one slice's size or without pages of its own."""
    rows = estimated_rows(scan.session, scan.relation)
    if rows <= target_rows:
        return None
    condition = between(scan.relation, scan.columns, None if lower is None else (lower,), (upper,))
    indexed = scan.column.name in scan.relation.indexed
    most = _MAX_NEW_SLICES if indexed else MAX_UNINDEXED_SLICES
    return cut(scan.session, scan.relation, scan.columns, condition, rows, target_rows, most)
