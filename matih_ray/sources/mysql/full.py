"""Plans of full runs: ranges of a key, or one slice where there is none.

Slices are read at different moments: a row whose key changes between two of them may be read twice
or not at all, and rows inserted meanwhile may or may not be read. MySQL has no snapshot that
several connections could share.
"""

from __future__ import annotations

from matih_ray.model.plan import IngestionPlan, IngestionSlice
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.model.value import JsonValue
from matih_ray.sources.mysql.catalog import Relation
from matih_ray.sources.mysql.cutting import cut
from matih_ray.sources.mysql.session import Session
from matih_ray.sources.mysql.slices import RangeSlice, is_comparable
from matih_ray.sources.slices import keyed_slice

RANGE = "jdbc-range"
SINGLE = "jdbc-single"

_SINGLE_NOTE = (
    "no primary key or unique index that could be cut: the unit is one slice, which is read again "
    "from its start after a failure"
)


def plan_full(
    session: Session, unit: EndpointUnitDescriptor, relation: Relation, target_rows: int
) -> IngestionPlan:
    """Slices of `target_rows` that together cover the relation."""
    columns = relation.key
    if not columns or not all(is_comparable(relation.existing_column(name)) for name in columns):
        whole = keyed_slice(0, RangeSlice(), relation.rows)
        facts: dict[str, JsonValue] = {"totalRows": relation.rows}
        return _plan(unit, relation, SINGLE, [whole], facts, (_SINGLE_NOTE,))
    found = cut(session, relation, columns, None, None, target_rows)
    slices = [
        keyed_slice(sequence, RangeSlice(columns=columns, lower=lower, upper=upper), rows)
        for sequence, ((lower, upper), rows) in enumerate(
            zip(found.ranges(None, None), found.rows, strict=True)
        )
    ]
    facts = {"totalRows": sum(found.rows), "cutColumns": list(columns)}
    return _plan(unit, relation, RANGE, slices, facts, ())


def _plan(
    unit: EndpointUnitDescriptor,
    relation: Relation,
    strategy: str,
    slices: list[IngestionSlice],
    facts: dict[str, JsonValue],
    notes: tuple[str, ...],
) -> IngestionPlan:
    return IngestionPlan(
        endpoint_id=unit.endpoint_id,
        unit_id=unit.unit_id,
        slices=tuple(slices),
        strategy=strategy,
        statistics={"totalBytes": relation.bytes, **facts},
        notes=notes,
    )
