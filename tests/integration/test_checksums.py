"""Checksums: equal for the same rows on both sides, different when one value differs."""

from __future__ import annotations

import datetime as dt
import random
from decimal import Decimal
from uuid import UUID

import psycopg2
import pyarrow as pa
import pytest

from matih_ray.testing.checksums import TableChecksum, arrow_checksum, forms_of, postgres_checksum

UTC = dt.timezone.utc
COLUMNS = {
    "small": ("smallint", pa.int16(), [1, -2, None]),
    "big": ("bigint", pa.int64(), [2**63 - 1, -(2**63), None]),
    "flag": ("boolean", pa.bool_(), [True, False, None]),
    "money": ("numeric(15,2)", pa.decimal128(15, 2), [Decimal("1.50"), Decimal("-0.05"), None]),
    "wide": ("numeric", pa.decimal128(38, 9), [Decimal("1E+20"), Decimal("0.000000001"), None]),
    "loose": ("numeric", pa.string(), ["1.500", "NaN", None]),
    "single": ("real", pa.float32(), [0.1, float("nan"), None]),
    "double": ("double precision", pa.float64(), [-0.0, float("-inf"), None]),
    "code": ("char(5)", pa.string(), ["ab   ", "", None]),
    "words": ("varchar(40)", pa.string(), [" é|~\t\n ", "", None]),
    "day": ("date", pa.date32(), [dt.date(1, 1, 1), dt.date(9999, 12, 31), None]),
    "at": (
        "timestamp",
        pa.timestamp("us"),
        [dt.datetime(1969, 12, 31, 23, 59, 59, 999999), dt.datetime(2024, 2, 29), None],  # noqa: DTZ001 - the type has no zone
    ),
    "moment": (
        "timestamptz",
        pa.timestamp("us", tz="UTC"),
        [dt.datetime(2024, 3, 31, 1, 30, tzinfo=UTC), dt.datetime(1900, 1, 1, tzinfo=UTC), None],
    ),
    "hour": ("time", pa.time64("us"), [dt.time(23, 59, 59, 999999), dt.time(0), None]),
    "blob": ("bytea", pa.binary(), [b"\x00\xff", b"", None]),
    "id": ("uuid", pa.binary(16), [UUID(int=1).bytes, UUID(int=2**128 - 1).bytes, None]),
    "id text": ("uuid", pa.string(), [str(UUID(int=1)), str(UUID(int=7)), None]),
    "tags": ("text[]", pa.list_(pa.string()), [["a", None, "b,c"], [], None]),
    "counts": ("int[]", pa.list_(pa.int32()), [[1, None], [2], None]),
    "body": ("jsonb", pa.string(), ['{"a": 1}', "null", None]),
}


def _literal(value: object) -> object:
    if isinstance(value, bytes) and len(value) == 16:
        return str(UUID(bytes=value))
    if isinstance(value, float):
        return repr(value)  # psycopg2 writes a numeric literal, which has no -0
    return value


@pytest.fixture
def table(postgres):
    """A table with a column of each type, the same rows as Arrow, and the canonical forms."""
    connection = postgres.connect()
    arrow = pa.table({name: pa.array(values, kind) for name, (_, kind, values) in COLUMNS.items()})
    with connection.cursor() as cursor:
        definitions = ", ".join(f'"{name}" {native}' for name, (native, _, _) in COLUMNS.items())
        cursor.execute(f"DROP TABLE IF EXISTS every_type; CREATE TABLE every_type ({definitions})")
        marks = ", ".join(f"CAST(%s AS {native})" for native, _, _ in COLUMNS.values())
        for row in zip(*(values for _, _, values in COLUMNS.values()), strict=True):
            cursor.execute(
                f"INSERT INTO every_type VALUES ({marks})", [_literal(value) for value in row]
            )
    yield connection, arrow, forms_of(connection, "every_type", arrow.schema)
    connection.close()


def test_the_same_rows_in_any_order_have_the_same_checksum(table):
    connection, arrow, forms = table
    source = postgres_checksum(connection, "every_type", forms)
    assert source.rows == 3
    for order in ([0, 1, 2], [2, 0, 1]):
        assert arrow_checksum(arrow.take(order), forms) == source


@pytest.mark.parametrize("column", COLUMNS)
def test_exchanging_two_values_of_any_column_changes_the_checksum(table, column):
    connection, arrow, forms = table
    source = postgres_checksum(connection, "every_type", forms)
    position = arrow.schema.get_field_index(column)
    for order in ([1, 0, 2], [0, 2, 1]):
        changed = arrow.set_column(position, arrow.field(column), arrow.column(column).take(order))
        assert arrow_checksum(changed, forms) != source


def test_a_doubled_row_changes_the_checksum_and_not_only_the_count(table):
    _, arrow, forms = table
    once, twice = (arrow_checksum(arrow.take([0] * n), forms) for n in (1, 2))
    other = arrow_checksum(arrow.take([0, 1]), forms)
    assert (once.rows, twice.rows) == (1, 2)
    assert twice.total == 2 * once.total
    assert twice != other


def test_neighbouring_texts_do_not_run_into_each_other():
    forms = forms_for_text("a", "b")
    left = pa.table({"a": ["x1:y"], "b": ["z"]})
    right = pa.table({"a": ["x"], "b": ["1:yz"]})
    null = pa.table({"a": pa.array([None], pa.string()), "b": ["z"]})
    tilde = pa.table({"a": ["~"], "b": ["z"]})
    assert len({arrow_checksum(each, forms) for each in (left, right, null, tilde)}) == 4


def test_an_empty_table_has_the_checksum_zero(table):
    connection, arrow, forms = table
    assert postgres_checksum(connection, "every_type", forms, "false") == TableChecksum(0, 0)
    assert arrow_checksum(arrow.slice(0, 0), forms) == TableChecksum(0, 0)


@pytest.mark.parametrize("seed", range(3))
def test_one_changed_digit_in_many_random_rows_is_noticed(postgres, seed):
    print(f"seed {seed}")
    chance = random.Random(seed)
    values = [Decimal(chance.randrange(-(10**12), 10**12)).scaleb(-2) for _ in range(2000)]
    connection = postgres.connect()
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS amounts; CREATE TABLE amounts (v numeric(15,2))")
        cursor.execute("INSERT INTO amounts SELECT unnest(%s)", (values,))
    arrow = pa.table({"v": pa.array(values, pa.decimal128(15, 2))})
    forms = forms_of(connection, "amounts", arrow.schema)
    source = postgres_checksum(connection, "amounts", forms)
    assert arrow_checksum(arrow, forms) == source
    values[chance.randrange(2000)] += Decimal("0.01")
    changed = pa.table({"v": pa.array(values, pa.decimal128(15, 2))})
    assert arrow_checksum(changed, forms) != source
    connection.close()


def test_a_column_that_cannot_be_compared_is_an_error_and_not_left_out(table):
    connection, _, _ = table
    with pytest.raises(ValueError, match="no canonical form for PostgreSQL jsonb as Arrow int64"):
        forms_of(connection, "every_type", pa.schema([("body", pa.int64())]))
    with pytest.raises(ValueError, match=r"has no columns \['nothing'\]"):
        forms_of(connection, "every_type", pa.schema([("nothing", pa.int64())]))
    with pytest.raises(psycopg2.errors.UndefinedTable):
        forms_of(connection, "no_such_table", pa.schema([]))


def forms_for_text(*names: str):
    from matih_ray.testing.checksums import TEXT

    return dict.fromkeys(names, TEXT)
