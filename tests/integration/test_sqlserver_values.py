"""What SQL Server's values become: exact, or in a declared encoding; on a stand-in of our own."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal

import pyarrow as pa
import pytest

from matih_ray.errors import PlanError, ValidationError
from matih_ray.model.ids import EndpointId, TenantId, UnitId
from matih_ray.model.policy import IngestionPolicy, LateCommits, RunMode
from matih_ray.model.unit import Fidelity
from matih_ray.sources.base import EndpointSpec, IngestionContext
from matih_ray.sources.sqlserver import SqlServerSource
from matih_ray.sources.sqlserver.dialect import SqlServerDialect
from matih_ray.testing.devstack.sqlserver import SqlServer

TYPES = {
    "flag": "bit",
    "tiny": "tinyint",
    "small": "smallint",
    "whole": "int",
    "large": "bigint",
    "widest": "decimal(38,10)",
    "plain": "numeric(5,0)",
    "price": "money",
    "tip": "smallmoney",
    "single": "real",
    "double": "float",
    "fixed": "char(3)",
    "code": "varchar(20)",
    "name": "nvarchar(20)",
    "essay": "nvarchar(max)",
    "old": "text",
    "raw": "varbinary(20)",
    "blob": "varbinary(max)",
    "picture": "image",
    "day": "date",
    "ancient": "datetime",
    "rough": "smalldatetime",
    "micro": "datetime2(6)",
    "second": "datetime2(0)",
    "precise": "datetime2(7)",
    "zoned": "datetimeoffset(7)",
    "clock": "time(7)",
    "key": "uniqueidentifier",
    "version": "rowversion NOT NULL",
    "document": "xml",
    "anything": "sql_variant",
    "place": "geography",
}
FULL = """
INSERT INTO dbo.types VALUES (
    true, 255, -32768, -2147483648, 9223372036854775807,
    '-9999999999999999999999999999.0123456789', 99999, '-922337203685477.5808', '-214748.3648',
    1.1, 1e-300, 'ab ', 'straße', 'name ''ñ''', repeat('😀', 5000), 'legacy',
    '\\x00\\xFF'::BLOB, repeat('ab', 4000)::BLOB, '\\x01'::BLOB,
    '0001-01-01', '1753-01-01 00:00:00.003', '2079-06-06 23:59:00', '9999-12-31 23:59:59.999999',
    '2024-01-31 01:02:03', '2024-01-31 01:02:03.1234567',
    '2024-01-31 01:02:03.1234567 +05:30', '23:59:59.9999999',
    '6F9619FF-8B86-D011-B42D-00C04FC964FF', 9223372036854775807, '<a>ñ</a>', 'text', 'POINT (1 2)')
"""
VALUES = {
    "flag": True,
    "tiny": 255,
    "small": -32768,
    "whole": -(2**31),
    "large": 2**63 - 1,
    "widest": Decimal("-9999999999999999999999999999.0123456789"),
    "plain": Decimal(99999),
    "price": Decimal("-922337203685477.5808"),
    "tip": Decimal("-214748.3648"),
    "single": float(pa.scalar(1.1, pa.float32()).as_py()),
    "double": 1e-300,
    "fixed": "ab ",
    "code": "straße",
    "name": "name 'ñ'",
    "essay": "😀" * 5000,
    "old": "legacy",
    "raw": b"\x00\xff",
    "blob": b"ab" * 4000,
    "picture": b"\x01",
    "day": dt.date(1, 1, 1),
    "ancient": dt.datetime(1753, 1, 1, 0, 0, 0, 3000),  # noqa: DTZ001 it has no zone
    "rough": dt.datetime(2079, 6, 6, 23, 59),  # noqa: DTZ001
    "micro": dt.datetime(9999, 12, 31, 23, 59, 59, 999999),  # noqa: DTZ001
    "second": dt.datetime(2024, 1, 31, 1, 2, 3),  # noqa: DTZ001
    "precise": "2024-01-31 01:02:03.1234567",
    "zoned": "2024-01-31 01:02:03.1234567 +05:30",
    "clock": "23:59:59.9999999",
    "key": "6f9619ff-8b86-d011-b42d-00c04fc964ff",
    "version": 2**63 - 1,
    "document": "<a>ñ</a>",
    "anything": "text",
    "place": "POINT (1 2)",
}


@pytest.fixture(scope="module")
def server() -> Iterator[SqlServer]:
    with SqlServer({"reader": "secret"}) as server:
        server.create_table("dbo", "types", TYPES)
        server.run(FULL)
        nulls = ", ".join("7" if name == "version" else "NULL" for name in TYPES)
        server.run(f"INSERT INTO dbo.types VALUES ({nulls})")
        yield server


@pytest.fixture
def source(server: SqlServer) -> Iterator[SqlServerSource]:
    spec = EndpointSpec(
        tenant_id=TenantId("tenant"),
        endpoint_id=EndpointId("endpoint"),
        name="test",
        type="SQL_SERVER",
        config={
            "host": server.host,
            "port": server.port,
            "database": server.database,
            "user": "reader",
            "sslMode": "disable",
        },
        secrets={"password": "secret"},
    )
    with closing(SqlServerSource(spec)) as source:
        yield source


def read(source: SqlServerSource, unit_id: str, policy: IngestionPolicy) -> pa.Table:
    unit = source.describe_unit(UnitId(unit_id))
    plan = source.plan_incremental_slices(unit, None, policy, 1000)
    batches = [batch for slice_ in plan.slices for batch in source.read(unit, slice_, policy)]
    return pa.Table.from_batches(batches, source.read_schema(unit, policy))


def test_every_value_is_exact_or_in_its_declared_encoding(source: SqlServerSource):
    rows = read(source, "dbo.types", IngestionPolicy())
    full, nulls = rows.to_pylist()
    assert full == VALUES
    assert nulls.pop("version") == 7
    assert set(nulls.values()) == {None}


def test_types_are_spelled_as_they_were_declared(source: SqlServerSource):
    unit = source.describe_unit(UnitId("dbo.types"))
    declared = {name: type_.removesuffix(" NOT NULL") for name, type_ in TYPES.items()}
    assert {column.name: column.native_type for column in unit.columns} == declared
    assert [column.name for column in unit.columns if not column.nullable] == ["version"]


def test_what_grows_is_offered_as_a_cursor(source: SqlServerSource):
    candidates = source.describe_unit(UnitId("dbo.types")).cursor_candidates
    assert {"version", "large", "precise", "ancient", "day", "price"} <= set(candidates)
    assert not {"name", "zoned", "double", "flag", "key", "raw"} & set(candidates)


def test_moments_may_be_cut_to_microseconds(source: SqlServerSource):
    encodings = {"precise": "timestamp", "zoned": "timestamp"}
    policy = IngestionPolicy(columns=tuple(encodings), encodings=encodings)
    rows = read(source, "dbo.types", policy)
    assert rows.schema.types == [pa.timestamp("us"), pa.timestamp("us", tz="UTC")]
    moment = dt.datetime(2024, 1, 31, 1, 2, 3, 123456)  # noqa: DTZ001 it has no zone
    before = dt.datetime(2024, 1, 30, 19, 32, 3, 123456, dt.timezone.utc)
    assert rows.to_pylist()[0] == {"precise": moment, "zoned": before}


def test_every_type_can_be_read_as_text(source: SqlServerSource):
    policy = IngestionPolicy(encodings=dict.fromkeys(TYPES, "text"))
    rows = read(source, "dbo.types", policy)
    assert set(rows.schema.types) == {pa.string()}
    assert rows.column("widest")[0].as_py() == "-9999999999999999999999999999.0123456789"
    assert rows.column("raw")[0].as_py() == "00FF"


def test_an_encoding_that_does_not_exist_is_refused(source: SqlServerSource):
    unit = source.describe_unit(UnitId("dbo.types"))
    with pytest.raises(ValidationError, match="whole"):
        source.read_schema(unit, IngestionPolicy(encodings={"whole": "timestamp"}))


def test_what_the_stand_in_does_not_have_is_read_as_the_manual_says():
    dialect = SqlServerDialect()
    for type_ in ("hierarchyid", "vector", "a type of 2031"):
        mapping = dialect.mapping(type_)
        assert (mapping.arrow, mapping.fidelity, mapping.bound) == (
            pa.string(), Fidelity.ENCODED, None
        )  # fmt: skip
        assert mapping.expression == "CONVERT(nvarchar(max), {})"
    # the styles under which no digit is lost
    assert dialect.overridden("float", "text", "c").expression == "CONVERT(nvarchar(max), {}, 3)"
    assert dialect.overridden("money", "text", "c").expression == "CONVERT(nvarchar(max), {}, 2)"


def test_awkward_names_are_read(server: SqlServer, source: SqlServerSource):
    schema, table, column = "Sales 2024", "line]items'.%s {0}", 'Ö "%s" {} ]'
    server.create_table(schema, table, {column: "int"}, key=(column,))
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
    assert found == [{column: 7}, {column: 8}]


def test_an_empty_table_has_no_rows_and_its_schema(server: SqlServer, source: SqlServerSource):
    server.create_table("dbo", "nothing", {"id": "int", "at": "datetime"}, key=("id",))
    rows = read(source, "dbo.nothing", IngestionPolicy())
    assert (rows.num_rows, rows.schema.names) == (0, ["id", "at"])


def test_a_datetime_goes_on_after_its_own_last_value(server: SqlServer, source: SqlServerSource):
    """Its bound is compared as a datetime, in whose steps the text of three decimals is exact."""
    server.create_table("dbo", "stamped", {"id": "int NOT NULL", "at": "datetime NOT NULL"})
    server.run("INSERT INTO dbo.stamped VALUES (1, '2024-01-01 00:00:00.003')")
    policy = IngestionPolicy(run_mode=RunMode.INCREMENTAL, cursor_column="at")
    unit = source.describe_unit(UnitId("dbo.stamped"))
    plan = source.plan_incremental_slices(unit, None, policy, 10)
    assert plan.statistics["upper"] == "2024-01-01 00:00:00.003"
    literal = SqlServerDialect().literal
    kind = SqlServerDialect().mapping("datetime").bound
    assert kind is not None
    assert literal(kind, "2024-01-01 00:00:00.003").endswith("AS datetime)")
    assert literal(kind, "2024-01-01 00:00:00.003000").endswith("AS datetime2(7))")


def test_a_look_back_needs_a_time_or_a_number(source: SqlServerSource):
    policy = IngestionPolicy(
        run_mode=RunMode.INCREMENTAL,
        cursor_column="name",
        late_commits=LateCommits.LOOKBACK,
        lookback=5,
    )
    unit = source.describe_unit(UnitId("dbo.types"))
    with pytest.raises(PlanError, match="cannot use 'name'"):
        source.plan_incremental_slices(unit, None, policy, 10)
