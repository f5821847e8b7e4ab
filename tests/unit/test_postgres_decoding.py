from __future__ import annotations

import datetime as dt
import io
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matih_ray.errors import UnrepresentableValueError
from matih_ray.kernels import PADDING
from matih_ray.sources.postgres import copy_kernels
from matih_ray.sources.postgres.copying import _LineBlocks
from matih_ray.sources.postgres.decoding import BlockDecoder
from matih_ray.sources.postgres.exact_values import decode_texts
from tests.integration.postgres_ways import WAYS, reading_by

# What the server sends for special characters, from the reference page of COPY.
ESCAPES = {
    "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v",
}  # fmt: skip

texts = st.text(
    st.one_of(
        st.sampled_from("\\nNtrx.\"' \b\f\n\r\t\v"),
        st.characters(exclude_characters="\0", exclude_categories=["Cs"]),
    ),
    max_size=20,
)


def copy_text(rows: list[tuple[str | None, ...]]) -> bytes:
    """Rows in COPY's text format, as a block."""
    lines = [
        "\t".join(
            "\\N" if value is None else "".join(ESCAPES.get(c, c) for c in value) for value in row
        )
        for row in rows
    ]
    return "".join(line + "\n" for line in lines).encode() + PADDING


def bits(values: pa.Array) -> pa.Array:
    """Doubles are the same if their bits are: 0.0 equals -0.0, and no NaN equals another."""
    return values.view(pa.int64()) if pa.types.is_float64(values.type) else values


def decode(schema: pa.Schema, block: bytes, loose: tuple[str, ...] = ()) -> pa.RecordBatch:
    """What Arrow and the kernels make of a block, which must be the same."""
    batches, errors = [], []
    for way in WAYS:
        try:
            with reading_by(way):
                batches.append(BlockDecoder(schema, loose).decode(block))
        except UnrepresentableValueError as error:
            errors.append(error)
    assert not (batches and errors), (batches, errors)
    if errors:
        assert str(errors[0]) == str(errors[1])
        raise errors[0]
    for batch in batches:
        batch.validate(full=True)
    for one, other in zip(batches[0].columns, batches[1].columns, strict=True):
        assert bits(one).equals(bits(other))
    return batches[0]


@given(st.lists(st.tuples(st.none() | texts, st.none() | texts), min_size=1))
def test_strings_and_nulls_survive(rows: list[tuple[str | None, str | None]]) -> None:
    schema = pa.schema([("a", pa.string()), ("b", pa.string())])
    batch = decode(schema, copy_text(list(rows)))
    assert list(zip(*(column.to_pylist() for column in batch.columns), strict=True)) == rows


@given(st.lists(st.tuples(st.none() | texts), min_size=1))
def test_a_lone_column_of_strings_survives(rows: list[tuple[str | None]]) -> None:
    batch = decode(pa.schema([("a", pa.string())]), copy_text(list(rows)))
    assert batch.column(0).to_pylist() == [row[0] for row in rows]


@given(st.lists(st.tuples(st.none() | st.binary(max_size=30), st.none() | texts), min_size=1))
def test_bytes_survive_beside_strings(rows: list[tuple[bytes | None, str | None]]) -> None:
    wire = [(None if b is None else "\\x" + b.hex(), t) for b, t in rows]
    schema = pa.schema([("b", pa.binary()), ("t", pa.string())])
    batch = decode(schema, copy_text(list(wire)))
    assert list(zip(*(column.to_pylist() for column in batch.columns), strict=True)) == rows


@given(st.lists(st.none() | st.dates(), min_size=1))
def test_dates_agree_with_python(dates: list[dt.date | None]) -> None:
    rows = [(None if date is None else date.isoformat(),) for date in dates]
    schema = pa.schema([("d", pa.date32())])
    assert decode(schema, copy_text(list(rows))).column(0).to_pylist() == dates
    # The same through the exact decoder, which one infinite date switches on.
    exact = decode(schema, copy_text([*rows, ("infinity",)])).column(0)
    assert exact[: len(dates)].to_pylist() == dates


@given(st.lists(st.datetimes(), min_size=1))
def test_timestamps_agree_with_python_after_a_fallback(values: list[dt.datetime]) -> None:
    texts = pa.array([value.isoformat(" ") for value in values] + ["0044-03-15 12:00:00 BC"])
    decoded = decode_texts(texts, pa.timestamp("us"), "t")
    assert decoded[: len(values)].to_pylist() == values


# Days from 1970-01-01 as PostgreSQL 15 computes them: select date '…' - date '1970-01-01'.
@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("infinity", 2**31 - 1),
        ("-infinity", -(2**31 - 1)),
        ("5874897-12-31", 2_145_042_905),
        ("4713-01-01 BC", -2_440_550),
        ("0001-12-31 BC", -719_163),
        ("10000-01-01", 2_932_897),
    ],
)
def test_dates_that_python_has_not(text: str, days: int) -> None:
    decoded = decode_texts(pa.array([text, "1970-01-02", None]), pa.date32(), "d")
    assert decoded.view(pa.int32()).to_pylist() == [days, 1, None]


def test_only_the_column_that_needs_it_leaves_the_fast_path() -> None:
    schema = pa.schema(
        [
            ("d", pa.date32()),
            ("t", pa.timestamp("us", "UTC")),
            ("n", pa.decimal128(5, 2)),
            ("s", pa.string()),
        ]
    )
    with reading_by("drivers"):
        decoder = BlockDecoder(schema)
        decoder.decode(copy_text([("2024-01-01", "2024-01-01 00:00:00+00", "1.50", "a")]))
        assert decoder._as_text == set()
        block = copy_text([("2024-01-01", "infinity", "1.50", "a\\b"), (None, None, None, None)])
        batch = decoder.decode(block)
        assert decoder._as_text == {1}
    assert batch.schema.equals(schema)
    assert batch.column(2).to_pylist() == [Decimal("1.50"), None]
    assert batch.column(3).to_pylist() == ["a\\b", None]


@pytest.mark.parametrize("text", ["NaN", "1234.5", "1.005"])
def test_decimals_that_do_not_fit_name_their_column(text: str) -> None:
    schema = pa.schema([("fits", pa.decimal128(9, 3)), ("tight", pa.decimal128(5, 2))])
    with pytest.raises(UnrepresentableValueError) as caught:
        decode(schema, copy_text([("1.005", text)]), ("tight",))
    assert caught.value.context["column"] == "tight"


def test_bytes_that_are_not_utf8_name_their_column() -> None:
    schema = pa.schema([("good", pa.string()), ("bad", pa.string())])
    with pytest.raises(UnrepresentableValueError) as caught:
        decode(schema, b"a\t\xff\n" + PADDING)
    assert caught.value.context["column"] == "bad"


def test_bytea_in_another_format_is_refused_and_not_misread() -> None:
    with pytest.raises(UnrepresentableValueError, match="hex"):
        decode(pa.schema([("b", pa.binary())]), b"abcd\n" + PADDING)


@given(st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\n", b"") + b"\n"), min_size=1),
       st.integers(1, 64))  # fmt: skip
def test_blocks_end_at_newlines_whatever_the_buffer(lines: list[bytes], buffer_bytes: int) -> None:
    blocks: list[bytes] = []
    with io.BufferedWriter(_LineBlocks(blocks.append), buffer_bytes) as buffered:
        for line in lines:
            buffered.write(line)
    assert b"".join(block.removesuffix(PADDING) for block in blocks) == b"".join(lines)
    assert all(block.endswith(b"\n" + PADDING) for block in blocks)


def test_kernels_pay_for_a_large_slice_and_for_who_has_read_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    much = copy_kernels.KERNELS_AFTER_BYTES
    monkeypatch.setattr(copy_kernels._Process, "read_bytes", 0)
    monkeypatch.setattr(copy_kernels._Process, "slice_bytes", 0)
    found = []
    for size in (0, much, much + 1, 0):
        copy_kernels.expect(size)
        found.append(copy_kernels.pay())
    assert found == [False, False, True, True]

    monkeypatch.setattr(copy_kernels._Process, "slice_bytes", 0)
    schema = pa.schema([("n", pa.int64())])
    block = b"1\n" * 500_000 + PADDING
    decoder = BlockDecoder(schema)
    for _ in range(much // len(block)):
        decoder.decode(block)
    assert not copy_kernels.pay()
    decoder.decode(block)
    assert copy_kernels.pay()
