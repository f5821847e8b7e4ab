"""The ways in which a column of a model is made of the columns of a unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from matih_ray.model.cdm import CdmModel, cdm_prefix
from matih_ray.model.ids import EndpointId, RunId, TenantId, UnitId


@dataclass(frozen=True)
class Origin:
    """Where a batch comes from. `family` is the connector's, such as `http.jira`."""

    tenant_id: TenantId
    endpoint_id: EndpointId
    family: str
    unit_id: UnitId
    run_id: RunId


class Expression(Protocol):
    """Makes one array of a batch, as long as the batch."""

    @property
    def reads(self) -> str | None:
        """The raw column that it is made of."""

    def __call__(self, batch: pa.RecordBatch, origin: Origin) -> pa.Array: ...


@dataclass(frozen=True)
class Column:
    """The raw column itself."""

    reads: str

    def __call__(self, batch: pa.RecordBatch, origin: Origin) -> pa.Array:  # noqa: ARG002 - Expression
        return batch.column(self.reads)


@dataclass(frozen=True)
class Constant:
    """The same text in every row."""

    text: str
    reads: None = None

    def __call__(self, batch: pa.RecordBatch, origin: Origin) -> pa.Array:  # noqa: ARG002 - Expression
        return pa.repeat(pa.scalar(self.text), batch.num_rows)


@dataclass(frozen=True)
class Text:
    """A raw number as text."""

    reads: str

    def __call__(self, batch: pa.RecordBatch, origin: Origin) -> pa.Array:  # noqa: ARG002 - Expression
        return batch.column(self.reads).cast(pa.string())


@dataclass(frozen=True)
class Not:
    """The opposite of a raw flag."""

    reads: str

    def __call__(self, batch: pa.RecordBatch, origin: Origin) -> pa.Array:  # noqa: ARG002 - Expression
        return pc.invert(batch.column(self.reads))


@dataclass(frozen=True)
class Reference:
    """The `cdm_id` of the row of `model` whose source id the raw column holds."""

    model: CdmModel
    reads: str

    def __call__(self, batch: pa.RecordBatch, origin: Origin) -> pa.Array:
        return cdm_ids(self.model, origin, batch.column(self.reads))


@dataclass(frozen=True)
class References:
    """The same for a list of source ids."""

    model: CdmModel
    reads: str

    def __call__(self, batch: pa.RecordBatch, origin: Origin) -> pa.Array:
        lists = batch.column(self.reads)
        values = cdm_ids(self.model, origin, lists.flatten())
        # flatten leaves out what is behind NULL lists and outside a slice, so offsets start anew
        lengths = pc.fill_null(pc.list_value_length(lists), 0)
        ends = pc.cumulative_sum(lengths)
        offsets = pa.concat_arrays([pa.array([0], pa.int32()), ends.cast(pa.int32())])
        return pa.ListArray.from_arrays(offsets, values, mask=lists.is_null())


def cdm_ids(model: CdmModel, origin: Origin, source_ids: pa.Array) -> pa.Array:
    """Identifiers of rows of a model, NULL where there is no source id."""
    return pc.binary_join_element_wise(cdm_prefix(model, origin.endpoint_id), source_ids, "")
