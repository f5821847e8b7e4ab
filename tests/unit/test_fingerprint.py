"""What a fingerprint must tell apart, and what it must not."""

from __future__ import annotations

import random
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from matih_ray.errors import ValidationError
from matih_ray.model.fingerprint import Fingerprint, row_hashes


def print_of(values, kind=None, name="c") -> Fingerprint:
    return Fingerprint().add(pa.RecordBatch.from_arrays([pa.array(values, kind)], [name]))


def mixed_batch(rows: int = 2_000, seed: int = 7) -> pa.RecordBatch:
    rng = random.Random(seed)
    text = [None if i % 11 == 0 else "x" * rng.randint(0, 40) + str(i) for i in range(rows)]
    return pa.RecordBatch.from_pydict(
        {
            "id": pa.array(range(rows), pa.int64()),
            "text": pa.array(text),
            "price": pa.array(
                [Decimal(rng.randint(-(10**30), 10**30)).scaleb(-2) for _ in range(rows)],
                pa.decimal128(38, 2),
            ),
            "tags": pa.array([[str(i), None, ""][: i % 4] for i in range(rows)]),
            "at": pa.array([i * 1_000_003 for i in range(rows)], pa.timestamp("us", "UTC")),
            "pair": pa.array([{"a": i, "b": None if i % 2 else "z"} for i in range(rows)]),
            "real": pa.array([rng.random() for _ in range(rows)]),
        }
    )


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_order_and_cuts_do_not_matter(seed):
    batch = mixed_batch(seed=seed)
    order = np.random.default_rng(seed).permutation(batch.num_rows)
    shuffled = batch.take(pa.array(order))
    cut = Fingerprint().add(shuffled.slice(0, 777)) + Fingerprint().add(shuffled.slice(777))
    assert cut == Fingerprint().add(batch)
    assert cut.rows == batch.num_rows


def test_a_slice_of_a_batch_hashes_like_a_copy_of_it():
    batch = mixed_batch()
    part = batch.slice(500, 321)
    copy = pa.RecordBatch.from_pylist(part.to_pylist(), schema=part.schema)
    assert Fingerprint().add(part) == Fingerprint().add(copy)


def test_pieces_do_not_change_the_result(monkeypatch):
    batch = mixed_batch()
    whole = Fingerprint().add(batch)
    monkeypatch.setattr("matih_ray.model.fingerprint.PIECE_BYTES", 5_000)
    assert Fingerprint().add(batch) == whole


def test_rows_of_a_large_batch_have_distinct_hashes():
    assert len(np.unique(row_hashes(mixed_batch(50_000)))) == 50_000


def test_swapping_values_between_columns_shows():
    ab = pa.RecordBatch.from_pydict({"a": [1, 2], "b": [3, 4]})
    ba = pa.RecordBatch.from_pydict({"a": [3, 2], "b": [1, 4]})
    assert Fingerprint().add(ab) != Fingerprint().add(ba)


def test_swapping_values_between_rows_shows():
    before = pa.RecordBatch.from_pydict({"a": [1, 2], "b": ["x", "y"]})
    after = pa.RecordBatch.from_pydict({"a": [1, 2], "b": ["y", "x"]})
    assert Fingerprint().add(before) != Fingerprint().add(after)


def test_column_order_does_not_matter():
    batch = mixed_batch()
    names = batch.schema.names[::-1]
    assert Fingerprint().add(batch.select(names)) == Fingerprint().add(batch)


def test_a_duplicated_row_shows():
    assert print_of([1, 2, 2]) != print_of([1, 1, 2])
    assert print_of([1]) != print_of([1, 1])


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (([None], pa.string()), ([""], pa.string())),
        (([None], pa.int64()), ([0], pa.int64())),
        (([None], pa.list_(pa.int64())), ([[]], pa.list_(pa.int64()))),
        (([[]], pa.list_(pa.int64())), ([[None]], pa.list_(pa.int64()))),
        (([[None]], pa.list_(pa.int64())), ([[0]], pa.list_(pa.int64()))),
        (([[1, 2]], pa.list_(pa.int64())), ([[2, 1]], pa.list_(pa.int64()))),
        (([[1], [2, 3]], pa.list_(pa.int64())), ([[1, 2], [3]], pa.list_(pa.int64()))),
        ((["ab", "c"], pa.string()), (["a", "bc"], pa.string())),
        ((["a"], pa.string()), (["a\0"], pa.string())),
        ((["12345678"], pa.string()), (["12345678\0"], pa.string())),
        ((["a"], pa.string()), ([b"a"], pa.binary())),
        (([0.0], pa.float64()), ([-0.0], pa.float64())),
        (([float("nan")], pa.float64()), ([None], pa.float64())),
        (([1], pa.int64()), (["1"], pa.string())),
        (([True], pa.bool_()), ([1], pa.int64())),
        (([Decimal("1.10")], pa.decimal128(9, 2)), ([Decimal("1.11")], pa.decimal128(9, 2))),
        (([{"a": 1, "b": 2}], None), ([{"a": 2, "b": 1}], None)),
        (([{"a": None}], None), ([None], pa.struct([("a", pa.null())]))),
        (([1], pa.date32()), ([1], pa.int32())),
    ],
)
def test_different_values_differ(left, right):
    assert print_of(*left) != print_of(*right)


@pytest.mark.parametrize(
    ("narrow", "wide"),
    [
        (([1, None, -3], pa.int16()), ([1, None, -3], pa.int64())),
        (([7], pa.uint32()), ([7], pa.int64())),
        ((["é", None, ""], pa.string()), (["é", None, ""], pa.large_string())),
        ((["é", None, ""], pa.string()), (["é", None, ""], pa.string_view())),
        (([0.5], pa.float32()), ([0.5], pa.float64())),
        (([Decimal("-1.10")], pa.decimal128(9, 2)), ([Decimal("-1.10")], pa.decimal128(38, 2))),
        (([Decimal("1.10")], pa.decimal64(9, 2)), ([Decimal("1.10")], pa.decimal128(38, 2))),
        (([5], pa.timestamp("s")), ([5_000_000], pa.timestamp("us"))),
        (([b"1234"], pa.binary(4)), ([b"1234"], pa.binary())),
        (([[1, None]], pa.list_(pa.int32())), ([[1, None]], pa.large_list(pa.int64()))),
        (([[1, 2]], pa.list_(pa.int32(), 2)), ([[1, 2]], pa.list_(pa.int32()))),
    ],
)
def test_the_width_of_a_type_does_not_matter(narrow, wide):
    assert print_of(*narrow) == print_of(*wide)


def test_every_nan_is_the_same():
    odd = np.frombuffer(np.array([0xFFF8000000000001], np.uint64).tobytes(), np.float64)
    assert print_of(pa.array(odd)) == print_of([float("nan")])


def test_dictionaries_and_maps_hash_like_their_values():
    plain = pa.array(["a", "b", None, "a"])
    assert print_of(plain.dictionary_encode()) == print_of(plain)
    kind = pa.map_(pa.string(), pa.int64())
    one = pa.array([[("k", 1)], None, [("k", 2), ("l", None)]], kind)
    assert print_of(one) == print_of(pa.concat_arrays([one.slice(2), one.slice(0, 2)]))
    assert print_of(one) != print_of([[("k", 1)], [], [("k", 2), ("l", None)]], kind)


def test_sentinels_of_infinity_are_plain_numbers():
    ends = pa.array([2**63 - 1, -(2**63) + 1], pa.int64()).cast(pa.timestamp("us", "UTC"))
    assert print_of(ends).rows == 2


def test_text_form_reads_back():
    print_ = Fingerprint().add(mixed_batch())
    assert Fingerprint.parse(str(print_)) == print_
    with pytest.raises(ValidationError):
        Fingerprint.parse("twelve")


@pytest.mark.parametrize(
    "kind", [pa.int64(), pa.string(), pa.list_(pa.int64()), pa.null()], ids=str
)
def test_empty_batches_and_all_null_columns_work(kind):
    assert print_of([], kind) == Fingerprint()
    assert print_of([None, None], kind).rows == 2


def test_a_type_without_fingerprint_names_its_column():
    interval = pa.array([(1, 2, 3)], pa.month_day_nano_interval())
    with pytest.raises(ValidationError, match="span"):
        print_of(interval, name="span")
