"""PostgreSQL to Iceberg: ours on a running cluster, dlt, and the floor that COPY alone takes.

`make bench-ingest SCALE=1 REPEAT=3`. Same machine, same table, one after the other in turn, so
that a busy minute hits all of them. Ours has one run before that is reported but not counted
(first touch of code and object-store pages); the others start a process each time, as they do in
use.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial

from demo.readback import compare
from matih_ray.testing import tpch
from matih_ray.testing.devstack.postgres import PostgresServer
from tests.benchmarks.contenders import DATABASE, TENANT, Ours, dlt, floor
from tests.benchmarks.machine import SERVER_OPTIONS, describe, last_line, number, say, table
from tests.benchmarks.measure import MB, Usage, median

TABLE = tpch.LINEITEM.name


def main() -> None:
    """Measure, check that what was measured was right, and report."""
    scale, repeat = number("SCALE", 1), int(number("REPEAT", 3))
    with PostgresServer(options=SERVER_OPTIONS) as server:
        machine = describe(server)
        with contextlib.closing(server.connect(DATABASE)) as connection:
            say(f"generating {TABLE}, scale {scale:g}")
            rows = tpch.load(connection, tpch.LINEITEM, scale)
            connection.cursor().execute("CHECKPOINT")
        say("starting the runtime")
        with contextlib.closing(Ours(server)) as ours:
            idle = ours.idle()
            load = partial(ours.load, ours.connect(), TABLE, rows)
            first = load()
            say(f"first run {first.wall_s:.2f} s")
            usages = _rounds(server, load, rows, repeat)
            exact = _exact(server, ours)
    middle = {name: median(found) for name, found in usages.items()}
    table({name: usage.report(rows) for name, usage in middle.items()})
    last_line(
        {
            "benchmark": "ingest",
            "scale": scale,
            "rows": rows,
            "repeat": repeat,
            **{name: usage.report(rows) for name, usage in middle.items()},
            "wall_s": {
                name: [round(one.wall_s, 2) for one in found] for name, found in usages.items()
            },
            "ours_idle_mb": round(idle.peak_bytes / MB),
            "ours_first_wall_s": round(first.wall_s, 2),
            "dlt_over_ours": round(middle["dlt"].wall_s / middle["ours"].wall_s, 2),
            "ours_over_floor": round(middle["ours"].wall_s / middle["floor"].wall_s, 2),
            "checksum_match": exact,
            "machine": machine,
        }
    )


def _rounds(
    server: PostgresServer, ours: Callable[[], Usage], rows: int, repeat: int
) -> dict[str, list[Usage]]:
    usages: dict[str, list[Usage]] = {"ours": [], "dlt": [], "floor": []}
    for round_ in range(1, repeat + 1):
        usages["ours"].append(ours())
        usages["dlt"].append(dlt(server, TABLE, rows))
        usages["floor"].append(floor(server, TABLE))
        times = ", ".join(f"{name} {found[-1].wall_s:.2f} s" for name, found in usages.items())
        say(f"round {round_}: {times}")
    return usages


def _exact(server: PostgresServer, ours: Ours) -> bool:
    """Whether what the last run of ours left is the source, value for value."""
    identifier = f"{TENANT}.{DATABASE}.public.{TABLE}"
    with contextlib.closing(server.connect(DATABASE)) as connection:
        return compare(connection, TABLE, "true", ours.runtime.home, identifier).checksum_match


if __name__ == "__main__":
    main()
