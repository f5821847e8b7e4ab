"""Look-back de-duplication: dropping rows of a slice that the table already has.

The rules are those of the sink `iceberg` (`sinks.iceberg.dedupe`): rows are compared on
`dedupe_on`, exactly and as multisets. What is read is bounded by the batches' range of the first
of these columns that has an order, which row groups are skipped by.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import dataset

from matih_ray.errors import ValidationError
from matih_ray.model.fingerprint import row_hashes
from matih_ray.sinks.iceberg.dedupe import matched_rows, row_codes
from matih_ray.sinks.raw_files.log import CommitLog


class ExistingRows:
    """The table's rows that may equal rows of one slice, read as far as batches need them."""

    def __init__(self, log: CommitLog, schema: pa.Schema, columns: tuple[str, ...]) -> None:
        if unknown := [name for name in columns if name not in schema.names]:
            raise ValidationError(
                f"dedupeOn: the table has no column {unknown[0]!r}", field="dedupeOn"
            )
        self._schema = pa.schema([schema.field(name) for name in columns])
        paths = [log.storage.full(f"{log.paths.table}/{one.name}") for one in log.published()]
        self._files = dataset.dataset(
            paths, schema=self._schema, filesystem=log.storage.filesystem, format="parquet"
        )
        ordered = [one.name for one in self._schema if _is_ordered(one.type)]
        self._bounding = ordered[0] if ordered else None
        self._rows = _plain(self._schema.empty_table())
        self._range: tuple[pa.Scalar, pa.Scalar] | None = None
        self._nulls_read = self._all_read = False

    def without(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch's rows that the table does not have; each table row takes one away, once."""
        if batch.num_rows == 0:
            return batch
        keys = pa.Table.from_batches([batch]).select(self._schema.names)
        for condition in self._missing(keys):
            found = _plain(self._files.to_table(filter=condition))
            self._rows = pa.concat_tables([self._rows, found])
        incoming, existing = row_codes(_plain(keys), self._rows)
        # the n-th occurrence of a key in the batch meets the n-th one in the table, if there is one
        duplicate = matched_rows(incoming, existing)
        self._rows = self._rows.filter(pa.array(~matched_rows(existing, incoming)))
        return batch.filter(pa.array(~duplicate))

    def _missing(self, keys: pa.Table) -> list[Any]:
        """Conditions for what this batch adds to what was read before; None is no condition."""
        if self._bounding is None:
            wanted: list[Any] = [] if self._all_read else [None]
            self._all_read = True
            return wanted
        field, column = pc.field(self._bounding), keys[self._bounding]
        wanted = []
        if column.null_count and not self._nulls_read:
            wanted.append(field.is_null())
            self._nulls_read = True
        if column.null_count < len(column):
            ends = pc.min_max(column)
            wanted += self._missing_ranges(field, ends["min"], ends["max"])
        return wanted

    def _missing_ranges(self, field: Any, low: pa.Scalar, high: pa.Scalar) -> list[Any]:
        if self._range is None:
            self._range = (low, high)
            return [(field >= low) & (field <= high)]
        before, after = self._range
        wanted = []
        if pc.less(low, before).as_py():
            wanted.append((field >= low) & (field < before))
            before = low
        if pc.greater(high, after).as_py():
            wanted.append((field > after) & (field <= high))
            after = high
        self._range = (before, after)
        return wanted


def _is_ordered(kind: pa.DataType) -> bool:
    """Whether a range of this type holds all its values; not so for floats with their NaN."""
    types = pa.types
    return bool(
        types.is_timestamp(kind)
        or types.is_date(kind)
        or types.is_integer(kind)
        or types.is_decimal(kind)
    )


def _plain(table: pa.Table) -> pa.Table:
    """Columns in types that can be compared: nested values by their fingerprints."""
    for position, field in enumerate(table.schema):
        if pa.types.is_nested(field.type):
            batches = table.select([field.name]).to_batches()
            hashes = pa.chunked_array([row_hashes(one) for one in batches], pa.uint64())
            table = table.set_column(position, field.name, hashes)
        elif isinstance(field.type, pa.BaseExtensionType):
            storage = table.column(position).cast(field.type.storage_type)
            table = table.set_column(position, field.name, storage)
    return table
