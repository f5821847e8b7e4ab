"""Plans of streams: one slice, ranges of pages, or ranges of a cursor.

An incremental run reads `lower < cursor <= upper`. `lower` is the checkpoint's cursor; `upper` is
fixed before reading:

- A timestamp: the server's own `Date` less one second (the header has whole seconds, so records of
  the running second may still come), less `policy.lookback` under `lateCommits=safe_bound`. What
  changes while it is read moves above `upper` and belongs to the next run.
- An integer: the value of the first record under the cursor's `probe` parameters.

No API shows what is about to be written: a record that appears later below `upper` is missed unless
the look-back covers it, and a note says so.
"""

from __future__ import annotations

import email.utils
import math
from itertools import pairwise

from matih_ray.errors import PlanError
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.plan import IngestionPlan, IngestionSlice
from matih_ray.model.policy import MAX_SLICES_PER_PLAN, IngestionPolicy, LateCommits
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.sources.http.config import Cursor, NumberedPages, OffsetPages
from matih_ray.sources.http.pagination import StreamPages
from matih_ray.sources.http.positions import SECOND, position_of, restored, stored
from matih_ray.sources.http.slices import CursorSlice, PagesSlice, WholeSlice, make_slice

SINGLE, PAGES, CURSOR = "http-single", "http-pages", "http-cursor"

_UNCUT_NOTE = "pages follow each other, so the stream is one slice and read again from its start"
_MOVING_NOTE = (
    "records that are added or removed while pages are read can move between pages, and be read "
    "twice or not at all; sort the stream by something that does not change"
)
_LATE_NOTE = (
    "an API does not show writes under way: a record that appears later with a cursor at or below "
    "the upper bound is missed; use lateCommits=lookback, or a lookback, where that can happen"
)


def plan_full(pages: StreamPages, unit: EndpointUnitDescriptor, target_rows: int) -> IngestionPlan:
    """Ranges of pages where the API tells how many records there are, else one slice."""
    style = pages.style
    if not isinstance(style, NumberedPages | OffsetPages):
        return _plan(unit, SINGLE, [make_slice(0, WholeSlice())], (_UNCUT_NOTE,))
    total = pages.total(pages.fetch({})) if style.total_path is not None else None
    if total is None or total <= target_rows:
        return _plan(unit, SINGLE, [make_slice(0, WholeSlice(), total)], (_MOVING_NOTE,))
    rows = max(target_rows, math.ceil(total / MAX_SLICES_PER_PLAN))
    if isinstance(style, NumberedPages):
        step = max(rows // style.size, 1)
        first, count = style.first, math.ceil(total / style.size)
        step = max(step, math.ceil(count / MAX_SLICES_PER_PLAN))
    else:
        step, first, count = math.ceil(rows / style.size) * style.size, 0, total
    starts = range(first, first + count, step)
    slices = [
        make_slice(i, PagesSlice(start=start, stop=stop), target_rows)
        for i, (start, stop) in enumerate(pairwise([*starts, None]))
        if start is not None
    ]
    return _plan(unit, PAGES, slices, (_MOVING_NOTE,), total)


def plan_incremental(
    pages: StreamPages,
    unit: EndpointUnitDescriptor,
    cursor: Cursor,
    checkpoint: Checkpoint | None,
    policy: IngestionPolicy,
    target_rows: int,
) -> IngestionPlan:
    """Slices after the checkpoint's cursor; none when nothing is new.

    Raises:
        PlanError: The upper bound cannot be known, or the checkpoint's cursor is another's.
    """
    lower = restored(cursor, None if checkpoint is None else checkpoint.cursor)
    slices: list[IngestionSlice] = []
    if policy.late_commits is LateCommits.LOOKBACK and lower is not None:
        unit_size = SECOND if cursor.type == "timestamp" else 1
        start = lower - math.ceil(policy.lookback * unit_size)
        again = CursorSlice(lower=start, upper=lower, nulls="ignore")
        names = tuple(column.name for column in unit.columns)
        identity = dict.fromkeys((*unit.primary_key, cursor.field)) if unit.primary_key else names
        slices.append(make_slice(0, again, dedupe_on=tuple(identity)))
    upper = _upper(pages, cursor, policy)
    if upper is not None and (lower is None or upper > lower):
        nulls = policy.null_cursor.value
        for after, until in pairwise([lower, *_ends(cursor, lower, upper, target_rows)]):
            if until is None:
                continue
            # those without a cursor come with the first load; later, old and new look alike
            allowed = "refuse" if nulls == "load" and after is not None else nulls
            params = CursorSlice(lower=after, upper=until, nulls=allowed)
            slices.append(make_slice(len(slices), params, cursor_after=stored(cursor, until)))
    notes = (_MOVING_NOTE, _LATE_NOTE)
    plan = _plan(unit, CURSOR, slices, notes)
    facts = {
        "lower": None if lower is None else stored(cursor, lower),
        "upper": None if upper is None else stored(cursor, upper),
    }
    return plan.model_copy(update={"statistics": facts, "cursor_column": cursor.field})


def _upper(pages: StreamPages, cursor: Cursor, policy: IngestionPolicy) -> int | None:
    answer = pages.fetch(cursor.probe or {})
    if cursor.type == "integer":
        if cursor.probe is None:
            raise PlanError(
                f"the greatest {cursor.field} of {pages.name} cannot be known; give cursor.probe, "
                "parameters that sort the newest record first",
                column=cursor.field,
            )
        records = pages.checked(answer)
        positions = [position_of(cursor, record.get(cursor.field)) for record in records]
        return max((position for position in positions if position is not None), default=None)
    try:
        date = email.utils.parsedate_to_datetime(answer.headers["Date"])
    except (KeyError, ValueError, TypeError):
        raise PlanError(
            f"the server of {pages.name} tells no Date, so there is no time up to which records "
            "are complete; use a full run",
            column=cursor.field,
        ) from None
    behind_s = policy.lookback if policy.late_commits is LateCommits.SAFE_BOUND else 0.0
    return (int(date.timestamp()) - 1) * SECOND - math.ceil(behind_s * SECOND)


def _ends(cursor: Cursor, lower: int | None, upper: int, target_rows: int) -> list[int]:
    """The upper bounds of slices, the last of them `upper`.

    Without `upperParam` each slice would make the API send all that is newer, so there is one.
    """
    start = restored(cursor, cursor.start) if lower is None else lower
    if cursor.upper_param is None or start is None or start >= upper:
        return [upper]
    if cursor.type == "integer":
        step = target_rows
    elif cursor.window_s is not None:
        step = cursor.window_s * SECOND
    else:
        return [upper]
    # the look-back has a slice of its own
    step = max(step, math.ceil((upper - start) / (MAX_SLICES_PER_PLAN - 2)))
    return [*range(start + step, upper, step), upper]


def _plan(
    unit: EndpointUnitDescriptor,
    strategy: str,
    slices: list[IngestionSlice],
    notes: tuple[str, ...],
    total: int | None = None,
) -> IngestionPlan:
    return IngestionPlan(
        endpoint_id=unit.endpoint_id,
        unit_id=unit.unit_id,
        slices=tuple(slices),
        strategy=strategy,
        statistics={"totalRows": total},
        notes=notes,
    )
