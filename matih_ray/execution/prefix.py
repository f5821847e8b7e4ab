"""Puts slices that finish in any order back into sequence, so that commits are prefixes."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class PrefixBuffer(Generic[T]):
    """Holds items by sequence and gives out those that follow the last one given out."""

    def __init__(self, next_sequence: int) -> None:
        self._next = next_sequence
        self._items: dict[int, T] = {}

    def add(self, sequence: int, item: T) -> None:
        """Keep an item; each sequence comes once."""
        if sequence < self._next or sequence in self._items:
            raise ValueError(f"sequence {sequence} was already added")
        self._items[sequence] = item

    @property
    def ready(self) -> int:
        """How many items `take` would give."""
        count = 0
        while self._next + count in self._items:
            count += 1
        return count

    def take(self) -> list[T]:
        """The contiguous run of items that is next, in order; empty when the next is missing."""
        taken: list[T] = []
        while self._next in self._items:
            taken.append(self._items.pop(self._next))
            self._next += 1
        return taken

    @property
    def next_sequence(self) -> int:
        """The first sequence that has not been given out."""
        return self._next

    def rest(self) -> list[T]:
        """Items that wait behind a gap."""
        return [self._items[sequence] for sequence in sorted(self._items)]
