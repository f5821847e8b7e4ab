"""Plans of full runs: ranges of the declared key, or one slice where there is none.

Warehouses do not enforce keys. So values may repeat, which makes a slice larger and nothing else,
and where a column of the key may be NULL, one more slice has the rows in no range.

Slices are read at different moments: a row whose key changes between two of them may be read twice
or not at all, and rows inserted meanwhile may or may not be read.
"""

from __future__ import annotations

from matih_ray.model.plan import IngestionPlan, IngestionSlice
from matih_ray.model.policy import MAX_SLICES_PER_PLAN
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.model.value import JsonValue
from matih_ray.sources.slices import keyed_slice
from matih_ray.sources.sql.probing import TableProbe
from matih_ray.sources.sql.slices import NullSlice, RangeSlice

RANGE = "sql-range"
SINGLE = "sql-single"

# One slice is for NULLs.
_MAX_RANGES = MAX_SLICES_PER_PLAN - 1

_SINGLE_NOTE = (
    "no declared primary key that could be cut: the unit is one slice, which is read again from "
    "its start after a failure"
)


def plan_full(probe: TableProbe, unit: EndpointUnitDescriptor, target_rows: int) -> IngestionPlan:
    """Slices of `target_rows` that together cover the table."""
    table = probe.table
    columns = [table.existing_column(name) for name in table.relation.primary_key]
    if not columns or any(table.mapping(column).bound is None for column in columns):
        whole = keyed_slice(0, RangeSlice(), table.relation.rows)
        return _plan(probe, unit, SINGLE, [whole], {"totalRows": None}, (_SINGLE_NOTE,))
    key = tuple(column.name for column in columns)
    found = probe.cut(RangeSlice(columns=key), target_rows, _MAX_RANGES)
    slices = [
        keyed_slice(sequence, RangeSlice(columns=key, lower=lower, upper=upper), rows)
        for sequence, (lower, upper, rows) in enumerate(found.ranges(None, None))
    ]
    nullable = tuple(column.name for column in columns if column.nullable)
    if nullable:
        slices.append(keyed_slice(len(slices), NullSlice(columns=nullable)))
    # with NULLs in the key there are more rows than were counted
    total = None if nullable else found.rows
    facts: dict[str, JsonValue] = {"totalRows": total, "cutColumns": list(key)}
    return _plan(probe, unit, RANGE, slices, facts, ())


def _plan(
    probe: TableProbe,
    unit: EndpointUnitDescriptor,
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
        statistics={"totalBytes": probe.table.relation.bytes, **facts},
        notes=notes,
    )
