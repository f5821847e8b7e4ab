"""Plans of incremental runs: `lower < cursor <= upper`, with the upper bound fixed before reading.

`lower` is the checkpoint's cursor, open on the first run; `upper` is the greatest value when the
run is planned. Cursor values are texts (see `dialect`) and compared by the database only.

Rows whose cursor is NULL are in no range. `nullCursor=load` reads them once and keeps their number
in the checkpoint's details; a different number later is an error, because new ones cannot be told
from old ones. An exchange of one such row for another keeps the number and is not noticed. Their
slice comes first, because the details become true with the first commit of a run.

These databases do not show accounts that only read which transactions are under way. So there is no
safe upper bound as in PostgreSQL or MySQL: a plan under `lateCommits=safe_bound` says so in a note,
and `lookback` is what covers late rows. What it reads again is compared as a whole row, since a
declared key may repeat.
"""

from __future__ import annotations

from matih_ray.errors import NullCursorError, PlanError
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.plan import IngestionPlan, IngestionSlice
from matih_ray.model.policy import (
    MAX_SLICES_PER_PLAN,
    IngestionPolicy,
    LateCommits,
    NullCursor,
)
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.model.value import JsonValue
from matih_ray.sources.slices import keyed_slice
from matih_ray.sources.sql.bounds import is_bound, minus
from matih_ray.sources.sql.dialect import BoundKind, SqlColumn
from matih_ray.sources.sql.probing import TableProbe
from matih_ray.sources.sql.slices import NullSlice, RangeSlice

CURSOR = "sql-cursor"
NULL_ROWS = "nullRows"
# The slices of NULL cursors and of the look-back come before those of new rows.
_MAX_NEW_SLICES = MAX_SLICES_PER_PLAN - 2

OPEN_WRITES_NOTE = (
    "the database does not show writes that are under way: a row that appears later with a cursor "
    "below the upper bound is missed; use lateCommits=lookback where that can happen"
)


def plan_incremental(
    probe: TableProbe,
    unit: EndpointUnitDescriptor,
    checkpoint: Checkpoint | None,
    policy: IngestionPolicy,
    target_rows: int,
) -> IngestionPlan:
    """Slices after the checkpoint's cursor; none when nothing is new.

    Raises:
        PlanError: The policy's cursor column cannot be one, or the checkpoint's cursor is not a
            value of it.
        NullCursorError: Rows without a cursor value exist that the policy does not allow.
    """
    column, kind = _cursor(probe, unit, policy)
    lower = _lower(unit, checkpoint, column, kind)
    notes: list[str] = []
    slices, details = _null_rows(probe, column, checkpoint, policy, notes)
    slices += _looked_back(probe, column, kind, lower, policy, len(slices))
    upper = probe.greatest(column.name, lower)
    total = 0
    if upper is not None:
        new, total = _new_rows(probe, column.name, lower, upper, len(slices), target_rows)
        slices += new
    if policy.late_commits is LateCommits.SAFE_BOUND:
        notes.append(OPEN_WRITES_NOTE)
    statistics: dict[str, JsonValue] = {
        "lower": lower,
        "upper": upper,
        "totalRows": total,
        "checkpointDetails": details,
    }
    return IngestionPlan(
        endpoint_id=unit.endpoint_id,
        unit_id=unit.unit_id,
        slices=tuple(slices),
        strategy=CURSOR,
        statistics=statistics,
        cursor_column=column.name,
        notes=tuple(notes),
    )


def _cursor(
    probe: TableProbe, unit: EndpointUnitDescriptor, policy: IngestionPolicy
) -> tuple[SqlColumn, BoundKind]:
    name = policy.cursor_column
    column = None if name is None else probe.table.column(name)
    kind = None if column is None else probe.table.mapping(column).bound
    if column is not None and kind is not None:
        return column, kind
    if name is None:
        problem = "needs a cursor column"
    elif column is None:
        problem = f"has no column {name!r}"
    else:
        problem = f"cannot use {name!r} of type {column.native_type} as its cursor"
    candidates = ", ".join(unit.cursor_candidates) or "none"
    raise PlanError(
        f"an incremental run of {unit.unit_id} {problem}; candidates: {candidates}",
        unit_id=unit.unit_id,
        column=name,
    )


def _lower(
    unit: EndpointUnitDescriptor, checkpoint: Checkpoint | None, column: SqlColumn, kind: BoundKind
) -> str | None:
    cursor = None if checkpoint is None else checkpoint.cursor
    if cursor is None or (isinstance(cursor, str) and is_bound(kind, cursor)):
        return cursor
    raise PlanError(
        f"the checkpoint's cursor is not a value of {column.name} ({column.native_type}) of "
        f"{unit.unit_id}; reset the checkpoint",
        column=column.name,
    )


def _null_rows(
    probe: TableProbe,
    column: SqlColumn,
    checkpoint: Checkpoint | None,
    policy: IngestionPolicy,
    notes: list[str],
) -> tuple[list[IngestionSlice], dict[str, JsonValue]]:
    """A slice of the rows without a cursor value if they are to be read now, and their number."""
    if not column.nullable:
        return [], {NULL_ROWS: 0}
    known = None if checkpoint is None else checkpoint.details.get(NULL_ROWS)
    if policy.null_cursor is NullCursor.IGNORE:
        notes.append(f"rows whose {column.name} is NULL are left out")
        return [], {} if known is None else {NULL_ROWS: known}
    nulls = NullSlice(columns=(column.name,))
    found = probe.count(nulls)
    if found and policy.null_cursor is NullCursor.REFUSE:
        raise _null_error(probe, column, f"{found} row(s) have no value", found)
    if known is not None and known != found:
        problem = f"{known} row(s) had no value when they were loaded and {found} have none now"
        raise _null_error(probe, column, problem, found)
    if known is not None or not found:
        return [], {NULL_ROWS: found}
    return [keyed_slice(0, nulls, found)], {NULL_ROWS: found}


def _null_error(probe: TableProbe, column: SqlColumn, problem: str, rows: int) -> NullCursorError:
    return NullCursorError(
        f"cursor {column.name} of {probe.table.unit_id}: {problem}; give them a value, make a full "
        "run, or leave them out with nullCursor=ignore",
        column=column.name,
        rows=rows,
    )


def _looked_back(
    probe: TableProbe,
    column: SqlColumn,
    kind: BoundKind,
    lower: str | None,
    policy: IngestionPolicy,
    sequence: int,
) -> list[IngestionSlice]:
    """The rows just below the cursor, which are read again."""
    if policy.late_commits is not LateCommits.LOOKBACK or lower is None:
        return []
    start = minus(kind, lower, policy.lookback)
    if start is None:
        raise PlanError(
            f"a look-back needs a cursor that is a time or a number, and {column.name} of "
            f"{probe.table.unit_id} is {column.native_type}; use lateCommits=ignore",
            column=column.name,
        )
    params = RangeSlice(columns=(column.name,), lower=(start,), upper=(lower,))
    everything = tuple(column.name for column in probe.table.relation.columns)
    return [keyed_slice(sequence, params, dedupe_on=policy.columns or everything)]


def _new_rows(
    probe: TableProbe,
    cursor: str,
    lower: str | None,
    upper: str,
    first_sequence: int,
    target_rows: int,
) -> tuple[list[IngestionSlice], int]:
    """Slices of `lower < cursor <= upper`, and the number of their rows."""
    low, high = None if lower is None else (lower,), (upper,)
    whole = RangeSlice(columns=(cursor,), lower=low, upper=high)
    found = probe.cut(whole, target_rows, _MAX_NEW_SLICES)
    slices = [
        keyed_slice(
            first_sequence + index,
            RangeSlice(columns=(cursor,), lower=after, upper=until),
            estimated_rows=rows,
            cursor_after=until[0] if until else upper,
        )
        for index, (after, until, rows) in enumerate(found.ranges(low, high))
    ]
    return slices, found.rows
