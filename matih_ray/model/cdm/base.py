"""What every model has: described columns, the envelope, and identifiers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from matih_ray.model.ids import EndpointId

TEXT = pa.string()
COUNT = pa.int64()
FLAG = pa.bool_()
TIME = pa.timestamp("us", "UTC")
DAY = pa.date32()
TEXTS = pa.list_(pa.string())


@dataclass(frozen=True)
class CdmColumn:
    """One typed column; `required` ones are never NULL."""

    name: str
    type: pa.DataType
    description: str
    required: bool = False

    @property
    def field(self) -> pa.Field:
        """The column in an Arrow schema."""
        return pa.field(self.name, self.type, nullable=not self.required)


def _required(name: str, type_: pa.DataType, description: str) -> CdmColumn:
    return CdmColumn(name, type_, description, required=True)


ENVELOPE = (
    _required("cdm_id", TEXT, "Identity: `<model>:<endpoint>:<source id>`, for ever"),
    _required("tenant_id", TEXT, "Tenant that the row belongs to"),
    _required("source_endpoint_id", TEXT, "Connector that the row was read from"),
    _required("source_system", TEXT, "Family of the connector, such as `http.jira`"),
    _required("source_unit_id", TEXT, "Unit that the row was read from"),
    _required("source_id", TEXT, "The source's own identifier"),
    CdmColumn(
        "source_version",
        COUNT,
        "Grows with every change in the source; NULL if the source does not tell",
    ),
    _required("run_id", TEXT, "Run that last changed the row"),
    _required("is_deleted", FLAG, "The source no longer has it; its other columns stay"),
)


@dataclass(frozen=True)
class CdmModel:
    """One model: `columns` are its own, after the envelope."""

    model_id: str
    description: str
    columns: tuple[CdmColumn, ...]

    @cached_property
    def schema(self) -> pa.Schema:
        """The schema of every batch of this model, envelope first."""
        return pa.schema([column.field for column in (*ENVELOPE, *self.columns)])

    @property
    def table_name(self) -> str:
        """The model's name as part of a table's: `work_item`."""
        return self.model_id.removeprefix("cdm.").replace(".", "_")

    def __reduce__(self) -> tuple[object, ...]:
        return (CdmModel, (self.model_id, self.description, self.columns))


def cdm_prefix(model: CdmModel, endpoint_id: EndpointId) -> str:
    """What all `cdm_id`s of a model and an endpoint begin with; the source's id follows."""
    return f"{model.model_id.removeprefix('cdm.')}:{endpoint_id}:"


def covers(supported: Iterable[str], model_id: str) -> bool:
    """Whether one of the names is the model's or, ending with `.*`, that of a family above it."""
    return any(
        name == model_id or (name.endswith(".*") and model_id.startswith(name[:-1]))
        for name in supported
    )
