"""The agent performance job over a file and over a Kafka topic, one process, into Iceberg.

`make bench-stream ROWS=1000000 REPEAT=3`. The job is `jobs/sql/agent-performance-agg.sql` as it is;
its rows have 14 fields and about 350 bytes, in 2,000 groups. Timed is the work alone: from opening
the source to the last commit. JOB=file or JOB=kafka for one of the two. `cpu_s` is the process's,
the broker's apart.

Over the file Apache Flink takes turns with ours: the same query with its own defaults, as many
tasks as there are cores, and its rows are written nowhere. What it takes for a file of a thousand
rows is its start-up, reported and left out of its rows a second.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path

import psutil

from matih_ray.settings import Settings
from matih_ray.streaming.connectors.catalog_tables import Owner
from matih_ray.streaming.job import Script
from matih_ray.streaming.sql.script import parse_script, split
from matih_ray.testing.devstack.flink import FlinkSql
from matih_ray.testing.devstack.kafka import KafkaServer
from tests.benchmarks.machine import describe, last_line, number, say

JOBS = Path(__file__).parents[2] / "jobs" / "sql"
TOPIC = "agent-traces"
PARTITIONS = 12
START = datetime(2026, 1, 1)  # noqa: DTZ001 - TIMESTAMP has no zone
ROWS_PER_S = 500  # of event time
MESSAGES_AT_ONCE = 50_000
FEW_ROWS = 1000
FLINK_HEAP_MB = 4096


def events(rows: int) -> Iterator[bytes]:
    """Traces, slightly out of order."""
    chance = random.Random(7)
    for row in range(rows):
        at = START + timedelta(seconds=row / ROWS_PER_S - chance.random() * 20)
        error = '"tool failed"' if row % 37 == 0 else "null"
        action = "failed" if row % 9 == 0 else "completed"
        yield (
            f'{{"event_id": "e-{row:012d}", "event_type": "agent.trace", '
            f'"tenant_id": "tenant-{row % 20}", "trace_id": "{chance.getrandbits(128):032x}", '
            f'"agent_id": "agent-{row * 7 % 100}", "action": "{action}", '
            f'"session_id": "s-{row // 50}", "latency_ms": {chance.randrange(5000)}, '
            f'"tokens_input": {row % 3000}, "tokens_output": {row % 1000}, "cost_usd": '
            f'{chance.random():.6f}, "tools_used": ["search", "sql"], "error_message": {error}, '
            f'"timestamp": "{at.isoformat(" ", "milliseconds")}"}}'
        ).encode()


def measure(home: Path, options: dict[str, str], rows: int) -> tuple[float, float]:
    """Run the job once; seconds, and seconds of CPU."""
    table = (JOBS / "tables" / "agent_performance_metrics.sql").read_text()
    created = Script(Settings(home=home), {}, sys.stderr)
    created.prepare(parse_script(table, {}))
    created.create_tables()
    script = Script(Settings(home=home), options, sys.stderr)
    text = (JOBS / "agent-performance-agg.sql").read_text()
    (insert,) = script.prepare(parse_script(text, {}))
    engine = script.engine(insert, Owner(job_id=os.urandom(8).hex()))
    wall_s, cpu_s = time.monotonic(), time.process_time()
    engine.run()
    wall_s, cpu_s = time.monotonic() - wall_s, time.process_time() - cpu_s
    if engine.pipeline.counts.read != rows:
        raise RuntimeError(f"{engine.pipeline.counts} of {rows} rows")
    return wall_s, cpu_s


def report(name: str, measured: list[tuple[float, float]], rows: int) -> dict[str, float]:
    """Medians."""
    wall_s = statistics.median(wall for wall, _ in measured)
    cpu_s = statistics.median(cpu for _, cpu in measured)
    say(f"{name}: {rows / wall_s:,.0f} rows/s, {wall_s:.2f} s, {cpu_s:.2f} s of CPU")
    return {
        f"{name}_rows_per_s": round(rows / wall_s),
        f"{name}_wall_s": round(wall_s, 3),
        f"{name}_cpu_s": round(cpu_s, 2),
    }


def from_file(home: Path, rows: int, repeat: int) -> dict[str, float]:
    """Over a file of JSON lines."""
    path = home / "traces.json"
    with path.open("wb") as file:
        file.writelines(line + b"\n" for line in events(rows))
    options = {
        "agent_traces_source.connector": "filesystem",
        "agent_traces_source.path": str(path),
    }
    few = home / "few.json"
    with path.open("rb") as file:
        few.write_bytes(b"".join(islice(file, FEW_ROWS)))
    ours, theirs, begun = [], [], []
    cores = os.cpu_count() or 1
    with FlinkSql(parallelism=cores, watermark_interval_ms=200, heap_mb=FLINK_HEAP_MB) as flink:
        by_flink(flink, few)  # classes are loaded and compiled once
        for _ in range(repeat):
            ours.append(measure(home, options, rows))
            begun.append(by_flink(flink, few)[0])
            theirs.append(by_flink(flink, path))
    startup_s = statistics.median(begun)
    net = [(wall_s - startup_s, cpu_s) for wall_s, cpu_s in theirs]
    found = {**report("file", ours, rows), **report("flink_file", net, rows)}
    ratio = found["file_rows_per_s"] / found["flink_file_rows_per_s"]
    return {**found, "flink_startup_s": round(startup_s, 2), "file_over_flink": round(ratio, 2)}


def by_flink(flink: FlinkSql, path: Path) -> tuple[float, float]:
    """Seconds that Flink takes for the query over a file, and seconds of its CPU."""
    create, insert = (text for _, text in split((JOBS / "agent-performance-agg.sql").read_text()))
    files = f"'connector' = 'filesystem', 'path' = '{path}', 'format' = 'json'"
    declared = f"{create[: create.index(') WITH (')]}) WITH ({files})"
    process = psutil.Process(flink.pid)
    cpu_s, started = sum(process.cpu_times()[:2]), time.monotonic()
    flink.query(path.with_suffix(".sql"), [declared, insert[insert.index("SELECT") :]])
    return time.monotonic() - started, sum(process.cpu_times()[:2]) - cpu_s


def from_kafka(home: Path, rows: int, repeat: int) -> dict[str, float]:
    """Over a topic, from its beginning to its end."""
    with KafkaServer() as server:
        server.create_topic(TOPIC, PARTITIONS)
        batch: list[tuple[bytes, bytes]] = []
        for row, value in enumerate(events(rows)):
            batch.append((str(row).encode(), value))
            if len(batch) == MESSAGES_AT_ONCE or row == rows - 1:
                server.produce(TOPIC, batch)
                batch.clear()
        options = {
            "agent_traces_source.topic": TOPIC,
            "agent_traces_source.properties.bootstrap.servers": server.bootstrap,
            "agent_traces_source.scan.startup.mode": "earliest-offset",
            "agent_traces_source.scan.bounded.mode": "latest-offset",
        }
        measured = [measure(home, options, rows) for _ in range(repeat)]
    return report("kafka", measured, rows)


def main() -> None:
    """Measure both."""
    rows, repeat = int(number("ROWS", 1_000_000)), int(number("REPEAT", 3))
    wanted = os.environ.get("JOB", "")
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as directory:
        if wanted != "kafka":
            found |= from_file(Path(directory), rows, repeat)
        if wanted != "file":
            found |= from_kafka(Path(directory), rows, repeat)
    last_line({"benchmark": "stream", "rows": rows, **found, "machine": describe(None)})


if __name__ == "__main__":
    main()
