"""What Oracle's values become: exact, or in a declared encoding; with a stand-in for the driver's
connection, whose values have the driver's Python types."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal

import oracledb
import pyarrow as pa
import pytest

from matih_ray.errors import UnrepresentableValueError, ValidationError
from matih_ray.model.ids import EndpointId, TenantId, UnitId
from matih_ray.model.policy import IngestionPolicy, RunMode
from matih_ray.model.unit import Fidelity
from matih_ray.sources.base import EndpointSpec, IngestionContext
from matih_ray.sources.oracle import OracleSource
from matih_ray.sources.oracle.decoding import record_batch
from matih_ray.sources.oracle.dialect import OracleDialect
from matih_ray.sources.sql.dialect import BoundKind
from matih_ray.testing.devstack import oracle_driver
from matih_ray.testing.devstack.oracle import OracleServer

TYPES = {
    "AMOUNT": "NUMBER(12,2)",
    "WIDEST": "NUMBER(38,10)",
    "WHOLE": "NUMBER(38,0)",
    "HUNDREDS": "NUMBER(5,-2)",
    "TINY": "NUMBER(2,5)",
    "ANY_NUMBER": "NUMBER",
    "BINARY_DIGITS": "FLOAT(126)",
    "SINGLE": "BINARY_FLOAT",
    "LARGE": "BINARY_DOUBLE",
    "FLAG": "BOOLEAN",
    "FIXED": "CHAR(3)",
    "NAME": "VARCHAR2(20)",
    "NATIONAL": "NVARCHAR2(20)",
    "ESSAY": "CLOB",
    "OLD": "LONG",
    "BYTES": "RAW(20)",
    "PICTURE": "BLOB",
    "DAY": "DATE",
    "MICRO": "TIMESTAMP(6)",
    "NANO": "TIMESTAMP(9)",
    "LOCAL": "TIMESTAMP(6) WITH LOCAL TIME ZONE",
    "ZONED": "TIMESTAMP(9) WITH TIME ZONE",
    "SPAN": "INTERVAL DAY(2) TO SECOND(6)",
    "PLACE": "ROWID",
    "DOCUMENT": "JSON",
    "OLDER": "XMLTYPE",
    "SHAPE": "SDO_GEOMETRY",
}
FULL = """
INSERT INTO "SHOP"."TYPES" VALUES (
    5, '-9999999999999999999999999999.0123456789', '99999999999999999999999999999999999999',
    1234500, '0.00099', '0.5', '1234.5', 1.1, 1e-300, true, 'ab ', 'so''ñ', '日本',
    repeat('😀', 5000), 'legacy', '\\x00\\xFF'::BLOB, repeat('ab', 4000)::BLOB,
    '2024-01-31 23:59:59', '9999-12-31 23:59:59.999999', '2024-01-31 01:02:03.123456789',
    '2024-01-31 01:02:03.123456+00', '2024-01-31 01:02:03.123456789 +05:30',
    '+01 02:03:04.000005', 'AAAR3sAAEAAAACXAAA', '{"a":[1]}', '<a>ñ</a>', 'POINT (1 2)')
"""
VALUES = {
    "AMOUNT": Decimal("5.00"),
    "WIDEST": Decimal("-9999999999999999999999999999.0123456789"),
    "WHOLE": Decimal("9" * 38),
    "HUNDREDS": Decimal(1234500),
    "TINY": Decimal("0.00099"),
    "ANY_NUMBER": "0.5",
    "BINARY_DIGITS": "1234.5",
    "SINGLE": pa.scalar(1.1, pa.float32()).as_py(),
    "LARGE": 1e-300,
    "FLAG": True,
    "FIXED": "ab ",
    "NAME": "so'ñ",
    "NATIONAL": "日本",
    "ESSAY": "😀" * 5000,
    "OLD": "legacy",
    "BYTES": b"\x00\xff",
    "PICTURE": b"ab" * 4000,
    "DAY": dt.datetime(2024, 1, 31, 23, 59, 59),  # noqa: DTZ001 it has no zone
    "MICRO": dt.datetime(9999, 12, 31, 23, 59, 59, 999999),  # noqa: DTZ001
    "NANO": "2024-01-31 01:02:03.123456789",
    "LOCAL": dt.datetime(2024, 1, 31, 1, 2, 3, 123456, dt.timezone.utc),
    "ZONED": "2024-01-31 01:02:03.123456789 +05:30",
    "SPAN": "+01 02:03:04.000005",
    "PLACE": "AAAR3sAAEAAAACXAAA",
    "DOCUMENT": '{"a":[1]}',
    "OLDER": "<a>ñ</a>",
    "SHAPE": "POINT (1 2)",
}


@pytest.fixture(autouse=True)
def driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oracledb, "connect", oracle_driver.connect)


@pytest.fixture(scope="module")
def server() -> Iterator[OracleServer]:
    with OracleServer({"READER": "secret"}) as server:
        server.create_table("SHOP", "TYPES", TYPES)
        server.run(FULL)
        server.run(f'INSERT INTO "SHOP"."TYPES" VALUES ({", ".join(["NULL"] * len(TYPES))})')
        yield server


@pytest.fixture
def source(server: OracleServer) -> Iterator[OracleSource]:
    spec = EndpointSpec(
        tenant_id=TenantId("tenant"),
        endpoint_id=EndpointId("endpoint"),
        name="test",
        type="ORACLE",
        config={
            "host": server.host,
            "port": server.port,
            "database": server.service,
            "user": "READER",
            "sslMode": "disable",
        },
        secrets={"password": "secret"},
    )
    with closing(OracleSource(spec)) as source:
        yield source


def read(source: OracleSource, unit_id: str, policy: IngestionPolicy) -> pa.Table:
    unit = source.describe_unit(UnitId(unit_id))
    plan = source.plan_incremental_slices(unit, None, policy, 1000)
    batches = [batch for slice_ in plan.slices for batch in source.read(unit, slice_, policy)]
    return pa.Table.from_batches(batches, source.read_schema(unit, policy))


def test_every_value_is_exact_or_in_its_declared_encoding(source: OracleSource):
    full, nulls = read(source, "SHOP.TYPES", IngestionPolicy()).to_pylist()
    assert full == VALUES
    assert set(nulls.values()) == {None}


def test_types_are_spelled_as_they_were_declared(source: OracleSource):
    unit = source.describe_unit(UnitId("SHOP.TYPES"))
    assert {column.name: column.native_type for column in unit.columns} == TYPES


def test_an_integer_is_38_digits(server: OracleServer, source: OracleSource):
    """The dictionary says so by a scale without a precision."""
    server.create_table("SHOP", "INTEGERS", {"N": "INTEGER"})
    [column] = source.describe_unit(UnitId("SHOP.INTEGERS")).columns
    assert (column.native_type, column.arrow_type) == ("NUMBER(38,0)", "decimal128(38, 0)")


def test_what_grows_is_offered_as_a_cursor(source: OracleSource):
    candidates = source.describe_unit(UnitId("SHOP.TYPES")).cursor_candidates
    assert {"AMOUNT", "ANY_NUMBER", "DAY", "MICRO", "NANO", "LOCAL"} <= set(candidates)
    assert not {"NAME", "ZONED", "LARGE", "FLAG", "BYTES", "ESSAY"} & set(candidates)


def test_timestamps_may_be_cut_to_microseconds(source: OracleSource):
    encodings = {"NANO": "timestamp", "ZONED": "timestamp"}
    policy = IngestionPolicy(columns=tuple(encodings), encodings=encodings)
    rows = read(source, "SHOP.TYPES", policy)
    assert rows.schema.types == [pa.timestamp("us"), pa.timestamp("us", tz="UTC")]
    moment = dt.datetime(2024, 1, 31, 1, 2, 3, 123456)  # noqa: DTZ001 it has no zone
    before = dt.datetime(2024, 1, 30, 19, 32, 3, 123456, dt.timezone.utc)
    assert rows.to_pylist()[0] == {"NANO": moment, "ZONED": before}


def test_a_number_may_be_a_decimal_if_it_fits(source: OracleSource):
    policy = IngestionPolicy(columns=("ANY_NUMBER",), encodings={"ANY_NUMBER": "decimal(5,2)"})
    assert read(source, "SHOP.TYPES", policy).column(0).to_pylist() == [Decimal("0.50"), None]
    policy = IngestionPolicy(columns=("ANY_NUMBER",), encodings={"ANY_NUMBER": "decimal(5,0)"})
    with pytest.raises(UnrepresentableValueError, match="ANY_NUMBER"):
        read(source, "SHOP.TYPES", policy)


def test_every_type_but_long_can_be_read_as_text(source: OracleSource):
    columns = tuple(name for name in TYPES if name != "OLD")
    policy = IngestionPolicy(columns=columns, encodings=dict.fromkeys(columns, "text"))
    rows = read(source, "SHOP.TYPES", policy)
    assert set(rows.schema.types) == {pa.string()}
    assert rows.column("WIDEST")[0].as_py() == "-9999999999999999999999999999.0123456789"
    assert rows.column("BYTES")[0].as_py() == "00FF"


@pytest.mark.parametrize(
    ("column", "encoding"),
    [("OLD", "text"), ("DAY", "decimal(9,2)"), ("ANY_NUMBER", "decimal(39,0)")],
)
def test_an_encoding_that_does_not_exist_is_refused(
    source: OracleSource, column: str, encoding: str
):
    unit = source.describe_unit(UnitId("SHOP.TYPES"))
    with pytest.raises(ValidationError, match=column):
        source.read_schema(unit, IngestionPolicy(encodings={column: encoding}))


def test_numbers_and_times_beyond_arrows_are_digits_or_an_error():
    digits = pa.schema([("n", pa.string())])
    numbers = [(Decimal("1e125"),), (Decimal("-1e-130"),), (None,)]
    assert record_batch(numbers, digits).column(0).to_pylist() == [
        "1" + "0" * 125,
        "-0." + "0" * 129 + "1",
        None,
    ]
    moments = pa.schema([("day", pa.timestamp("s"))])
    with pytest.raises(UnrepresentableValueError, match="day"):
        record_batch([("-0044-03-15 12:00:00",)], moments)


def test_what_the_stand_in_does_not_have_is_read_as_the_manual_says():
    dialect = OracleDialect()
    for type_ in ("SHOP.A_TYPE", "BFILE", "INTERVAL YEAR(2) TO MONTH"):
        mapping = dialect.mapping(type_)
        assert (mapping.arrow, mapping.fidelity, mapping.bound, mapping.expression) == (
            pa.string(), Fidelity.ENCODED, None, "TO_CHAR({})"
        )  # fmt: skip
    assert dialect.mapping("VECTOR").expression == "VECTOR_SERIALIZE({} RETURNING CLOB)"


def test_a_bound_is_compared_as_what_it_is_of():
    literal = OracleDialect().literal
    assert literal(BoundKind.TIMESTAMP, "2024-01-31 23:59:59").startswith("TO_DATE(")
    assert literal(BoundKind.TIMESTAMP, "2024-01-31 23:59:59.000001").startswith("TO_TIMESTAMP(")
    local = literal(BoundKind.TIMESTAMP_TZ, "2024-01-31 23:59:59.000001")
    assert local.endswith("AS TIMESTAMP WITH LOCAL TIME ZONE)")
    assert literal(BoundKind.TEXT, "it's") == "'it''s'"
    assert literal(BoundKind.BINARY, "00FF") == "HEXTORAW('00FF')"


@pytest.mark.parametrize("column", ["LOCAL", "BYTES", "NAME", "HUNDREDS"])
def test_a_cursor_of_another_kind_is_read_between_its_bounds(
    server: OracleServer, source: OracleSource, column: str
):
    server.drop_table("SHOP", "GROWING")
    server.create_table("SHOP", "GROWING", {column: TYPES[column]})
    server.run(f'INSERT INTO "SHOP"."GROWING" SELECT "{column}" FROM "SHOP"."TYPES"')
    server.run(f'DELETE FROM "SHOP"."GROWING" WHERE "{column}" IS NULL')
    policy = IngestionPolicy(run_mode=RunMode.INCREMENTAL, cursor_column=column)
    assert read(source, "SHOP.GROWING", policy).column(0).to_pylist() == [VALUES[column]]


def test_awkward_names_are_read(server: OracleServer, source: OracleSource):
    schema, table, column = "Sales 2024", "line]items'.%s {0}", "Ö %s {} ]"
    server.create_table(schema, table, {column: "NUMBER(5,0)"}, key=(column,))
    server.run(f'INSERT INTO "{schema}"."{table}" VALUES (7), (8)')
    [unit] = source.list_units(IngestionContext(TenantId("tenant"), pattern='"Sales*'))
    assert unit.unit_id == f'"{schema}"."{table}"'
    assert unit.primary_key == (column,)
    plan = source.plan_incremental_slices(unit, None, IngestionPolicy(), 1)
    found = [
        row
        for slice_ in plan.slices
        for batch in source.read(unit, slice_, IngestionPolicy())
        for row in batch.to_pylist()
    ]
    assert found == [{column: Decimal(7)}, {column: Decimal(8)}]


def test_an_empty_table_has_no_rows_and_its_schema(server: OracleServer, source: OracleSource):
    server.create_table("SHOP", "NOTHING", {"ID": "NUMBER", "AT": "DATE"}, key=("ID",))
    rows = read(source, "SHOP.NOTHING", IngestionPolicy())
    assert (rows.num_rows, rows.schema.names) == (0, ["ID", "AT"])
