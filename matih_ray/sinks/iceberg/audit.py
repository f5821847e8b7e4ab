"""The audit of a run: whether what a branch shows is what the run has written, and as declared.

Files are judged as readers will find them, by the manifests of the branch and by the files' own
footers, not by what writers have told. Keys are compared in passes, as a merge does, so that memory
does not grow with the table; NULL is like no other NULL, as in SQL.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.manifest import DataFile
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from matih_ray.errors import ValidationError
from matih_ray.model.finalize import Finalize
from matih_ray.model.fingerprint import row_hashes
from matih_ray.model.policy import MergeRule
from matih_ray.sinks.iceberg.held_files import read_plain
from matih_ray.sinks.iceberg.manifest_files import live_manifests
from matih_ray.sinks.iceberg.merge_keys import KeyIndex
from matih_ray.sinks.iceberg.merge_pruning import may_share_keys
from matih_ray.sinks.iceberg.merge_work import LOOKUP_ROWS, PASS_ROWS


@dataclass(frozen=True)
class Change:
    """What a run makes of the table.

    `brought` are the files of its own rows, of which it has written `rows`; `added` and `removed`
    those by which what it publishes differs from `base`: for a merge they are others.
    """

    base: Snapshot | None
    brought: Sequence[DataFile]
    added: Sequence[DataFile]
    removed: Sequence[DataFile]
    rows: int


def check_finalize(finalize: Finalize, schema: Schema) -> None:
    """Refuse columns that cannot be audited.

    Raises:
        ValidationError: There is no such column, or its values cannot be told apart exactly.
    """
    for told, name in finalize.columns:
        field = next((one for one in schema.fields if one.name == name), None)
        if field is None:
            raise ValidationError(
                f"finalize.{told}: there is no column {name!r}", field=f"finalize.{told}"
            )
        inexact = told == "unique" and str(field.field_type) in ("float", "double")
        if not field.field_type.is_primitive or inexact:
            raise ValidationError(
                f"finalize.{told}: column {name!r} is {field.field_type}, which cannot be checked",
                field=f"finalize.{told}",
            )


def failures(table: Table, snapshot: Snapshot, change: Change, finalize: Finalize) -> list[str]:
    """What is wrong with a snapshot that shall show a change; nothing if it may be published.

    Exceptions are the storage's.
    """
    found = [*_counts(table, snapshot, change), *_files(table, change)]
    rows = sum(file.record_count for file in change.brought)
    if rows < finalize.min_rows:
        found.append(f"{rows} rows, of at least {finalize.min_rows} that were expected")
    nulls = {name: _nulls(table, change.brought, name) for name in finalize.not_null}
    found += [
        f"{count} rows with NULL in column {name!r}" for name, count in nulls.items() if count
    ]
    if found or not finalize.unique:
        return found
    if twice := _twice(table, snapshot, change, finalize.unique):
        found.append(f"{twice} rows with a key ({', '.join(finalize.unique)}) of another row")
    return found


def _counts(table: Table, snapshot: Snapshot, change: Change) -> Iterator[str]:
    """The run's rows, and the rows that readers would see."""
    brought = sum(file.record_count for file in change.brought)
    if brought != change.rows:
        yield f"files of {brought} rows, where the run has written {change.rows}"
    before = _shown(table, change.base)
    shown = _shown(table, snapshot)
    expected = sum(before.values())
    expected += sum(file.record_count for file in change.added)
    expected -= sum(file.record_count for file in change.removed)
    if sum(shown.values()) != expected:
        yield f"{sum(shown.values())} rows in the table, where {expected} were expected"
    if lost := sum(file.file_path not in shown for file in change.added):
        yield f"{lost} files that the table does not name"


def _shown(table: Table, snapshot: Snapshot | None) -> dict[str, int]:
    """Files that readers of a snapshot see, with their rows."""
    return {file.file_path: file.record_count for file in files_of(table, snapshot)}


def files_of(table: Table, snapshot: Snapshot | None) -> Iterator[DataFile]:
    """The data files of a snapshot in the order in which they came."""
    manifests = live_manifests(table, snapshot) if snapshot is not None else []
    for manifest in sorted(manifests, key=lambda one: one.sequence_number):
        for entry in manifest.fetch_manifest_entry(table.io):
            entry.data_file.spec_id = manifest.partition_spec_id
            yield entry.data_file


def _files(table: Table, change: Change) -> Iterator[str]:
    """The files are there and hold what their descriptions say."""
    for file in change.added:
        source = table.io.new_input(file.file_path)
        if not source.exists():
            yield f"no file {file.file_path}"
            continue
        with source.open() as stream, pq.ParquetFile(stream) as parquet:
            rows = parquet.metadata.num_rows
        if rows != file.record_count:
            yield f"{rows} rows in {file.file_path}, of {file.record_count}"


def _nulls(table: Table, files: Sequence[DataFile], name: str) -> int:
    """NULLs of a column, by the files' statistics where they have them."""
    number = table.schema().find_field(name).field_id
    nulls = 0
    for file in files:
        told = (file.null_value_counts or {}).get(number)
        if told is None:
            batches = read_plain(table.io, file.file_path, table.schema(), (name,))
            told = sum(batch.column(0).null_count for batch in batches)
        nulls += told
    return nulls


def _twice(table: Table, snapshot: Snapshot, change: Change, key: tuple[str, ...]) -> int:
    """New rows that agree with each other, and rows of other files that agree with new ones."""
    rule = MergeRule(key=key)
    new = {file.file_path for file in change.added}
    held = [
        file
        for file in files_of(table, snapshot)
        if file.file_path not in new
        and any(may_share_keys(table, rule, one, file) for one in change.added)
    ]
    rows = sum(file.record_count for file in change.added)
    passes = max(1, -(-rows // PASS_ROWS))
    twice = 0
    for number in range(passes):
        chosen = [*_keys(table, change.added, key, number, passes)]
        if not chosen:
            continue
        index = KeyIndex(pa.Table.from_batches(chosen))
        twice += len(index.codes) - index.count
        for some in _gathered(_keys(table, held, key, number, passes)):
            twice += int(np.count_nonzero(index.find(some) >= 0))
    return twice


def _keys(
    table: Table, files: Sequence[DataFile], key: tuple[str, ...], number: int, passes: int
) -> Iterator[pa.RecordBatch]:
    """Complete keys of one pass."""
    for file in files:
        for batch in read_plain(table.io, file.file_path, table.schema(), key):
            kept = batch
            for column in batch.columns:
                if column.null_count:
                    valid = [pc.is_valid(one) for one in batch.columns]
                    kept = batch.filter(_all(valid))
                    break
            if passes > 1:
                kept = kept.filter(pa.array(row_hashes(kept) % np.uint64(passes) == number))
            if kept.num_rows:
                yield kept


def _all(masks: Sequence[pa.Array]) -> pa.Array:
    both = masks[0]
    for mask in masks[1:]:
        both = pc.and_(both, mask)
    return both


def _gathered(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """As many rows at a time as are looked up together."""
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        held.append(batch)
        count += batch.num_rows
        if count >= LOOKUP_ROWS:
            yield pa.Table.from_batches(held)
            held, count = [], 0
    if held:
        yield pa.Table.from_batches(held)
