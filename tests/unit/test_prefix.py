"""Slices finish in any order and leave in sequence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matih_ray.execution.prefix import PrefixBuffer


@given(st.permutations(range(12)), st.integers(0, 5))
def test_items_leave_once_and_in_sequence(order: list[int], first: int) -> None:
    buffer: PrefixBuffer[int] = PrefixBuffer(first)
    taken: list[int] = []
    for offset in order:
        buffer.add(first + offset, first + offset)
        assert buffer.ready <= len(buffer.rest())
        taken += buffer.take()
        assert taken == list(range(first, first + len(taken)))
    assert taken == list(range(first, first + 12))
    assert buffer.rest() == []


def test_nothing_passes_a_gap() -> None:
    buffer: PrefixBuffer[str] = PrefixBuffer(0)
    buffer.add(1, "b")
    buffer.add(2, "c")
    assert (buffer.ready, buffer.take(), buffer.rest()) == (0, [], ["b", "c"])
    buffer.add(0, "a")
    assert (buffer.ready, buffer.take()) == (3, ["a", "b", "c"])
    assert buffer.next_sequence == 3


@pytest.mark.parametrize("sequence", [0, 1])
def test_a_sequence_comes_once(sequence: int) -> None:
    buffer: PrefixBuffer[str] = PrefixBuffer(1)
    buffer.add(1, "x")
    with pytest.raises(ValueError, match="already"):
        buffer.add(sequence, "again")
