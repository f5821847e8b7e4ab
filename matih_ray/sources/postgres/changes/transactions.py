"""Messages into rows: lines of COPY's text, the kind of each row, and where the stream stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import pyarrow as pa

from matih_ray.errors import SourceChangedError, SourceError, UnrepresentableValueError
from matih_ray.sources.postgres.changes.messages import (
    BEGIN,
    COMMIT,
    DELETE,
    INSERT,
    RELATION,
    TRUNCATE,
    UNCHANGED,
    UPDATE,
    Begin,
    Change,
    RelationMessage,
    Tuple,
    begin_of,
    change_of,
    end_of_commit,
    inserted,
    relation_of_message,
    relation_oid,
    truncated,
)
from matih_ray.sources.postgres.changes.visibility import SnapshotView
from matih_ray.sources.postgres.decoding import BlockDecoder
from matih_ray.sources.postgres.names import unit_id_of

# What happened to a row: inserted, updated (before and after), deleted.
ADDED, BEFORE, AFTER, REMOVED = range(4)

_ESCAPED = ((b"\\", b"\\\\"), (b"\n", b"\\n"), (b"\t", b"\\t"), (b"\r", b"\\r"))
_NULL = b"\\N"


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
        self._places: tuple[int, ...] | None = None
        self._width = 0
        self._begin: Begin | None = None
        self._skipped = False
        self.position = position
        self.view = view
        self.size = 0  # bytes that are kept
        self._lines: list[bytes] = []
        self._kinds = bytearray()
        self._origins: list[Begin] = []

    @property
    def inside(self) -> bool:
        """Whether a transaction is under way."""
        return self._begin is not None

    @property
    def rows(self) -> int:
        """Rows that are kept."""
        return len(self._lines)

    def take(self, data: bytes) -> None:
        """One message.

        Raises:
            SourceChangedError: The table was renamed or truncated, or `check` refuses it.
            UnrepresentableValueError: A value that is needed was not sent.
        """
        kind = data[0]
        if kind in (INSERT, UPDATE, DELETE):
            if self._skipped or relation_oid(data) != self._oid:
                return
            if kind == INSERT:
                self._keep(self._chosen(inserted(data), None), ADDED)
            else:
                self._changed(change_of(data))
        elif kind == BEGIN:
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
            UnrepresentableValueError: A value has no exact form.
        """
        batch = decoder.decode(b"".join(self._lines))
        kinds = pa.array(memoryview(self._kinds), pa.int8())
        origins = self._origins
        self._lines, self._kinds, self._origins, self.size = [], bytearray(), [], 0
        return batch, kinds, origins

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
        self._check(told)
        place = {column.name: number for number, column in enumerate(told.columns)}
        self._places = tuple(place[name] for name in self._wanted)
        self._width = len(told.columns)

    def _changed(self, change: Change) -> None:
        if change.kind == DELETE:
            assert change.old is not None  # noqa: S101 - the protocol says so
            self._keep(self._chosen(change.old, None), REMOVED)
            return
        assert change.new is not None  # noqa: S101 - as above
        whole = change.old if change.whole else None
        if whole is not None:
            self._keep(self._chosen(whole, None), BEFORE)
        elif change.old is not None:  # the key itself has changed: the row of the old one is gone
            self._keep(self._chosen(change.old, None), REMOVED)
        self._keep(self._chosen(change.new, whole), AFTER)

    def _chosen(self, fields: Tuple, old: Tuple | None) -> list[bytes | None]:
        """The values of the wanted columns; those that were not sent are taken from the old row."""
        if len(fields) != self._width or self._places is None:
            raise SourceError(f"the server sent a row of {self._table} with {len(fields)} values")
        chosen = [fields[place] for place in self._places]
        if UNCHANGED in chosen:
            for number, place in enumerate(self._places):
                if chosen[number] is UNCHANGED and old is not None:
                    chosen[number] = old[place]
                if chosen[number] is UNCHANGED:
                    raise self._not_sent(place)
        return cast("list[bytes | None]", chosen)

    def _not_sent(self, place: int) -> UnrepresentableValueError:
        assert self._places is not None  # noqa: S101 - as above
        column = self._wanted[self._places.index(place)]
        return UnrepresentableValueError(
            f"an update of {self._table} left the large value of column {column!r} as it was, and "
            f"the server does not send such; run ALTER TABLE {self._table} REPLICA IDENTITY FULL, "
            "or leave the column out",
            column=column,
        )

    def _keep(self, values: list[bytes | None], kind: int) -> None:
        assert self._begin is not None  # noqa: S101 - as above
        line = copy_line(values)
        self._lines.append(line)
        self._kinds.append(kind)
        self._origins.append(self._begin)
        self.size += len(line)


def copy_line(values: Sequence[bytes | None]) -> bytes:
    """A row as a line of COPY's text format."""
    line = b"\t".join([_NULL if value is None else value for value in values])
    if (
        line.count(b"\\") == values.count(None)  # those of NULLs
        and line.count(b"\t") < max(1, len(values))
        and b"\n" not in line
        and b"\r" not in line
    ):
        return line + b"\n"
    return b"\t".join([_NULL if value is None else _escaped(value) for value in values]) + b"\n"


def _escaped(value: bytes) -> bytes:
    for character, escape in _ESCAPED:
        if character in value:
            value = value.replace(character, escape)
    return value
