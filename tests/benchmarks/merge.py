"""Changed rows merged into a large Iceberg table: ours on Ray, and what others take for it.

`make bench-merge SCALE=1 REPEAT=1`: 1 M changes (half updates, a tenth deletions, the rest new)
into 10 M rows in ten partitions, times SCALE. All of them start from the same table and end with
the same rows, which is checked:

- ours: incoming files that sink workers have written, merged and committed; and the time to write
  them, which an append takes as well;
- DuckDB: a join written by hand for these columns, which rewrites the same files, one by one, with
  as many threads as there are cores. It commits nothing;
- PyIceberg: `Table.upsert` of 20 000 changes, extrapolated to all of them. It cannot delete.

And ours again with a hundredth of the rows updated, all in one partition, in half of them, in all:
time grows with the files that are touched.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import numpy as np
import psutil
import pyarrow as pa
import ray
from pyiceberg.table import Table

from matih_ray.execution.workforce import RayWorkforce
from matih_ray.model.ids import SinkId
from matih_ray.model.policy import MergeRule, WriteMode
from matih_ray.settings import Settings
from matih_ray.sinks.base import CommitOutcome, SinkTarget
from matih_ray.testing.contracts.sink_lab import TENANT, marker, stream, write
from matih_ray.testing.iceberg import IcebergLake
from tests.benchmarks.machine import describe, last_line, number, say, table
from tests.benchmarks.measure import MB, Meter, Usage, median

HELD_ROWS, CHANGED_ROWS, UPSERTED_ROWS = 10_000_000, 1_000_000, 20_000
PARTITIONS = 10
BATCH_ROWS = 100_000
SLICES = 4
RULE = MergeRule(key=("id",), order="version", delete="gone")
SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("region", pa.int32()),
        ("version", pa.int64()),
        ("gone", pa.bool_()),
        ("amount", pa.decimal128(12, 2)),
        ("at", pa.timestamp("us", "UTC")),
        ("note", pa.string()),
        ("city", pa.string()),
    ]
)


class Lake(IcebergLake):
    """A catalog and a warehouse in one directory."""

    def target(self, name: str, mode: WriteMode) -> SinkTarget:
        return SinkTarget(
            stream=stream(name),
            path=(TENANT, "bench", name),
            schema=SCHEMA,
            write_mode=mode,
            partition_by=("region",),
            merge=RULE if mode is WriteMode.MERGE else None,
        )


def main() -> None:
    """Measure, check that what was measured was right, and report."""
    scale, repeat = number("SCALE", 1), int(number("REPEAT", 1))
    held, changed = int(HELD_ROWS * scale), int(CHANGED_ROWS * scale)
    upserted = min(UPSERTED_ROWS, changed)
    workers = os.cpu_count() or 1
    with TemporaryDirectory(prefix="bench-merge-") as home:
        lake = Lake(Settings(home=Path(home)))
        context = ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
        say(f"loading {held} rows on {context.address_info['node_id'][:8]}")
        loads = {mode: _load(lake, mode, held) for mode in (WriteMode.APPEND, WriteMode.MERGE)}
        say(", ".join(f"first load by {m.value} {s:.2f} s" for m, s in loads.items()))
        _load(lake, WriteMode.MERGE, SLICES, "warm")
        _merge(lake, "warm", SLICES, 2 * SLICES, workers)  # starts the workers
        ours, staging, same = [], [], True
        for round_ in range(repeat):
            name = f"merged {round_}"
            _load(lake, WriteMode.MERGE, held, name)
            written_s, usage, expected_s, equal = _merge(lake, name, held, changed, workers)
            ours.append(usage)
            staging.append(written_s)
            same = same and equal
            say(
                f"ours {usage.wall_s:.2f} s, staged in {written_s:.2f} s, DuckDB {expected_s:.2f} s"
            )
        touched = _touching(lake, held, workers)
        say("touching " + ", ".join(f"{n} partitions {s:.2f} s" for n, s in touched.items()))
        pyiceberg_s = _upsert(lake, held, upserted)
        ray.shutdown()
    extrapolated_s = pyiceberg_s * changed / upserted
    middle = median(ours)
    report = {
        "wall_s": round(middle.wall_s, 2),
        "workers_cpu_s": round(middle.cpu_s, 2),
        "largest_worker_mb": round(middle.largest.resident_bytes / MB),
        "largest_worker_own_mb": round(middle.largest.own_bytes / MB),
    }
    table({"ours": report})
    say(f"PyIceberg: {upserted} changes in {pyiceberg_s:.1f} s, so all in {extrapolated_s:.0f} s")
    last_line(
        {
            "benchmark": "merge",
            "held_rows": held,
            "changed_rows": changed,
            "ours": report,
            "staging_s": round(min(staging), 2),
            "duckdb_s": round(expected_s, 2),
            "ours_over_duckdb": round(middle.wall_s / expected_s, 2),
            "pyiceberg_upsert_s": round(pyiceberg_s, 1),
            "pyiceberg_rows": upserted,
            "pyiceberg_over_ours": round(extrapolated_s / middle.wall_s, 1),
            "first_load_merge_over_append": round(
                loads[WriteMode.MERGE] / loads[WriteMode.APPEND], 2
            ),
            "seconds_by_partitions_touched": {n: round(s, 2) for n, s in touched.items()},
            "same_rows": same,
            "machine": describe(None),
        }
    )


def rows(ids: np.ndarray, version: int, gone: np.ndarray | None = None) -> Iterator[pa.RecordBatch]:
    """Rows of these ids, the same for the same id and version."""
    for start in range(0, len(ids), BATCH_ROWS):
        part = ids[start : start + BATCH_ROWS]
        cents = (part * 7919 + version) % 1_000_000
        flags = np.zeros(len(part), bool) if gone is None else gone[start : start + BATCH_ROWS]
        notes = pa.array(cents * 1_000_003).cast(pa.string())
        yield pa.RecordBatch.from_arrays(
            [
                pa.array(part),
                pa.array((part % PARTITIONS).astype(np.int32)),
                pa.array(np.full(len(part), version)),
                pa.array(flags),
                pa.array(cents.astype(np.int32)).cast(pa.decimal128(12, 2)),
                pa.array(part * 1_000_000).cast(SCHEMA.field("at").type),
                notes,
                pa.array(part % 500).cast(pa.string()),
            ],
            schema=SCHEMA,
        )


def changes(held: int, changed: int) -> list[list[pa.RecordBatch]]:
    """Half updates, a tenth deletions, the rest new; all over the table, in slices."""
    chosen = np.random.default_rng(7).permutation(held)[: changed * 6 // 10]
    fresh = np.arange(held, held + changed - len(chosen))
    ids = np.random.default_rng(8).permutation(np.concatenate([chosen, fresh]))
    gone = np.isin(ids, chosen[: changed // 10])
    slices = np.array_split(np.arange(changed), SLICES)
    return [list(rows(ids[part], 2, gone[part])) for part in slices]


def _load(lake: Lake, mode: WriteMode, held: int, name: str | None = None) -> float:
    sink = lake.sink()
    prepared = sink.prepare(lake.target(name or f"first by {mode.value}", mode))
    batches = list(rows(np.arange(held), 1))
    started = time.perf_counter()
    size = -(-len(batches) // PARTITIONS)
    receipts = [
        write(sink, prepared, batches[start : start + size], start // size)
        for start in range(0, len(batches), size)
    ]
    sink.commit(prepared, receipts, marker(1, run="load"))
    return time.perf_counter() - started


def _merge(
    lake: Lake, name: str, held: int, changed: int, workers: int
) -> tuple[float, Usage, float, bool]:
    """Seconds to stage, what the merge took, DuckDB's seconds, and whether both agree."""
    sink = lake.sink()
    prepared = sink.prepare(lake.target(name, WriteMode.MERGE))
    sink.hire(RayWorkforce(ray.put(lake.settings), TENANT, SinkId("iceberg"), workers))
    before = lake.table(prepared)
    slices = changes(held, changed)
    started = time.perf_counter()
    receipts = [write(sink, prepared, part, number) for number, part in enumerate(slices)]
    written_s = time.perf_counter() - started
    expected_s, expected = _by_hand(lake, before, slices, workers)
    with Meter(os.getpid(), *_workers()) as meter:
        sink.commit(prepared, receipts, marker(1, run="merge"))
    after = lake.table(prepared)
    files = [task.file.file_path for task in after.scan().plan_files()]
    return written_s, meter.usage, expected_s, _summed(files) == expected


def _touching(lake: Lake, held: int, workers: int) -> dict[int, float]:
    """Seconds to merge the same number of updates, by how many partitions they are in."""
    sink = lake.sink()
    sink.hire(RayWorkforce(ray.put(lake.settings), TENANT, SinkId("iceberg"), workers))
    target = lake.target(f"first by {WriteMode.MERGE.value}", WriteMode.MERGE)
    seconds = {}
    for version, touched in enumerate((1, PARTITIONS // 2, PARTITIONS), start=2):
        ids = np.arange(held)
        ids = ids[ids % PARTITIONS < touched]
        chosen = np.random.default_rng(version).choice(ids, held // 100, replace=False)
        prepared = sink.prepare(target)
        receipts = [write(sink, prepared, list(rows(chosen, version)), 0)]
        started = time.perf_counter()
        outcome = sink.commit(prepared, receipts, marker(1, run=f"touch {touched}"))
        if outcome is not CommitOutcome.APPLIED:
            raise RuntimeError(f"the merge into {touched} partitions was not made")
        seconds[touched] = time.perf_counter() - started
    return seconds


def _workers() -> list[int]:
    """The cluster's worker processes, idle or not."""
    found = psutil.Process().children(recursive=True)
    return [one.pid for one in found if one.cmdline()[:1] and one.cmdline()[0].startswith("ray::")]


def _by_hand(
    lake: Lake, before: Table, slices: list[list[pa.RecordBatch]], workers: int
) -> tuple[float, tuple[object, ...]]:
    """The join that somebody would write for these columns, rewriting the same files."""
    home = lake.settings.home / "by_hand"
    home.mkdir(exist_ok=True)
    staged = pa.Table.from_batches([batch for part in slices for batch in part])
    files = [task.file.file_path for task in before.scan().plan_files()]
    options = "(FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)"
    written = [str(home / f"{number}.parquet") for number in range(len(files) + 1)]
    with duckdb.connect() as connection:
        connection.execute(f"SET threads = {workers}")
        connection.execute("SET preserve_insertion_order = false")
        connection.register("arrow", staged)
        started = time.perf_counter()
        connection.execute("CREATE TABLE changes AS SELECT * FROM arrow")
        for path, target in zip(files, written, strict=False):
            connection.execute(
                f"""COPY (SELECT h.* FROM read_parquet('{path}', hive_partitioning = false) h
                ANTI JOIN changes c ON h.id = c.id AND h.version <= c.version)
                TO '{target}' {options}"""
            )
        connection.execute(
            f"COPY (SELECT * FROM changes WHERE NOT gone) TO '{written[-1]}' {options}"
        )
        seconds = time.perf_counter() - started
    return seconds, _summed(written)


def _summed(files: list[str]) -> tuple[object, ...]:
    with duckdb.connect() as connection:
        (found,) = connection.execute(
            """SELECT count(*),
            sum(hash(id, region, version, gone, amount, "at", note, city)::hugeint)
            FROM read_parquet($1, hive_partitioning = false)""",
            [files],
        ).fetchall()
    return tuple(found)


def _upsert(lake: Lake, held: int, upserted: int) -> float:
    """PyIceberg's own upsert of a part of the changes, without deletions."""
    prepared = lake.sink().prepare(lake.target("first by append", WriteMode.APPEND))
    chosen = pa.Table.from_batches(
        [batch for part in changes(held, upserted) for batch in part], SCHEMA
    )
    iceberg = lake.table(prepared)
    chosen = chosen.cast(iceberg.schema().as_arrow())
    started = time.perf_counter()
    iceberg.upsert(chosen, join_cols=["id"])
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
