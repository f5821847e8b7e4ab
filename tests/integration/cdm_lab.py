"""What the tests of the CDM sink share: a database, sinks on it, and rows of a small model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from matih_ray.model.plan import IngestionSlice
from matih_ray.model.policy import WriteMode
from matih_ray.model.receipt import CommitMarker, WriteReceipt
from matih_ray.settings import Settings
from matih_ray.sinks.base import CommitOutcome, PreparedTarget, SinkTarget
from matih_ray.sinks.cdm_postgres import CdmPostgresSink
from matih_ray.testing.contracts.sink_lab import SCHEMA, TENANT
from matih_ray.testing.devstack.postgres import PostgresServer

ENVELOPE = [
    pa.field("cdm_id", pa.string(), nullable=False),
    pa.field("tenant_id", pa.string(), nullable=False),
    pa.field("source_endpoint_id", pa.string(), nullable=False),
    pa.field("source_unit_id", pa.string(), nullable=False),
    pa.field("source_version", pa.int64()),
    pa.field("run_id", pa.string(), nullable=False),
    pa.field("is_deleted", pa.bool_(), nullable=False),
]


def with_envelope(schema: pa.Schema) -> pa.Schema:
    """A schema that the sink takes, with these columns."""
    return pa.schema([*ENVELOPE, *schema])


@dataclass
class ContractSink:
    """The sink under the contract's own rows: each is a row of a model, known by its `id`."""

    sink: CdmPostgresSink

    def prepare(self, target: SinkTarget) -> PreparedTarget:
        digest = hashlib.sha256("/".join(target.path).encode()).hexdigest()[:20]
        return self.sink.prepare(
            replace(
                target,
                path=(target.path[0], f"cdm.t{digest}"),
                schema=with_envelope(target.schema),
                write_mode=(
                    WriteMode.APPEND if target.write_mode is WriteMode.MERGE else target.write_mode
                ),
            )
        )

    def writer(self, prepared: PreparedTarget, slice_: IngestionSlice) -> ContractWriter:
        return ContractWriter(self.sink, prepared, slice_)

    def commit(
        self, prepared: PreparedTarget, receipts: Sequence[WriteReceipt], marker: CommitMarker
    ) -> CommitOutcome:
        return self.sink.commit(prepared, receipts, marker)

    def last_marker(self, prepared: PreparedTarget) -> CommitMarker | None:
        return self.sink.last_marker(prepared)

    def abort(self, prepared: PreparedTarget, receipts: Sequence[WriteReceipt]) -> None:
        self.sink.abort(prepared, receipts)

    def close(self) -> None:
        self.sink.close()


class ContractWriter:
    """Gives each row of the contract an envelope."""

    def __init__(
        self, sink: CdmPostgresSink, prepared: PreparedTarget, slice_: IngestionSlice
    ) -> None:
        self._writer = sink.writer(prepared, slice_)
        self._stream = prepared.stream

    def write(self, batch: pa.RecordBatch) -> None:
        stream, rows = self._stream, batch.num_rows
        envelope = [
            batch["id"].cast(pa.string()),
            *(
                pa.repeat(pa.scalar(text), rows)
                for text in (stream.tenant_id, stream.endpoint_id, stream.unit_id)
            ),
            pa.nulls(rows, pa.int64()),
            pa.repeat(pa.scalar("run"), rows),
            pa.repeat(pa.scalar(value=False), rows),
        ]
        schema = with_envelope(batch.schema)
        self._writer.write(pa.RecordBatch.from_arrays([*envelope, *batch.columns], schema=schema))

    def close(self) -> WriteReceipt:
        return self._writer.close()

    def abort(self) -> None:
        self._writer.abort()


@dataclass(frozen=True)
class CdmLab:
    """A database of its own; `port` may be that of a gate in front of the server."""

    server: PostgresServer
    database: str
    port: int

    @classmethod
    def create(cls, server: PostgresServer, database: str, port: int | None = None) -> CdmLab:
        server.create_database(database)
        return cls(server, database, port or server.port)

    @property
    def url(self) -> str:
        return f"postgresql://{self.server.user}@{self.server.host}:{self.port}/{self.database}"

    def settings(self, **changes: str) -> Settings:
        return Settings(cdm_database_url=self.url, **changes)

    def cdm(self, **changes: str) -> CdmPostgresSink:
        return CdmPostgresSink.from_settings(self.settings(**changes), TENANT)

    def sink(self) -> ContractSink:
        return ContractSink(self.cdm())

    def query(self, statement: str) -> list[tuple[object, ...]]:
        return self.server.execute(statement, self.database)

    def read(self, prepared: PreparedTarget) -> pa.Table:
        """The live rows in the contract's columns."""
        table = prepared.payload["table"]
        rows = self.query(
            f'SELECT {", ".join(SCHEMA.names)} FROM cdm."{table}" WHERE NOT is_deleted'
        )
        return pa.Table.from_pylist(
            [dict(zip(SCHEMA.names, row, strict=True)) for row in rows], SCHEMA
        )

    def stages(self) -> set[str]:
        """The stage tables that there are, by the database's own word."""
        return {
            str(name)
            for (name,) in self.query(
                "SELECT tablename FROM pg_tables WHERE tablename LIKE 'cdm\\_stage\\_%'"
            )
        }


def opened(server: PostgresServer, names: Iterator[int]) -> CdmLab:
    """A lab in a new database."""
    return CdmLab.create(server, f"cdm_{next(names)}")
