"""Rows that a job leaves out, as rows of a side table: why, where from, and what they were."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import datetime, timezone

import numpy as np
import pyarrow as pa

from matih_ray.streaming.connectors.reader import KIND_NAMES, BadRow, Polled
from matih_ray.streaming.operators import Kinds, Origins
from matih_ray.streaming.windows import Times

LATE, UNREADABLE, CHANGED = "LATE", "UNREADABLE", "CHANGED"
# Where a row came from. `topic` is the partition's name where it has no number.
_ORIGIN = [
    pa.field("source_table", pa.string(), nullable=False),
    pa.field("topic", pa.string(), nullable=False),
    pa.field("partition", pa.int32()),
    pa.field("offset", pa.int64()),
    pa.field("payload", pa.string()),
    pa.field("payload_bytes", pa.binary()),
]
ORIGIN = pa.schema(_ORIGIN)
# The side table: `payload` where what was read is text, else `payload_bytes`.
SCHEMA = pa.schema(
    [
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string()),
        pa.field("event_time", pa.timestamp("us")),
        *_ORIGIN,
        pa.field("rejected_at", pa.timestamp("us"), nullable=False),
    ]
)
_Look = Callable[[Times], pa.Table]


def origins_of(table: str, polled: Polled) -> Origins:
    """Where the rows of a batch came from: as the reader says, or what was read of them."""
    origin, batch, partition = polled.origin, polled.batch, polled.partition

    def look_up(rows: Times) -> pa.Table:
        if origin is not None:
            found = [origin(row) for row in rows.tolist()]
        else:
            read = batch.take(pa.array(rows)).to_pylist()
            found = [("", json.dumps(row, default=str).encode()) for row in read]
        return _origins(table, partition, found)

    return Origins(np.arange(batch.num_rows), look_up)


def joined_origins(parts: Sequence[Origins]) -> Origins:
    """The origins of batches that follow each other, as of one."""
    counts = np.array([len(part.numbers) for part in parts])
    firsts = np.concatenate(([0], np.cumsum(counts)))

    def look_up(rows: Times) -> pa.Table:
        owners = np.searchsorted(firsts, rows, side="right") - 1
        order, tables = [], []
        for number in np.unique(owners):
            mine = np.flatnonzero(owners == number)
            order.append(mine)
            tables.append(parts[number].of(rows[mine] - firsts[number]))
        if not tables:
            return ORIGIN.empty_table()
        back = np.argsort(np.concatenate(order))
        return pa.concat_tables(tables).take(pa.array(back))

    return Origins(np.arange(firsts[-1]), look_up)


def late_rows(origins: Origins, rows: Times, times: Times) -> pa.Table:
    """Side rows of late ones: their numbers and event times (milliseconds) in the batch at hand."""
    found = origins.of(rows)
    at = pa.array(times[rows]).cast(pa.timestamp("ms")).cast(pa.timestamp("us"), safe=False)
    return _side(LATE, ["all its windows had fired"] * len(rows), at, found)


def untimed_rows(origins: Origins, rows: Times, column: str) -> pa.Table:
    """Side rows of those whose time attribute is NULL, which belong to no window."""
    empty = pa.nulls(len(rows), pa.timestamp("us"))
    return _side(UNREADABLE, [f"{column} is NULL"] * len(rows), empty, origins.of(rows))


def bad_rows(table: str, partition: str, rows: Sequence[BadRow]) -> pa.Table:
    """Side rows of unreadable ones."""
    found = _origins(table, partition, [(row.position, row.raw) for row in rows])
    empty = pa.nulls(len(rows), pa.timestamp("us"))
    return _side(UNREADABLE, [row.reason for row in rows], empty, found)


def changed_rows(batch: pa.RecordBatch, kinds: Kinds, origins: Origins | None) -> pa.Table:
    """Side rows of a batch of updates and deletes; of the rows at hand where nobody knows more."""
    if origins is None:
        read = [json.dumps(row, default=str).encode() for row in batch.to_pylist()]
        found = _origins("", "", [("", raw) for raw in read])
    else:
        found = origins.of(np.arange(batch.num_rows))
    details = [f"{KIND_NAMES[kind]}: it changes or removes a row" for kind in kinds.tolist()]
    return _side(CHANGED, details, pa.nulls(batch.num_rows, pa.timestamp("us")), found)


def _side(reason: str, details: list[str], at: pa.Array, origins: pa.Table) -> pa.Table:
    now = datetime.now(timezone.utc).replace(tzinfo=None)
    columns = {
        "reason": [reason] * len(details),
        "detail": details,
        "event_time": at,
        "rejected_at": [now] * len(details),
    }
    return pa.table(
        [columns.get(field.name, _column(origins, field.name)) for field in SCHEMA], schema=SCHEMA
    )


def _column(origins: pa.Table, name: str) -> object:
    return origins.column(name) if name in origins.column_names else None


def _origins(table: str, partition: str, found: Sequence[tuple[str, bytes]]) -> pa.Table:
    topic, _, number = partition.rpartition("/")
    is_numbered = bool(topic) and number.isdigit()
    texts = [_text(raw) for _, raw in found]
    count = len(found)
    columns = [
        [table] * count,
        [topic if is_numbered else partition] * count,
        [int(number) if is_numbered else None] * count,
        [int(position) if position.isdigit() else None for position, _ in found],
        texts,
        [raw if text is None else None for text, (_, raw) in zip(texts, found, strict=True)],
    ]
    return pa.table(columns, schema=ORIGIN)


def _text(raw: bytes) -> str | None:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None
