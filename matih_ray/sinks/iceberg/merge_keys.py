"""Keys of a merge: which version of each key wins, and which rows of the table it meets.

Keys become numbers column by column (`KeyIndex`), exactly and for every type that can be a key, so
that keys of one column and of many go the same way. Why not Arrow's hash join: it builds its table
for each piece of the rows that it meets and returns joined rows, where a merge wants positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from matih_ray.errors import NullKeyError, ValidationError
from matih_ray.model.policy import MergeRule

# Integers whose range is at most this many times their number are looked up in a plain table of
# four bytes for each value of the range; 2 M keys then take at most 128 MB.
SPREAD = 16

Numbers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def check_rule(rule: MergeRule, schema: pa.Schema) -> None:
    """Refuse columns that cannot do what the rule wants of them; `schema` is the source's.

    Raises:
        ValidationError: Context names the field of the policy.
    """
    types = pa.types
    if rule.delete is not None and rule.delete in (*rule.key, rule.order):
        raise ValidationError(
            f"deleteColumn: {rule.delete!r} is a key or the order column; name another one",
            field="deleteColumn",
        )
    if rule.order is not None and rule.order in rule.key:
        raise ValidationError(
            f"orderColumn: {rule.order!r} is a key, so it is the same in all versions of a row",
            field="orderColumn",
        )
    named = [("keyColumns", name) for name in rule.key]
    named += [("orderColumn", rule.order)] if rule.order is not None else []
    named += [("deleteColumn", rule.delete)] if rule.delete is not None else []
    for field, name in named:
        if name not in schema.names:
            raise ValidationError(f"{field}: there is no column {name!r}", field=field)
        kind = schema.field(name).type
        if types.is_nested(kind) or types.is_floating(kind):
            raise ValidationError(
                f"{field}: column {name!r} is {kind}, whose values cannot be told apart exactly",
                field=field,
            )
        tells = types.is_boolean(kind) or types.is_integer(kind) or types.is_temporal(kind)
        if field == "deleteColumn" and not tells:
            raise ValidationError(
                f"deleteColumn: column {name!r} is {kind}; a boolean, a number or a time tells "
                "whether a row is deleted",
                field=field,
            )


def refuse_nulls(rule: MergeRule, batch: pa.RecordBatch, where: str) -> None:
    """Raise `NullKeyError` if a row has no key."""
    for name in rule.key:
        nulls = batch.column(batch.schema.get_field_index(name)).null_count
        if nulls:
            raise NullKeyError(
                f"{where}: {nulls} rows have NULL in key column {name!r}, so a merge cannot tell "
                "which rows they are; leave them out with a filter, or merge by other columns",
                column=name,
                rows=nulls,
            )


class _Values:
    """Numbers the distinct values of a column from 0, by a hash table."""

    def __init__(self, column: pa.Array) -> None:
        encoded = column.dictionary_encode()
        self._values = encoded.dictionary
        self.numbers: Numbers = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        self.count = len(self._values)

    def find(self, column: pa.ChunkedArray) -> Numbers:
        """The number of each value, -1 for others."""
        return _positions(column, self._values)


class _Integers:
    """The same for integers that lie close together, as most keys do, by a plain table."""

    def __init__(self, column: pa.Array, low: int, span: int) -> None:
        self._low, self._span = low, span
        places = column.cast(pa.int64()).to_numpy(zero_copy_only=False) - low
        taken = np.zeros(span, np.bool_)
        taken[places] = True
        self._numbers = np.cumsum(taken, dtype=np.int32) - 1
        self.count = int(self._numbers[-1]) + 1
        self.numbers: Numbers = self._numbers[places].astype(np.int64)
        self._numbers[~taken] = -1

    def find(self, column: pa.ChunkedArray) -> Numbers:
        """The number of each value, -1 for others."""
        values = pc.fill_null(column.cast(pa.int64()), self._low).to_numpy()
        near = (values >= self._low) & (values < self._low + self._span)
        if column.null_count:
            near &= column.is_valid().to_numpy()
        found: Numbers = np.full(len(values), -1, np.int64)
        found[near] = self._numbers[values[near] - self._low]
        return found


def _numbered(column: pa.Array) -> _Values | _Integers:
    if pa.types.is_integer(column.type) and len(column):
        ends = pc.min_max(column)
        low, high = ends["min"].as_py(), ends["max"].as_py()
        if high - low < SPREAD * len(column):
            return _Integers(column, low, high - low + 1)
    return _Values(column)


class KeyIndex:
    """Numbers the distinct keys of a table from 0; `codes` has the number of each of its rows."""

    def __init__(self, keys: pa.Table) -> None:
        self._columns = [_numbered(_whole(column)) for column in keys.columns]
        self._pairs: list[pa.Array] = []
        self.codes, self.count = self._columns[0].numbers, self._columns[0].count
        for column in self._columns[1:]:
            # dense again after each column, so that the product stays below rows squared
            pairs, self.codes = np.unique(
                self.codes * column.count + column.numbers, return_inverse=True
            )
            self._pairs.append(pa.array(pairs))
            self.count = len(pairs)

    def find(self, keys: pa.Table) -> Numbers:
        """The number of each row's key, -1 where it is not in the index."""
        found = self._columns[0].find(keys.column(0))
        for position, pairs in enumerate(self._pairs, 1):
            column = self._columns[position]
            numbers = column.find(keys.column(position))
            known = (found >= 0) & (numbers >= 0)
            both = np.where(known, found * column.count + numbers, -1)
            found = _positions(pa.chunked_array([both]), pairs)
        return found


@dataclass(frozen=True)
class Found:
    """What a merge does with rows of the table: which of them give way; and positions of those that
    are newer, with the positions of the incoming rows that are too late for them."""

    replaced: Mask
    newer: Numbers
    late: Numbers


class Incoming:
    """The rows of a batch to merge, in the order of their arrival, as far as a rule looks at them:
    key columns first, then the order and the delete column. Those of `gone` only remove keys."""

    def __init__(self, rule: MergeRule, rows: pa.Table, gone: Mask | None = None) -> None:
        keys = rows.select(range(len(rule.key)))
        self._order = _whole(rows.column(len(rule.key))) if rule.order is not None else None
        self._index = KeyIndex(keys)
        self._winners = _newest(self._index, self._order)
        self._deleted = (
            _is_deleted(_whole(rows.column(rows.num_columns - 1)))
            if rule.delete is not None
            else None
        )
        if gone is not None and gone.any():
            self._deleted = gone if self._deleted is None else self._deleted | gone
        self._width = len(rule.key)

    def losers(self) -> Mask:
        """Rows that nobody shall see: of a key that has a newer version here, or deletions."""
        lost: Mask = np.ones(len(self._index.codes), np.bool_)
        lost[self._winners] = False
        if self._deleted is not None:
            lost |= self._deleted
        return lost

    def meet(self, held: pa.Table) -> Found:
        """Compare rows of the table, in the same columns, with the newest version of each key."""
        codes = self._index.find(held.select(range(self._width)))
        hit = codes >= 0
        if self._order is None or not hit.any():
            return Found(hit, np.empty(0, np.int64), np.empty(0, np.int64))
        positions = self._winners[codes[hit]]
        mine = _whole(held.column(self._width)).filter(pa.array(hit))
        theirs = self._order.take(pa.array(positions))
        newer = pc.fill_null(pc.greater(mine, theirs), False)  # noqa: FBT003 - not our signature
        newer = pc.or_(newer, pc.and_(theirs.is_null(), mine.is_valid()))
        stays = newer.to_numpy(zero_copy_only=False)
        replaced = hit.copy()
        replaced[hit] = ~stays
        return Found(replaced, np.flatnonzero(hit)[stays], positions[stays])


def _newest(index: KeyIndex, order: pa.Array | None) -> Numbers:
    """The position of the version that wins, for each key."""
    arrival = np.arange(len(index.codes))
    if order is not None and index.count < len(index.codes):
        ranks = pc.rank(order, tiebreaker="dense").to_numpy(zero_copy_only=False).copy()
        ranks[order.is_null().to_numpy(zero_copy_only=False)] = 0  # the others start at 1
        arrival = np.argsort(ranks, kind="stable")
    winners = np.empty(index.count, np.int64)
    winners[index.codes[arrival]] = arrival  # of several the last is kept
    return winners


def _is_deleted(column: pa.Array) -> Mask:
    if pa.types.is_boolean(column.type):
        told = pc.fill_null(column, False)  # noqa: FBT003 - not our signature
    elif pa.types.is_integer(column.type):
        told = pc.not_equal(pc.fill_null(column, 0), 0)
    else:
        told = column.is_valid()
    deleted: Mask = told.to_numpy(zero_copy_only=False)
    return deleted


def _positions(column: pa.ChunkedArray, values: pa.Array) -> Numbers:
    found = pc.fill_null(pc.index_in(column, value_set=values), -1)
    numbers: Numbers = found.to_numpy().astype(np.int64)
    return numbers


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """One array. An empty chunked array becomes an empty array."""
    combined = column.combine_chunks()
    return combined if isinstance(combined, pa.Array) else pa.concat_arrays(combined.chunks)
