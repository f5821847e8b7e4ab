"""What a row of the log has beside the table's own columns.

- `_change`: `snapshot` (it was there when the first run began), `insert`, `update` or `delete`. An
  update that changes the key, or of a row without one, is a `delete` and an `insert`.
- `_source_version`: a text that grows with every change: where its transaction committed, 16
  hexadecimal digits, and the number of the change within it, 10 digits. Compared as text.
- `_deleted`: the row is gone. Of a deleted row only the columns of the table's replica identity are
  known, the others are NULL; all are known with `REPLICA IDENTITY FULL`.
- `_committed_at`: when the transaction committed; NULL for `snapshot`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from matih_ray.errors import ValidationError
from matih_ray.sources.postgres.changes.messages import Begin
from matih_ray.sources.postgres.changes.transactions import ADDED, AFTER, BEFORE, REMOVED

CHANGE, VERSION, DELETED, COMMITTED = "_change", "_source_version", "_deleted", "_committed_at"
SNAPSHOT = "snapshot"
_TIME = pa.timestamp("us", tz="UTC")
FIELDS = (
    pa.field(CHANGE, pa.string()),
    pa.field(VERSION, pa.string()),
    pa.field(DELETED, pa.bool_()),
    pa.field(COMMITTED, _TIME),
)
_NAMES = {ADDED: "insert", AFTER: "update", REMOVED: "delete"}


def with_fields(schema: pa.Schema) -> pa.Schema:
    """The schema of rows that have these columns.

    Raises:
        ValidationError: The table has a column of such a name.
    """
    for field in FIELDS:
        if field.name in schema.names:
            raise ValidationError(
                f"runMode=cdc adds a column {field.name!r}, and the table has one; leave it out "
                "with columns",
                field="policy.columns",
                column=field.name,
            )
    return pa.schema([*schema, *FIELDS])


def snapshot_rows(batch: pa.RecordBatch, lsn: int) -> pa.RecordBatch:
    """Rows that were there, older than any change of the log from `lsn` on."""
    count = batch.num_rows
    return _extended(
        batch,
        pa.repeat(SNAPSHOT, count),
        pa.repeat(version(lsn, 0), count),
        pa.repeat(False, count),  # noqa: FBT003 - not our signature
        pa.nulls(count, _TIME),
    )


def version(lsn: int, number: int) -> str:
    """See above; changes are numbered from 1."""
    return f"{lsn:016X}.{number:010X}"


class Numbering:
    """Numbers the changes of each transaction, whose rows may come in several batches."""

    def __init__(self) -> None:
        self._lsn, self._number, self._prefix = -1, 0, ""

    def versions(self, begins: Sequence[Begin]) -> list[str]:
        """The version of each change, which follow those of the last call."""
        found = []
        for begin in begins:
            if begin.final_lsn != self._lsn:
                self._lsn, self._number = begin.final_lsn, 0
            self._number += 1
            found.append(version(self._lsn, self._number))
        return found


def changed_rows(
    batch: pa.RecordBatch,
    kinds: pa.Array,
    begins: Sequence[Begin],
    pairs: Sequence[int],
    key: Sequence[str],
    numbering: Numbering,
) -> pa.RecordBatch:
    """Rows of the log.

    Args:
        batch: The table's columns.
        kinds: What happened, as `transactions` has it.
        begins: The transaction of each row.
        pairs: Where the old row of an update is, behind which the new one comes.
        key: What tells rows apart; empty if nothing does.
        numbering: Goes on for the whole slice.
    """
    told = kinds.to_numpy(zero_copy_only=False).copy()
    old = np.asarray(pairs, dtype=np.int64)
    moved = old[(told[old] == REMOVED) | _differ(batch, old, key)]
    told[moved], told[moved + 1] = REMOVED, ADDED
    kept = pa.array(np.flatnonzero(told != BEFORE))
    names = np.array([_NAMES.get(kind, "") for kind in range(4)], dtype=object)
    whole = _extended(
        batch,
        pa.array(names[told], pa.string()),
        pa.array(numbering.versions(begins), pa.string()),
        pa.array(told == REMOVED),
        pa.array([begin.committed_at for begin in begins], _TIME),
    )
    return whole if len(kept) == whole.num_rows else whole.take(kept)


def _differ(batch: pa.RecordBatch, old: np.ndarray, key: Sequence[str]) -> np.ndarray:
    """Whether the key of the row behind is another one."""
    if not key:
        return np.ones(len(old), np.bool_)
    differ = np.zeros(len(old), np.bool_)
    before, after = batch.select(key).take(pa.array(old)), batch.select(key).take(pa.array(old + 1))
    for mine, theirs in zip(before.columns, after.columns, strict=True):
        same = pc.fill_null(pc.equal(mine, theirs), False)  # noqa: FBT003 - not our signature
        differ |= ~same.to_numpy(zero_copy_only=False)
    return differ


def _extended(batch: pa.RecordBatch, *columns: pa.Array) -> pa.RecordBatch:
    schema = pa.schema([*batch.schema, *FIELDS])
    return pa.RecordBatch.from_arrays([*batch.columns, *columns], schema=schema)
