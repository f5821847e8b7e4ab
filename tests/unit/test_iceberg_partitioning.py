"""Partition specs from words, and the partition values of rows."""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
import pytest
from pyiceberg.io.pyarrow import schema_to_pyarrow

from matih_ray.errors import ValidationError
from matih_ray.sinks.iceberg.parquet_files import partition_directory
from matih_ray.sinks.iceberg.partitioning import Partitioner, partition_spec
from matih_ray.sinks.iceberg.schema import iceberg_schema

ARROW = pa.schema(
    [
        ("id", pa.int64()),
        ("n", pa.int32()),
        ("s", pa.string()),
        ("price", pa.decimal128(12, 2)),
        ("day", pa.date32()),
        ("at", pa.timestamp("us")),
        ("utc", pa.timestamp("us", "UTC")),
        ("raw", pa.binary()),
        ("flag", pa.bool_()),
        ("who", pa.uuid()),
        ("real", pa.float64()),
        ("tags", pa.list_(pa.string())),
        ("odd, (name)", pa.int64()),
        ("at_day", pa.int64()),
    ]
)
SCHEMA = iceberg_schema(ARROW)


@pytest.mark.parametrize(
    ("text", "name", "transform"),
    [
        ("id", "id", "identity"),
        ("identity(s)", "s", "identity"),
        ("day( utc )", "utc_day", "day"),
        ("year(day)", "day_year", "year"),
        ("bucket(16, id)", "id_bucket_16", "bucket[16]"),
        ("truncate(3,s)", "s_trunc_3", "truncate[3]"),
        ("odd, (name)", "odd, (name)", "identity"),
        ("bucket(2, odd, (name))", "odd, (name)_bucket_2", "bucket[2]"),
        ("day(at)", "at_day_part", "day"),
    ],
)
def test_words_become_fields(text, name, transform):
    field = partition_spec((text,), SCHEMA).fields[0]
    assert (field.name, str(field.transform)) == (name, transform)


@pytest.mark.parametrize(
    "text",
    [
        "nothing",
        "day(nothing)",
        "week(at)",
        "day(s)",
        "hour(day)",
        "bucket(id)",
        "bucket(0, id)",
        "bucket(100000, id)",
        "bucket(-1, id)",
        "bucket(4, tags)",
        "bucket(4, real)",
        "truncate(4, real)",
        "truncate(4, at)",
        "tags",
        "",
        "day(at",
    ],
)
def test_what_makes_no_sense_names_the_field_and_the_word(text):
    with pytest.raises(ValidationError) as caught:
        partition_spec(("id", text), SCHEMA)
    assert caught.value.context["field"] == "partitionBy"
    assert repr(text) in caught.value.message


def test_a_field_twice_is_refused():
    with pytest.raises(ValidationError, match="twice"):
        partition_spec(("day(at)", "day(at)"), SCHEMA)


DAYS = [0, -1, 1, 19_000, -719_162, 2_932_896, None]
MICROS = [0, -1, 1, 1_700_000_000_000_001, -62_135_596_800_000_000, 253_402_300_799_999_999, None]
VALUES = {
    "id": [0, -1, 5, 2**63 - 1, -(2**63), None],
    "n": [0, -7, 7, 2**31 - 1, -(2**31), None],
    "s": ["", "é", "abcdef", "a" * 40, None],
    "price": [Decimal("0.00"), Decimal("-1.23"), Decimal("9999999999.99"), None],
    "raw": [b"", b"\x00\xff\x01", None],
    "day": DAYS,
    "at": MICROS,
    "utc": MICROS,
    "who": [bytes(16), bytes(range(16)), None],
}


@pytest.mark.parametrize(
    ("words", "column"),
    [
        *[(f"{unit}({column})", column) for unit in ("year", "month", "day", "hour")
          for column in ("at", "utc")],
        *[(f"{unit}(day)", "day") for unit in ("year", "month", "day")],
        *[(f"bucket(7, {column})", column) for column in VALUES],
        *[(f"truncate(4, {column})", column) for column in ("id", "n", "s", "price", "raw")],
    ],
)  # fmt: skip
def test_partition_values_are_those_of_the_specification(words, column):
    kind = ARROW.field(column).type
    values = VALUES[column]
    array = pa.array(values, _storage(kind))
    array = pa.ExtensionArray.from_storage(kind, array) if column == "who" else array.cast(kind)
    spec = partition_spec((words,), SCHEMA)
    source = SCHEMA.find_field(column)
    oracle = spec.fields[0].transform.transform(source.field_type)
    expected = {value: oracle(value) for value in values}
    for record, part in _split(spec, column, array):
        for value in part[column].cast(_storage(kind)).to_pylist():
            assert record[0] == expected[value]


def test_infinity_has_partitions_of_its_own():
    ends = pa.array([2**63 - 1, 0, -(2**63) + 1, None], pa.int64()).cast(pa.timestamp("us"))

    def units(words: str) -> set[int | None]:
        return {record[0] for record, _ in _split(partition_spec((words,), SCHEMA), "at", ends)}

    assert units("year(at)") == {292_277, 0, -292_278, None}
    assert units("month(at)") == {292_277 * 12, 0, -292_278 * 12 + 11, None}
    assert units("day(at)") == {106_751_991, 0, -106_751_992, None}
    assert units("hour(at)") == {2**31 - 1, 0, -(2**31), None}


@pytest.mark.parametrize("words", [("year(at)",), ("day(day)",), ("s",)])
def test_a_partition_without_human_form_still_has_a_directory(words):
    spec = partition_spec(words, SCHEMA)
    column = {"year(at)": "at", "day(day)": "day", "s": "s"}[words[0]]
    extreme = {
        "at": pa.array([2**63 - 1], pa.int64()).cast(pa.timestamp("us")),
        "day": pa.array([2**31 - 1], pa.int32()).cast(pa.date32()),
        "s": pa.array(["x" * 5_000]),
    }[column]
    ((record, _),) = _split(spec, column, extreme)
    directory = partition_directory(spec, SCHEMA, record)
    assert directory
    assert all(len(part) <= 200 for part in directory.split("/"))


def test_rows_are_split_by_all_fields_and_none_is_lost():
    spec = partition_spec(("s", "bucket(3, id)", "flag"), SCHEMA)
    rows = 1_000
    table = _table(
        id=pa.array(range(rows)),
        s=pa.array([None if n % 9 == 0 else f"k{n % 4}" for n in range(rows)]),
        flag=pa.array([n % 5 == 0 for n in range(rows)]),
    )
    parts = list(Partitioner(spec, SCHEMA).split(table))
    assert len({record for record, _ in parts}) == len(parts)
    assert sorted(n for _, part in parts for n in part["id"].to_pylist()) == list(range(rows))
    for record, part in parts:
        assert set(part["s"].to_pylist()) == {record[0]}
        assert set(part["flag"].to_pylist()) == {record[2]}


def test_rows_that_are_together_are_not_copied():
    table = _table(s=pa.array(["a"] * 500 + ["b"] * 500))
    before = pa.total_allocated_bytes()
    parts = list(Partitioner(partition_spec(("s",), SCHEMA), SCHEMA).split(table))
    assert [part.num_rows for _, part in parts] == [500, 500]
    address = table["s"].chunk(0).buffers()[2].address
    assert all(part["s"].chunk(0).buffers()[2].address == address for _, part in parts)
    assert pa.total_allocated_bytes() - before < 10_000


def _storage(kind: pa.DataType) -> pa.DataType:
    if kind == pa.date32():
        return pa.int32()
    if pa.types.is_timestamp(kind):
        return pa.int64()
    return pa.binary(16) if kind == pa.uuid() else kind


def _table(**columns: pa.Array) -> pa.Table:
    rows = len(next(iter(columns.values())))
    schema = schema_to_pyarrow(SCHEMA, include_field_ids=False)
    arrays = [columns.get(f.name, pa.nulls(rows, ARROW.field(f.name).type)) for f in schema]
    return pa.table(arrays, names=schema.names)


def _split(spec, column, array):
    return list(Partitioner(spec, SCHEMA).split(_table(**{column: array})))
