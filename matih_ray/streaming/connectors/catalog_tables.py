"""Tables of the Iceberg catalog: created by scripts, appended to by jobs, once."""

from __future__ import annotations

import pyarrow as pa
from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

from matih_ray.errors import NotFoundError
from matih_ray.model.checkpoint import StreamKey
from matih_ray.model.ids import EndpointId, RunId, SinkId, TenantId, UnitId
from matih_ray.model.plan import IngestionSlice
from matih_ray.model.policy import WriteMode
from matih_ray.model.receipt import CommitMarker, WriteReceipt
from matih_ray.model.value import JsonValue, Value
from matih_ray.settings import Settings
from matih_ray.sinks.base import PreparedTarget, SinkTarget, SliceWriter
from matih_ray.sinks.iceberg import IcebergSink
from matih_ray.sinks.iceberg.boundary import mapped
from matih_ray.sinks.iceberg.catalog import CatalogConfig, open_catalog
from matih_ray.sinks.iceberg.naming import table_identifier

# The only tenant that a job in one process has.
TENANT = TenantId("default")


class Owner(Value):
    """Whose commits these are: the job, which outlives processes, and the process's epoch."""

    job_id: str
    epoch: int = 1


class PreparedCommit(Value):
    """All that a commit needs, by whichever process: what a checkpoint holds of it."""

    target: PreparedTarget
    receipt: WriteReceipt | None
    marker: CommitMarker


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
        config = CatalogConfig.from_settings(self._settings)
        name = ".".join(path)
        with mapped(f"load table {name}", config):
            try:
                table = open_catalog(config).load_table(table_identifier(self._inside(path)))
            except (NoSuchTableError, NoSuchNamespaceError):
                raise NotFoundError(
                    f"there is no table {name}; create it with a CREATE TABLE script", table=name
                ) from None
        return table.schema().as_arrow()

    def create(
        self, path: tuple[str, ...], schema: pa.Schema, partition_by: tuple[str, ...]
    ) -> None:
        """Create a table unless it is there; one that is there must fit.

        Raises:
            SchemaMismatchError: It has other columns.
        """
        sink = IcebergSink.from_settings(self._settings, self._tenant_id)
        sink.prepare(self._target(path, schema, "ddl", partition_by))

    def open_sink(self, path: tuple[str, ...], schema: pa.Schema, owner: Owner) -> CatalogSink:
        """Append to a table, as this owner."""
        sink = IcebergSink.from_settings(self._settings, self._tenant_id)
        return CatalogSink(sink, self._target(path, schema, owner.job_id), owner)

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


class CatalogSink:
    """Appends to an Iceberg table: a commit for each checkpoint that has rows.

    Each job is a stream of its own, with its own chain of markers: jobs that write to one table do
    not fence each other, and two owners of one job do.
    """

    is_marked = True

    def __init__(self, sink: IcebergSink, target: SinkTarget, owner: Owner) -> None:
        self._sink = sink
        self._owner = owner
        self._prepared = sink.prepare(target)
        self._writer: SliceWriter | None = None
        self.marker = sink.last_marker(self._prepared)

    def write(self, batch: pa.RecordBatch) -> None:
        """Write a batch to data files."""
        if self._writer is None:
            slice_ = IngestionSlice(key=f"commit-{self._sequence}", sequence=self._sequence)
            self._writer = self._sink.writer(self._prepared, slice_)
        self._writer.write(batch)

    def prepare(self, *, always: bool = False) -> JsonValue:
        """Finish the data files; `marker` is then the one that this commit will leave."""
        if self._writer is None and not always:
            return None
        receipt = None if self._writer is None else self._writer.close()
        self._writer = None
        rows = 0 if self.marker is None else self.marker.rows_total
        self.marker = CommitMarker(
            run_id=RunId(self._owner.job_id),
            epoch=self._owner.epoch,
            sequence=self._sequence,
            through=self._sequence,
            rows_total=rows + (0 if receipt is None else receipt.rows),
        )
        made = PreparedCommit(target=self._prepared, receipt=receipt, marker=self.marker)
        return made.to_dict()

    def commit(self, prepared: JsonValue) -> None:
        """Append with the marker, or find that this was done."""
        if not isinstance(prepared, dict):
            return
        made = PreparedCommit.from_json(prepared)
        receipts = [] if made.receipt is None else [made.receipt]
        self._sink.commit(made.target, receipts, made.marker)
        self.marker = made.marker

    def abort(self) -> None:
        """Drop data files that nobody was told of."""
        if self._writer is not None:
            self._writer.abort()
            self._writer = None

    @property
    def _sequence(self) -> int:
        return 1 if self.marker is None else self.marker.sequence + 1
