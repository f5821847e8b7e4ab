"""COPY text by the kernels, against Arrow and one value after the other."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal

import pyarrow as pa
import pytest

from matih_ray.kernels import PADDING
from matih_ray.kernels.copy_columns import CopyReader, NotReadError
from tests.unit.test_postgres_decoding import ESCAPES, bits, copy_text, decode

UTC = timezone.utc
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LETTERS = "".join(ESCAPES) + "abc NxuN\x01\x1f\x7fäß☃😀"


def a_text(chance: random.Random) -> str:
    return "".join(chance.choices(LETTERS, k=chance.choice([0, 1, 2, 7, 8, 9, 30])))


def a_double(chance: random.Random) -> float:
    bits = struct.pack("<Q", chance.getrandbits(64))
    return chance.choice(
        [0.0, -0.0, 0.1, 1e22, 1e23, 5e-324, float("inf"), float("-inf"), chance.uniform(-1e6, 1e6),
         float(chance.randrange(-(10**15), 10**15)), struct.unpack("<d", bits)[0]]
    )  # fmt: skip


def a_moment(chance: random.Random) -> datetime:
    seconds = chance.randrange(-62_135_596_800, 253_402_300_800)
    after = timedelta(seconds=seconds, microseconds=chance.choice([0, 1, 120_000, 999_999]))
    return (EPOCH + after).replace(tzinfo=None)


def an_integer(bits: int) -> Callable[[random.Random], int]:
    most = 1 << (bits - 1)
    return lambda chance: chance.choice(
        [0, -1, most - 1, -most, chance.randrange(-most, most), chance.randrange(-99, 99)]
    )


def a_decimal(precision: int, scale: int) -> Callable[[random.Random], Decimal]:
    def of(chance: random.Random) -> Decimal:
        digits = chance.randrange(10 ** chance.randrange(1, precision + 1))
        return Decimal(chance.choice([-1, 1]) * digits).scaleb(-scale)

    return of


def as_server(value: object) -> str | None:
    """How PostgreSQL writes a value."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, float):
        return {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}.get(repr(value), repr(value))
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    if isinstance(value, datetime):
        text = value.replace(tzinfo=None).isoformat(" ")
        text = text.rstrip("0") if "." in text else text
        return text + ("+00" if value.tzinfo else "")
    return format(value, "f") if isinstance(value, Decimal) else str(value)


# What PostgreSQL's types arrive as, and values of them.
COLUMNS: list[tuple[pa.DataType, Callable[[random.Random], object]]] = [
    (pa.string(), a_text),
    (pa.binary(), lambda chance: chance.randbytes(chance.randrange(20))),
    (pa.bool_(), lambda chance: chance.random() < 0.5),
    (pa.int16(), an_integer(16)),
    (pa.int32(), an_integer(32)),
    (pa.int64(), an_integer(64)),
    (pa.float64(), a_double),
    (pa.decimal128(5, 0), a_decimal(5, 0)),
    (pa.decimal128(15, 2), a_decimal(15, 2)),
    (pa.decimal128(18, 18), a_decimal(18, 18)),
    (pa.decimal128(38, 10), a_decimal(17, 10)),
    (pa.date32(), lambda chance: a_moment(chance).date()),
    (pa.timestamp("us"), a_moment),
    (pa.timestamp("us", "UTC"), lambda chance: a_moment(chance).replace(tzinfo=UTC)),
    (pa.time64("us"), lambda chance: a_moment(chance).time()),
]  # fmt: skip
# Values that only the exact decoders read, and one that follows.
ODD: list[tuple[pa.DataType, str, str]] = [
    (pa.date32(), "infinity", "2026-01-31"),
    (pa.date32(), "0044-03-15 BC", "2026-01-31"),
    (pa.date32(), "12026-01-31", "2026-01-31"),
    (pa.timestamp("us"), "-infinity", "2026-01-31 00:00:00"),
    (pa.timestamp("us", "UTC"), "0044-03-15 12:00:00+00 BC", "2026-01-31 23:59:59.5+00"),
    (pa.decimal128(38, 2), "123456789012345678901234567890.25", "0.50"),
    (pa.decimal128(20, 0), "12345678901234567890", "-1"),
    (pa.float32(), "1.1754944e-38", "-0"),
    (pa.float64(), "NaN", "1e-05"),
]
REFUSED: list[tuple[pa.DataType, str]] = [
    (pa.int16(), "32768"), (pa.int32(), "-2147483649"), (pa.int64(), "9223372036854775808"),
    (pa.int64(), "99999999999999999999"), (pa.int64(), ""), (pa.int64(), "-"), (pa.int64(), "1.0"),
    (pa.decimal128(5, 2), "1000.00"), (pa.decimal128(5, 2), "1"), (pa.decimal128(5, 2), "1.0"),
    (pa.decimal128(5, 2), "1.000"), (pa.decimal128(5, 2), ".50"), (pa.decimal128(5, 2), "NaN"),
    (pa.decimal128(38, 2), "12345678901234567.00"), (pa.bool_(), "true"), (pa.bool_(), ""),
    (pa.date32(), "2026-02-29"), (pa.date32(), "infinity"), (pa.date32(), "10000-01-01"),
    (pa.timestamp("us"), "2026-01-01"), (pa.timestamp("us"), "2026-01-01 00:00:00+00"),
    (pa.timestamp("us", "UTC"), "2026-01-01 00:00:00"),
    (pa.timestamp("us", "UTC"), "2026-01-01 00:00:00+01"), (pa.time64("us"), "24:00:00"),
    (pa.string(), "a\tb"), (pa.string(), "a\\"), (pa.string(), "a\n"),
]  # fmt: skip


@pytest.mark.parametrize("seed", range(40))
def test_rows_of_all_types_are_what_was_written(seed: int) -> None:
    chance = random.Random(seed)
    columns = chance.choices(COLUMNS, k=chance.randrange(1, 20))
    nulls = chance.choice([0.0, 0.2, 1.0])
    rows = [
        tuple(None if chance.random() < nulls else value(chance) for _, value in columns)
        for _ in range(chance.choice([1, 7, 8, 9, 300]))
    ]
    schema = pa.schema([(str(at), arrow) for at, (arrow, _) in enumerate(columns)])
    block = copy_text([tuple(map(as_server, row)) for row in rows])
    batch = decode(schema, block)
    wanted = [
        pa.array(values, arrow)
        for values, (arrow, _) in zip(zip(*rows, strict=True), columns, strict=True)
    ]
    for at, (found, expected) in enumerate(zip(batch.columns, wanted, strict=True)):
        assert bits(found).equals(bits(expected)), at


@pytest.mark.parametrize(("arrow", "odd", "plain"), ODD, ids=str)
def test_a_value_that_kernels_leave_is_read_all_the_same(
    arrow: pa.DataType, odd: str, plain: str
) -> None:
    schema = pa.schema([("n", pa.int32()), ("v", arrow), ("s", pa.string())])
    batch = decode(schema, copy_text([("1", plain, "a"), ("2", odd, None), ("3", None, "\t")]))
    assert batch.column(1).null_count == 1
    alone = decode(pa.schema([("v", arrow)]), copy_text([(plain,), (odd,), (None,)]))
    assert bits(alone.column(0)).equals(bits(batch.column(1)))


@pytest.mark.parametrize(("arrow", "text"), REFUSED, ids=str)
def test_what_is_not_a_value_of_its_column_is_named(arrow: pa.DataType, text: str) -> None:
    reader = CopyReader([pa.int32(), arrow])
    with pytest.raises(NotReadError) as caught:
        reader.read(b"1\t" + text.encode() + b"\n" + PADDING)
    assert caught.value.column in (1, 0)  # a newline ends a row too early


def test_rows_of_another_width_are_refused() -> None:
    for block in (b"1\n", b"1\t2\t3\n", b"1\t2\n\n", b"\n"):
        with pytest.raises(NotReadError):
            CopyReader([pa.int32(), pa.int32()]).read(block + PADDING)


def test_a_reader_reads_blocks_of_any_size_one_after_the_other() -> None:
    reader = CopyReader([pa.string(), pa.float64()])
    held = []
    for rows in (3, 1000, 1, 10_000, 17):
        values = [(f"{rows}.{row}", row / 7) for row in range(rows)]
        block = copy_text([(text, repr(number)) for text, number in values])
        held.append((values, reader.read(block)))
    for values, columns in held:  # each owns its memory
        assert list(zip(*(column.to_pylist() for column in columns), strict=True)) == values


def test_dates_of_all_days() -> None:
    days = [date.fromordinal(day) for day in range(1, date.max.toordinal(), 13)]
    (found,) = CopyReader([pa.date32()]).read(copy_text([(day.isoformat(),) for day in days]))
    assert found.to_pylist() == days


def test_times_of_day() -> None:
    texts = ["00:00:00", "23:59:59.999999", "12:30:00.5"]
    (found,) = CopyReader([pa.time64("us")]).read(copy_text([(text,) for text in texts]))
    assert found.to_pylist() == [time(), time(23, 59, 59, 999_999), time(12, 30, 0, 500_000)]
