"""Which mapper maps which unit, and how a whole batch is mapped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from matih_ray.errors import ConfigurationError, MappingError
from matih_ray.mappers.expressions import Expression, Origin, cdm_ids
from matih_ray.model.cdm import CDM_MODELS, CdmModel
from matih_ray.registry import Registry


@dataclass(frozen=True)
class CdmMapper:
    """How the rows of one unit become rows of one model.

    `columns` are the model's own; those left out are NULL. The envelope is made of the raw columns
    `source_id`, `source_version` and `is_deleted` name, and of where the batch comes from. A row
    that is deleted has no version: a source knows when it missed an object, and what comes back
    may be the version that was there before.
    """

    model: CdmModel
    columns: Mapping[str, Expression]
    source_id: str = "id"
    source_version: str | None = "_source_version"
    is_deleted: str | None = "_deleted"

    def __post_init__(self) -> None:
        known = {column.name for column in self.model.columns}
        if unknown := sorted(set(self.columns) - known):
            raise ConfigurationError(
                f"{self.model.model_id} has no column {', '.join(unknown)}",
                model_id=self.model.model_id,
            )

    @property
    def reads(self) -> set[str]:
        """The raw columns that mapping needs."""
        envelope = (self.source_id, self.source_version, self.is_deleted)
        read = (one.reads for one in self.columns.values())
        return {name for name in (*envelope, *read) if name is not None}

    def map(self, batch: pa.RecordBatch, origin: Origin) -> pa.RecordBatch:
        """The batch in the model's schema, as many rows in the same order.

        Raises:
            MappingError: A raw column is missing, has another type, or an id is NULL.
        """
        if missing := sorted(self.reads - set(batch.schema.names)):
            raise MappingError(
                f"{origin.unit_id}: no column {', '.join(missing)}, which "
                f"{self.model.model_id} is made of; load all columns",
                unit_id=origin.unit_id,
                column=missing[0],
            )
        arrays = self._envelope(batch, origin)
        for name, expression in self.columns.items():
            try:
                arrays[name] = expression(batch, origin)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise _unfit(origin, name, str(error)) from None
        return _arranged(self.model, arrays, batch.num_rows, origin)

    def _envelope(self, batch: pa.RecordBatch, origin: Origin) -> dict[str, pa.Array]:
        ids = batch.column(self.source_id)
        if ids.null_count:
            raise _unfit(origin, self.source_id, "a row has no id")
        versions, deleted = self._versions(batch)
        return {
            "cdm_id": cdm_ids(self.model, origin, ids),
            "tenant_id": _repeat(origin.tenant_id, batch),
            "source_endpoint_id": _repeat(origin.endpoint_id, batch),
            "source_system": _repeat(origin.family, batch),
            "source_unit_id": _repeat(origin.unit_id, batch),
            "source_id": ids,
            "source_version": versions,
            "run_id": _repeat(origin.run_id, batch),
            "is_deleted": deleted,
        }

    def _versions(self, batch: pa.RecordBatch) -> tuple[pa.Array, pa.Array]:
        """`source_version` and `is_deleted`."""
        none = pa.nulls(batch.num_rows, pa.int64())
        versions = none if self.source_version is None else batch.column(self.source_version)
        if self.is_deleted is None:
            return versions, pa.repeat(pa.scalar(value=False), batch.num_rows)
        deleted = batch.column(self.is_deleted)
        return pc.if_else(deleted, none, versions), deleted


class MapperFamily:
    """The mappers of one endpoint family; what a plugin of the kind `mappers` is."""

    mappers: ClassVar[dict[str, CdmMapper]]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.mappers = {}


def register_cdm_mapper(family: type[MapperFamily], unit_id: str, mapper: CdmMapper) -> None:
    """Declare the mapper of a unit; called while the family's module is imported.

    Raises:
        ConfigurationError: The unit has one already.
    """
    if unit_id in family.mappers:
        raise ConfigurationError(f"{family.__name__}: {unit_id} is mapped twice", unit_id=unit_id)
    family.mappers[unit_id] = mapper


def find_mapper(plugins: Registry, family: str, unit_id: str) -> CdmMapper | None:
    """The mapper that is registered for (family, unit), if there is one."""
    if family not in plugins.names("mappers"):
        return None
    found: type[MapperFamily] = plugins.resolve("mappers", family)
    return found.mappers.get(unit_id)


def apply_cdm(
    plugins: Registry, origin: Origin, batch: pa.RecordBatch, default_model: str | None = None
) -> pa.RecordBatch:
    """Map a batch by the mapper of its endpoint's family and unit.

    Without a mapper, a batch that has the schema of `default_model` passes as it is: its source
    speaks the canonical model already.

    Raises:
        MappingError: There is no mapper and it is no such batch, or it does not fit the mapper.
    """
    mapper = find_mapper(plugins, origin.family, origin.unit_id)
    if mapper is not None:
        return mapper.map(batch, origin)
    model = CDM_MODELS.get(default_model or "")
    if model is None or not batch.schema.equals(model.schema):
        raise MappingError(
            f"nothing maps {origin.unit_id} of {origin.family} to the canonical data model; use "
            "mode=raw, or install a mapper",
            unit_id=origin.unit_id,
            family=origin.family,
        )
    return batch


def _arranged(
    model: CdmModel, arrays: Mapping[str, pa.Array], rows: int, origin: Origin
) -> pa.RecordBatch:
    """Columns in the model's order; those that the source does not have are NULL."""
    columns = []
    for field in model.schema:
        array = arrays.get(field.name)
        if array is None:
            array = pa.nulls(rows, field.type)
        elif array.type != field.type:
            raise _unfit(origin, field.name, f"{array.type} where {field.type} belongs")
        columns.append(array)
    return pa.RecordBatch.from_arrays(columns, schema=model.schema)


def _unfit(origin: Origin, column: str, why: str) -> MappingError:
    return MappingError(
        f"{origin.unit_id}: column {column} cannot be mapped: {why}",
        unit_id=origin.unit_id,
        column=column,
    )


def _repeat(text: str, batch: pa.RecordBatch) -> pa.Array:
    return pa.repeat(pa.scalar(text), batch.num_rows)
