"""Real processes, for tests of what processes share."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from multiprocessing.queues import Queue
from typing import Any

# New processes are forks of one server that has imported these and nothing else has happened in:
# they start in milliseconds, and hold no connection or thread of the test's own process.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "alembic.command",
        "matih_ray.state.factory",
        "matih_ray.state.kv_sql",
        "matih_ray.testing.contracts.state_samples",
        "psycopg2",
        "pytest",
    ]
)
START_TIMEOUT_S = 120


def start_together(
    count: int, work: Callable[..., None], *arguments: object
) -> list[ForkServerProcess]:
    """Processes that run `work(number, *arguments)`, none of them before all have started."""
    barrier = CONTEXT.Barrier(count + 1)
    processes = [
        CONTEXT.Process(target=_run, args=(barrier, work, number, arguments))
        for number in range(count)
    ]
    for process in processes:
        process.start()
    barrier.wait(START_TIMEOUT_S)
    return processes


def finish_together(processes: list[ForkServerProcess]) -> None:
    """Wait for the processes and check that none of them failed."""
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * len(processes)


def new_queue() -> Queue[Any]:
    """A queue to pass to `work`, for its results."""
    return CONTEXT.Queue()


def _run(barrier: Any, work: Callable[..., None], number: int, arguments: tuple[Any, ...]) -> None:
    barrier.wait(START_TIMEOUT_S)
    work(number, *arguments)
