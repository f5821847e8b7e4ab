"""The end of a plan: what its rows and changes become in the table that they are for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from matih_ray.errors import SqlInvalidError, SqlNotSupportedError, StreamRowError
from matih_ray.streaming.connectors.options import flag, table_name
from matih_ray.streaming.connectors.reader import DELETE, INSERT, KIND_NAMES, UPDATE_BEFORE
from matih_ray.streaming.connectors.sinks import TableSink, TakesChanges
from matih_ray.streaming.operators import Chunk, Origins
from matih_ray.streaming.rejects import changed_rows
from matih_ray.streaming.sql.plan import Calc, Node, Scan, Union, scans
from matih_ray.streaming.sql.script import CreateTable
from matih_ray.streaming.sql.targets import TargetColumn
from matih_ray.streaming.steps import Aside, Counts

# Options of the table, of its statement or from outside, as Flink's sink of Iceberg has them: the
# first is kept with the table, the second is a job's.
KEPT_UPSERT, UPSERT = "write.upsert.enabled", "upsert-enabled"
# A table's property: the columns of its PRIMARY KEY.
KEY_PROPERTY = "matih.primary-key"
_SEPARATOR = ","


@dataclass(frozen=True)
class Output:
    """Gives the rows of a plan to a sink. `counts` are the plan's, `told` gets numbers of rows."""

    target: str
    sink: TableSink
    columns: Sequence[TargetColumn]
    aside: Aside
    counts: Callable[[], Counts]
    told: Callable[[int], None]

    def write(self, chunk: Chunk) -> None:
        """Take a chunk: all of it where the sink takes changes, else its inserts.

        Raises:
            StreamRowError: A row cannot be in the table.
        """
        if isinstance(self.sink, TakesChanges):
            self._change(chunk, self.sink)
            return
        chunk = self._inserts(chunk)
        if chunk.batch.num_rows:
            self._check(chunk.batch)
            self.sink.write(chunk.batch.cast(self._schema))
            self.told(chunk.batch.num_rows)

    def _change(self, chunk: Chunk, sink: TakesChanges) -> None:
        batch = chunk.batch
        if not batch.num_rows:
            return
        gone = np.zeros(batch.num_rows, np.bool_)
        if chunk.kinds is not None:
            gone = np.isin(chunk.kinds, (UPDATE_BEFORE, DELETE))
        self._check(batch.filter(pa.array(~gone)) if gone.any() else batch)
        sink.change(batch.cast(self._schema), gone)
        self.told(batch.num_rows)

    def _inserts(self, chunk: Chunk) -> Chunk:
        """The rows that can be appended. Others go to the side table, and are counted."""
        if chunk.kinds is None or not chunk.kinds.any():
            return chunk
        others, inserted = np.flatnonzero(chunk.kinds), np.flatnonzero(chunk.kinds == INSERT)
        if self.aside.rejects is None:
            raise StreamRowError(
                f"a row of kind {KIND_NAMES[int(chunk.kinds[others[0]])]} cannot be appended to "
                f"{self.target}: it changes or removes a row"
            )
        known = chunk.origins
        origins = None if known is None else Origins(known.numbers[others], known.look_up)
        changed = chunk.batch.take(pa.array(others))
        self.aside.rejects(changed_rows(changed, chunk.kinds[others], origins))
        self.counts().changed += len(others)
        left = chunk.batch.take(pa.array(inserted))
        return replace(chunk, batch=left, kinds=None, origins=None)

    def _check(self, batch: pa.RecordBatch) -> None:
        """What a column that is NOT NULL cannot take."""
        for place, column in enumerate(self.columns):
            if column.not_null and batch.column(place).null_count:
                raise StreamRowError(
                    f"column {column.name} of {self.target} is NOT NULL, and a row has NULL"
                )

    @property
    def _schema(self) -> pa.Schema:
        return pa.schema([pa.field(one.name, one.type) for one in self.columns])


def table_properties(table: CreateTable) -> dict[str, str]:
    """What a new catalog table keeps of its statement: its key, and whether it is merged into."""
    found = {}
    if table.primary_key:
        found[KEY_PROPERTY] = _SEPARATOR.join(table.primary_key)
    if flag(table, KEPT_UPSERT):
        found[KEPT_UPSERT] = "true"
    return found


def upsert_key(
    table: CreateTable, stored: Mapping[str, str], columns: Sequence[TargetColumn]
) -> tuple[str, ...] | None:
    """By which columns a job merges into a catalog table, None if it appends.

    Args:
        table: The table as the script has it, perhaps by its name alone, with options.
        stored: The properties of the table.
        columns: Its columns.

    Raises:
        SqlInvalidError: It shall, and has no key.
    """
    kept = stored.get(KEPT_UPSERT, "false").lower() == "true"
    told = {UPSERT, KEPT_UPSERT} & set(table.options.values)
    if not (flag(table, UPSERT) or flag(table, KEPT_UPSERT) if told else kept):
        return None
    stored_key = stored.get(KEY_PROPERTY)
    key = table.primary_key or tuple(stored_key.split(_SEPARATOR) if stored_key else ())
    if not key:
        raise SqlInvalidError(
            f"table {table_name(table)} cannot be merged into without a key: declare PRIMARY KEY "
            "(…) NOT ENFORCED in its CREATE TABLE",
            option=UPSERT,
        )
    for name in key:
        if name not in [one.name for one in columns]:
            raise SqlInvalidError(
                f"table {table_name(table)} has no column {name}, which is its key"
            )
    return key


def refuse_half_changes(node: Node) -> None:
    """Refuse plans of which some changes would be lost before a table that is merged into.

    Raises:
        SqlNotSupportedError: Names the clause.
    """
    for scan in scans(node):
        if scan.table.options.values.get("changelog-mode") == "upsert":
            raise SqlNotSupportedError(
                f"table {table_name(scan.table)}: 'changelog-mode' = 'upsert' leaves out what a "
                "row was, and with it the key that an update took away; a table that is merged "
                "into needs 'all'",
                clause="changelog-mode",
            )
    if _filters_changes(node):
        raise SqlNotSupportedError(
            "WHERE over a table whose rows are updated or deleted, before a table that is merged "
            "into: a row that no longer passes would stay. Leave it out, or filter when reading",
            clause="WHERE",
        )


def _filters_changes(node: Node) -> bool:
    if isinstance(node, Calc):
        filtered = node.predicate is not None and any(map(_has_changes, scans(node)))
        return filtered or _filters_changes(node.input)
    if isinstance(node, Union):
        return any(map(_filters_changes, node.inputs))
    return False  # windows take inserts only


def _has_changes(scan: Scan) -> bool:
    append_only = "scan.read-changelog-as-append-only.enabled"
    return scan.table.options.values.get("connector") == "postgres-cdc" and not flag(
        scan.table, append_only
    )
