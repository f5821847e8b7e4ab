"""What Databricks' values become: each exact, or in its declared encoding; on our stand-in."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest

from matih_ray.errors import UnrepresentableValueError, ValidationError
from matih_ray.model.ids import TenantId, UnitId
from matih_ray.model.policy import IngestionPolicy, RunMode
from matih_ray.sources.base import IngestionContext
from matih_ray.sources.databricks.decoding import decoded
from matih_ray.sources.databricks.dialect import DatabricksDialect
from matih_ray.sources.sql.dialect import BoundKind
from matih_ray.testing.devstack.databricks import DatabricksServer
from tests.integration.databricks_lab import TOKEN, read, source_of

UTC = ZoneInfo("UTC")
# Of each type: literals of DuckDB, and what arrives.
VALUES: dict[str, list[tuple[str, Any]]] = {
    "tinyint": [("-128", -128), ("127", 127)],
    "smallint": [("-32768", -32768)],
    "int": [("2147483647", 2**31 - 1)],
    "bigint": [("-9223372036854775808", -(2**63)), ("9007199254740993", 2**53 + 1)],
    "decimal(38,0)": [("'9" + "9" * 37 + "'", Decimal("9" * 38))],
    "decimal(38,18)": [("'-0.000000000000000001'", Decimal("-0.000000000000000001"))],
    "float": [("'0.1'", pa.scalar(0.1, pa.float32()).as_py()), ("'-inf'", -math.inf)],
    "double": [("0.1", 0.1), ("'nan'", math.nan), ("5e-324", 5e-324), ("'-0.0'", -0.0)],
    "boolean": [("true", True), ("false", False)],
    "string": [("'so''uth \\ ${x} ñ\U0001f600'", "so'uth \\ ${x} ñ\U0001f600"), ("''", "")],
    "varchar(10)": [("' pad '", " pad ")],
    "char(4)": [("'ab'", "ab")],
    "binary": [("unhex('00FF27')", b"\x00\xff'"), ("unhex('')", b"")],
    "date": [("'0001-01-01'", dt.date.min), ("'9999-12-31'", dt.date.max)],
    "timestamp": [
        ("'2024-03-31 02:30:00.123456+01'", dt.datetime(2024, 3, 31, 1, 30, 0, 123456, UTC)),
        ("'9999-12-31 23:59:59.999999+00'", dt.datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)),
    ],
    "timestamp_ntz": [
        ("'0001-01-01 00:00:00.000001'", dt.datetime(1, 1, 1, 0, 0, 0, 1)),  # noqa: DTZ001 has none
    ],
    "interval day to second": [("INTERVAL '1 day 02:03:04.5'", "1 day 02:03:04.5")],
}
# The same for JSON texts, compared as values.
DOCUMENTS: dict[str, list[tuple[str, Any]]] = {
    "array<decimal(20,2)>": [("[1.10, NULL]", [Decimal("1.10"), None])],
    "struct<a: int, b: array<string>>": [("{'a': NULL, 'b': ['x']}", {"a": None, "b": ["x"]})],
    "map<string, bigint>": [("MAP {'k': 9007199254740993}", {"k": 2**53 + 1})],
    "map<date, int>": [
        ("MAP {DATE '2024-01-31': 1}", [{"key": "2024-01-31", "value": 1}]),
    ],
    "variant": [("'{\"a\": [1, null]}'", {"a": [1, None]})],
}


@pytest.fixture(scope="module")
def server() -> Iterator[DatabricksServer]:
    with DatabricksServer(TOKEN) as server:
        for number, (type_, values) in enumerate([*VALUES.items(), *DOCUMENTS.items()]):
            server.create_table("types", f"t{number}", {"id": "int", "value": type_}, ("id",))
            rows = [*[literal for literal, _ in values], "NULL"]
            for place, literal in enumerate(rows):
                stored = server.vendor.stored(type_)
                server.run(
                    f"INSERT INTO types.t{number} VALUES ({place}, CAST({literal} AS {stored}))"
                )
        yield server


@pytest.mark.parametrize(("number", "type_"), list(enumerate(VALUES)))
def test_values_are_exact_or_in_their_declared_encoding(
    server: DatabricksServer, number: int, type_: str
):
    with closing(source_of(server)) as source:
        found = read(source, f"types.t{number}").column("value").to_pylist()
    assert repr(found) == repr([*[value for _, value in VALUES[type_]], None])


@pytest.mark.parametrize(("number", "type_"), list(enumerate(DOCUMENTS, len(VALUES))))
def test_nested_values_are_json(server: DatabricksServer, number: int, type_: str):
    with closing(source_of(server)) as source:
        column = source.describe_unit(UnitId(f"types.t{number}")).columns[1]
        found = read(source, f"types.t{number}").column("value").to_pylist()
    assert column.encoding == "JSON text"
    assert found.pop() is None
    assert [json.loads(text, parse_float=Decimal) for text in found] == [
        value for _, value in DOCUMENTS[type_]
    ]


@pytest.mark.parametrize("number", [list(VALUES).index(t) for t in ("timestamp", "binary", "date")])
def test_every_type_may_arrive_as_text(server: DatabricksServer, number: int):
    policy = IngestionPolicy(encodings={"value": "text"})
    with closing(source_of(server)) as source:
        found = read(source, f"types.t{number}", policy).column("value")
    assert found.type == pa.string()
    assert found.null_count == 1


def test_no_other_encoding_is_known(server: DatabricksServer):
    with closing(source_of(server)) as source, pytest.raises(ValidationError, match="text"):
        read(source, "types.t0", IngestionPolicy(encodings={"value": "hex"}))


@pytest.mark.parametrize(
    "type_",
    ["tinyint", "bigint", "decimal(38,18)", "string", "varchar(10)", "binary", "date", "timestamp",
     "timestamp_ntz"],
)  # fmt: skip
def test_bounds_of_every_kind_come_back_as_the_rows_that_they_cut(
    server: DatabricksServer, type_: str
):
    stored = server.vendor.stored(type_)
    server.drop_table("types", "cut")
    server.create_table("types", "cut", {"value": type_})
    literals = {
        "string": "'\\' || n || '''${' || n || '}'", "varchar(10)": "'$' || n",
        "binary": "encode(CAST(n AS VARCHAR))", "date": "DATE '2024-01-01' + CAST(n AS INTEGER)",
        "timestamp": "TIMESTAMPTZ '2024-01-01 00:00:00+00' + n * INTERVAL 1 MICROSECOND",
        "timestamp_ntz": "TIMESTAMP '2024-01-01' + n * INTERVAL 1 MICROSECOND",
        "decimal(38,18)": "n / 1000",
    }  # fmt: skip
    value = literals.get(type_, "n - 50")
    server.run(f"INSERT INTO types.cut SELECT CAST({value} AS {stored}) FROM range(100) t(n)")
    policy = IngestionPolicy(run_mode=RunMode.INCREMENTAL, cursor_column="value")
    with closing(source_of(server)) as source:
        unit = source.describe_unit(UnitId("types.cut"))
        plan = source.plan_incremental_slices(unit, None, policy, 10)
        sizes = [
            sum(batch.num_rows for batch in source.read(unit, slice_, policy))
            for slice_ in plan.slices
        ]
        whole = read(source, "types.cut")
    assert sizes == [10] * 10
    assert len(set(whole.column("value").to_pylist())) == 100


def test_awkward_names_are_names(server: DatabricksServer):
    server.create_table("odd schema", 'ta`ble."x"', {"co`l`umn'": "int", "ñ $ {} %s": "string"})
    server.run('INSERT INTO "odd schema"."ta`ble.""x""" VALUES (1, \'x\')')
    with closing(source_of(server, schema="odd schema")) as source:
        [unit] = source.list_units(IngestionContext(TenantId("tenant"), None, 0, 10))
        found = read(source, unit.unit_id)
    assert found.to_pylist() == [{"co`l`umn'": 1, "ñ $ {} %s": "x"}]


def test_an_empty_table_has_its_columns(server: DatabricksServer):
    server.create_table("types", "empty", {"a": "int", "b": "decimal(5,2)"})
    with closing(source_of(server)) as source:
        found = read(source, "types.empty")
    assert found.schema == pa.schema([("a", pa.int32()), ("b", pa.decimal128(5, 2))])
    assert found.num_rows == 0


def test_wide_rows_arrive_in_batches_of_bounded_size(server: DatabricksServer):
    server.create_table("types", "wide", {"id": "int", "text": "string"}, ("id",))
    server.run("INSERT INTO types.wide SELECT n, repeat('x', 20000) FROM range(3000) t(n)")
    with closing(source_of(server)) as source:
        unit = source.describe_unit(UnitId("types.wide"))
        plan = source.plan_incremental_slices(unit, None, IngestionPolicy(), 10_000)
        sizes = [
            (batch.num_rows, batch.nbytes)
            for batch in source.read(unit, plan.slices[0], IngestionPolicy())
        ]
    assert sum(rows for rows, _ in sizes) == 3000
    assert max(size for _, size in sizes) < 25_000_000, "60 MB in all"


@pytest.mark.parametrize(
    ("native", "arrow", "expression"),
    [
        ("DECIMAL", "decimal128(10, 0)", "{}"),
        ("LONG", "int64", "{}"),
        ("map<struct<a:int>,int>", "string", "to_json(map_entries({})"),
        ("array<map<date,int>>", "string", "CAST({} AS STRING)"),
        ("struct<a:map<string,map<int,binary>>>", "string", "to_json({},"),
        ("interval year to month", "string", "CAST({} AS STRING)"),
        ("geometry(4326)", "string", "CAST({} AS STRING)"),
        ("string collate UTF8_LCASE", "string", "{}"),
    ],
)
def test_types_are_known_in_every_spelling(native: str, arrow: str, expression: str):
    mapping = DatabricksDialect("c").mapping(native)
    assert str(mapping.arrow) == arrow
    assert mapping.expression.startswith(expression)


def test_texts_under_a_collation_are_no_bounds():
    assert DatabricksDialect("c").mapping("string").bound is BoundKind.TEXT
    assert DatabricksDialect("c").mapping("string collate UTF8_LCASE").bound is None
    assert DatabricksDialect("c").mapping("char(3)").bound is None


def test_a_value_that_does_not_fit_names_its_column():
    table = pa.table({"n": [300]})
    with pytest.raises(UnrepresentableValueError, match="'n'"):
        decoded(table, pa.schema([("n", pa.int8())]))
