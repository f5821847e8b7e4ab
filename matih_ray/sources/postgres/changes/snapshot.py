"""The rows that are there when a stream begins, and the list of what they hold."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
from psycopg2 import sql

from matih_ray.errors import OpenTransactionError, SourceChangedError
from matih_ray.sources.postgres.catalog import Relation, relation_of
from matih_ray.sources.postgres.changes.messages import lsn_of
from matih_ray.sources.postgres.changes.parallel import ParallelCopies
from matih_ray.sources.postgres.changes.slots import OPEN
from matih_ray.sources.postgres.changes.visibility import SnapshotView
from matih_ray.sources.postgres.copying import Copy, open_copy
from matih_ray.sources.postgres.decoding import BlockDecoder
from matih_ray.sources.postgres.failures import mapped_errors
from matih_ray.sources.postgres.names import unit_id_of
from matih_ray.sources.postgres.session import RANGE_SCAN, Session

SETTLE_TIMEOUT_S = 120.0
_LOOK_AGAIN_S = 0.05


# Pages of a table, 8 kB each, below which a further connection takes longer than it saves.
RANGE_PAGES = 2048
# Ranges of pages are looked up, and not found by going through the whole table, from here on.
_RANGES_FROM = 140000


class TableSnapshot:
    """COPYs of a table in a snapshot of its own; `view` says which transactions it shows.

    A transaction can be in the log as committed and not yet be seen by others, while it waits for
    a standby. If its commit is before the stream's beginning, only the snapshot has it. So the
    snapshot is taken after all that were under way at the beginning have ended.
    """

    def __init__(
        self,
        connect: Callable[[], Session],
        relation: Relation,
        wanted: Sequence[str],
        parallelism: int = 1,
    ) -> None:
        """Args:
        connect: Opens a session; each COPY has one, which `close` closes.
        relation: The table.
        wanted: Its columns.
        parallelism: How many COPYs at most; a small table, one of partitions and a server before
            version 14 take one.

        Raises:
            OpenTransactionError: A transaction stays open.
            SourceError: The table cannot be read.
        """
        self._sessions = [connect()]
        try:
            with mapped_errors(f"taking a snapshot of {relation.name}"):
                first = self._sessions[0]
                self.view = _settled_view(first, relation)
                ranges = _ranges(first, relation, parallelism)
                if len(ranges) > 1:
                    (name,) = first.row("SELECT pg_export_snapshot()")
                    self._join(connect, str(name), len(ranges) - 1)
                copies = [
                    _copy(session, relation, wanted, range_)
                    for session, range_ in zip(self._sessions, ranges, strict=True)
                ]
            self._copies = ParallelCopies(copies)
        except BaseException:
            self._leave()
            raise

    def batches(self, decoder: BlockDecoder) -> Iterator[pa.RecordBatch]:
        """All rows.

        Raises:
            SourceError: Reading failed.
        """
        with mapped_errors("reading a snapshot"):
            yield from self._copies.batches(decoder)

    def close(self) -> None:
        """Let go of the snapshot. Safe to call twice."""
        self._copies.close()
        self._leave()

    def _join(self, connect: Callable[[], Session], name: str, count: int) -> None:
        """More sessions that see the same; the first one has the table locked for all."""
        for _ in range(count):
            session = connect()
            self._sessions.append(session)
            session.rows("BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ")
            session.rows(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(name)))
            session.rows(RANGE_SCAN)

    def _leave(self) -> None:
        for session in self._sessions:
            session.close()


def _ranges(session: Session, relation: Relation, parallelism: int) -> list[sql.Composable]:
    """Conditions, of which each row meets one. The last has no end, for rows behind the pages that
    were counted."""
    ranges = 1
    if relation.kind == "table":
        (pages, version) = session.row(_PAGES.format(oid=sql.Literal(relation.oid)))
        if int(version) >= _RANGES_FROM:
            ranges = max(1, min(parallelism, int(pages) // RANGE_PAGES))
    if ranges == 1:
        return [sql.SQL("true")]
    session.rows(RANGE_SCAN)
    bounds = [sql.Literal(f"({int(pages) * number // ranges},0)") for number in range(ranges)]
    found = []
    for number, first in enumerate(bounds):
        condition = sql.SQL("ctid >= {}::tid").format(first)
        if number + 1 < ranges:
            condition = sql.SQL("{} AND ctid < {}::tid").format(condition, bounds[number + 1])
        found.append(condition)
    return found


def _copy(
    session: Session, relation: Relation, wanted: Sequence[str], range_: sql.Composable
) -> Copy:
    columns = sql.SQL(", ").join([sql.Identifier(name) for name in wanted])
    statement = sql.SQL("COPY (SELECT {} FROM {} WHERE {}) TO STDOUT").format(
        columns, relation.identifier, range_
    )
    return open_copy(session.connection, str(statement.as_string(session.connection)))


def settle(session: Session, name: str) -> None:
    """Wait until all transactions have ended that are under way, before a snapshot is taken.

    One can be in the log as committed and not yet be seen by others, while it waits for a standby.
    If its commit is before the log's beginning, only the snapshot has it, and must show it.

    Raises:
        OpenTransactionError: One stays open.
    """
    # a number of our own: whoever began before has a smaller one
    (under_way,) = session.row("SELECT pg_current_xact_id()::text::bigint")
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    while session.row(_OLDEST)[0] < under_way:
        if time.monotonic() > deadline:
            raise OpenTransactionError(
                f"the snapshot of {name} waits for a transaction that stays open; {OPEN}"
            )
        time.sleep(_LOOK_AGAIN_S)


def current_view(session: Session) -> SnapshotView:
    """What the session's snapshot shows, which it must hold already."""
    (text,) = session.row("SELECT pg_current_snapshot()::text")
    (until,) = session.row("SELECT pg_current_wal_insert_lsn()::text")
    return SnapshotView.of(text, lsn_of(until))


def _settled_view(session: Session, relation: Relation) -> SnapshotView:
    settle(session, relation.name)
    session.rows("BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ")
    # before the snapshot, so that the table stays as it was looked at
    session.rows(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(relation.identifier))
    name = unit_id_of(relation.schema, relation.name)
    if relation_of(session, name).columns != relation.columns:
        raise SourceChangedError(f"{name} was changed while it was looked at; try again")
    return current_view(session)


_PAGES = sql.SQL(
    "SELECT pg_relation_size({oid}) / current_setting('block_size')::bigint, "
    "current_setting('server_version_num')"
)
_OLDEST = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
