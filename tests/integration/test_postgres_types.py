"""Every PostgreSQL type with its nastiest values, against an independent route: a plain SELECT
whose values psycopg2 hands over as the server's text, and the server's own date arithmetic."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from decimal import Decimal

import psycopg2
import pyarrow as pa
import pytest

from matih_ray.errors import UnrepresentableValueError, ValidationError
from matih_ray.model.ids import EndpointId, TenantId, UnitId
from matih_ray.model.policy import IngestionPolicy
from matih_ray.model.unit import Fidelity
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.postgres import PostgresSource
from matih_ray.testing.devstack.postgres import PostgresServer
from tests.integration.postgres_ways import way  # noqa: F401

TYPES = """
CREATE SCHEMA "My Schema.v2";
CREATE TYPE mood AS ENUM ('sad', 'o''k', 'very "happy"', 'back\\slash');
CREATE TYPE pair AS (n int, t text, at timestamptz);
CREATE DOMAIN amount AS numeric(12,2) CHECK (VALUE >= 0);
CREATE DOMAIN "Odd Name" AS amount NOT NULL;
CREATE DOMAIN short AS varchar(5);
CREATE TYPE float_range AS RANGE (subtype = float8);
"""

STRINGS = [
    "''", "' '", r"E'\\N'", r"E'\\.'", r"E'a\tb'", r"E'a\nb\r\nc'", r"E'\r'", r"E'back\\slash'",
    r"E'\\\\'", r"E'\\n is not a newline'", r"E'\b\f\v\x01\x7f'", "'\"quoted\", ''twice'''",
    "'naïve 😀 \u202e 漢字'", r"E'trailing\\'", "repeat('long ', 5000)", "'NULL'", "'null'",
]  # fmt: skip

# SQL type -> literals that are cast to it.
VALUES: dict[str, list[str]] = {
    "boolean": ["true", "false"],
    "smallint": ["-32768", "32767", "0"],
    "integer": ["-2147483648", "2147483647"],
    "bigint": ["-9223372036854775808", "9223372036854775807"],
    "oid": ["0", "4294967295"],
    "xid": ["'4294967295'", "'3'"],
    "real": ["'NaN'", "'Infinity'", "'-Infinity'", "'-0'", "1.17549435e-38", "3.4028235e38", "0.1"],
    "double precision": [
        "'NaN'", "'Infinity'", "'-Infinity'", "'-0'", "5e-324", "1.7976931348623157e308", "0.1",
        "123456789.123456789",
    ],
    "numeric(38,10)": ["9999999999999999999999999999.9999999999", "-0.0000000001", "1", "0"],
    "numeric(38,38)": ["0." + "9" * 38, "-0." + "0" * 37 + "1"],
    "numeric(38,0)": ["9" * 38, "-" + "9" * 38],
    "numeric(5)": ["99999", "-1"],
    "numeric(2,-3)": ["99000", "-1000"],
    "numeric(3,5)": ["0.00999", "-0.00001"],
    "numeric(39,1)": ["9" * 38 + ".9", "'NaN'"],
    "numeric(38,-5)": ["1" + "0" * 42, "-" + "9" * 38 + "00000"],
    "numeric": [
        "'NaN'", "'Infinity'", "'-Infinity'", "1." + "0" * 50 + "1", "1.10", "1e131071", "1e-16383",
    ],
    "money": ["'92233720368547758.07'", "'-92233720368547758.08'", "'0.01'"],
    "text": STRINGS,
    "varchar(40000)": STRINGS,
    "char(8)": ["''", "'ab'", r"E'a\tb\\'"],
    "bpchar": ["'ab  '"],
    "name": ["'a name'"],
    '"char"': ["'a'", "''", r"E'\\'"],
    "bytea": [r"'\x'", r"'\x00'", r"'\x5c6e0a09ff'", "decode(repeat('00ff5c', 4000), 'hex')"],
    "date": [
        "'2024-02-29'", "'0001-01-01'", "'9999-12-31'", "'10000-01-01'", "'5874897-12-31'",
        "'0001-12-31 BC'", "'4713-01-01 BC'", "'0005-02-29 BC'", "'infinity'", "'-infinity'",
    ],
    "timestamp": [
        "'2024-02-29 23:59:59.999999'", "'0001-01-01'", "'9999-12-31 23:59:59.999999'",
        "'10000-01-01 00:00:00.000001'", "'294246-12-31 23:59:59.999999'",
        "'294247-01-10 04:00:54.775806'", "'4713-01-01 BC'", "'0001-12-31 23:59:59.5 BC'",
        "'infinity'", "'-infinity'", "'1969-12-31 23:59:59.999999'",
    ],
    "timestamptz": [
        "'2024-03-31 02:30:00.1+02'", "'9999-12-31 23:59:59-12'", "'0001-01-01 00:00:00+14'",
        "'4713-01-01 00:00:00+00 BC'", "'infinity'", "'-infinity'",
        "'1883-11-18 12:03:58 America/New_York'",
    ],
    "timestamp(3)": ["'2024-01-01 00:00:00.0006'"],
    "time": ["'00:00:00'", "'23:59:59.999999'", "'24:00:00'"],
    "timetz": ["'24:00:00+15:59:59'", "'00:00:00.1-15:59'"],
    "interval": [
        "'1 year 2 months -3 days 04:05:06.789'", "'-178000000 years'", "'0'", "'-00:00:00.000001'",
        "'1 mon -1 day'", "'2562047788:00:54.775807'",
    ],
    "uuid": ["'00000000-0000-0000-0000-000000000000'", "'FFFFFFFF-ffff-ffff-ffff-FFFFFFFFFFFF'"],
    "json": [r"""'{"a" : [1.0, "\u00e9\n"], "a": null}'""", "'null'", "'  1e400 '"],
    "jsonb": [r"""'{"b": 1e3, "a": "\\ \" \t", "n": 12345678901234567890.123}'""", "'null'"],
    "xml": ["'<a x=\"1\">&amp;\n</a>'", "''"],
    "inet": ["'10.0.0.1'", "'::1/64'"],
    "cidr": ["'10.0.0.0/8'"],
    "macaddr": ["'08:00:2b:01:02:03'"],
    "macaddr8": ["'08:00:2b:01:02:03:04:05'"],
    "bit(3)": ["B'101'"],
    "bit varying": ["B''", "repeat('01', 500)::bit varying"],
    "int4range": ["'empty'", "'[1,5)'", "'(,)'"],
    "numrange": ["'[1.10,)'"],
    "tstzrange": ["'[2024-01-01 00:00+00,infinity)'"],
    "float_range": ["'[0.1,0.30000000000000004)'"],
    "int4multirange": ["'{}'", "'{[1,3),[5,7)}'"],
    "point": ["'(0.1,-0)'", "'(NaN,Infinity)'"],
    "line": ["'{1,2,3}'"],
    "lseg": ["'[(0,0),(1,1)]'"],
    "box": ["'(1,1),(0,0)'"],
    "path": ["'[(0,0),(1,1)]'", "'((0,0),(1,1))'"],
    "polygon": ["'((0,0),(1,1),(1,0))'"],
    "circle": ["'<(0,0),0.1>'"],
    "tsvector": [r"""'''a\b'':1A ''c''''d'''"""],
    "tsquery": ["'a & !b'"],
    "mood": ["'sad'", "'o''k'", "'very \"happy\"'", r"E'back\\slash'"],
    "amount": ["1.10", "9999999999.99"],
    "short": ["''", "'abcde'"],
    "pair": [r"""ROW(1, E'a,"b"\\\n', '2024-01-01+00')""", "ROW(NULL, '', NULL)"],
    "int[]": ["'{}'", "'{1,NULL,3}'", "'{{1,2},{3,4}}'", "'[2:3]={7,8}'"],
    "text[]": [r"""ARRAY['', 'NULL', NULL, E'a"b\\c,d\n', '{}']"""],
    "numeric(10,2)[]": ["'{1.10,NaN,NULL}'"],
    "double precision[]": ["'{0.1,NaN,Infinity,-0}'"],
    "timestamptz[]": ["'{infinity,2024-01-01 00:00+00}'"],
    "mood[]": [r"ARRAY['very \"happy\"', 'sad']::mood[]".replace(r"\"", '"')],
    "bytea[]": [r"ARRAY['\x00'::bytea, NULL]"],
    "pair[]": [r"""ARRAY[ROW(1, 'x', NULL)::pair]"""],
    "amount[]": ["'{1.10}'"],
    "int2vector": ["'1 2'"],
    "regclass": ["'pg_class'"],
    "pg_lsn": ["'16/B374D848'"],
    "txid_snapshot": ["'10:20:10,14,15'"],
    "jsonpath": ["'$.a[*] ? (@ > 1)'"],
}  # fmt: skip

EXTENSION_VALUES = {
    "hstore": [r"""'"a"=>"1", "b"=>NULL, "q\"uote"=>""'""", "''"],
    "citext": ["'MiXed'", r"E'tab\t'"],
    "ltree": ["'Top.Science'"],
}


@pytest.fixture(scope="module")
def server(way: None) -> Iterator[PostgresServer]:  # noqa: F811 what the tests create is there once
    with PostgresServer() as server:
        server.execute(TYPES)
        yield server


@pytest.fixture
def source(server: PostgresServer) -> Iterator[PostgresSource]:
    source = PostgresSource(spec_of(server))
    yield source
    source.close()


def spec_of(server: PostgresServer, database: str = "postgres") -> EndpointSpec:
    return EndpointSpec(
        tenant_id=TenantId("tenant"),
        endpoint_id=EndpointId("endpoint"),
        name="test",
        type="POSTGRESQL",
        config={
            "host": server.host,
            "port": server.port,
            "database": database,
            "user": server.user,
        },
    )


def read(source: PostgresSource, unit_id: str, policy: IngestionPolicy | None = None) -> pa.Table:
    policy = policy or IngestionPolicy()
    unit = source.describe_unit(UnitId(unit_id))
    plan = source.plan_incremental_slices(unit, None, policy, 1_000_000)
    schema = source.read_schema(unit, policy)
    batches = [batch for slice_ in plan.slices for batch in source.read(unit, slice_, policy)]
    table = pa.Table.from_batches(batches, schema)
    table.validate(full=True)
    return table.sort_by("row") if "row" in table.column_names else table


def texts_of(server: PostgresServer, table: str) -> dict[str, list[str | None]]:
    """Every column as the server's text for it, by the plain query protocol."""
    connection = server.connect()
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SET timezone = 'UTC'; SET intervalstyle = 'iso_8601'; SET extra_float_digits = 3"
            )
            cursor.execute(f"SELECT * FROM {table} LIMIT 0")
            oids = tuple(column.type_code for column in cursor.description)
            as_text = psycopg2.extensions.new_type(oids, "TEXT", lambda value, _: value)
            psycopg2.extensions.register_type(as_text, cursor)
            cursor.execute(f"SELECT * FROM {table} ORDER BY row::int")
            names = [column.name for column in cursor.description]
            rows = cursor.fetchall()
    finally:
        connection.close()
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def values_of(server: PostgresServer) -> dict[str, list[str]]:
    available = {str(row[0]) for row in server.execute("SELECT name FROM pg_available_extensions")}
    extra = {name: v for name, v in EXTENSION_VALUES.items() if name in available}
    for name in extra:
        server.execute(f"CREATE EXTENSION IF NOT EXISTS {name}")
    if not has_xml(server):
        extra["xml"] = []
    ((version,),) = server.execute("SELECT current_setting('server_version_num')::int")
    assert isinstance(version, int)
    new_in_15 = ("numeric(2,-3)", "numeric(3,5)", "numeric(38,-5)")
    return {
        name: v
        for name, v in (VALUES | extra).items()
        if version >= 150_000 or name not in new_in_15
    }


def has_xml(server: PostgresServer) -> bool:
    """Whether the server was built with libxml; the type exists anyway."""
    try:
        server.execute("SELECT '<a/>'::xml")
    except psycopg2.errors.FeatureNotSupported:
        return False
    return True


def create_everything(server: PostgresServer) -> dict[str, str]:
    """One table with a column per type; returns column name -> SQL type."""
    values = values_of(server)
    columns = {f"c{i}": sql_type for i, sql_type in enumerate(values)}
    rows = max(len(literals) for literals in values.values()) + 1  # the last row is all NULL
    server.execute("DROP TABLE IF EXISTS everything")
    definitions = ", ".join(f'"{name}" {sql_type}' for name, sql_type in columns.items())
    server.execute(f"CREATE TABLE everything (row int, {definitions})")
    for row in range(rows):
        literals = [
            f"({values[t][row]})::{t}" if row < len(values[t]) else "NULL" for t in columns.values()
        ]
        server.execute(f"INSERT INTO everything VALUES ({row}, {', '.join(literals)})")
    return columns


def expected_value(text: str | None, arrow: pa.DataType) -> object:
    """The value that a server's text means, for types that Python can hold."""
    if text is None:
        return None
    if pa.types.is_boolean(arrow):
        return {"t": True, "f": False}[text]
    if pa.types.is_integer(arrow):
        return int(text)
    if pa.types.is_float32(arrow):
        return repr(struct.unpack("f", struct.pack("f", float(text)))[0])
    if pa.types.is_floating(arrow):
        return repr(float(text))
    if pa.types.is_binary(arrow):
        return bytes.fromhex(text.removeprefix("\\x"))
    if pa.types.is_decimal(arrow):
        return Decimal(text.replace("$", "").replace(",", ""))
    assert pa.types.is_string(arrow)
    return text


def comparable(column: pa.ChunkedArray) -> list[object]:
    if pa.types.is_floating(column.type):
        return [None if value is None else repr(value) for value in column.to_pylist()]
    return list(column.to_pylist())


def epochs_of(server: PostgresServer, column: str, arrow: pa.DataType) -> list[int | None]:
    """Days or microseconds since 1970, by the server's arithmetic."""
    if pa.types.is_date32(arrow):
        finite, infinity = f"{column} - date '1970-01-01'", 2**31 - 1
    else:
        finite, infinity = f"extract(epoch from {column}) * 1000000", 2**63 - 1
    rows = server.execute(
        f"SELECT (CASE WHEN {column} = 'infinity' THEN {infinity}::numeric "
        f"WHEN {column} = '-infinity' THEN -{infinity}::numeric ELSE {finite} END)::text "
        "FROM everything ORDER BY row"
    )
    return [None if row[0] is None else int(Decimal(str(row[0]))) for row in rows]


def test_every_type_arrives_exactly(server: PostgresServer, source: PostgresSource) -> None:
    columns = create_everything(server)
    expected = texts_of(server, "everything")
    table = read(source, "public.everything")
    assert table.num_rows == len(expected["row"])
    for name, sql_type in columns.items():
        column = table.column(name)
        if pa.types.is_temporal(column.type):
            physical = pa.int32() if pa.types.is_date32(column.type) else pa.int64()
            got = column.combine_chunks().view(physical).to_pylist()
            assert got == epochs_of(server, name, column.type), sql_type
        else:
            want = [expected_value(text, column.type) for text in expected[name]]
            assert comparable(column) == want, sql_type


def test_any_column_can_be_read_as_text(server: PostgresServer, source: PostgresSource) -> None:
    columns = create_everything(server)
    policy = IngestionPolicy(encodings=dict.fromkeys(columns, "text"))
    table = read(source, "public.everything", policy)
    expected = texts_of(server, "everything")
    for name, sql_type in columns.items():
        assert table.column(name).to_pylist() == expected[name], sql_type


@pytest.mark.parametrize(
    ("sql_type", "arrow", "fidelity"),
    [
        ("smallint", pa.int32(), Fidelity.WIDENED),
        ("integer", pa.int32(), Fidelity.EXACT),
        ("oid", pa.int64(), Fidelity.WIDENED),
        ("numeric(38,10)", pa.decimal128(38, 10), Fidelity.EXACT),
        ("numeric", pa.string(), Fidelity.ENCODED),
        ("timestamptz", pa.timestamp("us", "UTC"), Fidelity.EXACT),
        ("varchar(5)", pa.string(), Fidelity.EXACT),
        ("bytea", pa.binary(), Fidelity.EXACT),
        ("interval day to second(3)", pa.string(), Fidelity.ENCODED),
        ('"Odd Name"', pa.decimal128(12, 2), Fidelity.EXACT),
        ("mood[]", pa.string(), Fidelity.ENCODED),
    ],
)
def test_the_unit_declares_how_a_type_arrives(
    server: PostgresServer,
    source: PostgresSource,
    sql_type: str,
    arrow: pa.DataType,
    fidelity: Fidelity,
) -> None:
    server.execute(f"DROP TABLE IF EXISTS declared; CREATE TABLE declared (c {sql_type})")
    (column,) = source.describe_unit(UnitId("public.declared")).columns
    assert (column.arrow_type, column.fidelity) == (str(arrow), fidelity)
    assert (column.encoding is not None) >= (fidelity is Fidelity.ENCODED)


def test_a_not_null_domain_is_not_nullable(server: PostgresServer, source: PostgresSource) -> None:
    server.execute('DROP TABLE IF EXISTS odd; CREATE TABLE odd (a "Odd Name", b amount)')
    first, second = source.describe_unit(UnitId("public.odd")).columns
    assert (first.nullable, second.nullable) == (False, True)
    assert first.native_type == 'public."Odd Name" over numeric(12,2)'


def test_a_nan_among_decimals_is_an_error_with_a_remedy(
    server: PostgresServer, source: PostgresSource
) -> None:
    server.execute(
        "DROP TABLE IF EXISTS nans;"
        "CREATE TABLE nans (row int, plain numeric(9,2), n numeric(9,2));"
        "INSERT INTO nans SELECT n, 1.5, CASE WHEN n = 77 THEN 'NaN' ELSE 1.25 END "
        "FROM generate_series(1, 100) n"
    )
    with pytest.raises(UnrepresentableValueError) as caught:
        read(source, "public.nans")
    assert caught.value.context["column"] == "n"
    assert "NaN" in str(caught.value)
    table = read(source, "public.nans", IngestionPolicy(encodings={"n": "text"}))
    assert table.column("n").to_pylist()[75:78] == ["1.25", "NaN", "1.25"]


def test_unconstrained_numerics_can_be_read_as_decimals_that_fit(
    server: PostgresServer, source: PostgresSource
) -> None:
    server.execute(
        "DROP TABLE IF EXISTS loose; CREATE TABLE loose (row int, n numeric);"
        "INSERT INTO loose VALUES (1, 1.5), (2, 1.50000), (3, NULL), (4, -99)"
    )
    policy = IngestionPolicy(encodings={"n": "decimal(10,2)"})
    table = read(source, "public.loose", policy)
    assert table.schema.field("n").type == pa.decimal128(10, 2)
    assert table.column("n").to_pylist() == [Decimal("1.5"), Decimal("1.5"), None, Decimal(-99)]
    for too_long in ("1.005", "123456789.5"):
        server.execute(f"DELETE FROM loose WHERE row = 5; INSERT INTO loose VALUES (5, {too_long})")
        with pytest.raises(UnrepresentableValueError, match="'n'"):
            read(source, "public.loose", policy)


def test_times_can_be_read_as_times_unless_one_is_24_hours(
    server: PostgresServer, source: PostgresSource
) -> None:
    server.execute(
        "DROP TABLE IF EXISTS times; CREATE TABLE times (row int, t time);"
        "INSERT INTO times VALUES (1, '23:59:59.999999'), (2, NULL), (3, '00:00:00')"
    )
    policy = IngestionPolicy(encodings={"t": "time"})
    column = read(source, "public.times", policy).column("t").combine_chunks()
    assert column.type == pa.time64("us")
    assert column.view(pa.int64()).to_pylist() == [86_399_999_999, None, 0]
    server.execute("INSERT INTO times VALUES (4, '24:00')")
    with pytest.raises(UnrepresentableValueError, match="'t'"):
        read(source, "public.times", policy)


def test_timestamps_past_64_bits_are_an_error_and_not_another_time(
    server: PostgresServer, source: PostgresSource
) -> None:
    server.execute(
        "DROP TABLE IF EXISTS far; CREATE TABLE far (row int, at timestamp);"
        "INSERT INTO far VALUES (1, '294276-12-31 23:59:59.999999')"
    )
    with pytest.raises(UnrepresentableValueError, match="'at'"):
        read(source, "public.far")


@pytest.mark.parametrize(
    "encodings",
    [
        {"n": "decimal(39,2)"},
        {"n": "decimal(2,3)"},
        {"n": "float"},
        {"row": "decimal(9,2)"},
        {"absent": "text"},
    ],
)
def test_an_encoding_that_does_not_exist_is_refused(
    server: PostgresServer, source: PostgresSource, encodings: dict[str, str]
) -> None:
    server.execute("DROP TABLE IF EXISTS enc; CREATE TABLE enc (row int, n numeric)")
    with pytest.raises(ValidationError):
        read(source, "public.enc", IngestionPolicy(encodings=encodings))


def test_a_single_text_column_keeps_empty_strings_and_nulls_apart(
    server: PostgresServer, source: PostgresSource
) -> None:
    server.execute(
        "DROP TABLE IF EXISTS lone; CREATE TABLE lone (t text);"
        r"INSERT INTO lone VALUES (''), (NULL), (''), (E'\\N'), (E'\n'), ('')"
    )
    got = read(source, "public.lone").column("t").to_pylist()
    assert sorted(got, key=repr) == sorted(["", None, "", "\\N", "\n", ""], key=repr)


def test_a_table_without_columns_has_rows(server: PostgresServer, source: PostgresSource) -> None:
    server.execute("DROP TABLE IF EXISTS bare; CREATE TABLE bare ()")
    server.execute("INSERT INTO bare SELECT FROM generate_series(1, 5)")
    unit = source.describe_unit(UnitId("public.bare"))
    policy = IngestionPolicy()
    plan = source.plan_incremental_slices(unit, None, policy, 10)
    assert sum(b.num_rows for s in plan.slices for b in source.read(unit, s, policy)) == 5


def test_names_with_dots_quotes_and_spaces_are_read(
    server: PostgresServer, source: PostgresSource
) -> None:
    server.execute(
        'CREATE TABLE "My Schema.v2"."line ""items"".x" (row int, "a.b" int, "per%cent" int,'
        ' "Ü" int, "select" text, "tab\tname" text);'
        """INSERT INTO "My Schema.v2"."line ""items"".x" VALUES (1, 2, 3, 4, 'five', 'six')"""
    )
    table = read(source, '"My Schema.v2"."line ""items"".x"')
    assert table.to_pylist() == [
        {"row": 1, "a.b": 2, "per%cent": 3, "Ü": 4, "select": "five", "tab\tname": "six"}
    ]


def test_generated_and_dropped_columns_need_no_care(
    server: PostgresServer, source: PostgresSource
) -> None:
    server.execute(
        "CREATE TABLE computed (row int, gone text, twice int GENERATED ALWAYS AS (row * 2) STORED,"
        " id int GENERATED ALWAYS AS IDENTITY);"
        "ALTER TABLE computed DROP COLUMN gone; INSERT INTO computed (row) VALUES (21)"
    )
    assert read(source, "public.computed").to_pylist() == [{"row": 21, "twice": 42, "id": 1}]


def test_rows_larger_than_a_block_are_read_whole(
    server: PostgresServer, source: PostgresSource
) -> None:
    server.execute(
        "CREATE TABLE huge (row int, t text);"
        r"INSERT INTO huge SELECT n, n || repeat(E'\\é\n', 4000000) FROM generate_series(1, 3) n"
    )
    table = read(source, "public.huge")
    assert table.column("t").to_pylist() == [f"{n}" + "\\é\n" * 4_000_000 for n in (1, 2, 3)]


def test_a_database_in_another_encoding_is_read_the_same(server: PostgresServer) -> None:
    server.execute(
        "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
    )
    server.execute(
        'CREATE TABLE "Größe" (row int, "ß" text PRIMARY KEY);'
        """INSERT INTO "Größe" SELECT n, 'é' || n FROM generate_series(100, 199) n""",
        "latin",
    )
    source = PostgresSource(spec_of(server, "latin"))
    unit = source.describe_unit(UnitId('public."Größe"'))
    plan = source.plan_incremental_slices(unit, None, IngestionPolicy(), 10)
    assert plan.slices[0].params["upper"] == ["é109"]
    values = [
        value
        for slice_ in plan.slices
        for batch in source.read(unit, slice_, IngestionPolicy())
        for value in batch.column("ß").to_pylist()
    ]
    assert sorted(values) == [f"é{n}" for n in range(100, 200)]
    source.close()


def test_text_that_is_not_utf8_is_an_error(server: PostgresServer) -> None:
    server.execute(
        "CREATE DATABASE raw ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
    )
    server.execute(r"CREATE TABLE t (row int, s text); INSERT INTO t VALUES (1, E'\xff')", "raw")
    source = PostgresSource(spec_of(server, "raw"))
    with pytest.raises(UnrepresentableValueError, match="UTF8"):
        read(source, "public.t")
    source.close()
