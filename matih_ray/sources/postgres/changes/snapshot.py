"""The rows that are there when a stream begins, and the list of what they hold."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import pyarrow as pa
from psycopg2 import sql

from matih_ray.errors import OpenTransactionError, SourceChangedError
from matih_ray.sources.postgres.catalog import Relation, relation_of
from matih_ray.sources.postgres.changes.messages import lsn_of
from matih_ray.sources.postgres.changes.slots import OPEN
from matih_ray.sources.postgres.changes.visibility import SnapshotView
from matih_ray.sources.postgres.copying import CopyStream
from matih_ray.sources.postgres.decoding import BlockDecoder
from matih_ray.sources.postgres.failures import mapped_errors
from matih_ray.sources.postgres.names import unit_id_of
from matih_ray.sources.postgres.session import Session

SETTLE_TIMEOUT_S = 120.0
_LOOK_AGAIN_S = 0.05


class TableSnapshot:
    """One COPY of a table in a snapshot of its own; `view` says which transactions it shows.

    A transaction can be in the log as committed and not yet be seen by others, while it waits for
    a standby. If its commit is before the stream's beginning, only the snapshot has it. So the
    snapshot is taken after all that were under way at the beginning have ended.
    """

    def __init__(self, session: Session, relation: Relation, wanted: Sequence[str]) -> None:
        """Take over a session, which `close` closes.

        Raises:
            OpenTransactionError: A transaction stays open.
            SourceError: The table cannot be read.
        """
        self._session = session
        try:
            with mapped_errors(f"taking a snapshot of {relation.name}"):
                self.view = _settled_view(session, relation)
                columns = sql.SQL(", ").join([sql.Identifier(name) for name in wanted])
                statement = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT").format(
                    columns, relation.identifier
                )
                self._copy = CopyStream(
                    session.connection, str(statement.as_string(session.connection))
                )
        except BaseException:
            session.close()
            raise

    def batches(self, decoder: BlockDecoder) -> Iterator[pa.RecordBatch]:
        """All rows.

        Raises:
            SourceError: Reading failed.
        """
        with mapped_errors("reading a snapshot"):
            yield from map(decoder.decode, self._copy.blocks())

    def close(self) -> None:
        """Let go of the snapshot. Safe to call twice."""
        self._copy.close()
        self._session.close()


def _settled_view(session: Session, relation: Relation) -> SnapshotView:
    # a number of our own: whoever began before has a smaller one
    (under_way,) = session.row("SELECT pg_current_xact_id()::text::bigint")
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    while session.row(_OLDEST)[0] < under_way:
        if time.monotonic() > deadline:
            raise OpenTransactionError(
                f"the snapshot of {relation.name} waits for a transaction that stays open; {OPEN}"
            )
        time.sleep(_LOOK_AGAIN_S)
    session.rows("BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ")
    # before the snapshot, so that the table stays as it was looked at
    session.rows(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(relation.identifier))
    name = unit_id_of(relation.schema, relation.name)
    if relation_of(session, name).columns != relation.columns:
        raise SourceChangedError(f"{name} was changed while it was looked at; try again")
    (text,) = session.row("SELECT pg_current_snapshot()::text")
    (until,) = session.row("SELECT pg_current_wal_insert_lsn()::text")
    return SnapshotView.of(text, lsn_of(until))


_OLDEST = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
