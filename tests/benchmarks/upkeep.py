"""Maintenance of tables: many small files made few, and a day of streaming.

`make bench-compact FILES=2000 ROWS=1000`: one table of small files, committed a hundred at a time.
Wall time, what the process read and wrote while it compacted (counted by the kernel) against the
sizes of the files, and whether the rows are the same.

`make bench-day COMMITS=1440 ROWS=500`: a commit for each minute of a day into a table partitioned
by the hour, a twentieth of the rows late by an hour, and a pass of maintenance for each hour. Files
of the fullest partition and manifests at the end, and queries against a table written at once.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
from pyiceberg.table import Table

from matih_ray.model.fingerprint import Fingerprint
from matih_ray.model.maintenance import MaintenancePolicy, MaintenanceReport, MaintenanceTask
from matih_ray.settings import Settings
from matih_ray.sinks.base import PreparedTarget
from matih_ray.sinks.iceberg import IcebergSink
from matih_ray.testing.contracts.sink_lab import TENANT, marker, target, write
from matih_ray.testing.iceberg import IcebergLake
from tests.benchmarks.machine import describe, last_line, number, say

SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("at", pa.timestamp("us", "UTC")),
        ("agent", pa.string()),
        ("seconds", pa.float64()),
    ]
)
DAY = datetime(2026, 1, 1, tzinfo=timezone.utc)
FILES_PER_COMMIT = 100
COMMITS_PER_PASS = 60
LATE_SHARE = 20
QUERIES = 7


@dataclass
class Bench:
    """A table of its own in a lake of its own."""

    settings: Settings
    name: str
    partition_by: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.sink = IcebergSink.from_settings(self.settings, TENANT)
        wanted = target((TENANT, "bench", self.name), schema=SCHEMA, unit=self.name)
        self.prepared: PreparedTarget = self.sink.prepare(
            replace(wanted, partition_by=self.partition_by)
        )
        self.commits = 0

    def table(self) -> Table:
        return IcebergLake(self.settings).table(self.prepared)

    def commit(self, *batches: pa.RecordBatch) -> None:
        """One commit, of a slice for each batch."""
        receipts = [write(self.sink, self.prepared, [one], n) for n, one in enumerate(batches)]
        self.commits += 1
        self.sink.commit(self.prepared, receipts, marker(self.commits))

    def care(self, policy: MaintenancePolicy) -> MaintenanceReport:
        """A pass, as if all that is there were old."""
        now = datetime.now(timezone.utc) + timedelta(seconds=5)
        report = self.sink.maintain(f"bench.{self.name}", policy, now)
        assert report.error is None, report.error
        return report

    def fingerprint(self) -> str:
        found = Fingerprint()
        for batch in self.table().scan().to_arrow_batch_reader():
            found = found.add(batch)
        return str(found)


def rows(first: int, count: int, start: datetime, span_s: float, late: int = 0) -> pa.RecordBatch:
    """Rows of a span of time; one of each `late` is an hour older."""
    ids = np.arange(first, first + count)
    offsets = np.arange(count) * int(span_s * 1e6 / max(count, 1))
    micros = int(start.timestamp() * 1e6) + offsets
    if late:
        micros = np.where(ids % late == 0, micros - 3_600_000_000, micros)
    return pa.RecordBatch.from_arrays(
        [
            pa.array(ids),
            pa.array(micros, pa.int64()).cast(SCHEMA.field("at").type),
            pa.array(ids * 7919 % 1000).cast(pa.string()),
            pa.array((ids * 104_729 % 10_007) / 7),
        ],
        schema=SCHEMA,
    )


def compact(home: Path) -> None:
    """See the module."""
    files, count = int(number("FILES", 2000)), int(number("ROWS", 1000))
    bench = Bench(Settings(home=home), "compacted")
    for start in range(0, files, FILES_PER_COMMIT):
        numbers = range(start, min(files, start + FILES_PER_COMMIT))
        bench.commit(*(rows(n * count, count, DAY, 60) for n in numbers))
    before, sizes = bench.fingerprint(), _sizes(bench.table())
    tasks = (MaintenanceTask.COMPACT, MaintenanceTask.MANIFESTS)
    read, written = _transferred()
    started = time.monotonic()
    report = bench.care(MaintenancePolicy(tasks=tasks))
    wall_s = time.monotonic() - started
    read, written = (now - then for now, then in zip(_transferred(), (read, written), strict=True))
    after = _sizes(bench.table())
    say(f"{len(sizes)} files became {len(after)} in {wall_s:.2f} s")
    last_line(
        {
            "benchmark": "compact",
            "files_before": len(sizes),
            "files_after": len(after),
            "rows": files * count,
            "wall_s": round(wall_s, 2),
            "file_bytes_before": sum(sizes),
            "file_bytes_after": sum(after),
            "read_over_file_bytes": round(read / sum(sizes), 3),
            "written_over_file_bytes": round(written / sum(after), 3),
            "manifests": [report.manifests_before, report.manifests_after],
            "same_rows": bench.fingerprint() == before,
            "machine": describe(None),
        }
    )


def day(home: Path) -> None:
    """See the module."""
    commits, count = int(number("COMMITS", 1440)), int(number("ROWS", 500))
    settings = Settings(home=home)
    streamed = Bench(settings, "streamed", ("hour(at)",))
    policy = MaintenancePolicy(snapshot_age_s=0, orphan_age_s=3600)
    took: list[float] = []
    passes: list[MaintenanceReport] = []
    for minute in range(commits):
        start = DAY + timedelta(minutes=minute)
        batch = rows(minute * count, count, start, 60, LATE_SHARE)
        started = time.monotonic()
        streamed.commit(batch)
        took.append(time.monotonic() - started)
        if (minute + 1) % COMMITS_PER_PASS == 0 or minute + 1 == commits:
            passes.append(streamed.care(policy))
    fresh = Bench(settings, "fresh", ("hour(at)",))
    all_rows = streamed.table().scan().to_arrow().sort_by("id")
    fresh.commit(*all_rows.cast(SCHEMA).combine_chunks().to_batches())
    per_partition = Counter(
        str(task.file.partition) for task in streamed.table().scan().plan_files()
    )
    snapshot = streamed.table().current_snapshot()
    assert snapshot is not None
    queries = {name: _query_ms(streamed, fresh, name) for name in ("all", "hour")}
    last_line(
        {
            "benchmark": "day",
            "commits": commits,
            "rows": commits * count,
            "commit_ms_median": round(statistics.median(took) * 1000, 1),
            "commit_ms_last_tenth": round(statistics.median(took[-commits // 10 :]) * 1000, 1),
            "files_in_fullest_partition": max(per_partition.values()),
            "partitions": len(per_partition),
            "manifests": len(snapshot.manifests(streamed.table().io)),
            "snapshots": len(streamed.table().metadata.snapshots),
            "maintenance_s": round(sum(report.seconds for report in passes), 1),
            "bytes_rewritten": sum(report.compaction.bytes_written for report in passes),
            "bytes_at_the_end": sum(_sizes(streamed.table())),
            "query_ms": {name: [round(ms, 1) for ms in pair] for name, pair in queries.items()},
            "query_over_fresh": {
                name: round(ours / theirs, 2) for name, (ours, theirs) in queries.items()
            },
            "same_rows": streamed.fingerprint() == fresh.fingerprint(),
            "machine": describe(None),
        }
    )


def _query_ms(streamed: Bench, fresh: Bench, name: str) -> tuple[float, float]:
    """Median times of one query on both tables, planning included, taken in turns."""
    low, high = (DAY + timedelta(hours=hour) for hour in (2, 3))
    where = f"at >= '{low.isoformat()}' and at < '{high.isoformat()}'" if name == "hour" else "true"

    def timed(bench: Bench) -> float:
        table = bench.table()
        started = time.monotonic()
        scan = table.scan() if name == "all" else table.scan(row_filter=where)
        found = scan.to_arrow()
        found.group_by("agent").aggregate([("seconds", "mean")])
        return (time.monotonic() - started) * 1000

    pairs = [(timed(streamed), timed(fresh)) for _ in range(QUERIES)]
    ours, theirs = zip(*pairs, strict=True)
    return statistics.median(ours), statistics.median(theirs)


def _sizes(table: Table) -> list[int]:
    return [task.file.file_size_in_bytes for task in table.scan().plan_files()]


def _transferred() -> tuple[int, int]:
    """Bytes that this process has read and written so far, by the kernel's count."""
    lines = Path("/proc/self/io").read_text().splitlines()
    told = {name: int(value) for name, value in (line.split(": ") for line in lines)}
    return told["rchar"], told["wchar"]


BENCHMARKS: dict[str, Callable[[Path], None]] = {"compact": compact, "day": day}

if __name__ == "__main__":
    with TemporaryDirectory(prefix="bench-upkeep-") as directory:
        BENCHMARKS[sys.argv[1]](Path(directory))
