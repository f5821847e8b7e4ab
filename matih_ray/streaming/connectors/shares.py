"""Which part of a table one of several readers reads: every partition is of exactly one of them."""

from __future__ import annotations

import zlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Share:
    """The share `index`, from 0, of `count`. It follows from names alone, so that readers which
    discover partitions by themselves agree on whose they are."""

    index: int = 0
    count: int = 1

    @property
    def is_whole(self) -> bool:
        """Whether there is nobody else."""
        return self.count == 1

    def has(self, group: str, number: int) -> bool:
        """Whether a numbered part of something is in this share; neighbours are in different
        ones."""
        return (zlib.crc32(group.encode()) + number) % self.count == self.index


WHOLE = Share()
