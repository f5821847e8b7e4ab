"""Upserts into Iceberg tables: changes are merged by key, a commit for each checkpoint.

Of several changes of a key within a checkpoint the last one counts. They are settled part by part
while they come, so that a part, and not a checkpoint, has to fit into memory; the merge of the
commit settles parts with each other, by their order, and with the table (`sinks.iceberg`'s
copy-on-write). A key that is gone is a row with the key alone, in a file that only says so.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from matih_ray.errors import MatihError
from matih_ray.model.plan import IngestionSlice
from matih_ray.model.policy import MergeRule
from matih_ray.model.receipt import WriteReceipt
from matih_ray.sinks.base import SinkTarget
from matih_ray.sinks.iceberg import IcebergSink
from matih_ray.sinks.iceberg.commit import as_removals
from matih_ray.sinks.iceberg.merge_keys import KeyIndex, refuse_nulls
from matih_ray.streaming.connectors.catalog_sinks import CatalogSink, Owner

# A part: large enough for data files that are worth opening, small beside a process's memory.
PART_BYTES = 64 << 20
# The number of a key takes 8 bytes, and looking it up some 50.
PART_ROWS = 1_000_000

Mask = npt.NDArray[np.bool_]


class UpsertSink(CatalogSink):
    """Merges changes into an Iceberg table. `target` has a merge rule with a key and nothing else.

    Commits, markers and owners are as those of `CatalogSink`.
    """

    def __init__(self, sink: IcebergSink, target: SinkTarget, owner: Owner) -> None:
        super().__init__(sink, target, owner)
        assert target.merge is not None  # noqa: S101 - the caller made it so
        self._rule: MergeRule = target.merge
        self._batches: list[pa.RecordBatch] = []
        self._gone: list[Mask] = []
        self._bytes = self._rows = 0
        self._receipts: list[WriteReceipt] = []

    def write(self, batch: pa.RecordBatch) -> None:
        """Take rows, each of which replaces the one with its key."""
        self.change(batch, np.zeros(batch.num_rows, np.bool_))

    def change(self, batch: pa.RecordBatch, gone: Mask) -> None:
        """Take changes in order: rows, and those that are `gone`, of which only the key matters.

        Raises:
            NullKeyError: A row has no key.
        """
        refuse_nulls(self._rule, batch, f"table {self._prepared.display_name}")
        self._batches.append(batch)
        self._gone.append(gone)
        self._bytes += batch.nbytes
        self._rows += batch.num_rows
        if self._bytes >= PART_BYTES or self._rows >= PART_ROWS:
            self._settle()

    def abort(self) -> None:
        """Drop data files that nobody was told of."""
        super().abort()
        self._batches, self._gone = [], []
        receipts, self._receipts = self._receipts, []
        if receipts:
            with contextlib.suppress(MatihError):  # what stays is removed by maintenance
                self._sink.abort(self._prepared, receipts)

    def _finished(self) -> list[WriteReceipt]:
        self._settle()
        receipts, self._receipts = self._receipts, []
        return receipts

    def _settle(self) -> None:
        """Write the last change of each key to files."""
        if not self._batches:
            return
        rows, gone = pa.Table.from_batches(self._batches), np.concatenate(self._gone)
        self._batches, self._gone, self._bytes, self._rows = [], [], 0, 0
        index = KeyIndex(rows.select(list(self._rule.key)))
        last = np.empty(index.count, np.int64)
        last[index.codes] = np.arange(len(index.codes))  # of several the last is kept
        last.sort()
        is_gone = gone[last]
        self._write(rows.take(pa.array(last[~is_gone])).to_batches())
        removed = rows.select(list(self._rule.key)).take(pa.array(last[is_gone]))
        keys = [_keys_alone(batch, rows.schema) for batch in removed.to_batches()]
        self._write(keys, removes=True)

    def _write(self, batches: Iterable[pa.RecordBatch], *, removes: bool = False) -> None:
        batches = [batch for batch in batches if batch.num_rows]
        if not batches:
            return
        # receipts are merged in the order of their sequence
        number = len(self._receipts) + 1
        slice_ = IngestionSlice(key=f"commit-{self._sequence}-{number}", sequence=number)
        self._writer = self._sink.writer(self._prepared, slice_)
        for batch in batches:
            self._writer.write(batch)
        receipt = self._writer.close()
        self._writer = None
        self._receipts.append(as_removals(receipt) if removes else receipt)


def _keys_alone(keys: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    columns = [
        keys.column(one.name) if one.name in keys.schema.names else pa.nulls(len(keys), one.type)
        for one in schema
    ]
    return pa.record_batch(columns, schema=schema)
