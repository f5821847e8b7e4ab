"""Incremental runs that find nothing: one after the other, and a hundred started together.

`make bench-empty`. Times are from the POST to the first answer that says COMPLETED, asked for every
`POLL_S`; `recorded` are the run's own times, from created to finished. RUNS is the number started
together (100), SINGLES the number started one by one (20).
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from matih_ray.api.wire import RunBody
from matih_ray.model.ids import EndpointId, UnitId
from matih_ray.model.policy import IngestionPolicy, RunMode
from matih_ray.model.run import RunState
from matih_ray.testing.devstack.postgres import PostgresServer
from tests.benchmarks.contenders import DATABASE, Ours
from tests.benchmarks.machine import SERVER_OPTIONS, describe, last_line, number, say

ROWS = 1000
POLL_S = 0.02
POSTERS = 8
POLICY = IngestionPolicy(run_mode=RunMode.INCREMENTAL, cursor_column="id")


def main() -> None:
    """Load some tables, then look for changes in them."""
    together, singles = int(number("RUNS", 100)), int(number("SINGLES", 20))
    with PostgresServer(options=SERVER_OPTIONS) as server:
        machine = describe(server)
        names = [f"t{index}" for index in range(max(together, 1))]
        for name in names:
            server.execute(
                f"CREATE TABLE {name} AS SELECT g::bigint AS id, md5(g::text) AS note"
                f" FROM generate_series(1, {ROWS}) AS g; ALTER TABLE {name} ADD PRIMARY KEY (id)",
                DATABASE,
            )
        with contextlib.closing(Ours(server)) as ours:
            endpoint_id = ours.connect()
            first_s = _together(ours, endpoint_id, names, ROWS)
            say(f"first load of {len(names)} tables: {first_s:.2f} s")
            seconds, recorded = _singles(ours, endpoint_id, names[0], singles)
            say(f"one empty run: median {statistics.median(seconds):.2f} s")
            together_s = _together(ours, endpoint_id, names, 0)
            say(f"{len(names)} empty runs together: {together_s:.2f} s")
    last_line(
        {
            "benchmark": "empty",
            "single_median_s": round(statistics.median(seconds), 3),
            "single_max_s": round(max(seconds), 3),
            "recorded_median_s": round(statistics.median(recorded), 3),
            "singles": singles,
            "together": together,
            "together_s": round(together_s, 2),
            "first_loads_s": round(first_s, 2),
            "machine": machine,
        }
    )


def _singles(
    ours: Ours, endpoint_id: EndpointId, name: str, count: int
) -> tuple[list[float], list[float]]:
    seconds, recorded = [], []
    for _ in range(count):
        start = time.perf_counter()
        run = ours.client.start_run(endpoint_id, UnitId(f"public.{name}"), POLICY)
        while run.state is not RunState.COMPLETED:
            time.sleep(POLL_S)
            run = _checked(ours.client.run(run.run_id), 0)
        seconds.append(time.perf_counter() - start)
        assert run.finished_at is not None
        recorded.append((run.finished_at - run.created_at).total_seconds())
    return seconds, recorded


def _together(ours: Ours, endpoint_id: EndpointId, names: Sequence[str], rows: int) -> float:
    """Seconds from the first POST until all runs are COMPLETED."""
    start = time.perf_counter()
    with ThreadPoolExecutor(POSTERS) as posters:
        units = [UnitId(f"public.{name}") for name in names]
        runs = list(
            posters.map(lambda unit: ours.client.start_run(endpoint_id, unit, POLICY), units)
        )
    for run in runs:
        _checked(ours.client.finish(run), rows)
    return time.perf_counter() - start


def _checked(run: RunBody, rows: int) -> RunBody:
    if run.state in (RunState.FAILED, RunState.CANCELLED):
        raise RuntimeError(f"run {run.run_id} is {run.state.value}: {run.error}")
    if run.state is RunState.COMPLETED and run.rows != rows:
        raise RuntimeError(f"run {run.run_id} found {run.rows} rows and not {rows}")
    return run


if __name__ == "__main__":
    main()
