"""Does a table ten times as large take ten times as long, and no more memory?

`make bench-scale`. Each size has a runtime of its own, because a process keeps the memory it once
had; one run before the counted ones warms it. SMALL and LARGE are TPC-H scale factors (1 and 10).
"""

from __future__ import annotations

import contextlib

from matih_ray.testing import tpch
from matih_ray.testing.devstack.postgres import PostgresServer
from tests.benchmarks.contenders import Ours
from tests.benchmarks.machine import SERVER_OPTIONS, describe, last_line, number, say, table
from tests.benchmarks.measure import Usage, median

TABLE = tpch.LINEITEM.name


def main() -> None:
    """Measure both sizes and report the ratios."""
    small, large = number("SMALL", 1), number("LARGE", 10)
    repeat = int(number("REPEAT", 3))
    rows: dict[float, int] = {}
    usages: dict[float, Usage] = {}
    with PostgresServer(options=SERVER_OPTIONS) as server:
        machine = describe(server)
        for scale in (small, large):
            rows[scale] = _generate(server, scale)
        for scale in (small, large):
            usages[scale] = _measure(server, scale, rows[scale], repeat)
    per_row = {scale: usages[scale].wall_s / rows[scale] for scale in usages}
    table({f"scale {scale:g}": usage.report(rows[scale]) for scale, usage in usages.items()})
    last_line(
        {
            "benchmark": "scale",
            **{f"scale_{scale:g}": usage.report(rows[scale]) for scale, usage in usages.items()},
            "time_per_row_ratio": round(per_row[large] / per_row[small], 3),
            "peak_memory_ratio": round(usages[large].peak_bytes / usages[small].peak_bytes, 3),
            "largest_process_ratio": round(
                usages[large].largest.resident_bytes / usages[small].largest.resident_bytes, 3
            ),
            "repeat": repeat,
            "machine": machine,
        }
    )


def _generate(server: PostgresServer, scale: float) -> int:
    say(f"generating {TABLE}, scale {scale:g}")
    server.create_database(_database(scale))
    with contextlib.closing(server.connect(_database(scale))) as connection:
        rows = tpch.load(connection, tpch.LINEITEM, scale)
        connection.cursor().execute("CHECKPOINT")
    return rows


def _measure(server: PostgresServer, scale: float, rows: int, repeat: int) -> Usage:
    with contextlib.closing(Ours(server)) as ours:
        endpoint_id = ours.connect(_database(scale))
        runs = [ours.load(endpoint_id, TABLE, rows) for _ in range(1 + repeat)]
    say(f"scale {scale:g}: " + ", ".join(f"{usage.wall_s:.2f} s" for usage in runs))
    return median(runs[1:])


def _database(scale: float) -> str:
    return f"scale_{scale:g}".replace(".", "_")


if __name__ == "__main__":
    main()
