"""Look-back windows: what the table has is dropped, row for row, and nothing else."""

from __future__ import annotations

import random
import struct
import uuid
from collections import Counter
from decimal import Decimal

import pyarrow as pa
import pytest

from matih_ray.errors import ValidationError
from matih_ray.settings import Settings
from matih_ray.sinks.iceberg import IcebergSink
from matih_ray.sinks.iceberg.dedupe import ExistingRows
from matih_ray.testing.contracts.sink_lab import TENANT, batch, marker, slice_, target, write

INFINITE = 2**63 - 1

# For each column: its type, the type whose values are drawn, and the values.
COLUMNS = {
    "at": (pa.timestamp("us", "UTC"), pa.int64(), [INFINITE, -INFINITE, *range(0, 10**8, 10**7)]),
    "day": (pa.date32(), pa.int32(), [2**31 - 1, -(2**31) + 1, 0, 1, 2, 3]),
    "id": (pa.int32(), None, range(6)),
    "small": (pa.int16(), None, range(3)),
    "price": (pa.decimal128(38, 9), None, [Decimal(n).scaleb(-9) for n in range(4)]),
    "text": (pa.string(), None, ["", "a", "b", "é" * 30]),
    "raw": (pa.binary(), None, [b"", b"\0", b"\xff"]),
    "flag": (pa.bool_(), None, [True, False]),
    "real": (pa.float64(), None, [0.0, 1.5, float("inf"), float("nan")]),
    "who": (pa.uuid(), pa.binary(16), [uuid.UUID(int=n).bytes for n in range(3)]),
}


def rows(rng: random.Random, columns: tuple[str, ...], count: int) -> pa.RecordBatch:
    arrays = []
    for name in columns:
        kind, drawn, values = COLUMNS[name]
        choice = [None, *values]
        array = pa.array([rng.choice(choice) for _ in range(count)], drawn or kind)
        is_extension = isinstance(kind, pa.BaseExtensionType)
        arrays.append(
            pa.ExtensionArray.from_storage(kind, array) if is_extension else array.cast(kind)
        )
    payload = pa.array([rng.random() for _ in range(count)])
    return pa.RecordBatch.from_arrays([*arrays, payload], [*columns, "payload"])


def counted(batches: list[pa.RecordBatch], columns: tuple[str, ...]) -> Counter:
    found: Counter = Counter()
    for one in batches:
        plain = []
        for name in columns:
            kind, drawn, _ = COLUMNS[name]
            column = one[name]
            storage = column.storage if isinstance(kind, pa.BaseExtensionType) else column
            values = (storage.cast(drawn) if drawn else storage).to_pylist()
            plain.append([struct.pack("d", v) if isinstance(v, float) else v for v in values])
        found.update(zip(*plain, strict=True))
    return found


@pytest.fixture(scope="module")
def sink(tmp_path_factory: pytest.TempPathFactory) -> IcebergSink:
    return IcebergSink.from_settings(Settings(home=tmp_path_factory.mktemp("lake")), TENANT)


@pytest.mark.parametrize(
    "columns",
    [
        ("at", "id"),
        ("id", "at", "price", "day"),
        ("day",),
        ("price", "real"),
        ("text", "raw"),
        ("raw", "flag"),
        ("who", "real", "flag"),
        ("small", "who"),
        tuple(COLUMNS),
    ],
    ids=str,
)
@pytest.mark.parametrize("partitioned", [False, True], ids=["whole", "partitioned"])
def test_it_is_the_difference_of_two_multisets(sink, columns, partitioned, seed):
    rng = random.Random(seed)
    partition_by = (f"bucket(2, {columns[0]})",) if partitioned else ()
    old = [rows(rng, columns, 60) for _ in range(2)]
    new = [rows(rng, columns, 60) for _ in range(3)]
    new.append(old[1])
    rng.shuffle(new)
    prepared = sink.prepare(target(schema=old[0].schema, partition_by=partition_by))
    sink.commit(prepared, [write(sink, prepared, old)], marker(1))
    existing = ExistingRows(sink.writer(prepared, slice_())._table, columns)
    kept = [existing.without(one) for one in new]
    assert counted(kept, columns) == counted(new, columns) - counted(old, columns)
    receipt = write(sink, prepared, new, 1, dedupe_on=columns)
    assert receipt.rows == sum(one.num_rows for one in kept)
    assert receipt.rows + receipt.duplicates_dropped == sum(one.num_rows for one in new)


def test_an_empty_table_drops_nothing(sink):
    prepared = sink.prepare(target())
    receipt = write(sink, prepared, [batch()], dedupe_on=("at", "id"))
    assert (receipt.rows, receipt.duplicates_dropped) == (batch().num_rows, 0)


def test_a_slice_of_nothing_but_known_rows_writes_no_file(sink):
    prepared = sink.prepare(target())
    sink.commit(prepared, [write(sink, prepared, [batch()])], marker(1))
    receipt = write(sink, prepared, [batch()], 1, dedupe_on=("at", "id"))
    assert (receipt.rows, receipt.bytes, receipt.payload) == (0, 0, {"files": []})
    assert receipt.duplicates_dropped == batch().num_rows


def test_only_the_window_is_read(sink):
    """What is read of the table is bounded by the batch's range of its most selective column."""
    prepared = sink.prepare(target())
    for n in range(10):
        rows_of_run = batch(n * 1_000, 1_000)
        sink.commit(prepared, [write(sink, prepared, [rows_of_run], n)], marker(n + 1))
    for columns in (("id", "day"), ("day", "id"), ("name", "price", "id")):
        existing = ExistingRows(sink.writer(prepared, slice_())._table, columns)
        window = batch(4_000, 10)
        assert existing.without(window).num_rows == 0
        assert existing._bounding == "id"
        assert existing._range == (4_000, 4_009)
        wider = batch(3_995, 20)
        assert existing.without(wider).column("id").to_pylist() == list(range(4_000, 4_010))
        assert existing._rows.num_rows == 0


def test_nested_columns_are_compared_too(sink):
    schema = pa.schema([("id", pa.int64()), ("tags", pa.list_(pa.string()))])

    def tagged(*pairs):
        return pa.RecordBatch.from_pylist([{"id": n, "tags": tags} for n, tags in pairs], schema)

    prepared = sink.prepare(target(schema=schema))
    old = tagged((1, ["a"]), (1, None), (2, []), (3, ["x", None]))
    sink.commit(prepared, [write(sink, prepared, [old])], marker(1))
    new = tagged((1, ["a"]), (1, ["b"]), (1, None), (2, [None]), (3, ["x", None]), (2, []))
    receipt = write(sink, prepared, [new], 1, dedupe_on=("id", "tags"))
    assert (receipt.duplicates_dropped, receipt.rows) == (4, 2)


def test_unknown_columns_are_refused(sink):
    prepared = sink.prepare(target())
    with pytest.raises(ValidationError, match="nothing") as caught:
        sink.writer(prepared, slice_(dedupe_on=("id", "nothing")))
    assert caught.value.context["field"] == "dedupeOn"
