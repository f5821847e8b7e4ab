"""The `postgres-cdc` source: a table's rows as they are, then its transactions, each whole.

One partition. Its position is the end of the last transaction whose rows were all returned, or
where the server says that nothing more has happened: so an idle table is confirmed too, with the
next checkpoint, and the server can forget what others wrote meanwhile. While the snapshot or a
transaction is under way there is no position, and `holds` says so.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence

import pyarrow as pa
import structlog

from matih_ray.errors import (
    ChangesLostError,
    SlotLagError,
    SourceChangedError,
    SourceError,
)
from matih_ray.model.ids import EndpointId, TenantId
from matih_ray.model.value import JsonValue, Value
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.host_policy import HostPolicy
from matih_ray.sources.postgres.catalog import Relation, relation_of
from matih_ray.sources.postgres.changes.columns import native_types
from matih_ray.sources.postgres.changes.messages import Begin, RelationMessage, lsn_of, lsn_text
from matih_ray.sources.postgres.changes.prerequisites import (
    check_server,
    check_table,
    ensure_publication,
    is_published,
)
from matih_ray.sources.postgres.changes.replication import ChangeStream
from matih_ray.sources.postgres.changes.slots import (
    check_kept,
    ensure_slot,
    find_slot,
    slot_of_position,
)
from matih_ray.sources.postgres.changes.snapshot import TableSnapshot
from matih_ray.sources.postgres.changes.transactions import BEFORE, Transactions
from matih_ray.sources.postgres.changes.visibility import SnapshotView
from matih_ray.sources.postgres.names import unit_id_of
from matih_ray.sources.postgres.session import Session, Sessions
from matih_ray.streaming.connectors.postgres_cdc_metadata import metadata_columns
from matih_ray.streaming.connectors.postgres_cdc_options import (
    COMMITTED,
    INITIAL,
    SNAPSHOT,
    ChangesTable,
)
from matih_ray.streaming.connectors.postgres_cdc_types import Columns, arrival_of
from matih_ray.streaming.connectors.reader import MetadataColumn, Polled
from matih_ray.streaming.connectors.shares import WHOLE, Share
from matih_ray.streaming.sql.types import FlinkType

# Text of rows that one batch is made of.
BATCH_BYTES = 64 << 20
# A transaction of up to so many batches comes in one: otherwise a reader that is behind would be
# between two of them by chance only when a checkpoint is due.
LARGEST = 2
# Messages between two looks at the clock.
STRIDE = 256
# How often the server is asked how much it keeps for the slot.
LOOK_S = 10.0

log = structlog.get_logger(__name__)


class Place(Value):
    """Where reading goes on: behind `lsn`, without the transactions of `view`. Without `lsn` the
    rows that are there have to be read first."""

    system: str
    lsn: str | None = None
    view: SnapshotView | None = None
    ended: bool = False


class PostgresChangesReader:
    """A `StreamReader` of the changes of one table."""

    def __init__(
        self,
        table: ChangesTable,
        fields: Mapping[str, FlinkType],
        metadata: Mapping[str, MetadataColumn],
        policy: HostPolicy,
        share: Share = WHOLE,
    ) -> None:
        self._table = table
        self._fields = dict(fields)
        self._metadata = dict(metadata)
        self._policy = policy
        self._name = unit_id_of(table.schema, table.table)
        self._mine = share.has(self._name, 0)
        self._sessions = Sessions(
            EndpointSpec(
                TenantId("stream"), EndpointId(table.name), table.name, "POSTGRESQL",
                table.config.to_dict(),
                {} if table.password is None else {"password": table.password}, policy,
            )
        )  # fmt: skip
        self._system = ""
        self._relation: Relation | None = None
        self._columns = Columns({})
        self._snapshot: TableSnapshot | None = None
        self._batches: Iterator[pa.RecordBatch] | None = None
        self._ahead: list[bytes] = []  # messages that are not for the batch at hand any more
        self._early: list[Polled] = []  # rows from before the table changed
        self._begun = False
        self._stream: ChangeStream | None = None
        self._transactions: Transactions | None = None
        self._ended = False
        self._at_end = False
        self._looked_s = 0.0
        self._lag_bytes: int | None = None

    # --- the seam ----------------------------------------------------------------------------

    def open(self, positions: Mapping[str, JsonValue] | None) -> None:
        """Check what must be so, and begin with the snapshot or behind the position."""
        if not self._mine:
            return
        found = (positions or {}).get(self._name)
        place = Place.from_json(found) if isinstance(found, dict) else None
        with self._sessions.lease(f"table {self._table.name}") as session:
            check_server(session)
            self._relation = relation = relation_of(session, self._name)
            check_table(session, relation)
            self._columns = self._declared(
                {column.name: column.native_type for column in relation.columns}
            )
            self._check_system(session, place)
            if place is not None and place.ended:
                self._ended = True
                return
            start = self._start(session, relation, place)
        if start is not None:
            self._follow(start, None if place is None else place.view)
        if self._is_new(place) and self._table.startup in (INITIAL, SNAPSHOT):
            self._take_snapshot(relation)
        self._looked_s = time.monotonic()

    def partitions(self) -> Collection[str]:
        """The table."""
        return (self._name,) if self._mine else ()

    def poll(self, max_rows: int, timeout_s: float) -> Sequence[Polled]:
        """Rows of the snapshot, or what transactions did."""
        if self._ended or not self._mine:
            return ()
        if self._batches is not None:
            return self._poll_snapshot()
        assert self._stream is not None  # noqa: S101 - opened
        assert self._transactions is not None  # noqa: S101 - opened
        self._look()
        self._receive(self._stream, self._transactions, max_rows, timeout_s)
        found, self._early = [*self._early, *self._drained(self._transactions)], []
        return found

    def positions(self) -> dict[str, JsonValue]:
        """Behind the last whole transaction."""
        if not self._mine:
            return {}
        place = Place(system=self._system, ended=self._ended)
        if self._transactions is not None and self._batches is None:
            update = {
                "lsn": lsn_text(self._transactions.position),
                "view": self._transactions.view,
            }
            place = place.model_copy(update=update)
        return {self._name: place.to_dict()}

    def holds(self) -> bool:
        """Whether a snapshot or transaction is under way."""
        if self._batches is not None:
            return self._begun
        return self._transactions is not None and self._transactions.inside

    def lag_bytes(self) -> int | None:
        """How much of its log the server keeps for the slot."""
        return self._lag_bytes

    def caught_up(self) -> Collection[str]:
        """The table, when nothing more has come."""
        return (self._name,) if self._at_end else ()

    def finished(self) -> Collection[str]:
        """The table, when only its snapshot was asked for."""
        return (self._name,) if self._ended else ()

    def acknowledge(self, positions: Mapping[str, JsonValue]) -> None:
        """Tell the server that it need not keep what is before the position."""
        found = positions.get(self._name)
        if self._stream is None or not isinstance(found, dict):
            return
        place = Place.from_json(found)
        if place.lsn is not None:
            try:
                self._stream.confirm(lsn_of(place.lsn))
            except SourceError as error:
                log.warning("position_not_confirmed", slot=self._table.slot, detail=error.message)

    def close(self) -> None:
        """Leave; the slot stays."""
        if self._snapshot is not None:
            self._snapshot.close()
            self._snapshot = None
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        self._sessions.close()

    # --- beginning ---------------------------------------------------------------------------

    def _is_new(self, place: Place | None) -> bool:
        return place is None or place.lsn is None

    def _check_system(self, session: Session, place: Place | None) -> None:
        (system,) = session.row("SELECT system_identifier::text FROM pg_control_system()")
        self._system = system
        if place is not None and place.system != system:
            raise ChangesLostError(
                f"table {self._table.name}: the checkpoint is of another database cluster; "
                "positions mean nothing in this one. Start the job anew"
            )

    def _start(self, session: Session, relation: Relation, place: Place | None) -> int | None:
        """Where the stream begins; None if there is none."""
        table = self._table
        if table.startup == SNAPSHOT:
            return None
        if place is not None and place.lsn is not None:
            position = lsn_of(place.lsn)
            slot_of_position(session, table.slot, position)
            self._check_published(session, relation)
            return position
        ensure_publication(session, table.publication, relation, list(self._fields))
        slot = ensure_slot(session, table.slot)
        if table.startup == COMMITTED:
            return slot.confirmed
        # not what the slot holds from before: the snapshot shows that, and the publication may
        # be younger
        (now,) = session.row("SELECT pg_current_wal_insert_lsn()::text")
        return max(slot.confirmed, lsn_of(now))

    def _follow(self, start: int, view: SnapshotView | None) -> None:
        table = self._table
        assert self._relation is not None  # noqa: S101 - opened
        self._transactions = Transactions(
            self._relation.oid,
            (table.schema, table.table),
            list(self._fields),
            self._check_relation,
            start,
            view,
        )
        self._stream = ChangeStream(
            table.config, table.password, self._policy,
            slot=table.slot, publication=table.publication, position=start,
        )  # fmt: skip

    def _take_snapshot(self, relation: Relation) -> None:
        self._snapshot = TableSnapshot(
            self._sessions.open, relation, list(self._fields), self._table.snapshot_parallelism
        )
        self._batches = self._snapshot.batches(self._columns.decoder)
        if self._transactions is not None:
            self._transactions.view = self._snapshot.view

    def _declared(self, natives: Mapping[str, str]) -> Columns:
        """How the declared columns arrive, the table's columns having these types."""
        return Columns(
            {
                name: arrival_of(name, _native(natives, name, self._name), kind, self._name)
                for name, kind in self._fields.items()
            }
        )

    # --- going on ----------------------------------------------------------------------------

    def _poll_snapshot(self) -> Sequence[Polled]:
        assert self._batches is not None  # noqa: S101 - `poll` has looked
        batch = next(self._batches, None)
        if batch is not None:
            self._begun = True
            return self._polled(self._columns.finished(batch), None, None)
        self._batches = None
        if self._snapshot is not None:
            self._snapshot.close()
            self._snapshot = None
        self._ended = self._stream is None
        return ()

    def _receive(
        self, stream: ChangeStream, into: Transactions, max_rows: int, timeout_s: float
    ) -> None:
        """Read until enough has come, nothing more has, or the time is over; to the end of the
        transaction, unless it is much larger."""
        deadline = time.monotonic() + timeout_s
        enough, self._at_end = False, False
        while into.rows < max_rows * LARGEST and into.size < BATCH_BYTES * LARGEST:
            messages = self._ahead or stream.read_many(STRIDE)
            self._ahead = messages[into.take_all(messages, to_end=enough) :]
            if messages:
                filled = into.rows >= max_rows or into.size >= BATCH_BYTES
                enough = filled or time.monotonic() >= deadline
                if enough and not into.inside:
                    return
                continue
            into.reach(stream.told)
            left_s = deadline - time.monotonic()
            self._at_end = not into.inside
            if left_s <= 0 or (into.rows and self._at_end):
                return
            stream.wait(left_s)

    def _drained(self, transactions: Transactions) -> Sequence[Polled]:
        if not transactions.rows:
            return ()
        batch, kinds, begins = transactions.drain(self._columns.decoder)
        return self._polled(self._columns.finished(batch), kinds, begins)

    def _polled(
        self, batch: pa.RecordBatch, kinds: pa.Array | None, begins: list[Begin] | None
    ) -> Sequence[Polled]:
        if kinds is not None and self._table.upsert:
            chosen = [number for number, kind in enumerate(kinds.to_pylist()) if kind != BEFORE]
            places = pa.array(chosen, pa.int64())
            batch, kinds = batch.take(places), kinds.take(places)
            begins = None if begins is None else [begins[number] for number in chosen]
        if self._metadata:
            columns = metadata_columns(self._metadata, self._table, batch.num_rows, kinds, begins)
            names = [*batch.schema.names, *columns]
            batch = pa.record_batch([*batch.columns, *columns.values()], names=names)
        return [Polled(self._name, batch, None if self._table.append_only else kinds)]

    def _check_relation(self, told: RelationMessage) -> None:
        """The table as the stream goes on to tell it still fits the declaration."""
        with self._sessions.lease(f"table {self._table.name}") as session:
            found = native_types(session, told.columns)
        names = [column.name for column in told.columns]
        natives = {name: native for name, native in zip(names, found, strict=True) if native}
        columns = self._declared(natives)
        assert self._transactions is not None  # noqa: S101 - who asks
        self._early += self._drained(self._transactions)  # what came before has the old types
        self._columns = columns

    def _look(self) -> None:
        """Every while: how much the server keeps, and whether the table is still published."""
        if time.monotonic() - self._looked_s < LOOK_S:
            return
        self._looked_s = time.monotonic()
        table = self._table
        with self._sessions.lease(f"table {table.name}") as session:
            slot = find_slot(session, table.slot)
            assert self._relation is not None  # noqa: S101 - opened
            self._check_published(session, self._relation)
        if slot is None:
            return  # its stream will tell
        check_kept(slot)
        self._lag_bytes = slot.lag_bytes
        if table.max_lag_bytes is not None and slot.lag_bytes > table.max_lag_bytes:
            raise SlotLagError(
                f"the server keeps {slot.lag_bytes} bytes of its log for slot {table.slot}, more "
                f"than 'slot.max-lag' of table {table.name}. It goes on keeping them: let the job "
                "catch up with a larger limit, or give it up and run "
                f"SELECT pg_drop_replication_slot('{table.slot}')",
                slot=table.slot,
                lag_bytes=slot.lag_bytes,
            )

    def _check_published(self, session: Session, relation: Relation) -> None:
        if not is_published(session, self._table.publication, relation):
            raise SourceChangedError(
                f"{self._name} is no longer in publication {self._table.publication}, or was made "
                "again: changes since then are in no stream. Start the job anew",
                table=self._name,
            )


def _native(natives: Mapping[str, str], column: str, table: str) -> str:
    found = natives.get(column)
    if found is None:
        raise SourceChangedError(
            f"{table} has no column {column!r} at this place of its history; it has "
            f"{', '.join(sorted(natives))}",
            column=column,
        )
    return found
