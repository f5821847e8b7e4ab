"""Arrow schemas as Iceberg tables, and batches as their rows."""

from __future__ import annotations

import pyarrow as pa
import pytest
from pyiceberg.schema import Schema
from pyiceberg.types import DecimalType, DoubleType, IntegerType, LongType, NestedField

from matih_ray.errors import SchemaMismatchError
from matih_ray.sinks.iceberg.schema import file_layout, iceberg_schema


@pytest.mark.parametrize(
    "kind",
    [
        pa.timestamp("ns"),
        pa.time64("ns"),
        pa.decimal256(40, 2),
        pa.decimal128(10, -2),
        pa.duration("us"),
        pa.month_day_nano_interval(),
        pa.null(),
        pa.list_(pa.timestamp("ns")),
        pa.struct([("x", pa.null())]),
    ],
    ids=str,
)
def test_what_iceberg_cannot_hold_exactly_is_refused_by_name(kind):
    with pytest.raises(SchemaMismatchError, match="span") as caught:
        iceberg_schema(pa.schema([("id", pa.int64()), ("span", kind)]))
    assert caught.value.context["column"] == "span"


def test_a_table_needs_a_column():
    with pytest.raises(SchemaMismatchError):
        iceberg_schema(pa.schema([]))


def test_all_columns_are_optional_even_where_the_source_has_not_null():
    schema = iceberg_schema(pa.schema([pa.field("id", pa.int64(), nullable=False)]))
    assert not schema.fields[0].required


def test_all_problems_are_named_at_once():
    table = iceberg_schema(pa.schema([("a", pa.int64()), ("b", pa.string()), ("c", pa.int32())]))
    rows = pa.schema([("b", pa.binary()), ("c", pa.int64()), ("d", pa.int64())])
    with pytest.raises(SchemaMismatchError) as caught:
        file_layout(table, rows)
    for column in "abcd":
        assert f"column '{column}'" in caught.value.message
    assert caught.value.context["columns"] == 4


def test_a_column_that_the_table_requires_must_not_be_nullable():
    table = Schema(NestedField(1, "id", LongType(), required=True))
    with pytest.raises(SchemaMismatchError, match="required"):
        file_layout(table, pa.schema([("id", pa.int64())]))


def test_narrower_columns_are_widened_to_the_tables():
    table = Schema(
        NestedField(4, "i", LongType()),
        NestedField(2, "f", DoubleType()),
        NestedField(9, "d", DecimalType(20, 2)),
    )
    rows = pa.schema([("d", pa.decimal128(9, 2)), ("i", pa.int16()), ("f", pa.float32())])
    layout = file_layout(table, rows)
    assert layout.schema.names == ["i", "f", "d"]
    assert layout.schema.types == [pa.int64(), pa.float64(), pa.decimal128(20, 2)]
    batch = pa.RecordBatch.from_pylist([{"i": 1, "f": 0.5, "d": None}], rows)
    assert layout.arrange(batch).to_pylist() == [{"i": 1, "f": 0.5, "d": None}]


@pytest.mark.parametrize(
    ("stored", "given"),
    [
        (IntegerType(), pa.int64()),
        (DecimalType(9, 2), pa.decimal128(10, 2)),
        (DecimalType(20, 4), pa.decimal128(9, 2)),
        (LongType(), pa.uint64()),
    ],
    ids=str,
)
def test_wider_columns_are_refused(stored, given):
    with pytest.raises(SchemaMismatchError):
        file_layout(Schema(NestedField(1, "x", stored)), pa.schema([("x", given)]))


def test_columns_of_the_right_type_are_not_copied():
    rows = pa.schema([("id", pa.int64()), ("name", pa.large_string()), ("text", pa.string())])
    batch = pa.RecordBatch.from_pylist([{"id": 1, "name": "a", "text": "b"}], rows)
    arranged = file_layout(iceberg_schema(rows), rows).arrange(batch)
    for before, after in zip(batch.columns, arranged.columns, strict=True):
        assert before.buffers()[1].address == after.buffers()[1].address


def test_file_columns_carry_ids_and_names_of_letters_at_every_depth():
    inner = pa.struct([("x y", pa.int64()), ("z", pa.list_(pa.string()))])
    rows = pa.schema([("a.b", pa.int64()), ("list", pa.list_(inner)), ("1st", pa.string())])
    table = iceberg_schema(rows)
    layout = file_layout(table, rows)
    assert layout.schema.names == ["a_x2Eb", "list", "_1st"]
    element = layout.schema.field("list").type.value_field
    assert element.metadata[b"PARQUET:field_id"].decode() == str(
        table.find_field("list.element").field_id
    )
    assert [field.name for field in element.type] == ["x_x20y", "z"]
    row = {"a.b": 1, "list": [{"x y": 2, "z": ["q", None]}, None], "1st": None}
    arranged = layout.arrange(pa.RecordBatch.from_pylist([row], rows))
    assert arranged.to_pylist() == [
        {"a_x2Eb": 1, "list": [{"x_x20y": 2, "z": ["q", None]}, None], "_1st": None}
    ]


def test_a_slice_of_a_batch_keeps_its_rows():
    rows = pa.schema([("s", pa.struct([("x y", pa.string())])), ("n", pa.int8())])
    batch = pa.RecordBatch.from_pylist([{"s": {"x y": str(n)}, "n": n} for n in range(9)], rows)
    arranged = file_layout(iceberg_schema(rows), rows).arrange(batch.slice(3, 4))
    assert [row["s"]["x_x20y"] for row in arranged.to_pylist()] == ["3", "4", "5", "6"]
    assert [row["n"] for row in arranged.to_pylist()] == [3, 4, 5, 6]
