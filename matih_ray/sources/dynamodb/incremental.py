"""Plans of incremental runs: a filtered scan of items whose cursor lies above the checkpoint's.

DynamoDB has no order among items of different partition keys. So the upper bound is found by
scanning the table once while planning (only the cursor attribute is delivered), and the run scans
it again: an incremental run costs the read capacity of two full ones, and saves what comes after
reading. Its slices are segments, of which every one holds items of any cursor value, so the run
commits once, at its end.

Items whose cursor is missing or of another type are `nullCursor`'s: read with the first run and
counted, as in other sources. Writes that arrive later with a cursor below the upper bound cannot
be seen coming; the plan says so, and `lateCommits=lookback` is what covers them.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

from matih_ray.errors import NullCursorError, PlanError
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.plan import IngestionPlan
from matih_ray.model.policy import IngestionPolicy, LateCommits, NullCursor
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.model.value import JsonValue
from matih_ray.sources.dynamodb.session import Sessions
from matih_ray.sources.dynamodb.slices import CursorBounds, make_slices
from matih_ray.sources.dynamodb.types import NUMBER, STRING

CURSOR = "dynamodb-filtered-scan"
NULL_ROWS = "nullRows"

_COST_NOTE = (
    "DynamoDB cannot find items by {0}: planning and reading each scan the whole table, which "
    "costs the read capacity of two full runs"
)
_OPEN_WRITES_NOTE = (
    "an item written later with a {0} below the upper bound is missed; use lateCommits=lookback "
    "where that can happen"
)


@dataclass(frozen=True)
class Cursor:
    """The attribute that drives a run; values are text, as DynamoDB writes them."""

    unit_id: str
    attribute: str
    type: Literal["N", "S"]

    @classmethod
    def of(cls, unit: EndpointUnitDescriptor, policy: IngestionPolicy) -> Cursor:
        """The policy's cursor.

        Raises:
            PlanError: The policy names none, or one that is not a number or a string.
        """
        name = policy.cursor_column
        native = next((c.native_type for c in unit.columns if c.name == name), None)
        if name is not None and native == NUMBER:
            return cls(unit.unit_id, name, "N")
        if name is not None and native == STRING:
            return cls(unit.unit_id, name, "S")
        candidates = ", ".join(unit.cursor_candidates) or "none"
        raise PlanError(
            f"an incremental run of {unit.unit_id} needs a cursor column that is a number or a "
            f"string in all sampled items, not {name}; candidates: {candidates}",
            unit_id=unit.unit_id,
            column=name,
        )

    def rank(self, text: str) -> Any:
        """What orders values as DynamoDB does: numbers by value, strings by UTF-8 (which is the
        order of code points)."""
        return Decimal(text) if self.type == "N" else text


@dataclass(frozen=True)
class Found:
    """What a scan of the cursor attribute saw."""

    upper: str | None
    rows: int
    others: int


def plan_incremental(
    sessions: Sessions,
    unit: EndpointUnitDescriptor,
    checkpoint: Checkpoint | None,
    policy: IngestionPolicy,
    target_rows: int,
) -> IngestionPlan:
    """Segments of a filtered scan; no slices when nothing is new.

    Raises:
        PlanError: The attribute cannot be a cursor, or the checkpoint's cursor is not one of it.
        NullCursorError: Items without a cursor exist that the policy does not allow.
    """
    cursor = Cursor.of(unit, policy)
    lower = _lower(cursor, checkpoint)
    found = _scanned(sessions, cursor, lower)
    details, others = _others(cursor, found.others, checkpoint, policy)
    notes = [_COST_NOTE.format(cursor.attribute)]
    if policy.late_commits is LateCommits.SAFE_BOUND:
        notes.append(_OPEN_WRITES_NOTE.format(cursor.attribute))
    dedupe_on: tuple[str, ...] = ()
    start, upper = lower, found.upper
    if policy.late_commits is LateCommits.LOOKBACK and lower is not None:
        start, upper = _minus(cursor, lower, policy.lookback), upper or lower
        dedupe_on = tuple(dict.fromkeys((*unit.primary_key, cursor.attribute)))
    slices = []
    if upper is not None or others:
        bounds = CursorBounds(
            attribute=cursor.attribute, type=cursor.type, lower=start, upper=upper, others=others
        )
        slices = make_slices(found.rows, target_rows, bounds, dedupe_on)
    return IngestionPlan(
        endpoint_id=unit.endpoint_id,
        unit_id=unit.unit_id,
        slices=tuple(slices),
        strategy=CURSOR,
        statistics={
            "totalRows": found.rows,
            "lower": lower,
            "upper": upper,
            "checkpointDetails": details,
        },
        resumable=False,
        cursor_column=cursor.attribute,
        notes=tuple(notes),
    )


def _lower(cursor: Cursor, checkpoint: Checkpoint | None) -> str | None:
    text = None if checkpoint is None else checkpoint.cursor
    if text is None:
        return None
    try:
        if isinstance(text, str):
            cursor.rank(text)
            return text
    except InvalidOperation:
        pass
    raise PlanError(
        f"the checkpoint's cursor is not a value of {cursor.attribute} of {cursor.unit_id}; reset "
        "the checkpoint",
        column=cursor.attribute,
    )


def _scanned(sessions: Sessions, cursor: Cursor, lower: str | None) -> Found:
    """Read the cursor attribute of every item, a page at a time."""
    least = None if lower is None else cursor.rank(lower)
    greatest, rows, others = least, 0, 0
    upper: str | None = None
    pages = sessions.scan(
        TableName=cursor.unit_id,
        ProjectionExpression="#cursor",
        ExpressionAttributeNames={"#cursor": cursor.attribute},
    )
    for page in pages:
        rows += len(page)
        for item in page:
            text = item.get(cursor.attribute, {}).get(cursor.type)
            if text is None:
                others += 1
            elif greatest is None or cursor.rank(text) > greatest:
                greatest, upper = cursor.rank(text), text
    return Found(upper, rows, others)


def _others(
    cursor: Cursor, found: int, checkpoint: Checkpoint | None, policy: IngestionPolicy
) -> tuple[dict[str, JsonValue], bool]:
    """The checkpoint's details, and whether items without a cursor are read now."""
    known = None if checkpoint is None else checkpoint.details.get(NULL_ROWS)
    if policy.null_cursor is NullCursor.IGNORE:
        return {} if known is None else {NULL_ROWS: known}, False
    refused = policy.null_cursor is NullCursor.REFUSE and found > 0
    if refused or (known is not None and known != found):
        raise NullCursorError(
            f"cursor {cursor.attribute} of {cursor.unit_id}: {found} item(s) have no value of type "
            f"{cursor.type}, {known or 0} are known; give them one, make a full run, or leave them "
            "out with nullCursor=ignore",
            column=cursor.attribute,
            rows=found,
        )
    return {NULL_ROWS: found}, known is None and found > 0


def _minus(cursor: Cursor, text: str, lookback: float) -> str:
    if cursor.type == "N":
        return str(Decimal(text) - Decimal(str(lookback)))
    raise PlanError(
        f"a look-back needs a cursor that is a number, and {cursor.attribute} of {cursor.unit_id} "
        "is a string; use lateCommits=ignore",
        column=cursor.attribute,
    )
