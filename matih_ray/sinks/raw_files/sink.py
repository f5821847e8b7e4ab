"""The raw files sink endpoint."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import ClassVar

import pyarrow as pa

from matih_ray.errors import (
    CommitRejectedError,
    ForbiddenError,
    SchemaMismatchError,
    ValidationError,
)
from matih_ray.model.ids import TenantId
from matih_ray.model.plan import IngestionSlice
from matih_ray.model.policy import SchemaChange, WriteMode
from matih_ray.model.receipt import CommitMarker, WriteReceipt
from matih_ray.model.value import Value
from matih_ray.settings import Settings
from matih_ray.sinks.base import CommitOutcome, PreparedTarget, SinkTarget, SliceWriter
from matih_ray.sinks.raw_files.commit import MarkedCommit
from matih_ray.sinks.raw_files.config import S3_SECRETS, Place, RawFilesConfig
from matih_ray.sinks.raw_files.files import Partitions
from matih_ray.sinks.raw_files.log import (
    CommitLog,
    LogEntry,
    StreamState,
    TablePaths,
    check_is,
    new_token,
    stream_name,
)
from matih_ray.sinks.raw_files.publishing import Publisher
from matih_ray.sinks.raw_files.registration import registered
from matih_ray.sinks.raw_files.storage import Storage, mapped
from matih_ray.sinks.raw_files.target import RawTarget, decoded, encoded
from matih_ray.sinks.raw_files.writer import RawSliceWriter
from matih_ray.sources.base import EndpointSpec

# Runs that create or extend the same table at the same moment; each round one gets through.
ATTEMPTS = 20


class RawFilesSink:
    """Writes streams to directories of Parquet files. See `SinkEndpoint`."""

    type: ClassVar[str] = "raw"
    config_model: ClassVar[builtins.type[Value]] = RawFilesConfig
    secret_fields: ClassVar[tuple[str, ...]] = (*S3_SECRETS, "catalogProperties")
    write_modes: ClassVar[tuple[WriteMode, ...]] = (WriteMode.APPEND, WriteMode.OVERWRITE)

    def __init__(self, spec: EndpointSpec) -> None:
        self._begin(Place.from_spec(spec), spec.tenant_id)

    @classmethod
    def from_settings(cls, settings: Settings, tenant_id: TenantId) -> RawFilesSink:
        """The built-in sink, where the operator's settings say.

        Raises:
            ConfigurationError: A setting is wrong.
        """
        sink = cls.__new__(cls)
        sink._begin(Place.from_settings(settings), tenant_id)  # noqa: SLF001 - a second constructor
        return sink

    def _begin(self, place: Place, tenant_id: TenantId) -> None:
        self._place = place
        self._tenant_id = tenant_id
        self._storage: Storage | None = None

    def prepare(self, target: SinkTarget) -> PreparedTarget:
        """Create or check the table; see `SinkEndpoint.prepare`.

        As with every sink, to be called before the checkpoint is read.

        Raises:
            ValidationError: A partition, the path, the write mode or the schema change is wrong.
        """
        self._check_tenant(target.stream.tenant_id)
        _check_choices(target)
        log = CommitLog(self._opened(), TablePaths.of(target.path))
        with mapped(f"prepare {log.paths.table}"):
            entry = self._table(log, target)
            registered(self._place, log, entry)
        stream = stream_name(target.stream)
        payload = RawTarget(
            path=target.path,
            table_id=entry.table_id,
            stream=stream,
            arrow_schema=encoded(target.schema),
            partition_by=target.partition_by,
            target_file_bytes=target.target_file_bytes,
            checksum=target.checksum,
            predecessor=entry.streams.get(stream, StreamState()).marker,
        )
        return PreparedTarget(
            stream=target.stream,
            display_name=f"{self._place.uri}/{log.paths.table}",
            write_mode=target.write_mode,
            payload=payload.to_dict(),
        )

    def writer(self, prepared: PreparedTarget, slice_: IngestionSlice) -> SliceWriter:
        """A writer for one attempt of a slice."""
        target = self._target(prepared)
        return RawSliceWriter(self._log(target), target, slice_)

    def commit(
        self, prepared: PreparedTarget, receipts: Sequence[WriteReceipt], marker: CommitMarker
    ) -> CommitOutcome:
        """Make receipts visible with the marker, atomically; see `SinkEndpoint.commit`."""
        target = self._target(prepared)
        log = self._log(target)
        outcome = MarkedCommit(log, target, prepared.write_mode, marker).run(receipts)
        registered(self._place, log)
        return outcome

    def last_marker(self, prepared: PreparedTarget) -> CommitMarker | None:
        """The stream's marker; what a dead committer has left unpublished is published first.

        Raises:
            SinkUnavailableError: The storage cannot be asked now.
        """
        target = self._target(prepared)
        log = self._log(target)
        with mapped(f"read the marker of {prepared.display_name}"):
            entry = check_is(Publisher(log).finish(), target.table_id, log.paths.table)
        registered(self._place, log, entry)
        return entry.streams.get(target.stream, StreamState()).marker

    def abort(self, prepared: PreparedTarget, receipts: Sequence[WriteReceipt]) -> None:
        """Delete the files of receipts that certainly were not committed."""
        log = self._log(self._target(prepared))
        with mapped("abort"):
            for receipt in receipts:
                log.storage.delete_dir(log.paths.stage(str(receipt.payload["stage"])))

    def close(self) -> None:
        """Nothing to release."""

    def _table(self, log: CommitLog, target: SinkTarget) -> LogEntry:
        """The table's last entry, with all columns that the target brings."""
        for _ in range(ATTEMPTS):
            latest = Publisher(log).finish()
            if latest is None:
                entry = LogEntry(
                    version=1,
                    table_id=new_token(),
                    token=new_token(),
                    arrow_schema=encoded(target.schema),
                    listed=(),
                )
            else:
                schema = _united(decoded(latest.arrow_schema), target, log.paths.table)
                if schema is None:
                    return latest
                entry = latest.model_copy(
                    update={
                        "version": latest.version + 1,
                        "token": new_token(),
                        "arrow_schema": encoded(schema),
                        "added": (),
                        "listed": tuple(log.files_at(latest.version)),
                        "replaces": False,
                    }
                )
            if log.append(entry):
                Publisher(log).finish()
                return entry
        raise CommitRejectedError(f"cannot prepare {log.paths.table}: others change it all along")

    def _opened(self) -> Storage:
        if self._storage is None:
            self._storage = self._place.open()
        return self._storage

    def _log(self, target: RawTarget) -> CommitLog:
        return CommitLog(self._opened(), TablePaths.of(target.path))

    def _target(self, prepared: PreparedTarget) -> RawTarget:
        self._check_tenant(prepared.stream.tenant_id)
        return RawTarget.from_json(dict(prepared.payload))

    def _check_tenant(self, tenant_id: TenantId) -> None:
        if tenant_id != self._tenant_id:
            raise ForbiddenError(f"this sink belongs to another tenant than {tenant_id}")


def _check_choices(target: SinkTarget) -> None:
    if target.write_mode not in RawFilesSink.write_modes:
        raise ValidationError(
            "raw files are added or replaced as a whole; for writeMode=merge choose the sink "
            "iceberg",
            field="policy.writeMode",
        )
    if target.schema_change not in (SchemaChange.EVOLVE, SchemaChange.FAIL):
        raise ValidationError(
            "raw files are kept as the source has them: schemaChange is evolve or fail",
            field="policy.schemaChange",
        )
    Partitions.of(target.partition_by, target.schema)


def _united(table: pa.Schema, target: SinkTarget, name: str) -> pa.Schema | None:
    """The table's columns with those that the target adds; None if it adds none.

    Raises:
        SchemaMismatchError: A type has changed; with `fail`, a column came or went.
    """
    known = dict(zip(table.names, table.types, strict=True))
    given = dict(zip(target.schema.names, target.schema.types, strict=True))
    wrong = [one for one, type_ in given.items() if known.get(one, type_) != type_]
    if target.schema_change is SchemaChange.FAIL:
        wrong += sorted(set(known) ^ set(given))
    if wrong:
        raise SchemaMismatchError(
            f"the rows do not fit the files of {name} in column {wrong[0]!r}: "
            f"{known.get(wrong[0], 'not there')} before, {given.get(wrong[0], 'not there')} now; "
            "choose another target for the new shape",
            column=wrong[0],
        )
    new = [target.schema.field(one) for one in given if one not in known]
    return pa.schema([*table, *new]) if new else None
