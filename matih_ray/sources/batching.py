"""Many small things in a few larger ones, in their order. Pure.

Whoever waits for the next one keeps no hold on the last: batches are large, and who has got one
may be slow.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from operator import attrgetter
from typing import TypeVar

import pyarrow as pa

from matih_ray.sources.base import TARGET_BATCH_BYTES

Item = TypeVar("Item")


def pieces(items: Iterable[Item], count: int) -> Iterator[list[Item]]:
    """Lists of `count` items; the last one may be shorter."""
    remaining = iter(items)
    while piece := list(islice(remaining, count)):
        yield piece
        del piece


def gathered(
    items: Iterable[Item], size_of: Callable[[Item], int], limit: int, within_s: float = math.inf
) -> Iterator[list[Item]]:
    """Lists that end with the item whose size fills them, or that comes `within_s` after the first.

    So a list is larger than `limit` by one item at most.
    """
    held: list[Item] = []
    size, since_s = 0, 0.0
    for item in items:
        since_s = since_s if held else time.monotonic()
        held.append(item)
        size += size_of(item)
        del item
        if size >= limit or time.monotonic() - since_s >= within_s:
            full, held, size = [held], [], 0
            yield full.pop()
    if held:
        full, held = [held], []
        yield full.pop()


def joined(
    batches: Iterable[pa.RecordBatch], target_bytes: int = TARGET_BATCH_BYTES
) -> Iterator[pa.RecordBatch]:
    """Batches of one schema put together to about `target_bytes`; larger by one of them at most."""
    return map(_one, gathered(batches, attrgetter("nbytes"), target_bytes))


def _one(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)
