"""Small things in larger ones."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pyarrow as pa
import pytest

from matih_ray.sources.batching import gathered, joined, pieces
from matih_ray.sources.sql.row_pages import MAX_BATCH_ROWS, gathered_rows


@pytest.mark.parametrize(
    ("count", "lengths"), [(0, []), (1, [1]), (3, [3]), (4, [3, 1]), (7, [3, 3, 1])]
)
def test_pieces_are_of_one_length_but_for_the_last(count: int, lengths: list[int]) -> None:
    found = list(pieces(range(count), 3))
    assert [len(piece) for piece in found] == lengths
    assert [one for piece in found for one in piece] == list(range(count))


def test_nothing_is_asked_for_before_it_is_needed() -> None:
    asked: list[int] = []

    def items() -> Iterator[int]:
        for number in range(10):
            asked.append(number)
            yield number

    assert next(pieces(items(), 2)) == [0, 1]
    assert asked == [0, 1]
    asked.clear()
    assert next(gathered(items(), lambda _: 1, 3)) == [0, 1, 2]
    assert asked == [0, 1, 2]


@pytest.mark.parametrize(
    ("sizes", "lists"),
    [([], []), ([9], [[9]]), ([4, 4, 4, 4], [[4, 4, 4], [4]]), ([1, 30, 1], [[1, 30], [1]])],
)
def test_a_list_ends_with_what_fills_it(sizes: list[int], lists: list[list[int]]) -> None:
    assert list(gathered(sizes, lambda size: size, 10)) == lists


def test_what_was_taken_is_kept_by_nobody() -> None:
    class Large:
        pass

    alive: list[weakref.ref[Large]] = []

    def made(_: int) -> Large:
        one = Large()
        alive.append(weakref.ref(one))
        return one

    for taken in gathered(map(made, range(5)), lambda _: 1, 2):
        del taken
        gc.collect()
        assert not [one for one in alive if one() is not None]


def test_batches_are_joined_in_their_order() -> None:
    numbers = [pa.record_batch([pa.array([n] * 100)], ["n"]) for n in range(5)]
    found = list(joined(numbers, numbers[0].nbytes * 2))
    assert [batch.num_rows for batch in found] == [200, 200, 100]
    assert pa.Table.from_batches(found).equals(pa.Table.from_batches(numbers).combine_chunks())


def test_pages_of_rows_end_by_bytes_or_by_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    small = [[(1, None)] * 1000] * 120
    assert [len(rows) for rows in gathered_rows(small)] == [MAX_BATCH_ROWS, MAX_BATCH_ROWS, 20_000]
    monkeypatch.setattr("matih_ray.sources.sql.row_pages.TARGET_BATCH_BYTES", 100)
    wide = [[("a" * 60, b"b" * 10, 7)]] * 3  # 78 bytes each
    assert [len(rows) for rows in gathered_rows(wide)] == [2, 1]
