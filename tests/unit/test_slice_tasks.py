"""How a slice task sends its batches on."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pyarrow as pa
import pytest

from matih_ray.execution import tasks
from matih_ray.execution.tasks import STAGED_BYTES, together

ROW_BYTES = 8


def batch(size_bytes: int, first: int = 0) -> pa.RecordBatch:
    numbers = pa.array(range(first, first + size_bytes // ROW_BYTES), pa.int64())
    return pa.record_batch([numbers], ["n"])


@pytest.mark.parametrize(
    ("sizes", "groups"),
    [
        ([], []),
        ([8], [1]),
        ([STAGED_BYTES], [1]),
        ([STAGED_BYTES // 3 + ROW_BYTES] * 7, [3, 3, 1]),
        ([8, 3 * STAGED_BYTES, 8, 8], [2, 2]),
        ([STAGED_BYTES - 8, 8, 8], [2, 1]),
    ],
)
def test_batches_go_on_together_in_their_order(sizes: list[int], groups: list[int]) -> None:
    given = [batch(size, number) for number, size in enumerate(sizes)]
    staged = list(together(given))
    assert [len(one.batches) for one in staged] == groups
    assert [sent for one in staged for sent in one.batches] == given


def test_batches_of_a_slow_source_do_not_wait_for_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "STAGED_S", 0.05)

    def slow() -> Iterator[pa.RecordBatch]:
        for number in range(4):
            yield batch(8, number)
            time.sleep(0.06)

    assert [len(one.batches) for one in together(slow())] == [2, 2]


def test_what_was_sent_on_is_kept_by_nobody() -> None:
    def source() -> Iterator[pa.RecordBatch]:
        for _ in range(8):
            yield batch(STAGED_BYTES)

    pool = pa.default_memory_pool()
    before = pool.bytes_allocated()
    for one in together(source()):
        del one
        assert pool.bytes_allocated() - before < STAGED_BYTES / 2
