"""The Iceberg sink endpoint."""

from __future__ import annotations

import builtins
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import (
    NamespaceAlreadyExistsError,
    NoSuchNamespaceError,
    NoSuchTableError,
    TableAlreadyExistsError,
)
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from sqlalchemy.exc import IntegrityError

from matih_ray.errors import ForbiddenError, SinkError
from matih_ray.model.ids import RunId, TenantId
from matih_ray.model.maintenance import MaintenancePolicy, MaintenanceReport
from matih_ray.model.plan import IngestionSlice
from matih_ray.model.policy import SchemaChange
from matih_ray.model.receipt import CommitMarker, WriteReceipt
from matih_ray.model.tables import TableSnapshot
from matih_ray.model.value import JsonValue, Value
from matih_ray.settings import Settings
from matih_ray.sinks.base import (
    CommitOutcome,
    PreparedTarget,
    SinkTarget,
    SliceWriter,
    Workforce,
    WorkItem,
)
from matih_ray.sinks.iceberg.audit import check_finalize
from matih_ray.sinks.iceberg.audited import AuditedCommit
from matih_ray.sinks.iceberg.boundary import mapped
from matih_ray.sinks.iceberg.catalog import CatalogConfig, IcebergSinkConfig, open_catalog
from matih_ray.sinks.iceberg.commit import MarkedCommit, file_payloads
from matih_ray.sinks.iceberg.evolution import evolve
from matih_ray.sinks.iceberg.history import rename_column, repartition, snapshots_of
from matih_ray.sinks.iceberg.maintenance.listing import tables_below
from matih_ray.sinks.iceberg.maintenance.rewriting import CompactItem, compact
from matih_ray.sinks.iceberg.maintenance.table_care import TableCare, policy_of
from matih_ray.sinks.iceberg.merge_keys import check_rule
from matih_ray.sinks.iceberg.merge_work import Layout, MatchItem, MergeWorker, RewriteItem
from matih_ray.sinks.iceberg.naming import safe_name, table_identifier
from matih_ray.sinks.iceberg.partitioning import partition_spec
from matih_ray.sinks.iceberg.rollback import Rollback
from matih_ray.sinks.iceberg.schema import file_layout, iceberg_schema
from matih_ray.sinks.iceberg.snapshots import view_of
from matih_ray.sinks.iceberg.target import IcebergTarget
from matih_ray.sinks.iceberg.writer import IcebergSliceWriter
from matih_ray.sources.base import EndpointSpec

FORMAT_VERSION = 2

TABLE_PROPERTIES = {
    "format-version": str(FORMAT_VERSION),
    # other writers through PyIceberg must not repeat a commit without looking, either
    "commit.retry.num-retries": "0",
    "write.parquet.compression-codec": "zstd",
    "write.parquet.compression-level": "1",
}


class IcebergSink:
    """Writes streams to tables of one Iceberg catalog. See `SinkEndpoint`."""

    type: ClassVar[str] = "iceberg"
    config_model: ClassVar[builtins.type[Value]] = IcebergSinkConfig
    secret_fields: ClassVar[tuple[str, ...]] = ("uri", "properties")
    finalizes: ClassVar[bool] = True

    def __init__(self, spec: EndpointSpec) -> None:
        self._tenant_id = spec.tenant_id
        self._config = CatalogConfig.from_spec(spec)
        self._workforce: Workforce | None = None

    @classmethod
    def from_settings(cls, settings: Settings, tenant_id: TenantId) -> IcebergSink:
        """The built-in sink, configured by settings.

        Raises:
            ConfigurationError: A setting is wrong.
        """
        sink = cls.__new__(cls)
        sink._tenant_id, sink._config = tenant_id, CatalogConfig.from_settings(settings)  # noqa: SLF001 - a second constructor
        sink._workforce = None  # noqa: SLF001 - a second constructor
        return sink

    def prepare(self, target: SinkTarget) -> PreparedTarget:
        """Create or check the table; see `SinkEndpoint.prepare`.

        Call it before the checkpoint is read: a run may only commit on top of the marker that it
        saw here, so that what another run commits in between fences it instead of overlapping it.
        An existing table keeps its own partition spec.

        Raises:
            ValidationError: A partition or the path is wrong; context names the field.
        """
        self._check_tenant(target.stream.tenant_id)
        identifier = table_identifier(target.path)
        schema = iceberg_schema(target.schema)
        spec = partition_spec(target.partition_by, schema)
        if target.merge is not None:
            check_rule(target.merge, target.schema)
        if target.finalize is not None:
            check_finalize(target.finalize, schema)
        name = ".".join(target.path)
        with mapped(f"prepare table {name}", self._config):
            catalog = self._catalog()
            try:
                table = catalog.load_table(identifier)
            except (NoSuchTableError, NoSuchNamespaceError):
                location = self._location(identifier)
                properties = {**TABLE_PROPERTIES, **target.properties}
                table = _create(catalog, identifier, schema, spec, location, properties)
            if target.schema_change is SchemaChange.EVOLVE:
                table = evolve(catalog, table, schema, _told_apart_by(target))
        self._check_fits(table, target, name)
        stored = view_of(table, target.stream).marker
        payload = IcebergTarget(
            identifier=identifier,
            table_uuid=str(table.metadata.table_uuid),
            schema_id=table.metadata.current_schema_id,
            spec_id=table.metadata.default_spec_id,
            target_file_bytes=target.target_file_bytes,
            checksum=target.checksum,
            predecessor=stored,
            merge=target.merge,
            schema_change=target.schema_change,
            finalize=target.finalize,
        )
        return PreparedTarget(
            stream=target.stream,
            display_name=name,
            write_mode=target.write_mode,
            payload=payload.to_dict(),
            gathers=target.finalize is not None,
        )

    def writer(self, prepared: PreparedTarget, slice_: IngestionSlice) -> SliceWriter:
        """A writer for one attempt of a slice.

        Raises:
            SinkError: The table is gone or the catalog cannot be reached.
        """
        target = self._target(prepared)
        table = self._load(prepared, target)
        target.check_is(table)
        return IcebergSliceWriter(table, target, slice_, self._config)

    def commit(
        self, prepared: PreparedTarget, receipts: Sequence[WriteReceipt], marker: CommitMarker
    ) -> CommitOutcome:
        """Make receipts visible with the marker, atomically; see `SinkEndpoint.commit`."""
        target = self._target(prepared)
        with mapped("reach the catalog", self._config):
            catalog = self._catalog()
        audited = target.finalize is not None and marker.published
        commit = (AuditedCommit if audited else MarkedCommit)(
            catalog,
            self._config,
            prepared.stream,
            target,
            prepared.write_mode,
            marker,
            _Bound(self._workforce or _InProcess(self), prepared),
        )
        return commit.run(receipts)

    def hire(self, workforce: Workforce) -> None:
        """Let the workforce do the work of merges; see `SupportsWork.hire`."""
        self._workforce = workforce

    def work(self, item: WorkItem) -> WorkItem:
        """Compare or write files of a merge or a compaction; see `SupportsWork.work`.

        Raises:
            SinkError: A file cannot be read or written.
        """
        if item.get("kind") == "compact":
            return self._compact(CompactItem.from_json(item))
        prepared = PreparedTarget.from_json(_object(item["prepared"]))
        target, work = self._target(prepared), _object(item["work"])
        table = self._load(prepared, target)
        target.check_is(table)
        with mapped(f"merge into {prepared.display_name}", self._config):
            if work["kind"] == "match":
                match = MatchItem.from_json(work)
                return _worker(table, target, match.layout).match(match).to_dict()
            rewrite = RewriteItem.from_json(work)
            return _worker(table, target, rewrite.layout).rewrite(rewrite).to_dict()

    def last_marker(self, prepared: PreparedTarget) -> CommitMarker | None:
        """The marker that the table carries for this stream; see `SinkEndpoint.last_marker`.

        Raises:
            SinkError: The table is gone or the catalog cannot be reached.
        """
        table = self._load(prepared, self._target(prepared))
        return view_of(table, prepared.stream).marker

    def abort(self, prepared: PreparedTarget, receipts: Sequence[WriteReceipt]) -> None:
        """Delete the files of receipts that certainly were not committed."""
        table = self._load(prepared, self._target(prepared))
        for receipt in receipts:
            for payload in file_payloads(receipt):
                with mapped("abort", self._config), contextlib.suppress(FileNotFoundError):
                    table.io.delete(str(payload["path"]))

    def tables(self) -> list[str]:
        """The tenant's tables; see `SupportsMaintenance.tables`.

        Raises:
            SinkError: The catalog cannot be reached.
        """
        with mapped("list tables", self._config):
            found = tables_below(self._catalog(), (safe_name(self._tenant_id),))
        return sorted(".".join(identifier[1:]) for identifier in found)

    def maintain(
        self,
        table: str,
        policy: MaintenancePolicy,
        now: datetime,
        *,
        protect_since: datetime | None = None,
        dry_run: bool = False,
    ) -> MaintenanceReport:
        """Care for one table; see `SupportsMaintenance.maintain`."""
        identifier = (safe_name(self._tenant_id), *table.split("."))
        with mapped(f"maintain table {table}", self._config):
            catalog = self._catalog()
            own = policy_of(catalog.load_table(identifier), policy)
        if own is None:
            return MaintenanceReport(table=table, dry_run=dry_run, notes=("switched off",))
        care = TableCare(
            catalog,
            self._config,
            identifier,
            own,
            self._workforce or _InProcess(self),
            now,
            protect_since,
            dry_run,
        )
        return care.run().model_copy(update={"table": table})

    def snapshots(self, table: str) -> list[TableSnapshot]:
        """The states of a table that can still be read; see `SupportsHistory.snapshots`."""
        return snapshots_of(self._named(table))

    def repartition(self, table: str, partition_by: tuple[str, ...]) -> None:
        """Partition new files in another way; see `SupportsHistory.repartition`."""
        with mapped(f"partition table {table}", self._config):
            repartition(self._named(table), partition_by)

    def rename_column(self, table: str, column: str, name: str) -> None:
        """Give a column another name; see `SupportsHistory.rename_column`."""
        with mapped(f"rename a column of table {table}", self._config):
            rename_column(self._named(table), column, name)

    def _named(self, table: str) -> Table:
        with mapped(f"load table {table}", self._config):
            return self._catalog().load_table((safe_name(self._tenant_id), *table.split(".")))

    def _compact(self, item: CompactItem) -> WorkItem:
        self._check_tenant_of(item.identifier)
        with mapped(f"compact {'.'.join(item.identifier)}", self._config):
            table = self._catalog().load_table(item.identifier)
            if str(table.metadata.table_uuid) != item.table_uuid:
                raise SinkError(f"table {'.'.join(item.identifier)} was dropped and created again")
            return compact(table, item).to_dict()

    def _check_tenant_of(self, identifier: tuple[str, ...]) -> None:
        if identifier[0] != safe_name(self._tenant_id):
            raise ForbiddenError(f"this sink belongs to another tenant than {identifier[0]}")

    def rollback(self, prepared: PreparedTarget, run_id: RunId) -> None:
        """Take back what a run has committed; see `SupportsRollback.rollback`."""
        target = self._target(prepared)
        with mapped("reach the catalog", self._config):
            catalog = self._catalog()
        Rollback(catalog, self._config, prepared.stream, target, run_id).run()

    def close(self) -> None:
        """Nothing to do: the catalog is the process's, shared by all its sinks."""

    def _catalog(self) -> Catalog:
        return open_catalog(self._config)

    def _target(self, prepared: PreparedTarget) -> IcebergTarget:
        self._check_tenant(prepared.stream.tenant_id)
        return IcebergTarget.from_json(dict(prepared.payload))

    def _check_tenant(self, tenant_id: TenantId) -> None:
        if tenant_id != self._tenant_id:
            raise ForbiddenError(f"this sink belongs to another tenant than {tenant_id}")

    def _load(self, prepared: PreparedTarget, target: IcebergTarget) -> Table:
        with mapped(f"load table {prepared.display_name}", self._config):
            return self._catalog().load_table(target.identifier)

    def _location(self, identifier: tuple[str, ...]) -> str | None:
        """One directory for each part of the name; a REST catalog decides by itself."""
        warehouse = self._config.properties.get("warehouse")
        if self._config.kind == "rest" or warehouse is None:
            return None
        return "/".join((warehouse, *identifier))

    def _check_fits(self, table: Table, target: SinkTarget, name: str) -> None:
        if table.metadata.format_version != FORMAT_VERSION:
            raise SinkError(
                f"table {name} has Iceberg format version {table.metadata.format_version}; this "
                f"sink writes version {FORMAT_VERSION}"
            )
        file_layout(table.schema(), target.schema, target.schema_change)


@dataclass(frozen=True)
class _InProcess:
    """Whoever commits does the work of the commit, one item after the other."""

    sink: IcebergSink
    parallelism: int = 1

    def run(self, items: Sequence[WorkItem]) -> list[WorkItem]:
        return [self.sink.work(item) for item in items]


@dataclass(frozen=True)
class _Bound:
    """A workforce whose items are of one target."""

    workforce: Workforce | _InProcess
    prepared: PreparedTarget

    @property
    def parallelism(self) -> int:
        return self.workforce.parallelism

    def run(self, items: Sequence[WorkItem]) -> list[WorkItem]:
        told = self.prepared.to_dict()
        return self.workforce.run([{"prepared": told, "work": item} for item in items])


def _worker(table: Table, target: IcebergTarget, layout: Layout) -> MergeWorker:
    assert target.merge is not None  # noqa: S101 - only merges have work
    return MergeWorker(table, layout, target.merge, target.target_file_bytes)


def _told_apart_by(target: SinkTarget) -> frozenset[str]:
    rule = target.merge
    if rule is None:
        return frozenset()
    return frozenset((*rule.key, *(name for name in (rule.order, rule.delete) if name)))


def _object(value: JsonValue) -> WorkItem:
    assert isinstance(value, dict)  # noqa: S101 - written by `_Bound`
    return value


def _create(
    catalog: Catalog,
    identifier: tuple[str, ...],
    schema: Schema,
    spec: PartitionSpec,
    location: str | None,
    properties: Mapping[str, str],
) -> Table:
    """Create the table, or load the one that another process has created meanwhile."""
    for depth in range(1, len(identifier)):
        with contextlib.suppress(NamespaceAlreadyExistsError, IntegrityError):
            catalog.create_namespace(identifier[:depth])
    try:
        return catalog.create_table(
            identifier, schema, location=location, partition_spec=spec, properties=dict(properties)
        )
    except TableAlreadyExistsError:
        return catalog.load_table(identifier)
