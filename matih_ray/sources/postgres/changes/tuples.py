"""Rows of many messages at once: where each value is in their bytes, then columns of texts.

A step looks at one column of all messages, so that nothing is made for a value on its own: numbers
of places by numpy, then one copy of the bytes by Arrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from matih_ray.errors import SourceError, UnrepresentableValueError
from matih_ray.sources.postgres.changes.messages import DELETE, INSERT, UPDATE

# What happened to a row: inserted, updated (before and after), deleted.
ADDED, BEFORE, AFTER, REMOVED = range(4)

# Before a tuple: the new row, the whole old row, the old row's key. Before a value: what it is.
_NEW, _OLD, _KEY = ord("N"), ord("O"), ord("K")
_NULL, _UNCHANGED, _TEXT = ord("n"), ord("u"), ord("t")
_MARK, _TUPLE = 5, 6  # behind the message's kind and its table

Numbers = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Layout:
    """How rows of a table are sent, and which of their values are wanted."""

    table: str
    width: int
    places: tuple[int, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Rows:
    """Rows in order: what happened to each (int8), the number of its message, and the wanted
    columns as texts (binary)."""

    kinds: pa.Array
    messages: Numbers
    columns: tuple[pa.Array, ...]


@dataclass(frozen=True)
class _Values:
    """One column of some tuples: what each value is, where it begins and ends."""

    kinds: Bytes
    starts: Numbers
    ends: Numbers


def rows_of(messages: Sequence[bytes], layout: Layout) -> Rows:
    """The rows of `I`, `U` and `D` messages of one table. A large value that an update left alone
    and that was not sent is taken from the old row.

    Raises:
        UnrepresentableValueError: There is no old row to take it from.
        SourceError: A message has another form, as a later protocol might.
    """
    data = np.frombuffer(b"".join(messages), np.uint8)
    ends = np.cumsum(np.fromiter(map(len, messages), np.int64, len(messages)))
    starts = np.concatenate(([0], ends[:-1]))
    what, mark = data[starts], data[starts + _MARK]
    has_old, has_new = mark != _NEW, what != DELETE
    if (has_old & ((what == INSERT) | ~np.isin(mark, (_OLD, _KEY)))).any():
        raise SourceError(f"the server sent a change of {layout.table} that has another form")
    olds, news = np.flatnonzero(has_old), np.flatnonzero(has_new)
    old, old_ends = _split(data, starts[olds] + _TUPLE, layout)
    reached = np.zeros(len(messages), np.int64)
    reached[olds] = old_ends
    begins = np.where(has_old, reached + 1, starts + _TUPLE)  # behind the mark of the new row
    new, reached[news] = _split(data, begins[news], layout)
    if (reached != ends).any():
        raise SourceError(f"the server sent a change of {layout.table} that has another form")
    rows = has_old.astype(np.int64) + has_new
    old_at = (np.cumsum(rows) - rows)[olds]
    new_at = (np.cumsum(rows) - 1)[news]
    kinds = np.empty(int(rows.sum()), np.int8)
    kinds[old_at] = np.where((what == UPDATE) & (mark == _OLD), BEFORE, REMOVED)[olds]
    kinds[new_at] = np.where(what == UPDATE, AFTER, ADDED)[news]
    # of each new row the place of its whole old row, -1 where there is none
    whole = np.full(len(messages), -1, np.int64)
    whole[olds] = old_at
    whole = np.where(mark == _OLD, whole, -1)[news]
    order = _Order(len(kinds), old_at, new_at, whole)
    columns = tuple(
        _column(data, name, order, one, other, layout)
        for name, one, other in zip(layout.names, old, new, strict=True)
    )
    return Rows(pa.array(kinds), np.repeat(np.arange(len(messages)), rows), columns)


@dataclass(frozen=True)
class _Order:
    """Where old and new rows come among all rows; `whole` of each new row is the place of the old
    row that values can be taken from, or -1."""

    count: int
    olds: Numbers
    news: Numbers
    whole: Numbers


def _split(data: Bytes, at: Numbers, layout: Layout) -> tuple[list[_Values], Numbers]:
    """The wanted columns of the tuples that begin at these places, and where the tuples end."""
    if not len(at):
        nothing = _Values(np.empty(0, np.uint8), at, at)
        return [nothing] * len(layout.places), at
    if (_number(data, at, 2) != layout.width).any():
        raise SourceError(
            f"the server sent a row of {layout.table} with too many or too few values"
        )
    found: dict[int, _Values] = {}
    wanted, at = frozenset(layout.places), at + 2
    for place in range(layout.width):
        kinds = data.take(at, mode="clip")
        is_text = kinds == _TEXT
        if is_text.all():
            starts = at + 5
            ends = starts + _number(data, at + 1, 4)
        else:
            if not np.isin(kinds, (_TEXT, _NULL, _UNCHANGED)).all():
                raise SourceError(f"the server sent a value of {layout.table} in another form")
            starts = at + np.where(is_text, 5, 1)
            ends = starts + np.where(is_text, _number(data, at + 1, 4), 0)
        if place in wanted:
            found[place] = _Values(kinds, starts, ends)
        at = ends
    return [found[place] for place in layout.places], at


def _number(data: Bytes, at: Numbers, size: int) -> Numbers:
    """Unsigned numbers of so many bytes, the highest first."""
    found = np.zeros(len(at), np.int64)
    for place in range(size):
        found = (found << 8) | data.take(at + place, mode="clip")
    return found


def _column(
    data: Bytes, name: str, order: _Order, old: _Values, new: _Values, layout: Layout
) -> pa.Array:
    """One column of all rows. Values and what is between them are one Arrow array over the bytes of
    the messages, of which the values are taken."""
    bounds = np.empty(2 * order.count, np.int32)
    bounds[2 * order.olds], bounds[2 * order.olds + 1] = old.starts, old.ends
    bounds[2 * order.news], bounds[2 * order.news + 1] = new.starts, new.ends
    chosen = np.arange(0, 2 * order.count, 2)
    null = np.empty(order.count, np.bool_)
    null[order.olds], null[order.news] = old.kinds != _TEXT, new.kinds == _NULL
    unsent = new.kinds == _UNCHANGED
    if unsent.any():
        sources = order.whole[unsent]
        if (sources < 0).any():
            raise _not_sent(layout.table, name)
        chosen[order.news[unsent]] = 2 * sources
        null[order.news[unsent]] = null[sources]
    pieces = pa.Array.from_buffers(
        pa.binary(), max(0, 2 * order.count - 1), [None, pa.py_buffer(bounds), pa.py_buffer(data)]
    )
    return pieces.take(pa.array(chosen, mask=null))


def _not_sent(table: str, column: str) -> UnrepresentableValueError:
    return UnrepresentableValueError(
        f"an update of {table} left the large value of column {column!r} as it was, and the server "
        f"does not send such; run ALTER TABLE {table} REPLICA IDENTITY FULL, or leave the column "
        "out",
        column=column,
    )
