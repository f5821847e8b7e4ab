"""Every MySQL type with its nastiest values, on a real MariaDB: the values that were written are
the values that arrive, and the server itself says so where its text is not enough."""

from __future__ import annotations

import datetime as dt
import json
import math
import random
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
from matih_ray.sources.mysql import MySqlSource
from matih_ray.testing.devstack.mariadb import MariaDbMissingError, MariaDbServer

UTC = dt.timezone.utc
TEXTS = [
    "",
    " ",
    "\\N",
    "a\tb\r\n",
    "\\",
    "''\"`",
    "naïve 😀 漢字",
    "NULL",
    "x" * 20_000,
    "\x00\x01",
]
NINES = "9" * 35 + "." + "9" * 30


def moment(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)


INT32, INT64, TEXT, BYTES = pa.int32(), pa.int64(), pa.string(), pa.binary()
NAIVE, ZONED = pa.timestamp("us"), pa.timestamp("us", "UTC")
E, W, C = Fidelity.EXACT, Fidelity.WIDENED, Fidelity.ENCODED

# SQL type -> the Arrow type, how it arrives, and SQL literals with the values expected of them.
CASES: dict[str, tuple[pa.DataType, Fidelity, dict[str, object]]] = {
    "tinyint": (INT32, W, {"-128": -128, "127": 127}),
    "tinyint unsigned": (INT32, W, {"255": 255}),
    "bool": (INT32, W, {"true": 1, "false": 0, "-2": -2}),
    "smallint": (INT32, W, {"-32768": -32768}),
    "smallint unsigned": (INT32, W, {"65535": 65535}),
    "mediumint": (INT32, W, {"-8388608": -8388608}),
    "mediumint unsigned": (INT32, W, {"16777215": 16777215}),
    "int": (INT32, E, {"-2147483648": -(2**31), "2147483647": 2**31 - 1}),
    "int unsigned": (INT64, W, {"4294967295": 2**32 - 1, "0": 0}),
    "int(6) zerofill": (INT64, W, {"42": 42, "4294967295": 2**32 - 1}),
    "bigint": (
        INT64,
        E,
        {"-9223372036854775808": -(2**63), "9223372036854775807": 2**63 - 1},
    ),
    "bigint unsigned": (
        pa.decimal128(20, 0),
        W,
        {"18446744073709551615": Decimal(2**64 - 1), "0": Decimal(0)},
    ),
    "decimal(10,2)": (
        pa.decimal128(10, 2),
        E,
        {"99999999.99": Decimal("99999999.99"), "-0.01": Decimal("-0.01")},
    ),
    "decimal(8,3) zerofill": (pa.decimal128(8, 3), E, {"1.5": Decimal("1.500")}),
    "decimal(38,38)": (pa.decimal128(38, 38), E, {"0." + "9" * 38: Decimal("0." + "9" * 38)}),
    "decimal(38,0)": (pa.decimal128(38, 0), E, {"-" + "9" * 38: Decimal("-" + "9" * 38)}),
    "decimal(39,0)": (TEXT, C, {"9" * 39: "9" * 39}),
    "decimal(65,30)": (TEXT, C, {NINES: NINES, "0": "0." + "0" * 30}),
    "float": (
        pa.float32(),
        E,
        {"0.1": 0.1, "3.4028234e38": 3.4028234e38, "1.1754944e-38": 1.1754944e-38,
         "16777217": 16777216.0, "123456.789": 123456.789},
    ),
    "float(10,2)": (pa.float32(), E, {"123456.78": 123456.78}),
    "double": (
        pa.float64(),
        E,
        {"0.1": 0.1, "1.7976931348623157e308": 1.7976931348623157e308,
         "2.2250738585072014e-308": 2.2250738585072014e-308, "0.30000000000000004": 0.1 + 0.2,
         "123456789.123456789": 123456789.123456789, "1e22": 1e22},
    ),
    "double(20,3)": (pa.float64(), E, {"1234567.891": 1234567.891}),
    "bit(1)": (TEXT, C, {"b'1'": "1", "b'0'": "0"}),
    "bit(5)": (TEXT, C, {"b'101'": "00101"}),
    "bit(64)": (TEXT, C, {f"b'{'1' * 64}'": "1" * 64, "b'10'": "0" * 62 + "10"}),
    "date": (
        pa.date32(),
        E,
        {f"'{day}'": dt.date.fromisoformat(day)
         for day in ("2024-02-29", "0001-01-01", "9999-12-31")},
    ),
    "datetime": (
        NAIVE, E, {f"'{at}'": moment(at) for at in ("1000-01-01 00:00:00", "9999-12-31 23:59:59")},
    ),
    "datetime(6)": (
        NAIVE,
        E,
        {f"'{at}'": moment(at)
         for at in ("2024-03-31 02:30:00.000001", "1969-12-31 23:59:59.999999")},
    ),
    "timestamp(6) NULL": (
        ZONED,
        E,
        {f"'{at}'": moment(at).replace(tzinfo=UTC)
         for at in ("2024-03-31 02:30:00.000001", "1970-01-01 00:00:01")},
    ),
    "timestamp NULL": (
        ZONED, E, {"'2038-01-19 03:14:07'": moment("2038-01-19 03:14:07").replace(tzinfo=UTC)},
    ),
    "time": (TEXT, C, {"'-838:59:59'": "-838:59:59", "'24:00:00'": "24:00:00"}),
    "time(6)": (TEXT, C, {"'-00:00:00.000001'": "-00:00:00.000001"}),
    "year": (INT32, W, {"1901": 1901, "2155": 2155, "'0000'": 0}),
    "char(5)": (TEXT, E, {"'ab '": "ab", "''": ""}),
    "varchar(9) character set latin1": (TEXT, E, {"'naïve €'": "naïve €"}),
    "varchar(9) character set cp1251": (TEXT, E, {"'Привет '": "Привет "}),
    "varchar(9) character set utf16": (TEXT, E, {"'漢字😀'": "漢字😀"}),
    "tinytext": (TEXT, E, {"'t'": "t"}),
    "mediumtext": (TEXT, E, {"repeat('é', 100000)": "é" * 100_000}),
    "binary(4)": (BYTES, E, {"x'00ff'": b"\x00\xff\x00\x00", "x'20202020'": b"    "}),
    "varbinary(9)": (BYTES, E, {"x''": b"", "x'00ff5c27'": b"\x00\xff\\'"}),
    "tinyblob": (BYTES, E, {"x'80'": b"\x80"}),
    "longblob": (BYTES, E, {"repeat(x'ff00', 50000)": b"\xff\x00" * 50_000}),
    "enum('sad','o''k','')": (TEXT, C, {"'o''k'": "o'k", "''": ""}),
    "set('a','b c')": (TEXT, C, {"'a,b c'": "a,b c", "''": ""}),
    "point": (
        BYTES,
        C,
        {"ST_GeomFromText('POINT(1 -2)', 4326)": struct.pack("<BIdd", 1, 1, 1.0, -2.0)},
    ),
    "geometry": (
        BYTES,
        C,
        {"ST_GeomFromText('LINESTRING(0 0,1 2)')": struct.pack("<BIIdddd", 1, 2, 2, 0, 0, 1, 2)},
    ),
    "uuid": (
        TEXT,
        C,
        {"'FFFFFFFF-0000-0000-0000-00000000000a'": "ffffffff-0000-0000-0000-00000000000a"},
    ),
    "inet6": (TEXT, C, {"'::ffff:1.2.3.4'": "::ffff:1.2.3.4"}),
}  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[MariaDbServer]:
    try:
        server = MariaDbServer()
    except MariaDbMissingError as missing:
        pytest.skip(str(missing))
    with server:
        # A session of ours must not depend on any of these.
        server.execute(
            "CREATE DATABASE types CHARACTER SET utf8mb4",
            "SET GLOBAL time_zone = '+05:30'",
            "SET GLOBAL sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH'",
            "SET GLOBAL sql_select_limit = 2",
        )
        yield server


@pytest.fixture
def source(server: MariaDbServer) -> Iterator[MySqlSource]:
    spec = EndpointSpec(
        tenant_id=TenantId("tenant"),
        endpoint_id=EndpointId("endpoint"),
        name="test",
        type="MYSQL",
        config={
            "host": server.host,
            "port": server.port,
            "database": "types",
            "user": server.user,
        },
    )
    source = MySqlSource(spec)
    yield source
    source.close()


def create(server: MariaDbServer, sql_type: str, literals: list[str]) -> None:
    """Table `t` with column `c` of a type, one row per literal and one more that is NULL."""
    rows = ", ".join(f"({i}, {literal})" for i, literal in enumerate([*literals, "NULL"]))
    server.execute(
        "SET time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES,ALLOW_INVALID_DATES'",
        "DROP TABLE IF EXISTS t",
        f"CREATE TABLE t (row int PRIMARY KEY, c {sql_type})",
        f"INSERT INTO t VALUES {rows}",
        database="types",
    )


def read(source: MySqlSource, policy: IngestionPolicy | None = None) -> pa.Table:
    """Table `t`, ordered by row."""
    policy = policy or IngestionPolicy()
    unit = source.describe_unit(UnitId("types.t"))
    plan = source.plan_incremental_slices(unit, None, policy, 3)
    schema = source.read_schema(unit, policy)
    batches = [batch for slice_ in plan.slices for batch in source.read(unit, slice_, policy)]
    table = pa.Table.from_batches(batches, schema)
    table.validate(full=True)
    return table.sort_by("row")


def encoded(encoding: str) -> IngestionPolicy:
    return IngestionPolicy(encodings={"c": encoding})


@pytest.mark.parametrize("sql_type", CASES)
def test_a_value_arrives_as_it_was_written(
    server: MariaDbServer, source: MySqlSource, sql_type: str
) -> None:
    arrow, fidelity, pairs = CASES[sql_type]
    create(server, sql_type, list(pairs))
    column = source.describe_unit(UnitId("types.t")).columns[1]
    assert (column.arrow_type, column.fidelity) == (str(arrow), fidelity)
    assert fidelity is not Fidelity.ENCODED or column.encoding
    expected = pa.array([*pairs.values(), None], arrow)
    assert read(source)["c"].combine_chunks().equals(expected)


def test_texts_arrive_as_they_were_written(server: MariaDbServer, source: MySqlSource) -> None:
    create(server, "longtext", ["'placeholder'"])
    with server.connect("types") as connection, connection.cursor() as cursor:
        cursor.execute("SET sql_mode = ''")
        cursor.execute("DELETE FROM t")
        cursor.executemany("INSERT INTO t VALUES (%s, %s)", list(enumerate(TEXTS)))
    assert read(source)["c"].to_pylist() == TEXTS


def test_json_arrives_as_the_server_keeps_it(server: MariaDbServer, source: MySqlSource) -> None:
    text = '{"a" : [1.0, 12345678901234567890.123], "é": null}'
    create(server, "json", [f"'{text}'", "'null'"])
    values = read(source)["c"].to_pylist()
    assert values == [text, "null", None]
    assert json.loads(values[0])["é"] is None


@pytest.mark.parametrize("sql_type", ["float", "double"])
def test_random_floats_arrive_bit_by_bit(
    server: MariaDbServer, source: MySqlSource, sql_type: str, seed: int
) -> None:
    rng = random.Random(seed)
    form, width = ("<f", 4) if sql_type == "float" else ("<d", 8)
    values: list[float] = [-0.0]
    while len(values) < 2000:
        (value,) = struct.unpack(form, rng.randbytes(width))
        if math.isfinite(value):
            values.append(value)
    create(
        server,
        sql_type,
        [f"{value!r}e0" if "e" not in repr(value) else repr(value) for value in values],
    )
    # What was stored, by the server's own arithmetic: a sum of powers of two is exact as decimal.
    arrived = read(source)["c"].to_pylist()[:-1]
    stored = [
        struct.unpack(form, struct.pack(form, value))[0] if abs(value) >= 2.3e-308 else None
        for value in values
    ]
    wrong = [
        (value, got)
        for value, got in zip(stored, arrived, strict=True)
        if value is not None and struct.pack("<d", value) != struct.pack("<d", got)
    ]
    assert not wrong, f"{len(wrong)} of {len(values)}: {wrong[:3]}"


ZEROS = {
    "date": ("'0000-00-00'", "0000-00-00"),
    "datetime": ("'0000-00-00'", "0000-00-00 00:00:00"),
    "datetime(3)": ("'0000-00-00'", "0000-00-00 00:00:00.000"),
    "timestamp NULL": ("'0000-00-00'", "0000-00-00 00:00:00"),
    "timestamp(6) NULL": ("'0000-00-00'", "0000-00-00 00:00:00.000000"),
}


@pytest.mark.parametrize("sql_type", ZEROS)
def test_a_zero_date_is_an_error_null_or_text_as_asked(
    server: MariaDbServer, source: MySqlSource, sql_type: str
) -> None:
    literal, text = ZEROS[sql_type]
    create(server, sql_type, ["'2024-02-29'", literal])
    with pytest.raises(UnrepresentableValueError, match="zero_as_null") as caught:
        read(source)
    assert caught.value.context["column"] == "c"
    assert read(source, encoded("text"))["c"].to_pylist()[1:] == [text, None]
    first, second, third = read(source, encoded("zero_as_null"))["c"].to_pylist()
    assert (first.year, first.month, first.day) == (2024, 2, 29)
    assert (second, third) == (None, None)


@pytest.mark.parametrize("text", ["2024-00-15", "2024-02-31", "0000-02-03"])
@pytest.mark.parametrize("encoding", [None, "zero_as_null"])
def test_other_impossible_dates_are_never_changed_silently(
    server: MariaDbServer, source: MySqlSource, text: str, encoding: str | None
) -> None:
    create(server, "date", [f"'{text}'"])
    with pytest.raises(UnrepresentableValueError):
        read(source, None if encoding is None else encoded(encoding))
    assert read(source, encoded("text"))["c"].to_pylist() == [text, None]


def test_a_boolean_is_one_only_where_asked_and_true(
    server: MariaDbServer, source: MySqlSource
) -> None:
    for sql_type in ("tinyint(1)", "bit(1)"):
        create(server, sql_type, ["1", "0"])
        assert read(source, encoded("bool"))["c"].to_pylist() == [True, False, None]
    for value in ("2", "-1"):
        create(server, "bool", [value])
        with pytest.raises(UnrepresentableValueError):
            read(source, encoded("bool"))


def test_a_decimal_is_reread_in_another_type_only_if_it_fits(
    server: MariaDbServer, source: MySqlSource
) -> None:
    create(server, "decimal(65,4)", ["12.5", "-7"])
    assert read(source, encoded("decimal(20,4)"))["c"].to_pylist()[:2] == [
        Decimal("12.5000"),
        Decimal("-7.0000"),
    ]
    for encoding, literal in (("decimal(20,1)", "0.25"), ("decimal(3,1)", "100")):
        create(server, "decimal(65,4)", [literal])
        with pytest.raises(UnrepresentableValueError):
            read(source, encoded(encoding))


@pytest.mark.parametrize(
    ("sql_type", "encoding"),
    [("blob", "text"), ("int", "bool"), ("time", "zero_as_null"), ("double", "decimal(10,2)"),
     ("decimal(10,2)", "decimal(39,2)"), ("int", "surprise")],
)  # fmt: skip
def test_an_encoding_that_does_not_exist_is_refused(
    server: MariaDbServer, source: MySqlSource, sql_type: str, encoding: str
) -> None:
    create(server, sql_type, [])
    with pytest.raises(ValidationError) as caught:
        read(source, encoded(encoding))
    assert caught.value.context["field"] == "encodings.c"


@pytest.mark.parametrize(
    "sql_type", ["int", "decimal(5,1)", "float", "bit(3)", "datetime(2)", "time", "json"]
)
def test_every_type_but_binary_has_a_text(
    server: MariaDbServer, source: MySqlSource, sql_type: str
) -> None:
    create(server, sql_type, [])
    assert read(source, encoded("text"))["c"].to_pylist() == [None]


def test_odd_names_are_only_names(server: MariaDbServer, source: MySqlSource) -> None:
    server.execute(
        "CREATE TABLE `a``b. {c} %s 漢` (`i``d {0}` int PRIMARY KEY, `%(x)s` text)",
        "INSERT INTO `a``b. {c} %s 漢` VALUES (1, 'x'), (2, 'y'), (3, 'z')",
        database="types",
    )
    unit = source.describe_unit(UnitId("types.`a``b. {c} %s 漢`"))
    assert unit.name == "a`b. {c} %s 漢"
    policy = IngestionPolicy()
    plan = source.plan_incremental_slices(unit, None, policy, 2)
    rows = [
        row
        for slice_ in plan.slices
        for batch in source.read(unit, slice_, policy)
        for row in batch.to_pylist()
    ]
    assert len(plan.slices) == 2
    assert [row["%(x)s"] for row in rows] == ["x", "y", "z"]
