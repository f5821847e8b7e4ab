"""Plans: frozen, ordered, printable data that says what a run will read. A plan starts nothing.

A *slice* is the smallest piece that is read again after a failure. Its `key` is stable across
re-planning of the same inputs and compared only for equality; its `sequence` orders commits; its
`params` are opaque to everybody but the source that made them.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from matih_ray.model.ids import EndpointId, UnitId
from matih_ray.model.value import JsonValue, Value


class IngestionSlice(Value):
    """One re-readable piece of a unit, with bounds `lower < x <= upper` in the source's order.

    `cursor_after` is what the checkpoint's cursor becomes once this slice and all before it are
    committed; None leaves the cursor as it is. `dedupe_on` names columns on which rows that the
    sink already has are dropped (look-back windows).
    """

    key: str
    sequence: Annotated[int, Field(ge=0)]
    params: dict[str, JsonValue] = {}
    estimated_rows: int | None = None
    cursor_after: JsonValue = None
    dedupe_on: tuple[str, ...] = ()


class IngestionPlan(Value):
    """What one run reads: slices in commit order, how they were cut, and estimates.

    `resumable` is False when slices mean something only inside one database snapshot; such a run
    commits once, at its end, and starts over after a crash.
    """

    endpoint_id: EndpointId
    unit_id: UnitId
    slices: tuple[IngestionSlice, ...]
    strategy: str
    statistics: dict[str, JsonValue] = {}
    resumable: bool = True
    cursor_column: str | None = None
    notes: tuple[str, ...] = ()
