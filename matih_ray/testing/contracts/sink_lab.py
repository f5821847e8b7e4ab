"""A lab for sink tests: targets, rows, markers, and what a sink under test must offer."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Protocol

import pyarrow as pa

from matih_ray.model.checkpoint import StreamKey
from matih_ray.model.fingerprint import Fingerprint
from matih_ray.model.ids import EndpointId, RunId, SinkId, TenantId, UnitId
from matih_ray.model.plan import IngestionSlice
from matih_ray.model.policy import MergeRule, WriteMode
from matih_ray.model.receipt import CommitMarker, WriteReceipt
from matih_ray.sinks.base import PreparedTarget, SinkEndpoint, SinkTarget

TENANT = TenantId("acme")
# A batch of this many rows is far over 100 KB: smaller objects are inlined by Ray and hide losses.
ROWS = 5_000
SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("name", pa.string()),
        ("price", pa.decimal128(18, 4)),
        ("day", pa.date32()),
        ("at", pa.timestamp("us", "UTC")),
    ]
)


class SinkLab(Protocol):
    """A storage with endpoints on it."""

    def sink(self) -> SinkEndpoint:
        """A new endpoint of tenant `TENANT`."""

    def read(self, prepared: PreparedTarget) -> pa.Table:
        """The rows that readers see now, in any order."""


class UnreliableLab(SinkLab, Protocol):
    """A lab that can lose the reply of a commit."""

    def lose_reply(self, *, applied: bool) -> None:
        """Let the next commit be applied (or not) and its caller not be told."""


def batch(start: int = 0, rows: int = ROWS) -> pa.RecordBatch:
    """Rows `start` to `start + rows` with NULLs in every column but the first."""
    epoch = datetime(2024, 1, 1, tzinfo=timezone.utc)
    numbers = range(start, start + rows)

    def some(value: Callable[[int], object], skip: int) -> list[object]:
        return [None if n % skip == 0 else value(n) for n in numbers]

    return pa.RecordBatch.from_arrays(
        [
            pa.array(numbers, pa.int64()),
            pa.array(some(lambda n: f"row {n} é" * (n % 5), 7), pa.string()),
            pa.array(some(lambda n: Decimal(n - 1000).scaleb(-4), 11), pa.decimal128(18, 4)),
            pa.array(some(lambda n: date(2024, 1, 1) + timedelta(days=n % 40), 13), pa.date32()),
            pa.array(some(lambda n: epoch + timedelta(minutes=n), 17), SCHEMA.field("at").type),
        ],
        schema=SCHEMA,
    )


def stream(unit: str = "public.orders") -> StreamKey:
    """A stream of the lab's tenant."""
    return StreamKey(
        tenant_id=TENANT,
        vendor="postgresql",
        endpoint_id=EndpointId("shop"),
        unit_id=UnitId(unit),
        sink_id=SinkId("lake"),
    )


def target(
    path: tuple[str, ...] | None = None,
    *,
    mode: WriteMode = WriteMode.APPEND,
    schema: pa.Schema = SCHEMA,
    unit: str = "public.orders",
    partition_by: tuple[str, ...] = (),
    checksum: bool = False,
    merge: MergeRule | None = None,
) -> SinkTarget:
    """A target, by default with a table of its own; a merge goes by the column `id`."""
    if mode is WriteMode.MERGE and merge is None:
        merge = MergeRule(key=("id",))
    return SinkTarget(
        stream=stream(unit),
        path=path or (TENANT, "shop", "public", f"orders {uuid.uuid4().hex}"),
        schema=schema,
        write_mode=mode,
        partition_by=partition_by,
        checksum=checksum,
        merge=merge,
    )


def slice_(sequence: int = 0, *, dedupe_on: tuple[str, ...] = ()) -> IngestionSlice:
    """A slice of a plan."""
    return IngestionSlice(key=f"s-{sequence}", sequence=sequence, dedupe_on=dedupe_on)


def marker(
    sequence: int, *, run: str = "run-1", epoch: int = 1, published: bool = True
) -> CommitMarker:
    """A marker that has committed as many slices as its sequence."""
    return CommitMarker(
        run_id=RunId(run), epoch=epoch, sequence=sequence, through=sequence, published=published
    )


def write(
    sink: SinkEndpoint,
    prepared: PreparedTarget,
    batches: Sequence[pa.RecordBatch],
    sequence: int = 0,
    *,
    dedupe_on: tuple[str, ...] = (),
) -> WriteReceipt:
    """Write one slice; target and receipt go through JSON, as between processes."""
    prepared = PreparedTarget.from_json(prepared.to_json())
    writer = sink.writer(prepared, slice_(sequence, dedupe_on=dedupe_on))
    for one in batches:
        writer.write(one)
    return WriteReceipt.from_json(writer.close().to_json())


def assert_rows(lab: SinkLab, prepared: PreparedTarget, *expected: pa.RecordBatch) -> None:
    """Readers see exactly these rows: equal in number, and by fingerprint in every value."""
    found, wanted = Fingerprint(), Fingerprint()
    for one in lab.read(prepared).to_batches():
        found = found.add(one)
    for one in expected:
        wanted = wanted.add(one)
    assert found == wanted
