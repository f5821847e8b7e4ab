"""Plans of full runs: ranges of a key, pages where there is no key, or one slice.

`jdbc-range` slices are read at different moments: a row whose key changes between two of them may
be read twice or not at all, and rows inserted meanwhile may or may not be read. `jdbc-ctid`
slices are positions in the table's pages, which mean something only inside one database snapshot;
their run sees one consistent state, and starts over when that snapshot is lost.
"""

from __future__ import annotations

from psycopg2 import sql

from matih_ray.model.plan import IngestionPlan, IngestionSlice
from matih_ray.model.policy import MAX_SLICES_PER_PLAN
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.model.value import JsonValue
from matih_ray.sources.postgres.catalog import SAMPLEABLE, Relation, StoredPart, stored_parts
from matih_ray.sources.postgres.names import unit_id_of
from matih_ray.sources.postgres.sampling import cut, estimated_rows
from matih_ray.sources.postgres.session import Session
from matih_ray.sources.postgres.slices import PageSlice, RangeSlice
from matih_ray.sources.slices import keyed_slice

RANGE = "jdbc-range"
PAGES = "jdbc-ctid"
SINGLE = "jdbc-single"

_PAGES_NOTE = (
    "no primary key or unique index: slices are read in one database snapshot, which holds back "
    "VACUUM while the run lasts, and the run starts over if it is interrupted"
)


def plan_full(
    session: Session, unit: EndpointUnitDescriptor, relation: Relation, target_rows: int
) -> IngestionPlan:
    """Slices of about `target_rows` that together cover the relation."""
    rows = estimated_rows(session, relation)
    if rows > target_rows and relation.kind in SAMPLEABLE:
        if relation.key:
            return _plan_ranges(session, unit, relation, rows, target_rows)
        parts = stored_parts(session, relation)
        if not relation.row_security and all(part.readable for part in parts):
            return _plan_pages(unit, relation, parts, rows, target_rows)
    return _plan(unit, relation, SINGLE, [keyed_slice(0, RangeSlice(), rows)], rows, {})


def _plan_ranges(
    session: Session,
    unit: EndpointUnitDescriptor,
    relation: Relation,
    rows: int,
    target_rows: int,
) -> IngestionPlan:
    found = cut(
        session, relation, relation.key, sql.SQL("TRUE"), rows, target_rows, MAX_SLICES_PER_PLAN
    )
    assert found is not None  # noqa: S101 only relations with pages get here
    ranges = found.ranges(None, None)
    share = round(found.rows / len(ranges))
    slices = [
        keyed_slice(sequence, RangeSlice(columns=found.columns, lower=lower, upper=upper), share)
        for sequence, (lower, upper) in enumerate(ranges)
    ]
    facts: dict[str, JsonValue] = {
        "cutColumns": list(found.columns),
        "sampledRows": found.sampled_rows,
        "sampledPercent": round(found.sampled_percent, 3),
    }
    return _plan(unit, relation, RANGE, slices, found.rows, facts)


def _plan_pages(
    unit: EndpointUnitDescriptor,
    relation: Relation,
    parts: list[StoredPart],
    rows: int,
    target_rows: int,
) -> IngestionPlan:
    pages = sum(part.pages for part in parts)
    room = max(1, MAX_SLICES_PER_PLAN - len(parts))
    step = max(1, round(pages * target_rows / rows), -(-pages // room))
    params = [piece for part in parts for piece in _pages_of(part, step)]
    slices = [keyed_slice(sequence, piece, target_rows) for sequence, piece in enumerate(params)]
    facts: dict[str, JsonValue] = {
        "pages": pages,
        "pagesPerSlice": step,
        "tables": [unit_id_of(part.schema, part.name) for part in parts],
    }
    plan = _plan(unit, relation, PAGES, slices, rows, facts)
    return plan.model_copy(update={"resumable": False, "notes": (_PAGES_NOTE,)})


def _pages_of(part: StoredPart, step: int) -> list[PageSlice]:
    """Page ranges of one table; the last is open, for pages added since."""
    table = unit_id_of(part.schema, part.name)
    starts = range(0, part.pages, step)
    if not part.stored or len(starts) <= 1:
        return [PageSlice(table=table)]
    return [
        PageSlice(
            table=table,
            first_page=start,
            end_page=start + step if start + step < part.pages else None,
        )
        for start in starts
    ]


def _plan(
    unit: EndpointUnitDescriptor,
    relation: Relation,
    strategy: str,
    slices: list[IngestionSlice],
    rows: int,
    facts: dict[str, JsonValue],
) -> IngestionPlan:
    return IngestionPlan(
        endpoint_id=unit.endpoint_id,
        unit_id=unit.unit_id,
        slices=tuple(slices),
        strategy=strategy,
        statistics={"totalRows": rows, "totalBytes": relation.bytes, **facts},
    )
