"""Plans: frozen, ordered, printable data that says what a run will read. A plan starts nothing.

A *slice* is the smallest piece that is read again after a failure. Its `key` is stable across
re-planning of the same inputs and compared only for equality; its `sequence` orders commits; its
`params` are opaque to everybody but the source that made them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Annotated

from pydantic import Field

from matih_ray.model.ids import EndpointId, UnitId
from matih_ray.model.value import JsonValue, Value


class IngestionSlice(Value):
    """One re-readable piece of a unit, with bounds `lower < x <= upper` in the source's order.

    `cursor_after` is what the checkpoint's cursor becomes once this slice and all before it are
    committed; None leaves the cursor as it is. `cursor_patch` changes a cursor that is an object,
    as a JSON Merge Patch (RFC 7396): a plan over many projects need not repeat the places of all of
    them in each slice. `part` is the project, space or drive that a slice belongs to: once a slice
    of a part could not be read, later ones of that part no longer move the cursor. `dedupe_on`
    names columns on which rows that the sink already has are dropped (look-back windows).
    """

    key: str
    sequence: Annotated[int, Field(ge=0)]
    params: dict[str, JsonValue] = {}
    estimated_rows: int | None = None
    cursor_after: JsonValue = None
    cursor_patch: dict[str, JsonValue] = {}
    part: str | None = None
    dedupe_on: tuple[str, ...] = ()


class IngestionPlan(Value):
    """What one run reads: slices in commit order, how they were cut, and estimates.

    `resumable` is False when slices mean something only inside one database snapshot; such a run
    commits once, at its end, and starts over after a crash. `replaces` is True when the sink will
    hold what this plan reads and nothing else, so that no place of an earlier cursor stays true.
    `one_at_a_time` is True when slices share what only one reader can have. `slice_cpus` is what
    reading a slice takes, less than one where it mostly waits for answers. `delete_column` is the
    one by which a merge knows which rows are gone, if the source tells.
    """

    endpoint_id: EndpointId
    unit_id: UnitId
    slices: tuple[IngestionSlice, ...]
    strategy: str
    statistics: dict[str, JsonValue] = {}
    resumable: bool = True
    replaces: bool = False
    one_at_a_time: bool = False
    slice_cpus: Annotated[float, Field(gt=0, le=1)] = 1.0
    cursor_column: str | None = None
    delete_column: str | None = None
    notes: tuple[str, ...] = ()


def cursor_through(
    before: JsonValue, slices: Iterable[IngestionSlice], unread: Collection[int] = ()
) -> JsonValue:
    """The cursor once these slices are committed. Pure.

    Args:
        before: The cursor that the plan began with.
        slices: A contiguous prefix of the plan.
        unread: Sequences of slices that could not be read.
    """
    cursor, stopped = before, set[str | None]()
    for slice_ in slices:
        if slice_.sequence in unread:
            stopped.add(slice_.part)
        if slice_.sequence in unread or (slice_.part is not None and slice_.part in stopped):
            continue
        if slice_.cursor_after is not None:
            cursor = slice_.cursor_after
        if slice_.cursor_patch:
            cursor = _patched(cursor, slice_.cursor_patch)
    return cursor


def _patched(target: JsonValue, patch: JsonValue) -> JsonValue:
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _patched(result.get(name), value)
    return result
