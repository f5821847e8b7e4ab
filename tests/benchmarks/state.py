"""Windows of many groups and of many distinct values, in memory and in files.

`make bench-state ROWS=5000000`. Each case runs twice for each backend, the second time with ten
times the groups or values (TIMES=10), each in a process of its own whose peak of memory is told,
with a checkpoint every five seconds. The rows come from a Parquet file and go nowhere, so that what
is measured is the state. In files it has MEMORY_MB=128 of memory.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from matih_ray.settings import Settings
from matih_ray.streaming.checkpoints import CheckpointDirectory
from matih_ray.streaming.connectors.catalog_tables import Owner
from matih_ray.streaming.job import Script
from matih_ray.streaming.sql.script import parse_script
from tests.benchmarks.machine import describe, last_line, number, say

# What is measured: a row for each group, and a window without keys that has all values.
CASES = {
    "groups": "SELECT k, COUNT(*), SUM(v) FROM t GROUP BY TUMBLE(ts, INTERVAL '1' DAY), k",
    "distinct": "SELECT COUNT(*), COUNT(DISTINCT k), MAX(v) FROM t "
    "GROUP BY TUMBLE(ts, INTERVAL '1' DAY)",
}
INTERVAL_S = 5.0
FILE_ROWS = 1_000_000
START_MS = 1_767_225_600_000


def write(directory: Path, rows: int) -> None:
    """As many different keys, in no order, all in one window."""
    directory.mkdir()
    for begun in range(0, rows, FILE_ROWS):
        count = min(FILE_ROWS, rows - begun)
        keys = np.arange(begun, begun + count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        times = START_MS + np.arange(begun, begun + count) * 80_000_000 // rows
        table = pa.table(
            {
                "k": keys.view(np.int64),
                "v": np.arange(count),
                "ts": pa.array(times, pa.timestamp("ms")),
            }
        )
        pa.parquet.write_table(table, directory / f"{begun:012d}.parquet", row_group_size=128_000)


def peak_mb() -> int:
    """The most memory that this process had, from Linux."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) >> 10


def work(case: str, backend: str, source: Path, memory_mb: float) -> dict[str, float]:
    """Run one job in this process."""
    columns = {"groups": "k BIGINT, n BIGINT, s BIGINT", "distinct": "n BIGINT, d BIGINT, m BIGINT"}
    text = (
        f"SET 'state.backend.type' = '{backend}';"
        "CREATE TABLE t (k BIGINT, v BIGINT, ts TIMESTAMP(3), "
        "WATERMARK FOR ts AS ts - INTERVAL '5' SECOND) WITH "
        f"('connector' = 'filesystem', 'format' = 'parquet', 'path' = '{source}');"
        f"CREATE TABLE o ({columns[case]}) WITH ('connector' = 'blackhole');"
        f"INSERT INTO o {CASES[case]}"
    )
    with tempfile.TemporaryDirectory(dir=source.parent) as home:
        settings = Settings(home=Path(home), stream_state_memory_bytes=int(memory_mb * (1 << 20)))
        script = Script(settings, {}, io.StringIO())
        (insert,) = script.prepare(parse_script(text, {}))
        engine = script.engine(insert, Owner(job_id="job"))
        engine.directory = CheckpointDirectory(f"{home}/checkpoints")
        engine.interval_s = INTERVAL_S
        disk, checkpoint_s = 0, 0.0

        def at_step(_: str) -> None:
            nonlocal disk, checkpoint_s
            disk = max(disk, engine.progress.size.disk_bytes)
            checkpoint_s = max(checkpoint_s, engine.progress.checkpoint_s)

        engine.at_step = at_step
        before_mb = peak_mb()
        started_s, cpu_s = time.monotonic(), time.process_time()
        engine.run()
        return {
            "wall_s": round(time.monotonic() - started_s, 2),
            "cpu_s": round(time.process_time() - cpu_s, 2),
            "peak_mb": peak_mb(),
            "before_mb": before_mb,
            "disk_mb": disk >> 20,
            "checkpoints": engine.progress.checkpoints,
            "longest_checkpoint_s": round(checkpoint_s, 2),
            "rows_out": engine.progress.rows_out,
        }


def measured(case: str, backend: str, source: Path, memory_mb: float) -> dict[str, float]:
    """The same in a process of its own."""
    told = [sys.executable, "-m", __spec__.name, case, backend, str(source), str(memory_mb)]
    ended = subprocess.run(told, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(ended.stdout)
    say(f"{case} in {backend}, {source.name} rows: {found}")
    return found


def main() -> None:
    """Measure all, or with arguments one."""
    if len(sys.argv) > 1:
        case, backend, path, budget_mb = sys.argv[1:]
        print(json.dumps(work(case, backend, Path(path), float(budget_mb))))
        return
    groups, times = int(number("ROWS", 5_000_000)), int(number("TIMES", 10))
    memory_mb = number("MEMORY_MB", 128)
    wanted = os.environ.get("CASE", "")
    found: dict[str, object] = {}
    with tempfile.TemporaryDirectory(dir=os.environ.get("DIRECTORY")) as directory:
        for rows in (groups // times, groups):
            source = Path(directory) / str(rows)
            write(source, rows)
            for case in CASES if not wanted else [wanted]:
                for backend in ("memory", "disk"):
                    found[f"{case}_{backend}_{rows}"] = measured(case, backend, source, memory_mb)
    last_line(
        {
            "benchmark": "state",
            "groups": groups,
            "memory_mb": memory_mb,
            **found,
            "machine": describe(None),
        }
    )


if __name__ == "__main__":
    main()
