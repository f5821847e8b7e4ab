"""Plans of full runs: ranges of `_id` within each bracket of types, and the rest.

Slices are read at different moments: documents that are added or removed meanwhile may or may not
be read. An `_id` never changes, so no document is read twice or missed for any other reason.

The slice of the rest is usually empty. No index leads to "every other type", so finding that out
costs the server one more pass over the collection, of which nothing is transferred.
"""

from __future__ import annotations

from itertools import pairwise

from matih_ray.model.plan import IngestionPlan, IngestionSlice
from matih_ray.model.policy import MAX_SLICES_PER_PLAN
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.model.value import JsonValue
from matih_ray.sources.mongodb.catalog import COLLECTION
from matih_ray.sources.mongodb.probing import MAX_WALKED_DOCUMENTS, sampled_bounds, walked_bounds
from matih_ray.sources.mongodb.session import MongoCollection
from matih_ray.sources.mongodb.slices import (
    BRACKETS,
    ID,
    Bracket,
    RangeSlice,
    RestSlice,
    WholeSlice,
)
from matih_ray.sources.slices import keyed_slice

RANGE = "mongodb-id-range"
SINGLE = "mongodb-single"

_SAMPLED_NOTE = (
    "the collection has more than {0} documents, so its bounds come from a random sample; "
    "another plan has other bounds"
)


def plan_full(
    collection: MongoCollection,
    unit: EndpointUnitDescriptor,
    target_rows: int,
    max_walked: int = MAX_WALKED_DOCUMENTS,
) -> IngestionPlan:
    """Slices of about `target_rows` that together cover the collection."""
    if unit.kind != COLLECTION:  # a view or a time series has no index on `_id` to cut by
        return _plan(unit, SINGLE, [keyed_slice(0, WholeSlice())], {"totalRows": None})
    rows = collection.estimated_document_count()
    facts: dict[str, JsonValue] = {"totalRows": rows}
    if rows <= target_rows:
        return _plan(unit, SINGLE, [keyed_slice(0, WholeSlice(), rows)], facts)
    cuts = _cuts(collection, rows, target_rows, max_walked)
    slices = _slices(cuts, target_rows)
    if not cuts:
        return _plan(unit, SINGLE, [keyed_slice(0, WholeSlice(), rows)], facts)
    plan = _plan(unit, RANGE, slices, {**facts, "brackets": list(cuts)})
    if rows > max_walked:
        return plan.model_copy(update={"notes": (_SAMPLED_NOTE.format(max_walked),)})
    return plan


def _cuts(
    collection: MongoCollection, rows: int, target_rows: int, max_walked: int
) -> dict[Bracket, list[str]]:
    """Bounds for each bracket that has any."""
    # every bracket has one range more than it has bounds, and one slice is for the rest
    room = MAX_SLICES_PER_PLAN - 1 - len(BRACKETS)
    size = max(target_rows, -(-rows // room))
    cuts: dict[Bracket, list[str]] = {}
    for bracket in BRACKETS:
        if rows > max_walked:
            bounds = sampled_bounds(collection, bracket, min(-(-rows // size), room))
        else:
            bounds = walked_bounds(collection, ID, bracket, size, room)
        room -= len(bounds)
        if bounds:
            cuts[bracket] = bounds
    return cuts


def _slices(cuts: dict[Bracket, list[str]], target_rows: int) -> list[IngestionSlice]:
    slices: list[IngestionSlice] = []
    for bracket, bounds in cuts.items():
        for lower, upper in pairwise([None, *bounds, None]):
            params = RangeSlice(field=ID, bracket=bracket, lower=lower, upper=upper)
            slices.append(keyed_slice(len(slices), params, target_rows))
    slices.append(keyed_slice(len(slices), RestSlice(field=ID, brackets=tuple(cuts))))
    return slices


def _plan(
    unit: EndpointUnitDescriptor,
    strategy: str,
    slices: list[IngestionSlice],
    facts: dict[str, JsonValue],
) -> IngestionPlan:
    return IngestionPlan(
        endpoint_id=unit.endpoint_id,
        unit_id=unit.unit_id,
        slices=tuple(slices),
        strategy=strategy,
        statistics={"totalBytes": unit.estimated_bytes, **facts},
    )
