"""The slice writer: batches into a stage table of their own, by COPY."""

from __future__ import annotations

import contextlib
import uuid

import psycopg2
import pyarrow as pa
import pyarrow.compute as pc
from psycopg2 import sql

from matih_ray.errors import SchemaMismatchError, SinkError, SinkUnavailableError
from matih_ray.model.fingerprint import Fingerprint
from matih_ray.model.plan import IngestionSlice
from matih_ray.model.receipt import WriteReceipt
from matih_ray.sinks.cdm_postgres.columns import CsvFile
from matih_ray.sinks.cdm_postgres.session import Session, Sessions, mapped
from matih_ray.sinks.cdm_postgres.tables import DELETED, Names
from matih_ray.sinks.cdm_postgres.target import CdmTarget


class CdmSliceWriter:
    """Writes one attempt of one slice. Not thread-safe; see `SliceWriter`."""

    def __init__(
        self, sessions: Sessions, names: Names, target: CdmTarget, slice_: IngestionSlice
    ) -> None:
        self._sessions = sessions
        self._names = names
        self._target = target
        self._slice = slice_
        self._stage = f"{names.place.prefix}stage_{uuid.uuid4().hex}"
        # the one connection that the stage was made on: a server that lost it may have emptied
        # the stage, and what was written before would be missing
        self._session: Session | None = None
        self._fingerprint = Fingerprint()
        self._rows = self._deleted = self._bytes = 0
        self._what = f"write slice {slice_.key} to {target.table}"

    def write(self, batch: pa.RecordBatch) -> None:
        """Write a batch; see `SliceWriter.write`."""
        if sorted(batch.schema.names) != sorted(self._target.columns):
            raise SchemaMismatchError(
                f"cannot {self._what}: the batch's columns are not those of the target"
            )
        if batch.num_rows == 0:
            return
        if self._target.checksum:
            self._fingerprint = self._fingerprint.add(batch)
        with mapped(self._what):
            session = self._session or self._create()
            statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(
                self._names.table(self._stage),
                sql.SQL(", ").join(map(sql.Identifier, batch.schema.names)),
            )
            file = CsvFile(batch)
            try:
                session.copy(statement, file)
            except psycopg2.Error:
                if file.problem is not None:
                    raise file.problem from None
                raise
        self._bytes += file.bytes_read
        self._rows += batch.num_rows
        self._deleted += pc.sum(batch.column(DELETED)).as_py() or 0

    def close(self) -> WriteReceipt:
        """See `SliceWriter.close`."""
        if self._session is not None and self._session.is_lost:
            raise SinkUnavailableError(f"cannot {self._what}: the connection was lost")
        return WriteReceipt(
            slice_key=self._slice.key,
            sequence=self._slice.sequence,
            rows=self._rows,
            bytes=self._bytes,
            payload={"stage": self._stage if self._rows else None, "deleted": self._deleted},
            checksum=str(self._fingerprint) if self._target.checksum else None,
        )

    def abort(self) -> None:
        """Drop the stage; see `SliceWriter.abort`."""
        if self._session is None:
            return
        with contextlib.suppress(SinkError), mapped("drop a stage"):
            drop_stages(self._sessions.get(), self._names, [self._stage])
        self._session = None

    def _create(self) -> Session:
        """The stage, and its entry in the list by which it is found if nobody commits it."""
        session = self._sessions.get()
        with session.transaction():
            session.rows(
                sql.SQL(
                    "CREATE UNLOGGED TABLE {} (LIKE {}) WITH (autovacuum_enabled = false);"
                    "ALTER TABLE {} DROP COLUMN loaded_at"
                ).format(
                    self._names.table(self._stage),
                    self._names.table(self._target.table),
                    self._names.table(self._stage),
                )
            )
            session.rows(
                sql.SQL("INSERT INTO {} VALUES (%s, %s, %s)").format(self._names.stages),
                [self._stage, self._target.stream, self._target.predecessor_text],
            )
        self._session = session
        return session


def drop_stages(session: Session, names: Names, stages: list[str]) -> None:
    """Drop stage tables and forget them; those that are gone already are no error."""
    for stage in stages:
        session.rows(sql.SQL("DROP TABLE IF EXISTS {}").format(names.table(stage)))
    if stages:
        session.rows(sql.SQL("DELETE FROM {} WHERE name = ANY(%s)").format(names.stages), [stages])
