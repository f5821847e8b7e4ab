"""Work on what comes next, in threads, while what is there is being used."""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")
Other = TypeVar("Other")

# Calls of one slice to an API: an answer takes the site a third of a second and us a hundredth. The
# rate governor knows what the site allows, which is a hundred a second where it is written down;
# this bounds the answers in memory.
CALLS_AT_ONCE = 8
# Calls of one plan, whose answers are small. Nothing of its run is read before it is made.
PLAN_CALLS_AT_ONCE = 32


def read_ahead(
    work: Callable[[Given], Made], items: Iterable[Given], threads: int = CALLS_AT_ONCE
) -> Iterator[Made]:
    """`work` of each item, in their order, for up to `threads` items at a time.

    Each call sees the context variables of whoever iterates, host policies among them. What `work`
    raises comes out in its item's place. Closing the iterator waits for the calls under way, so
    that nobody uses a connection after it is closed.
    """
    waiting: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="read-ahead") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(contextvars.copy_context().run, work, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def both(one: Callable[[], Made], other: Callable[[], Other]) -> tuple[Made, Other]:
    """What two calls give that are made at the same time; what the first raises goes first."""
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as pool:
        second = pool.submit(contextvars.copy_context().run, other)
        first = one()
        return first, second.result()
