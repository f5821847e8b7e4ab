"""The CDM sink endpoint."""

from __future__ import annotations

import builtins
import hashlib
from collections.abc import Sequence
from typing import ClassVar

import pyarrow as pa
from psycopg2 import sql

from matih_ray.errors import ForbiddenError, ValidationError
from matih_ray.model.cdm import CdmModel
from matih_ray.model.checkpoint import StreamKey
from matih_ray.model.ids import TenantId
from matih_ray.model.plan import IngestionSlice
from matih_ray.model.policy import WriteMode
from matih_ray.model.receipt import CommitMarker, WriteReceipt
from matih_ray.model.value import Value
from matih_ray.settings import Settings
from matih_ray.sinks.base import (
    CommitOutcome,
    PreparedTarget,
    ProvisionedTable,
    SinkTarget,
    SliceWriter,
)
from matih_ray.sinks.cdm_postgres.commit import MarkedCommit, hold
from matih_ray.sinks.cdm_postgres.config import CdmSinkConfig, Place
from matih_ray.sinks.cdm_postgres.session import Session, Sessions, mapped
from matih_ray.sinks.cdm_postgres.tables import Names, provision
from matih_ray.sinks.cdm_postgres.target import CdmTarget
from matih_ray.sinks.cdm_postgres.writer import CdmSliceWriter, drop_stages
from matih_ray.sources.base import EndpointSpec

# Tenant and model: the schema is the endpoint's own choice.
PATH_PARTS = 2


class CdmPostgresSink:
    """Writes streams to the tables of the canonical data model. See `SinkEndpoint`."""

    type: ClassVar[str] = "cdm.jdbc"
    config_model: ClassVar[builtins.type[Value]] = CdmSinkConfig
    secret_fields: ClassVar[tuple[str, ...]] = ("connectionUrl", "password")
    supported_cdm_models: ClassVar[tuple[str, ...]] = ("cdm.work.*", "cdm.doc.*")

    def __init__(self, spec: EndpointSpec) -> None:
        self._open(Place.from_spec(spec), spec.tenant_id)

    @classmethod
    def from_settings(cls, settings: Settings, tenant_id: TenantId) -> CdmPostgresSink:
        """The built-in sink, in the operator's own database.

        Raises:
            ConfigurationError: No database is set.
        """
        sink = cls.__new__(cls)
        sink._open(Place.from_settings(settings), tenant_id)  # noqa: SLF001 - a second constructor
        return sink

    def _open(self, place: Place, tenant_id: TenantId) -> None:
        self._tenant_id = tenant_id
        self._names = Names(place)
        self._sessions = Sessions(place)

    def provision(self, model: CdmModel) -> ProvisionedTable:
        """Create or extend the model's table; see `SupportsCdm.provision`."""
        table = self._names.model_table(model.model_id)
        self._provision(table, model.schema)
        return ProvisionedTable(namespace=self._names.place.schema, name=table)

    def prepare(self, target: SinkTarget) -> PreparedTarget:
        """Create or check the model's table; see `SinkEndpoint.prepare`.

        As with every sink, to be called before the checkpoint is read.

        Raises:
            ValidationError: The path names no model, or the mode is merge.
        """
        self._check_tenant(target.stream.tenant_id)
        if len(target.path) != PATH_PARTS or target.write_mode is WriteMode.MERGE:
            raise ValidationError(
                "rows of the canonical data model go to the model's table, by its own key; leave "
                "out target and writeMode=merge",
                field="policy.target",
            )
        table = self._names.model_table(target.path[1])
        relation = self._provision(table, target.schema)
        stream = _digest(target.stream)
        with mapped(f"prepare {table}"):
            marker = self._begin(self._sessions.get(), stream, relation)
        payload = CdmTarget(
            table=table,
            relation=relation,
            columns=tuple(target.schema.names),
            stream=stream,
            checksum=target.checksum,
            predecessor=marker,
        )
        return PreparedTarget(
            stream=target.stream,
            display_name=f"{self._names.place.schema}.{table}",
            write_mode=target.write_mode,
            payload=payload.to_dict(),
        )

    def writer(self, prepared: PreparedTarget, slice_: IngestionSlice) -> SliceWriter:
        """A writer for one attempt of a slice.

        `slice_.dedupe_on` is not needed: rows that the table has are known by their key.
        """
        return CdmSliceWriter(self._sessions, self._names, self._target(prepared), slice_)

    def commit(
        self, prepared: PreparedTarget, receipts: Sequence[WriteReceipt], marker: CommitMarker
    ) -> CommitOutcome:
        """Make receipts visible with the marker, atomically; see `SinkEndpoint.commit`."""
        commit = MarkedCommit(
            self._sessions,
            self._names,
            prepared.stream,
            self._target(prepared),
            prepared.write_mode,
            marker,
        )
        return commit.run(receipts)

    def last_marker(self, prepared: PreparedTarget) -> CommitMarker | None:
        """The stream's marker, once every commit under way has ended.

        Raises:
            SinkUnavailableError: The database cannot be asked now.
        """
        with mapped(f"read the marker of {prepared.display_name}"):
            session = self._sessions.get()
            with session.transaction():
                return hold(session, self._names, self._target(prepared)).marker

    def abort(self, prepared: PreparedTarget, receipts: Sequence[WriteReceipt]) -> None:
        """Drop the stages of receipts that certainly were not committed."""
        self._check_tenant(prepared.stream.tenant_id)
        stages = [str(one.payload["stage"]) for one in receipts if one.payload["stage"] is not None]
        with mapped("abort"):
            drop_stages(self._sessions.get(), self._names, stages)

    def close(self) -> None:
        """Close the connection. Safe to call twice."""
        self._sessions.close()

    def _provision(self, table: str, schema: pa.Schema) -> int:
        with mapped(f"prepare table {table}"):
            return provision(self._sessions.get(), self._names, table, schema)

    def _begin(self, session: Session, stream: str, relation: int) -> CommitMarker | None:
        """The stream's marker; a stream whose table is another one by now begins anew."""
        session.rows(
            sql.SQL(
                """
                INSERT INTO {0} AS held (stream, relation) VALUES (%s, %s)
                ON CONFLICT (stream) DO UPDATE SET relation = excluded.relation, marker = NULL,
                    runs = '[]', loading = '{{}}' WHERE held.relation <> excluded.relation
                """
            ).format(self._names.streams),
            [stream, relation],
        )
        [(marker,)] = session.rows(
            sql.SQL("SELECT marker FROM {} WHERE stream = %s").format(self._names.streams), [stream]
        )
        return None if marker is None else CommitMarker.from_json(marker)

    def _target(self, prepared: PreparedTarget) -> CdmTarget:
        self._check_tenant(prepared.stream.tenant_id)
        return CdmTarget.from_json(dict(prepared.payload))

    def _check_tenant(self, tenant_id: TenantId) -> None:
        if tenant_id != self._tenant_id:
            raise ForbiddenError(f"this sink belongs to another tenant than {tenant_id}")


def _digest(stream: StreamKey) -> str:
    """The key of a stream's row: of one length, whatever its parts are."""
    return hashlib.sha256(stream.to_json().encode()).hexdigest()
