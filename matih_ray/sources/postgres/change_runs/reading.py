"""Reading one slice of the log."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa

from matih_ray.errors import SourceChangedError, SourceTimeoutError
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.sources.base import TARGET_BATCH_BYTES
from matih_ray.sources.postgres.change_runs.position import LogSlice
from matih_ray.sources.postgres.change_runs.rows import Numbering, changed_rows
from matih_ray.sources.postgres.changes.columns import native_types
from matih_ray.sources.postgres.changes.messages import (
    BEGIN,
    HEAD_BYTES,
    RELATION,
    UPDATE,
    RelationMessage,
    begin_of,
    heads_of,
    lsn_of,
    relation_of_message,
)
from matih_ray.sources.postgres.changes.replication import ChangeStream
from matih_ray.sources.postgres.changes.transactions import Transactions
from matih_ray.sources.postgres.columns import SelectedColumn, arrow_schema
from matih_ray.sources.postgres.decoding import BlockDecoder
from matih_ray.sources.postgres.names import schema_and_table
from matih_ray.sources.postgres.session import Sessions
from matih_ray.sources.postgres.types import mapping_of

# How long nothing may come at all: while the server goes through a large transaction of other
# tables it says nothing.
STALLED_AFTER_S = 600.0
_WAIT_S = 1.0
# Messages that are looked at together.
STRIDE = 4096
# What an update's message goes on with, if the old row was not sent.
_NEW = ord("N")


class LogReader:
    """The changes of one slice, in the order of their commits."""

    def __init__(
        self,
        sessions: Sessions,
        unit: EndpointUnitDescriptor,
        columns: Sequence[SelectedColumn],
        key: Sequence[str],
        params: LogSlice,
    ) -> None:
        """Args:
        sessions: For questions about types.
        unit: The table.
        columns: What is read of it.
        key: What tells its rows apart.
        params: The slice.
        """
        self._sessions = sessions
        self._unit = unit
        self._columns = tuple(columns)
        self._schema = arrow_schema(self._columns)
        self._key = tuple(key)
        self._params = params
        self._upper = lsn_of(params.upper)
        self._begin: bytes | None = None
        self._early: list[pa.RecordBatch] = []  # rows from before the table changed
        self._heads = heads_of(params.table)
        self._pairs: list[int] = []  # of rows that are kept: old ones of updates
        self._count = 0
        self._numbering = Numbering()
        self._transactions = self._following(self._columns, None)
        self._decoder = self._decoding(self._columns)
        self._present = self._columns

    def batches(self, stream: ChangeStream) -> Iterator[pa.RecordBatch]:
        """All rows of the slice, from a stream that begins at its lower end.

        Raises:
            SourceChangedError: The table was truncated, or changed in a way that has no rows.
            UnrepresentableValueError: A value was not sent, or has no exact form.
            SourceError: The connection was lost.
        """
        with self._told_apart():
            for messages in self._messages(stream):
                goes_on = self._take(messages)
                early, self._early = self._early, []
                yield from early
                if not goes_on:
                    break
                if self._transactions.size >= TARGET_BATCH_BYTES:
                    yield self._drained()
            if self._transactions.rows:
                yield self._drained()

    def _take(self, messages: Sequence[bytes]) -> bool:
        """Messages in order; False if the slice's end is among them."""
        rows: list[bytes] = []
        for message in messages:
            if message[:HEAD_BYTES] in self._heads:
                rows.append(message)
                continue
            self._keep(rows)
            rows = []
            if message[0] == BEGIN:
                self._begin = message
                if begin_of(message).final_lsn >= self._upper:
                    return False  # they come in the order of their commits
            elif message[0] == RELATION:
                self._as_of(relation_of_message(message))
            self._transactions.take(message)
        self._keep(rows)
        return True

    def _messages(self, stream: ChangeStream) -> Iterator[Sequence[bytes]]:
        """Messages, until there are none of transactions that committed before the slice's end."""
        heard = time.monotonic()
        while True:
            if messages := stream.read_many(STRIDE):
                yield messages
                heard = time.monotonic()
                continue
            told = self._transactions.position
            self._transactions.reach(stream.told)
            if self._transactions.position >= self._upper and not self._transactions.inside:
                return
            if self._transactions.position > told:
                heard = time.monotonic()
            elif time.monotonic() - heard > STALLED_AFTER_S:
                raise SourceTimeoutError(
                    f"slot {self._params.slot}: nothing has come for {STALLED_AFTER_S:g} s, and "
                    f"the log up to {self._params.upper} is not there yet"
                )
            stream.wait(_WAIT_S)

    def _keep(self, messages: Sequence[bytes]) -> None:
        """Messages about rows of the table, all of one transaction."""
        before = self._transactions.rows
        self._transactions.take_all(messages)
        if self._transactions.rows == before:
            return  # the snapshot has shown them
        for message in messages:
            if message[0] == UPDATE and message[HEAD_BYTES] != _NEW:
                self._pairs.append(self._count)
                self._count += 1
            self._count += 1

    def _as_of(self, told: RelationMessage) -> None:
        """Go on with the columns that the table had at this place: those that were added later
        are NULL."""
        if told.oid != self._params.table:
            return
        names = {column.name for column in told.columns}
        present = tuple(column for column in self._columns if column.name in names)
        if present == self._present:
            return
        if self._transactions.rows:
            self._early.append(self._drained())
        before, self._present = self._transactions, present
        self._transactions = self._following(present, before)
        self._decoder = self._decoding(present)
        if before.inside and self._begin is not None:
            self._transactions.take(self._begin)

    def _drained(self) -> pa.RecordBatch:
        found, kinds, begins = self._transactions.drain(self._decoder)
        pairs, self._pairs, self._count = self._pairs, [], 0
        if self._present != self._columns:
            arrays = [
                found.column(field.name)
                if field.name in found.schema.names
                else pa.nulls(found.num_rows, field.type)
                for field in self._schema
            ]
            found = pa.RecordBatch.from_arrays(arrays, schema=self._schema)
        return changed_rows(found, kinds, begins, pairs, self._key, self._numbering)

    def _following(
        self, columns: Sequence[SelectedColumn], before: Transactions | None
    ) -> Transactions:
        return Transactions(
            self._params.table,
            schema_and_table(self._unit.unit_id),
            [column.name for column in columns],
            self._check,
            lsn_of(self._params.lower) if before is None else before.position,
            self._params.view if before is None else before.view,
        )

    def _decoding(self, columns: tuple[SelectedColumn, ...]) -> BlockDecoder:
        loose = [column.name for column in columns if column.mapping.loose]
        return BlockDecoder(arrow_schema(columns), loose)

    def _check(self, told: RelationMessage) -> None:
        """Values of the types that the table had at this place are values of those it has."""
        with self._sessions.lease(f"reading changes of {self._unit.unit_id}") as session:
            found = native_types(session, told.columns)
        natives = {one.name: native for one, native in zip(told.columns, found, strict=True)}
        for column in self._present:
            native = natives[column.name]
            if native is None or not _fits(native, column):
                raise SourceChangedError(
                    f"column {column.name!r} of {self._unit.unit_id} was {native or 'gone'} at "
                    f"this place of the log and is {column.native_type} now",
                    column=column.name,
                )

    @contextmanager
    def _told_apart(self) -> Iterator[None]:
        """Say what to do about changes that no rows tell of: a run would meet them again."""
        try:
            yield
        except SourceChangedError as error:
            raise SourceChangedError(
                f"{error.message} (of a run: reset the checkpoint of the unit, and the next one "
                "begins with all rows)",
                **error.context,
            ) from None


def _fits(native: str, column: SelectedColumn) -> bool:
    """Whether text of a former type is decoded as the present one without a change."""
    if native == column.native_type:
        return True
    was, is_ = mapping_of(native).arrow, column.mapping.arrow
    if was == is_ or pa.types.is_string(is_):
        return True
    if pa.types.is_integer(was) and pa.types.is_integer(is_):
        return bool(was.bit_width <= is_.bit_width)
    if pa.types.is_decimal(was) and pa.types.is_decimal(is_):
        digits = was.precision - was.scale <= is_.precision - is_.scale
        return bool(digits and was.scale <= is_.scale)
    return False
