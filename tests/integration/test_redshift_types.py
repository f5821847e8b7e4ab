"""Every type of Redshift that PostgreSQL has too arrives exactly, through a real PostgreSQL; what
only Redshift has is checked as SQL and as text."""

from __future__ import annotations

import datetime as dt
import struct
from collections.abc import Iterator
from decimal import Decimal

import pyarrow as pa
import pytest

from matih_ray.errors import UnrepresentableValueError, ValidationError
from matih_ray.model.ids import EndpointId, TenantId, UnitId
from matih_ray.model.policy import IngestionPolicy
from matih_ray.model.unit import Fidelity
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.redshift import RedshiftSource
from matih_ray.sources.redshift.catalog import Catalog
from matih_ray.sources.redshift.decoding import record_batch
from matih_ray.sources.redshift.dialect import RedshiftDialect
from matih_ray.testing.devstack.postgres import PostgresServer

UTC = dt.timezone.utc
TINY = struct.unpack("<f", struct.pack("<f", 1.17549435e-38))[0]
TENTH = struct.unpack("<f", struct.pack("<f", 0.1))[0]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        # what a session must not depend on
        server.execute(
            "ALTER DATABASE postgres SET timezone = 'Asia/Tokyo';"
            "ALTER DATABASE postgres SET datestyle = 'German';"
            "ALTER DATABASE postgres SET extra_float_digits = -3;"
            "ALTER DATABASE postgres SET bytea_output = 'escape';"
        )
        yield server


@pytest.fixture
def source(server: PostgresServer) -> Iterator[RedshiftSource]:
    config = {"host": server.host, "port": server.port, "database": "postgres", "user": "postgres"}
    source = RedshiftSource(
        EndpointSpec(
            tenant_id=TenantId("tenant"),
            endpoint_id=EndpointId("endpoint"),
            name="test",
            type="REDSHIFT",
            config={**config, "sslMode": "disable"},
        )
    )
    yield source
    source.close()


def loaded(
    server: PostgresServer,
    source: RedshiftSource,
    type_: str,
    *literals: str,
    encoding: str | None = None,
) -> pa.ChunkedArray:
    """The column `v` of a table with these values, as it arrives."""
    server.execute(
        f"DROP TABLE IF EXISTS t; CREATE TABLE t (n int PRIMARY KEY, v {type_});"
        + "".join(f"INSERT INTO t VALUES ({n}, {value});" for n, value in enumerate(literals))
    )
    encodings = {} if encoding is None else {"v": encoding}
    policy = IngestionPolicy(encodings=encodings)
    unit = source.describe_unit(UnitId("public.t"))
    plan = source.plan_incremental_slices(unit, None, policy, 1000)
    schema = source.read_schema(unit, policy)
    batches = [batch for slice_ in plan.slices for batch in source.read(unit, slice_, policy)]
    return pa.Table.from_batches(batches, schema).sort_by("n")["v"]


@pytest.mark.parametrize(
    ("type_", "arrow", "literals", "values"),
    [
        ("boolean", pa.bool_(), ("true", "false", "NULL"), [True, False, None]),
        ("smallint", pa.int32(), ("-32768", "32767", "NULL"), [-32768, 32767, None]),
        ("integer", pa.int32(), ("-2147483648", "2147483647"), [-(2**31), 2**31 - 1]),
        ("bigint", pa.int64(), ("-9223372036854775808", "'9223372036854775807'", "NULL"),
         [-(2**63), 2**63 - 1, None]),
        ("numeric(38,10)", pa.decimal128(38, 10),
         ("1234567890123456789012345678.0123456789", "-0.0000000001", "NULL"),
         [Decimal("1234567890123456789012345678.0123456789"), Decimal("-1E-10"), None]),
        ("numeric(38)", pa.decimal128(38, 0), ("9" * 38,), [Decimal("9" * 38)]),
        ("real", pa.float32(), ("0.1", "1.17549435e-38", "'-Infinity'", "NULL"),
         [TENTH, TINY, float("-inf"), None]),
        ("double precision", pa.float64(),
         ("0.1", "2.2250738585072014e-308", "1.7976931348623157e308", "'Infinity'"),
         [0.1, 2.2250738585072014e-308, 1.7976931348623157e308, float("inf")]),
        ("char(4)", pa.string(), ("'ab'", "''", "NULL"), ["ab  ", "    ", None]),
        ("varchar(40)", pa.string(), ("''", "E'\\t\\n\\\\ ''ü😀'", "'NULL'", "NULL"),
         ["", "\t\n\\ 'ü😀", "NULL", None]),
        ("date", pa.date32(), ("'0001-01-01'", "'9999-12-31'", "NULL"),
         [dt.date(1, 1, 1), dt.date(9999, 12, 31), None]),
        ("timestamp", pa.timestamp("us"), ("'0001-01-01'", "'2024-02-29 23:59:59.999999'"),
         [*map(dt.datetime.fromisoformat, ("0001-01-01", "2024-02-29 23:59:59.999999"))]),
        ("timestamptz", pa.timestamp("us", "UTC"), ("'2024-01-01 00:00:00.5+09'", "NULL"),
         [dt.datetime(2023, 12, 31, 15, 0, 0, 500_000, UTC), None]),
        ("time", pa.string(), ("'23:59:59.999999'", "'24:00:00'"),
         ["23:59:59.999999", "24:00:00"]),
        ("timetz", pa.string(), ("'23:59:59.5+05:30'",), ["23:59:59.5+05:30"]),
        ("interval", pa.string(), ("'1 year 2 mons 3 days 04:05:06.000007'",),
         ["1 year 2 mons 3 days 04:05:06.000007"]),
        ("bytea", pa.binary(), ("'\\x00ff5c27'", "''", "NULL"), [b"\x00\xff\\'", b"", None]),
        ("integer[]", pa.string(), ("'{1,NULL}'",), ["{1,NULL}"]),
    ],
)  # fmt: skip
def test_a_value_arrives_as_it_is(server, source, type_, arrow, literals, values):
    found = loaded(server, source, type_, *literals)
    assert found.type == arrow
    assert found.to_pylist() == values


def test_nan_of_a_float_arrives(server, source):
    (value,) = loaded(server, source, "double precision", "'NaN'").to_pylist()
    assert value != value


@pytest.mark.parametrize("value", ["'NaN'", "'Infinity'"])
def test_a_number_without_a_decimal_form_is_refused_by_name(server, source, value):
    with pytest.raises(UnrepresentableValueError, match="'v' holds"):
        loaded(server, source, "numeric", value, encoding="decimal(38,10)")


def test_a_number_of_any_size_arrives_as_text_unless_it_fits(server, source):
    digits = "9" * 50 + ".5"
    assert loaded(server, source, "numeric", digits).to_pylist() == [digits]
    found = loaded(server, source, "numeric", "1.5", encoding="decimal(10,2)")
    assert found.to_pylist() == [Decimal("1.50")]
    with pytest.raises(UnrepresentableValueError):
        loaded(server, source, "numeric", "1.555", encoding="decimal(10,2)")


def test_every_type_can_be_text(server, source):
    assert loaded(server, source, "double precision", "0.1", encoding="text").to_pylist() == ["0.1"]
    assert loaded(server, source, "date", "'2024-01-31'", encoding="text").to_pylist() == [
        "2024-01-31"
    ]
    with pytest.raises(ValidationError, match="no encoding 'base64'"):
        loaded(server, source, "date", "'2024-01-31'", encoding="base64")


@pytest.mark.parametrize(
    "type_", ["varchar(9)", "date", "timestamp", "timestamptz", "numeric(9,1)"]
)
def test_keys_of_every_ordered_type_are_cut(server, source, type_):
    values = {
        "varchar(9)": "chr(65 + n)", "date": "date '2024-01-01' + n",
        "timestamp": "timestamp '2024-01-01' + n * interval '1 microsecond'",
        "timestamptz": "timestamptz '2024-01-01' + n * interval '1 microsecond'",
        "numeric(9,1)": "n / 10.0",
    }  # fmt: skip
    server.execute(
        f"DROP TABLE IF EXISTS t; CREATE TABLE t (v {type_} PRIMARY KEY);"
        f"INSERT INTO t SELECT {values[type_]} FROM generate_series(1, 50) n"
    )
    unit = source.describe_unit(UnitId("public.t"))
    plan = source.plan_incremental_slices(unit, None, IngestionPolicy(), 20)
    sizes = [
        sum(batch.num_rows for batch in source.read(unit, slice_, IngestionPolicy()))
        for slice_ in plan.slices
    ]
    assert sizes == [20, 20, 10]


def test_what_only_redshift_has_is_read_as_its_guide_says():
    dialect = RedshiftDialect()
    varbyte = dialect.mapping("binary varying(64000)")
    assert (varbyte.arrow, varbyte.expression) == (pa.binary(), "FROM_VARBYTE({}, 'hex')")
    for type_, encoding in (
        ("super", "JSON text"),
        ("geometry", "hexadecimal EWKB"),
        ("hllsketch", "the database's own text"),
        ("interval day to second", "the database's own text"),
    ):
        mapping = dialect.mapping(type_)
        assert (mapping.arrow, mapping.fidelity, mapping.encoding, mapping.bound) == (
            pa.string(), Fidelity.ENCODED, encoding, None
        )  # fmt: skip
    schema = pa.schema([("b", pa.binary()), ("s", pa.string())])
    batch = record_batch([("00FFab", '{"a":1}'), (None, None)], schema)
    assert batch.to_pylist() == [{"b": b"\x00\xff\xab", "s": '{"a":1}'}, {"b": None, "s": None}]


def test_redshift_is_asked_by_its_own_views():
    asked: list[str] = []

    def ask(statement: str) -> list[tuple[str | None, ...]]:
        asked.append(statement)
        return []

    catalog = Catalog.of(ask, is_redshift=True)
    assert catalog.names() == []
    assert catalog.relations([("public", "t")]) == []
    assert any("FROM svv_tables" in statement for statement in asked)
    assert any("FROM svv_columns" in statement for statement in asked)
    assert not any("information_schema." in statement for statement in asked)
