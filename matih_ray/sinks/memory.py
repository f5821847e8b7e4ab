"""A sink in this process's memory: the contract in its shortest form, for tests without storage.

It keeps what `SinkEndpoint` asks for, under one lock, and nothing of it survives the process. All
sinks of one `MemoryStore` see the same tables, as endpoints of one storage do.
"""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa

from matih_ray.errors import FencedError, NullKeyError, SchemaMismatchError
from matih_ray.model.fingerprint import Fingerprint
from matih_ray.model.ids import RunId, TenantId
from matih_ray.model.plan import IngestionSlice
from matih_ray.model.policy import MergeRule
from matih_ray.model.receipt import CommitMarker, WriteReceipt
from matih_ray.settings import Settings
from matih_ray.sinks.base import CommitOutcome, PreparedTarget, SinkTarget, SliceWriter
from matih_ray.sinks.fencing import already_applied, runs_after
from matih_ray.sources.base import EndpointSpec


@dataclass
class MemoryTable:
    """One table: the rows that readers see, and what overwrites have loaded so far."""

    schema: pa.Schema
    visible: list[pa.RecordBatch] = field(default_factory=list)
    loading: dict[str, list[pa.RecordBatch]] = field(default_factory=dict)
    markers: dict[str, CommitMarker] = field(default_factory=dict)
    runs: dict[str, tuple[RunId, ...]] = field(default_factory=dict)


@dataclass
class MemoryStore:
    """Tables by path, and written batches that are not committed, by receipt."""

    tables: dict[tuple[str, ...], MemoryTable] = field(default_factory=dict)
    written: dict[str, list[pa.RecordBatch]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


_PROCESS_STORE = MemoryStore()


class MemorySink:
    """See `SinkEndpoint`."""

    type: ClassVar[str] = "memory"

    def __init__(self, spec: EndpointSpec | None = None, store: MemoryStore | None = None) -> None:  # noqa: ARG002 - all sinks are built this way
        self.store = store or _PROCESS_STORE

    @classmethod
    def from_settings(cls, settings: Settings, tenant_id: TenantId) -> MemorySink:  # noqa: ARG003 - all sinks are built this way
        """The built-in sink: one store for the process."""
        return cls()

    def prepare(self, target: SinkTarget) -> PreparedTarget:
        """Create or check the table; see `SinkEndpoint.prepare`."""
        with self.store.lock:
            table = self.store.tables.setdefault(target.path, MemoryTable(target.schema))
            _check_fits(table.schema, target.schema)
            stored = table.markers.get(_key(target))
        return PreparedTarget(
            stream=target.stream,
            display_name=".".join(target.path),
            write_mode=target.write_mode,
            payload={
                "path": list(target.path),
                "checksum": target.checksum,
                "merge": None if target.merge is None else target.merge.to_dict(),
                "predecessor": None if stored is None else stored.to_dict(),
            },
        )

    def writer(self, prepared: PreparedTarget, slice_: IngestionSlice) -> SliceWriter:
        """A writer for one attempt of a slice."""
        return _MemoryWriter(self.store, self._table(prepared), prepared, slice_)

    def commit(
        self, prepared: PreparedTarget, receipts: Sequence[WriteReceipt], marker: CommitMarker
    ) -> CommitOutcome:
        """Make receipts visible with the marker; see `SinkEndpoint.commit`."""
        known = prepared.payload["predecessor"]
        predecessor = CommitMarker.from_json(known) if isinstance(known, dict) else None
        with self.store.lock:
            table, key = self._table(prepared), _key(prepared)
            stored = table.markers.get(key)
            runs = table.runs.get(key, ())
            if already_applied(stored, predecessor, runs, marker):
                return CommitOutcome.ALREADY_APPLIED
            rows = [one for receipt in receipts for one in self._rows(receipt)]
            rule = prepared.payload["merge"]
            if isinstance(rule, dict):
                table.visible = _merged(table, rows, MergeRule.from_json(rule))
            elif prepared.write_mode.shows_each_commit or _published(stored, marker):
                table.visible += rows
            else:
                begun = stored is not None and stored.run_id == marker.run_id
                table.loading[key] = (table.loading.get(key, []) if begun else []) + rows
                if marker.published:
                    table.visible = table.loading.pop(key)
            table.markers[key] = marker
            table.runs[key] = runs_after(stored, runs, marker)
        return CommitOutcome.APPLIED

    def last_marker(self, prepared: PreparedTarget) -> CommitMarker | None:
        """The marker of the last commit of this stream."""
        with self.store.lock:
            return self._table(prepared).markers.get(_key(prepared))

    def abort(self, prepared: PreparedTarget, receipts: Sequence[WriteReceipt]) -> None:  # noqa: ARG002 - the contract's signature
        """Drop uncommitted receipts."""
        for receipt in receipts:
            self.store.written.pop(str(receipt.payload["token"]), None)

    def close(self) -> None:
        """Nothing to release."""

    def read(self, prepared: PreparedTarget) -> pa.Table:
        """The rows that readers see now."""
        table = self._table(prepared)
        return pa.Table.from_batches(table.visible, table.schema)

    def _table(self, prepared: PreparedTarget) -> MemoryTable:
        path = prepared.payload["path"]
        parts = path if isinstance(path, list) else []
        table = self.store.tables.get(tuple(str(part) for part in parts))
        if table is None:
            raise FencedError(f"table {prepared.display_name} is gone; start a new run")
        return table

    def _rows(self, receipt: WriteReceipt) -> list[pa.RecordBatch]:
        return self.store.written[str(receipt.payload["token"])]


class _MemoryWriter:
    def __init__(
        self,
        store: MemoryStore,
        table: MemoryTable,
        prepared: PreparedTarget,
        slice_: IngestionSlice,
    ) -> None:
        self._store = store
        self._table = table
        self._slice = slice_
        self._checksum = bool(prepared.payload["checksum"])
        self._existing = Counter(
            key for one in table.visible for key in _row_keys(one, slice_.dedupe_on)
        )
        self._rows: list[pa.RecordBatch] = []
        self._dropped = 0

    def write(self, batch: pa.RecordBatch) -> None:
        _check_fits(self._table.schema, batch.schema)
        kept = []
        for key in _row_keys(batch, self._slice.dedupe_on):
            kept.append(self._existing[key] <= 0)
            self._existing[key] -= 1
        if kept:
            self._dropped += kept.count(False)
            batch = batch.filter(pa.array(kept))
        self._rows.append(batch.select(self._table.schema.names))

    def close(self) -> WriteReceipt:
        token = uuid.uuid4().hex
        self._store.written[token] = self._rows
        total = Fingerprint()
        for one in self._rows if self._checksum else []:
            total = total.add(one)
        return WriteReceipt(
            slice_key=self._slice.key,
            sequence=self._slice.sequence,
            rows=sum(one.num_rows for one in self._rows),
            bytes=sum(one.nbytes for one in self._rows),
            payload={"token": token},
            checksum=str(total) if self._checksum else None,
            duplicates_dropped=self._dropped,
        )

    def abort(self) -> None:
        self._rows = []


def _key(of: SinkTarget | PreparedTarget) -> str:
    return f"{of.stream.tenant_id}\0{of.stream.kv_key()}"


def _published(stored: CommitMarker | None, marker: CommitMarker) -> bool:
    """Whether this run's overwrite is visible already, so that more rows are simply added."""
    return stored is not None and stored.run_id == marker.run_id and stored.published


def _merged(
    table: MemoryTable, rows: list[pa.RecordBatch], rule: MergeRule
) -> list[pa.RecordBatch]:
    """The visible rows after a merge, row by row."""
    kept: dict[tuple[object, ...], dict[str, object]] = {}
    for row in (row for one in (*table.visible, *rows) for row in one.to_pylist()):
        key = tuple(row[name] for name in rule.key)
        if None in key:
            raise NullKeyError(f"a row to merge has NULL in its key {', '.join(rule.key)}")
        if rule.order is None or key not in kept or _order(kept[key], rule) <= _order(row, rule):
            kept[key] = row
    alive = [row for row in kept.values() if rule.delete is None or not row[rule.delete]]
    return [pa.RecordBatch.from_pylist(alive, table.schema)]


def _order(row: dict[str, object], rule: MergeRule) -> tuple[bool, Any]:
    value = row[str(rule.order)]
    return value is not None, value or 0


def _row_keys(batch: pa.RecordBatch, columns: tuple[str, ...]) -> list[tuple[object, ...]]:
    if not columns:
        return []
    return list(zip(*(batch[name].to_pylist() for name in columns), strict=True))


def _check_fits(table: pa.Schema, rows: pa.Schema) -> None:
    """Raise `SchemaMismatchError`, naming the columns, unless names and types are the same."""
    stored, given = (dict(zip(one.names, one.types, strict=True)) for one in (table, rows))
    if wrong := [name for name in {**stored, **given} if stored.get(name) != given.get(name)]:
        raise SchemaMismatchError(f"the rows do not fit the table in: {', '.join(wrong)}")
