"""Sinks of bounded jobs: `print`, `blackhole`, `filesystem` and Iceberg catalog tables."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import IO, Protocol

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

from matih_ray.errors import NotFoundError, SqlNotSupportedError
from matih_ray.model.checkpoint import StreamKey
from matih_ray.model.ids import EndpointId, RunId, SinkId, TenantId, UnitId
from matih_ray.model.plan import IngestionSlice
from matih_ray.model.policy import WriteMode
from matih_ray.model.receipt import CommitMarker
from matih_ray.settings import Settings
from matih_ray.sinks.base import SinkTarget
from matih_ray.sinks.iceberg import IcebergSink
from matih_ray.sinks.iceberg.boundary import mapped
from matih_ray.sinks.iceberg.catalog import CatalogConfig, open_catalog
from matih_ray.sinks.iceberg.naming import table_identifier
from matih_ray.streaming.connectors.sources import local_path, option
from matih_ray.streaming.sql.casts import java_text
from matih_ray.streaming.sql.script import CreateTable

# The only tenant that a job in one process has.
TENANT = TenantId("default")


class TableSink(Protocol):
    """Where the rows of one INSERT go. Nothing is visible before `close`, where that can be."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Take a batch of the table's columns."""

    def close(self) -> None:
        """Finish, and show all rows."""

    def abort(self) -> None:
        """Drop what was written, as far as possible."""


def open_sink(table: CreateTable, schema: pa.Schema, out: IO[str]) -> TableSink:
    """The sink of a table that was declared with a connector.

    Raises:
        SqlNotSupportedError: The connector or its format is not there.
    """
    connector = option(table, "connector")
    if connector == "print":
        return PrintSink(out, option(table, "print-identifier", ""))
    if connector == "blackhole":
        return BlackholeSink()
    if connector == "filesystem":
        return FileSink(local_path(table), option(table, "format"), schema)
    raise SqlNotSupportedError(
        f"table {'.'.join(table.path)}: connector {connector!r} cannot be written here; there are "
        "filesystem, print, blackhole and catalog tables",
        clause=connector,
    )


class BlackholeSink:
    """Takes rows and forgets them."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Forget a batch."""

    def close(self) -> None:
        """Nothing to do."""

    def abort(self) -> None:
        """Nothing to do."""


class PrintSink:
    """Rows as `+I[a, b]`, a line each."""

    def __init__(self, out: IO[str], identifier: str) -> None:
        self._out = out
        self._prefix = f"{identifier}> " if identifier else ""

    def write(self, batch: pa.RecordBatch) -> None:
        """Print a batch."""
        columns = [[_printed(value) for value in column.to_pylist()] for column in batch.columns]
        for row in zip(*columns, strict=True):
            self._out.write(f"{self._prefix}+I[{', '.join(row)}]\n")

    def close(self) -> None:
        """Show what is still buffered."""
        self._out.flush()

    def abort(self) -> None:
        """Printed rows stay printed."""


def _printed(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(java_text(value))
    if isinstance(value, list):
        return f"[{', '.join(map(_printed, value))}]"
    if hasattr(value, "isoformat") and hasattr(value, "hour"):
        return str(value.isoformat())
    return str(value)


class FileSink:
    """A file in a directory, hidden under a dotted name until it is whole."""

    def __init__(self, directory: Path, kind: str, schema: pa.Schema) -> None:
        if kind not in ("json", "csv", "parquet"):
            raise SqlNotSupportedError(f"format {kind!r} is not supported", clause="format")
        directory.mkdir(parents=True, exist_ok=True)
        name = f"part-{uuid.uuid4()}.{kind}"
        self._path, self._hidden = directory / name, directory / f".{name}"
        self._file = self._hidden.open("wb")
        self._kind = kind
        self._parquet = (
            pyarrow.parquet.ParquetWriter(self._file, schema) if kind == "parquet" else None
        )

    def write(self, batch: pa.RecordBatch) -> None:
        """Write a batch."""
        if self._parquet is not None:
            self._parquet.write_batch(batch)
        elif self._kind == "csv":
            options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="needed")
            pyarrow.csv.write_csv(batch, self._file, options)
        else:
            lines = (json.dumps(row, default=_json_value) for row in batch.to_pylist())
            self._file.write("".join(f"{line}\n" for line in lines).encode())

    def close(self) -> None:
        """Finish the file and show it."""
        if self._parquet is not None:
            self._parquet.close()
        self._file.close()
        self._hidden.rename(self._path)

    def abort(self) -> None:
        """Delete the file."""
        if self._parquet is not None:
            self._parquet.close()
        self._file.close()
        self._hidden.unlink(missing_ok=True)


def _json_value(value: object) -> object:
    """Times in Flink's SQL form; decimals as text, which loses no digit."""
    text = str(value)
    return text.rstrip("0").rstrip(".") if "." in text and ":" in text else text


class CatalogTables:
    """Tables of the Iceberg catalog of the settings, under whatever name a script gives it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def schema(self, path: tuple[str, ...]) -> pa.Schema:
        """The columns of a table; `path` begins with the catalog's name.

        Raises:
            NotFoundError: There is no such table.
        """
        config = CatalogConfig.from_settings(self._settings)
        name = ".".join(path)
        with mapped(f"load table {name}", config):
            try:
                table = open_catalog(config).load_table(table_identifier(path[1:]))
            except (NoSuchTableError, NoSuchNamespaceError):
                raise NotFoundError(
                    f"there is no table {name}; create it with a CREATE TABLE script", table=name
                ) from None
        return table.schema().as_arrow()

    def create(self, table: CreateTable) -> None:
        """Create a table unless it is there; one that is there must fit.

        Raises:
            SchemaMismatchError: It has other columns.
        """
        schema = pa.schema(
            pa.field(one.name, one.type.arrow, nullable=not one.not_null)
            for one in table.columns
            if one.type is not None
        )
        sink = IcebergSink.from_settings(self._settings, TENANT)
        sink.prepare(_target(table.path, schema, table.partition_by))

    def open_sink(self, path: tuple[str, ...], schema: pa.Schema) -> CatalogSink:
        """Append to a table in one commit."""
        return CatalogSink(IcebergSink.from_settings(self._settings, TENANT), path, schema)


def _target(
    path: tuple[str, ...], schema: pa.Schema, partition_by: tuple[str, ...] = ()
) -> SinkTarget:
    stream = StreamKey(
        tenant_id=TENANT,
        vendor="sql",
        endpoint_id=EndpointId("sql"),
        unit_id=UnitId(".".join(path[1:])),
        sink_id=SinkId("iceberg"),
    )
    return SinkTarget(stream, path[1:], schema, WriteMode.APPEND, partition_by=partition_by)


class CatalogSink:
    """One append to an Iceberg table, visible as a whole when the job ends."""

    def __init__(self, sink: IcebergSink, path: tuple[str, ...], schema: pa.Schema) -> None:
        self._sink = sink
        self._prepared = sink.prepare(_target(path, schema))
        self._writer = sink.writer(self._prepared, IngestionSlice(key="all", sequence=0))

    def write(self, batch: pa.RecordBatch) -> None:
        """Write a batch to data files."""
        self._writer.write(batch)

    def close(self) -> None:
        """Commit."""
        receipt = self._writer.close()
        run = RunId(str(uuid.uuid4()))
        marker = CommitMarker(run_id=run, epoch=0, sequence=1, through=1, rows_total=receipt.rows)
        self._sink.commit(self._prepared, [receipt], marker)

    def abort(self) -> None:
        """Drop the data files."""
        self._writer.abort()
