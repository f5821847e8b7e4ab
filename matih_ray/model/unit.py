"""Units: what an endpoint offers for ingestion, and the fidelity of each of its columns."""

from __future__ import annotations

from enum import Enum

from matih_ray.model.ids import EndpointId, UnitId
from matih_ray.model.value import Value


class Fidelity(str, Enum):
    """How a source column's values arrive."""

    EXACT = "exact"  # same values, same kind of type
    WIDENED = "widened"  # same values, a larger type
    ENCODED = "encoded"  # a declared, reversible encoding (see `encoding`)
    REFUSED = "refused"  # not loaded; `encoding` says why


class ColumnDescriptor(Value):
    """One column of a unit: the native type, and the declared Arrow type it arrives in."""

    name: str
    native_type: str
    arrow_type: str
    nullable: bool = True
    fidelity: Fidelity = Fidelity.EXACT
    encoding: str | None = None


class EndpointUnitDescriptor(Value):
    """One logical dataset of an endpoint, mirrored from the catalog.

    `namespace` and `name` are the source's own words (schema and table). `primary_key` lists
    columns in key order. `cursor_candidates` are columns that could drive incremental runs.
    Estimates come from the source's statistics and may be absent or stale. `labels` are facts for
    searching, such as `sink-endpoint:<id>` of a table that a sink was provisioned with.
    """

    endpoint_id: EndpointId
    unit_id: UnitId
    namespace: str
    name: str
    kind: str = "table"
    columns: tuple[ColumnDescriptor, ...] = ()
    primary_key: tuple[str, ...] = ()
    cursor_candidates: tuple[str, ...] = ()
    estimated_rows: int | None = None
    estimated_bytes: int | None = None
    cdm_model_id: str | None = None
    labels: tuple[str, ...] = ()
