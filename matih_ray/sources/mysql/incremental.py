"""Plans of incremental runs: `lower < cursor <= upper`, with the upper bound fixed before reading.

`lower` is the checkpoint's cursor, open on the first run; `upper` is the greatest value, chosen as
the policy's `late_commits` says (see the module of that name). Cursor values are kept in
checkpoints as MySQL's own text and compared by the database only.

Rows whose cursor is NULL are in no range. `nullCursor=load` reads them once and keeps their number
in the checkpoint's details; a different number later is an error, because new ones cannot be told
from old ones. An exchange of one such row for another keeps the number and is not noticed. Their
slice comes first, because the details become true with the first commit of a run.
"""

from __future__ import annotations

from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.plan import IngestionPlan, IngestionSlice
from matih_ray.model.policy import (
    MAX_SLICES_PER_PLAN,
    IngestionPolicy,
    LateCommits,
    NullCursor,
)
from matih_ray.model.value import JsonValue
from matih_ray.sources.mysql.cursor_scan import CursorScan
from matih_ray.sources.mysql.cutting import cut
from matih_ray.sources.mysql.late_commits import REPLICA_NOTE, is_read_only, wait_for_writers
from matih_ray.sources.mysql.slices import NullSlice, RangeSlice
from matih_ray.sources.slices import keyed_slice

CURSOR = "jdbc-cursor"
NULL_ROWS = "nullRows"
# The slices of NULL cursors and of the look-back come before those of new rows.
_MAX_NEW_SLICES = MAX_SLICES_PER_PLAN - 2

_UNINDEXED_NOTE = (
    "no index begins with {0}, so every look at it reads the whole table; new rows are one slice"
)


def plan_incremental(
    scan: CursorScan,
    checkpoint: Checkpoint | None,
    policy: IngestionPolicy,
    target_rows: int,
) -> IngestionPlan:
    """Slices after the checkpoint's cursor; none when nothing is new.

    Raises:
        PlanError: The checkpoint's cursor is not a value of the column.
        NullCursorError: Rows without a cursor value exist that the policy does not allow.
        OpenTransactionError: See `late_commits`.
    """
    notes: list[str] = []
    cursor = None if checkpoint is None else checkpoint.cursor
    lower = None if cursor is None else scan.checked(cursor)
    slices, details = _null_rows(scan, checkpoint, policy, notes)
    slices += _looked_back(scan, lower, policy, len(slices))
    upper = _upper(scan, lower, policy, notes)
    total: int | None = 0
    if upper is not None:
        new, total = _new_rows(scan, lower, upper, len(slices), target_rows)
        slices += new
        if not scan.is_indexed:
            notes.append(_UNINDEXED_NOTE.format(scan.column.name))
    statistics: dict[str, JsonValue] = {
        "lower": lower,
        "upper": upper,
        "totalRows": total,
        "checkpointDetails": details,
    }
    return IngestionPlan(
        endpoint_id=scan.unit.endpoint_id,
        unit_id=scan.unit.unit_id,
        slices=tuple(slices),
        strategy=CURSOR,
        statistics=statistics,
        cursor_column=scan.column.name,
        notes=tuple(notes),
    )


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
    found = scan.nulls()
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
    """The upper bound; None when there is nothing above the lower one."""
    greatest = scan.greatest_after(lower)
    if greatest is not None and policy.late_commits is LateCommits.SAFE_BOUND:
        wait_for_writers(scan.session, scan.column, policy.open_transaction_wait_s)
        if is_read_only(scan.session):
            notes.append(REPLICA_NOTE)
    return greatest


def _new_rows(
    scan: CursorScan, lower: str | None, upper: str, first_sequence: int, target_rows: int
) -> tuple[list[IngestionSlice], int | None]:
    """Slices of `lower < cursor <= upper`, and the number of their rows if it is known."""
    low, high = None if lower is None else (lower,), (upper,)
    if not scan.is_indexed:
        params = RangeSlice(columns=scan.columns, lower=low, upper=high)
        return [keyed_slice(first_sequence, params, cursor_after=upper)], None
    found = cut(scan.session, scan.relation, scan.columns, low, high, target_rows, _MAX_NEW_SLICES)
    slices = [
        keyed_slice(
            first_sequence + index,
            RangeSlice(columns=scan.columns, lower=after, upper=until),
            estimated_rows=rows,
            cursor_after=until[0] if until else upper,
        )
        for index, ((after, until), rows) in enumerate(
            zip(found.ranges(low, high), found.rows, strict=True)
        )
    ]
    return slices, sum(found.rows)
