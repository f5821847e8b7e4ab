"""Messages into rows: the kind of each, the values that are wanted, and where the stream stands.

A message about a row is only kept when it comes; `tuples` reads all that were kept at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa

from matih_ray.errors import SourceChangedError, SourceError
from matih_ray.sources.postgres.changes.messages import (
    BEGIN,
    COMMIT,
    HEAD_BYTES,
    RELATION,
    TRUNCATE,
    Begin,
    RelationMessage,
    begin_of,
    end_of_commit,
    heads_of,
    relation_of_message,
    truncated,
)
from matih_ray.sources.postgres.changes.tuples import (
    ADDED,
    AFTER,
    BEFORE,
    REMOVED,
    Layout,
    Rows,
    rows_of,
)
from matih_ray.sources.postgres.changes.visibility import SnapshotView
from matih_ray.sources.postgres.decoding import BlockDecoder
from matih_ray.sources.postgres.names import unit_id_of

__all__ = ["ADDED", "AFTER", "BEFORE", "REMOVED", "Transactions"]

# Messages that are read at once: enough that the cost of a call vanishes, and few enough that what
# it makes stays in the processor's cache.
SETTLE_ROWS = 16 * 1024
# With one more, which PostgreSQL holds below 1 GB, places in their bytes still are 32 bits.
SETTLE_BYTES = 64 << 20


class Transactions:
    """Follows the stream of one publication and keeps the rows of one table.

    `wanted` are the columns that are read, in the order of `schema`. `position` is behind the last
    transaction that has ended; `inside` says that one is under way, whose rows must not be made
    final without the rest of it.
    """

    def __init__(
        self,
        oid: int,
        name: tuple[str, str],
        wanted: Sequence[str],
        check: Callable[[RelationMessage], None],
        position: int,
        view: SnapshotView | None = None,
    ) -> None:
        """Args:
        oid: The table.
        name: Its schema and name.
        wanted: Columns to keep.
        check: Is told how the table looks from now on, and raises if it must not.
        position: Where the stream begins.
        view: The snapshot whose transactions are left out.
        """
        self._oid = oid
        self._name = name
        self._wanted = tuple(wanted)
        self._check = check
        self._heads = heads_of(oid)
        self._layout: Layout | None = None
        self._begin: Begin | None = None
        self._skipped = False
        self.position = position
        self.view = view
        self.size = 0  # bytes that are kept
        self._messages: list[bytes] = []
        self._origins: list[Begin] = []
        self._settled_bytes = 0
        self._settled: list[tuple[Rows, list[Begin]]] = []

    @property
    def inside(self) -> bool:
        """Whether a transaction is under way."""
        return self._begin is not None

    @property
    def rows(self) -> int:
        """Changes that are kept; an update may become two rows."""
        return len(self._messages) + sum(len(begins) for _, begins in self._settled)

    def take(self, data: bytes) -> None:
        """One message; see `take_all`."""
        self.take_all((data,))

    def take_all(self, messages: Sequence[bytes], *, to_end: bool = False) -> int:
        """Messages in order; with `to_end` up to the next place where no transaction is under way.
        Returns how many were taken.

        Raises:
            SourceChangedError: The table was renamed or truncated, or `check` refuses it.
            UnrepresentableValueError: A value that is needed was not sent.
        """
        first = 0
        for number, data in enumerate(messages):
            if data[:HEAD_BYTES] in self._heads:
                continue  # rows are kept in one go with those that follow
            self._keep(messages[first:number])
            first = number + 1
            self._control(data)
            if to_end and not self.inside:
                return first
        self._keep(messages[first:])
        return len(messages)

    def reach(self, lsn: int, *, ended: bool = False) -> None:
        """The server has told all before `lsn`, which counts unless a transaction is under way."""
        if ended:
            self._begin, self._skipped = None, False
        if self._begin is None:
            self.position = max(self.position, lsn)
            if self.view is not None and self.position >= self.view.until:
                self.view = None

    def drain(self, decoder: BlockDecoder) -> tuple[pa.RecordBatch, pa.Array, list[Begin]]:
        """The rows that were kept, their kinds (int8) and transactions; they are forgotten.

        Raises:
            UnrepresentableValueError: A value has no exact form, or is needed and was not sent.
        """
        self._settle()
        settled, self._settled, self._settled_bytes, self.size = self._settled, [], 0, 0
        begins = [origins[number] for rows, origins in settled for number in rows.messages.tolist()]
        columns = [
            pa.concat_arrays([rows.columns[place] for rows, _ in settled])
            for place in range(len(self._wanted) if settled else 0)
        ]
        kinds = pa.concat_arrays([rows.kinds for rows, _ in settled] or [pa.array([], pa.int8())])
        return decoder.of_texts(columns, len(kinds)), kinds, begins

    # --- rows --------------------------------------------------------------------------------

    @property
    def _table(self) -> str:
        return unit_id_of(*self._name)

    def _relation(self, told: RelationMessage) -> None:
        name = (told.schema, told.name)
        if told.oid != self._oid and name != self._name:
            return  # another table of the publication
        if told.oid != self._oid or name != self._name:
            how = "dropped and made again" if name == self._name else f"renamed to {told.name}"
            raise SourceChangedError(
                f"{self._table} was {how}; start the job anew, with a slot of its own",
                table=self._table,
            )
        self._settle()  # what came before was sent as the table was then
        self._check(told)
        place = {column.name: number for number, column in enumerate(told.columns)}
        places = tuple(place[name] for name in self._wanted)
        self._layout = Layout(self._table, len(told.columns), places, self._wanted)

    def _control(self, data: bytes) -> None:
        """A message that is not about a row of the table."""
        kind = data[0]
        if kind == BEGIN:
            self._begin = begin_of(data)
            self._skipped = self.view is not None and self.view.shows(
                self._begin.xid, self._begin.final_lsn
            )
        elif kind == COMMIT:
            self.reach(end_of_commit(data), ended=True)
        elif kind == RELATION:
            self._relation(relation_of_message(data))
        elif kind == TRUNCATE and not self._skipped and self._oid in truncated(data):
            raise SourceChangedError(
                f"{self._table} was truncated: its rows went without being deleted one by one, "
                "which a stream of changes cannot say; start the job anew",
                table=self._table,
            )

    def _keep(self, messages: Sequence[bytes]) -> None:
        if self._skipped or not messages:
            return
        assert self._begin is not None  # noqa: S101 - the protocol says so
        self._messages += messages
        self._origins += [self._begin] * len(messages)
        self.size += sum(map(len, messages))
        full = len(self._messages) >= SETTLE_ROWS
        if full or self.size - self._settled_bytes >= SETTLE_BYTES:
            self._settle()

    def _settle(self) -> None:
        """Read the messages that were kept."""
        if not self._messages:
            return
        if self._layout is None:
            raise SourceError(f"the server sent a row of {self._table} and not what it is like")
        messages, origins = self._messages, self._origins
        self._messages, self._origins, self._settled_bytes = [], [], self.size
        self._settled.append((rows_of(messages, self._layout), origins))
