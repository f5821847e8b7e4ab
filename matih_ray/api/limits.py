"""How much one request may cost, each number with its reason."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from matih_ray.errors import SourceTimeoutError

Result = TypeVar("Result")


@dataclass(frozen=True)
class Limits:
    """Bounds of one replica's requests."""

    # The largest valid body is a configuration with certificates: some 100 kB.
    body_bytes: int = 1024 * 1024
    # A caller waits for an answer; a source that needs longer to log in is not usable.
    test_s: float = 30.0
    # A connector's test has a deadline of its own (30 s), after which the connector is saved or
    # taken back: the answer must say which, so it waits for that.
    connector_s: float = 60.0
    # A small database is discovered while its creator waits, a large one behind his back.
    discovery_wait_s: float = 10.0
    # Statistics are read in milliseconds, an exact count on request scans an index.
    plan_s: float = 120.0
    # Ten thousand tables take about a minute.
    collect_s: float = 300.0
    # Below the idle time-outs of common proxies (60 s).
    long_poll_s: float = 30.0
    # One indexed query each; a waiting caller sees a change this much later at worst.
    poll_every_s: float = 0.2
    # Threads that wait for sources. A source that hangs holds one until its own time-outs.
    source_calls: int = 16


class Deadlines:
    """Runs calls that wait for a source in threads of their own, and stops waiting in time.

    Not the server's own threads: sixteen hanging sources must not stop anybody's listing. A call
    that was given up goes on until the source's time-out ends it, and holds its thread until then.
    """

    def __init__(self, limits: Limits) -> None:
        self._threads = ThreadPoolExecutor(limits.source_calls, thread_name_prefix="source-call")

    async def run(self, what: str, deadline_s: float, call: Callable[[], Result]) -> Result:
        """The result of `call`.

        Raises:
            SourceTimeoutError: It took longer, or all threads are busy for that long.
        """
        loop = asyncio.get_running_loop()
        inside = partial(contextvars.copy_context().run, call)
        try:
            return await asyncio.wait_for(loop.run_in_executor(self._threads, inside), deadline_s)
        except asyncio.TimeoutError:
            raise SourceTimeoutError(
                f"{what} took longer than {deadline_s:g} s; try again when the source is less busy",
                deadline_s=deadline_s,
            ) from None
