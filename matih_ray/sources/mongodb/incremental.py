"""Plans of incremental runs: `lower < cursor <= upper`, with the upper bound fixed before reading.

The cursor is a top-level field, `_id` included, whose sampled values are of one type bracket.
`lower` is the checkpoint's cursor, open on the first run; `upper` is the greatest value when the
run is planned. Cursor values are canonical Extended JSON and compared by the server only.

Documents whose cursor is missing, null, an array or of another bracket are in no range.
`nullCursor=load` reads them once, before all others, and keeps their number in the checkpoint's
details; a different number later is an error, because new ones cannot be told from old ones.

MongoDB does not show which writes are under way, and `_id`s are made by clients whose clocks
differ. So there is no safe upper bound as in a relational database: a plan under
`lateCommits=safe_bound` says so in a note, and `lookback` is what covers late documents.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Any

from bson.datetime_ms import DatetimeMS
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from bson.objectid import ObjectId

from matih_ray.errors import NullCursorError, PlanError, ValidationError
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
from matih_ray.sources.mongodb.catalog import is_indexed
from matih_ray.sources.mongodb.probing import greatest, walked_bounds
from matih_ray.sources.mongodb.session import MongoCollection
from matih_ray.sources.mongodb.slices import (
    ID,
    Bracket,
    RangeSlice,
    RestSlice,
    bound,
    bracket_of,
    query,
)
from matih_ray.sources.mongodb.types import extended_json, native_type
from matih_ray.sources.slices import keyed_slice

CURSOR = "mongodb-cursor"
NULL_ROWS = "nullRows"
# The slices of documents without a cursor and of the look-back come before those of new ones.
_MAX_NEW_SLICES = MAX_SLICES_PER_PLAN - 2

_OPEN_WRITES_NOTE = (
    "MongoDB does not show writes that are under way: a document that appears later with a cursor "
    "below the upper bound is missed; use lateCommits=lookback where that can happen"
)
_UNINDEXED_NOTE = "no index begins with {0}, so the collection is read as a whole, in one slice"


@dataclass(frozen=True)
class CursorScan:
    """A collection and the field that drives a run."""

    collection: MongoCollection
    unit: EndpointUnitDescriptor
    field: str
    bracket: Bracket

    @classmethod
    def of(
        cls, collection: MongoCollection, unit: EndpointUnitDescriptor, policy: IngestionPolicy
    ) -> CursorScan:
        """The scan of the policy's cursor column.

        Raises:
            PlanError: The policy names none, or one that the unit does not have or cannot order.
        """
        name = policy.cursor_column
        column = next((column for column in unit.columns if column.name == name), None)
        bracket = None if column is None else bracket_of(column.native_type)
        if name is not None and column is not None and bracket is not None:
            return cls(collection, unit, name, bracket)
        if name is None:
            problem = "needs a cursor column"
        elif column is None:
            problem = f"has no column {name!r}"
        else:
            problem = f"cannot be ordered by {name!r}, which is {column.native_type}"
        candidates = ", ".join(unit.cursor_candidates) or "none"
        raise PlanError(
            f"an incremental run of {unit.unit_id} {problem}; candidates: {candidates}",
            unit_id=unit.unit_id,
            column=name,
        )

    def range(self, lower: str | None, upper: str | None) -> RangeSlice:
        """Documents between two values of the cursor."""
        return RangeSlice(field=self.field, bracket=self.bracket, lower=lower, upper=upper)

    @property
    def rest(self) -> RestSlice:
        """Documents without a value of the cursor."""
        return RestSlice(field=self.field, brackets=(self.bracket,))


def plan_incremental(
    scan: CursorScan, checkpoint: Checkpoint | None, policy: IngestionPolicy, target_rows: int
) -> IngestionPlan:
    """Slices after the checkpoint's cursor; none when nothing is new.

    Raises:
        PlanError: The checkpoint's cursor is not a value of the cursor column.
        NullCursorError: Documents without a cursor value exist that the policy does not allow.
    """
    notes: list[str] = []
    lower = _lower(scan, checkpoint)
    slices, details = _null_rows(scan, checkpoint, policy, notes)
    slices += _looked_back(scan, lower, policy, len(slices))
    upper = greatest(scan.collection, scan.field, scan.bracket, lower)
    if upper is not None:
        slices += _new_rows(scan, lower, upper, len(slices), target_rows, notes)
    if policy.late_commits is LateCommits.SAFE_BOUND:
        notes.append(_OPEN_WRITES_NOTE)
    return IngestionPlan(
        endpoint_id=scan.unit.endpoint_id,
        unit_id=scan.unit.unit_id,
        slices=tuple(slices),
        strategy=CURSOR,
        statistics={"lower": lower, "upper": upper, "checkpointDetails": details},
        cursor_column=scan.field,
        notes=tuple(notes),
    )


def _lower(scan: CursorScan, checkpoint: Checkpoint | None) -> str | None:
    cursor = None if checkpoint is None else checkpoint.cursor
    if cursor is None:
        return None
    try:
        if isinstance(cursor, str) and bracket_of(native_type(bound(cursor)) or "") == scan.bracket:
            return cursor
    except ValidationError:
        pass
    raise PlanError(
        f"the checkpoint's cursor is not a {scan.bracket} in Extended JSON, as {scan.field} of "
        f"{scan.unit.unit_id} needs; reset the checkpoint",
        column=scan.field,
    )


def _null_rows(
    scan: CursorScan, checkpoint: Checkpoint | None, policy: IngestionPolicy, notes: list[str]
) -> tuple[list[IngestionSlice], dict[str, JsonValue]]:
    """A slice of the documents without a cursor if they are to be read now, and their number."""
    known = None if checkpoint is None else checkpoint.details.get(NULL_ROWS)
    if policy.null_cursor is NullCursor.IGNORE:
        notes.append(f"documents without a {scan.bracket} in {scan.field} are left out")
        return [], {} if known is None else {NULL_ROWS: known}
    found = scan.collection.count_documents(query(scan.rest))
    if found and policy.null_cursor is NullCursor.REFUSE:
        raise _null_error(scan, f"{found} document(s) have no value", found)
    if known is not None and known != found:
        raise _null_error(
            scan, f"{known} document(s) had no value when they were loaded, {found} now", found
        )
    if known is not None or not found:
        return [], {NULL_ROWS: found}
    return [keyed_slice(0, scan.rest, found)], {NULL_ROWS: found}


def _null_error(scan: CursorScan, problem: str, rows: int) -> NullCursorError:
    return NullCursorError(
        f"cursor {scan.field} of {scan.unit.unit_id} ({scan.bracket}): {problem}; give them a "
        "value, make a full run, or leave them out with nullCursor=ignore",
        column=scan.field,
        rows=rows,
    )


def _looked_back(
    scan: CursorScan, lower: str | None, policy: IngestionPolicy, sequence: int
) -> list[IngestionSlice]:
    """The documents just below the cursor, which are read again."""
    if policy.late_commits is not LateCommits.LOOKBACK or lower is None:
        return []
    start = extended_json(_minus(scan, bound(lower), policy.lookback))
    identity = tuple(dict.fromkeys((ID, scan.field)))
    return [keyed_slice(sequence, scan.range(start, lower), dedupe_on=identity)]


def _minus(scan: CursorScan, value: Any, lookback: float) -> Any:
    """A value minus seconds (dates, ObjectIds) or units (numbers), rounded down."""
    if isinstance(value, DatetimeMS):
        return DatetimeMS(int(value) - math.ceil(lookback * 1000))
    if isinstance(value, ObjectId):  # its first four bytes are the second it was made in
        second = int.from_bytes(value.binary[:4], "big") - math.ceil(lookback)
        return ObjectId(max(second, 0).to_bytes(4, "big") + bytes(8))
    if isinstance(value, Decimal128):
        return Decimal128(value.to_decimal() - Decimal(lookback))
    if isinstance(value, float):
        return value - lookback
    if isinstance(value, int):
        return Int64(max(value - math.ceil(lookback), -(2**63)))
    raise PlanError(
        f"a look-back needs a cursor that is a time or a number, and {scan.field} of "
        f"{scan.unit.unit_id} is a {scan.bracket}; use lateCommits=ignore",
        column=scan.field,
    )


def _new_rows(
    scan: CursorScan,
    lower: str | None,
    upper: str,
    first_sequence: int,
    target_rows: int,
    notes: list[str],
) -> list[IngestionSlice]:
    bounds: list[str] = []
    if scan.collection.estimated_document_count() > target_rows:
        if is_indexed(scan.collection, scan.field):
            bounds = walked_bounds(
                scan.collection, scan.field, scan.bracket, target_rows, _MAX_NEW_SLICES - 1,
                lower, upper,
            )  # fmt: skip
        else:
            notes.append(_UNINDEXED_NOTE.format(scan.field))
    ends = list(dict.fromkeys([*bounds, upper]))
    return [
        keyed_slice(first_sequence + index, scan.range(after, until), cursor_after=until)
        for index, (after, until) in enumerate(pairwise([lower, *ends]))
        if until is not None
    ]
