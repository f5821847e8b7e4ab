"""Tables of the Iceberg catalog: created by scripts, written to by jobs, once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pyarrow as pa
from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError
from pyiceberg.table import Table

from matih_ray.errors import NotFoundError
from matih_ray.model.checkpoint import StreamKey
from matih_ray.model.ids import EndpointId, SinkId, TenantId, UnitId
from matih_ray.model.policy import MergeRule, WriteMode
from matih_ray.settings import Settings
from matih_ray.sinks.base import SinkTarget
from matih_ray.sinks.iceberg import IcebergSink
from matih_ray.sinks.iceberg.boundary import mapped
from matih_ray.sinks.iceberg.catalog import CatalogConfig, open_catalog
from matih_ray.sinks.iceberg.naming import table_identifier
from matih_ray.streaming.connectors.catalog_sinks import CatalogSink, Owner, PreparedCommit
from matih_ray.streaming.connectors.catalog_upserts import UpsertSink

__all__ = ["CatalogSink", "CatalogTables", "Owner", "PreparedCommit"]

# The only tenant that a job in one process has.
TENANT = TenantId("default")


class CatalogTables:
    """Tables of the Iceberg catalog of the settings, under whatever name a script gives it.

    With `tenant_id` all of them are below the tenant's own namespace: `lake.sales.orders` is the
    table `<tenant>.sales.orders`. Without, in a process of one's own, it is `sales.orders`.
    """

    def __init__(self, settings: Settings, tenant_id: TenantId | None = None) -> None:
        self._settings = settings
        self._tenant_id = tenant_id or TENANT
        self._above = () if tenant_id is None else (str(tenant_id),)

    def schema(self, path: tuple[str, ...]) -> pa.Schema:
        """The columns of a table; `path` begins with the catalog's name.

        Raises:
            NotFoundError: There is no such table.
        """
        return self._loaded(path).schema().as_arrow()

    def properties(self, path: tuple[str, ...]) -> Mapping[str, str]:
        """The properties of a table.

        Raises:
            NotFoundError: There is no such table.
        """
        return self._loaded(path).properties

    def create(
        self,
        path: tuple[str, ...],
        schema: pa.Schema,
        partition_by: tuple[str, ...],
        properties: Mapping[str, str] | None = None,
    ) -> None:
        """Create a table with properties unless it is there; one that is there must fit.

        Raises:
            SchemaMismatchError: It has other columns.
        """
        sink = IcebergSink.from_settings(self._settings, self._tenant_id)
        target = self._target(path, schema, "ddl", partition_by)
        sink.prepare(replace(target, properties=dict(properties or {})))

    def open_sink(self, path: tuple[str, ...], schema: pa.Schema, owner: Owner) -> CatalogSink:
        """Append to a table, as this owner."""
        sink = IcebergSink.from_settings(self._settings, self._tenant_id)
        return CatalogSink(sink, self._target(path, schema, owner.job_id), owner)

    def open_upserts(
        self, path: tuple[str, ...], schema: pa.Schema, owner: Owner, key: tuple[str, ...]
    ) -> UpsertSink:
        """Merge into a table by key, as this owner.

        Raises:
            ValidationError: The key has columns that cannot be one.
        """
        sink = IcebergSink.from_settings(self._settings, self._tenant_id)
        target = self._target(path, schema, owner.job_id)
        merged = replace(target, write_mode=WriteMode.MERGE, merge=MergeRule(key=key))
        return UpsertSink(sink, merged, owner)

    def _loaded(self, path: tuple[str, ...]) -> Table:
        config = CatalogConfig.from_settings(self._settings)
        name = ".".join(path)
        with mapped(f"load table {name}", config):
            try:
                return open_catalog(config).load_table(table_identifier(self._inside(path)))
            except (NoSuchTableError, NoSuchNamespaceError):
                raise NotFoundError(
                    f"there is no table {name}; create it with a CREATE TABLE script", table=name
                ) from None

    def _inside(self, path: tuple[str, ...]) -> tuple[str, ...]:
        return (*self._above, *path[1:])

    def _target(
        self,
        path: tuple[str, ...],
        schema: pa.Schema,
        job_id: str,
        partition_by: tuple[str, ...] = (),
    ) -> SinkTarget:
        stream = StreamKey(
            tenant_id=self._tenant_id,
            vendor="sql",
            endpoint_id=EndpointId(job_id),
            unit_id=UnitId(".".join(path[1:])),
            sink_id=SinkId("iceberg"),
        )
        inside = self._inside(path)
        return SinkTarget(stream, inside, schema, WriteMode.APPEND, partition_by=partition_by)
