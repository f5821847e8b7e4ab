"""Read ahead: in order, so many at a time, errors in their place, nothing under way afterwards."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar

import pytest

from matih_ray.sources.read_ahead import read_ahead

THREADS = 3


def test_results_come_in_the_order_of_their_items():
    def slower_first(item: int) -> int:
        time.sleep(0.01 if item % THREADS == 0 else 0)
        return item * item

    assert list(read_ahead(slower_first, range(20), THREADS)) == [n * n for n in range(20)]
    assert list(read_ahead(slower_first, [], THREADS)) == []


def test_no_more_items_are_taken_than_can_be_worked_on():
    taken: list[int] = []
    together = threading.Barrier(THREADS)

    def items() -> Iterator[int]:
        for number in range(3 * THREADS):
            taken.append(number)
            yield number

    def work(number: int) -> int:
        together.wait(timeout=10)  # all threads work at the same time
        return number

    results = read_ahead(work, items(), THREADS)
    assert next(results) == 0
    assert len(taken) == THREADS + 1
    assert list(results) == list(range(1, 3 * THREADS))


def test_an_error_comes_in_its_items_place_and_ends_the_work():
    done: list[int] = []

    def work(number: int) -> int:
        if number == 4:
            raise ValueError(number)
        done.append(number)
        return number

    results = read_ahead(work, range(1000), THREADS)
    assert [next(results) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="4"):
        next(results)
    assert max(done) <= 4 + THREADS


def test_closing_waits_for_what_is_under_way():
    under_way = threading.Event()
    ended: list[int] = []

    def work(number: int) -> int:
        if number:
            under_way.set()
            time.sleep(0.05)
        ended.append(number)
        return number

    results = read_ahead(work, range(1000), THREADS)
    assert next(results) == 0
    under_way.wait(10)
    results.close()
    count = len(ended)
    time.sleep(0.1)
    assert len(ended) == count < 1000


def test_the_callers_context_is_seen():
    seen: ContextVar[str] = ContextVar("seen", default="nothing")
    seen.set("the caller's")
    assert set(read_ahead(lambda _: seen.get(), range(5), THREADS)) == {"the caller's"}
