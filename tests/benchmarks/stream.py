"""The agent performance job over a file and over a Kafka topic, one process, into Iceberg.

`make bench-stream ROWS=1000000 REPEAT=3`. The job is `jobs/sql/agent-performance-agg.sql` as it is;
its rows have 14 fields and about 350 bytes, in 2,000 groups. Timed is the work alone: from opening
the source to the last commit. JOB=file, JOB=kafka or JOB=long for one of the three. `cpu_s` is the
process's, the broker's apart.

Apache Flink takes turns with ours: the same query over the same file, or over the same topic by its
own Kafka connector, with its own defaults, as many tasks as there are cores, and its rows are
written nowhere. What it takes for a thousand rows is its start-up, reported and left out of its
rows a second.

JOB=long runs ours with checkpoints over a file of ROWS and over one of ten times as many, each in a
process of its own, and tells the most memory and the most state that either had.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path

import psutil

from matih_ray.settings import Settings
from matih_ray.streaming.checkpoints import CheckpointDirectory
from matih_ray.streaming.connectors.catalog_tables import Owner
from matih_ray.streaming.engine import Engine
from matih_ray.streaming.job import Script
from matih_ray.streaming.sql.script import parse_script, split
from matih_ray.testing.devstack.flink import FlinkSql
from matih_ray.testing.devstack.kafka import KafkaServer
from tests.benchmarks.machine import describe, last_line, number, say

JOBS = Path(__file__).parents[2] / "jobs" / "sql"
SOURCE = "agent_traces_source"
TOPIC, FEW_TOPIC = "agent-traces", "few-agent-traces"
PARTITIONS = 12
START = datetime(2026, 1, 1)  # noqa: DTZ001 - TIMESTAMP has no zone
ROWS_PER_S = 500  # of event time
MESSAGES_AT_ONCE = 50_000
FEW_ROWS = 1000
LONGER = 10
CHECKPOINT_S = 1.0  # of the long run; a production job's minute would hardly make one
FLINK_HEAP_MB = 4096
Measured = tuple[float, float]  # seconds, and seconds of CPU


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


def engine_of(home: Path, options: dict[str, str]) -> Engine:
    """The job, ready to run into an empty catalog or one that has its table."""
    table = (JOBS / "tables" / "agent_performance_metrics.sql").read_text()
    created = Script(Settings(home=home), {}, sys.stderr)
    created.prepare(parse_script(table, {}))
    created.create_tables()
    script = Script(Settings(home=home), options, sys.stderr)
    text = (JOBS / "agent-performance-agg.sql").read_text()
    (insert,) = script.prepare(parse_script(text, {}))
    return script.engine(insert, Owner(job_id=os.urandom(8).hex()))


def measure(engine: Engine, rows: int) -> Measured:
    """Run the job once."""
    wall_s, cpu_s = time.monotonic(), time.process_time()
    engine.run()
    wall_s, cpu_s = time.monotonic() - wall_s, time.process_time() - cpu_s
    if engine.pipeline.counts.read != rows:
        raise RuntimeError(f"{engine.pipeline.counts} of {rows} rows")
    return wall_s, cpu_s


def report(name: str, measured: list[Measured], rows: int) -> dict[str, float]:
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
    path, few = write(home / "traces.json", rows), home / "few.json"
    with path.open("rb") as file:
        few.write_bytes(b"".join(islice(file, FEW_ROWS)))

    def options(of: Path) -> dict[str, str]:
        return {"connector": "filesystem", "path": str(of), "format": "json"}

    return in_turns("file", home, options(path), options(few), rows, repeat)


def write(path: Path, rows: int) -> Path:
    """A file of traces."""
    with path.open("wb") as file:
        file.writelines(line + b"\n" for line in events(rows))
    return path


def from_kafka(home: Path, rows: int, repeat: int) -> dict[str, float]:
    """Over a topic, from its beginning to its end."""
    with KafkaServer() as server:
        for topic, count in ((TOPIC, rows), (FEW_TOPIC, FEW_ROWS)):
            server.create_topic(topic, PARTITIONS)
            found = ((str(row).encode(), value) for row, value in enumerate(events(count)))
            while batch := list(islice(found, MESSAGES_AT_ONCE)):
                server.produce(topic, batch)

        def options(topic: str) -> dict[str, str]:
            return {
                "connector": "kafka",
                "topic": topic,
                "properties.bootstrap.servers": server.bootstrap,
                "properties.group.id": "bench",
                "scan.startup.mode": "earliest-offset",
                "scan.bounded.mode": "latest-offset",
                "format": "json",
            }

        return in_turns("kafka", home, options(TOPIC), options(FEW_TOPIC), rows, repeat)


def in_turns(
    name: str, home: Path, all_: dict[str, str], few: dict[str, str], rows: int, repeat: int
) -> dict[str, float]:
    """Ours and Flink over the same source, one after the other, with its start-up in between."""
    ours, theirs, begun = [], [], []
    cores = os.cpu_count() or 1
    with FlinkSql(parallelism=cores, watermark_interval_ms=200, heap_mb=FLINK_HEAP_MB) as flink:
        by_flink(flink, home, few)  # classes are loaded and compiled once
        for _ in range(repeat):
            overrides = {f"{SOURCE}.{key}": text for key, text in all_.items()}
            ours.append(measure(engine_of(home, overrides), rows))
            begun.append(by_flink(flink, home, few))
            theirs.append(by_flink(flink, home, all_))
    startup_s, startup_cpu_s = (statistics.median(part) for part in zip(*begun, strict=True))
    net = [(wall_s - startup_s, cpu_s - startup_cpu_s) for wall_s, cpu_s in theirs]
    found = {**report(name, ours, rows), **report(f"flink_{name}", net, rows)}
    ratio = found[f"{name}_rows_per_s"] / found[f"flink_{name}_rows_per_s"]
    # on a machine with much else to do, only this one says something
    cpu_ratio = found[f"flink_{name}_cpu_s"] / found[f"{name}_cpu_s"]
    say(f"{name}: {ratio:.2f} times Flink's rows a second, {cpu_ratio:.2f} a second of CPU")
    say(f"{name}: Flink's start-up took {startup_s:.2f} s, {startup_cpu_s:.2f} s of CPU")
    return {
        **found,
        f"flink_{name}_startup_s": round(startup_s, 2),
        f"flink_{name}_startup_cpu_s": round(startup_cpu_s, 2),
        f"{name}_over_flink": round(ratio, 2),
        f"{name}_over_flink_cpu": round(cpu_ratio, 2),
    }


def by_flink(flink: FlinkSql, home: Path, options: dict[str, str]) -> Measured:
    """Flink, with the query over a table of these options."""
    create, insert = (text for _, text in split((JOBS / "agent-performance-agg.sql").read_text()))
    told = ", ".join(f"'{key}' = '{text}'" for key, text in options.items())
    declared = f"{create[: create.index(') WITH (')]}) WITH ({told})"
    process = psutil.Process(flink.pid)
    cpu_s, started = sum(process.cpu_times()[:2]), time.monotonic()
    flink.query(home / "flink.sql", [declared, insert[insert.index("SELECT") :]])
    return time.monotonic() - started, sum(process.cpu_times()[:2]) - cpu_s


def ten_times_as_long(home: Path, rows: int) -> dict[str, float]:
    """Memory and state of a run, and of a longer one."""
    found: dict[str, float] = {}
    for name, count in (("short", rows), ("long", rows * LONGER)):
        path = write(home / f"{name}.json", count)
        context = multiprocessing.get_context("spawn")  # a fork would begin with our memory
        with ProcessPoolExecutor(1, mp_context=context) as process:
            memory, state = process.submit(apart, home / name, path, count).result()
        path.unlink()
        say(f"{name}: {count:,} rows, {memory / 1e6:,.0f} MB of memory, {state:,} bytes of state")
        found |= {f"{name}_peak_rss_bytes": memory, f"{name}_peak_state_bytes": state}
    return found


def apart(home: Path, path: Path, rows: int) -> tuple[int, int]:
    """The most memory of this process, and the most state of the job, in bytes."""
    options = {f"{SOURCE}.connector": "filesystem", f"{SOURCE}.path": str(path)}
    engine = engine_of(home, options)
    engine.directory = CheckpointDirectory(str(home / "checkpoints"))
    engine.owner = Owner(job_id=engine.owner.job_id, epoch=engine.directory.claim())
    engine.interval_s = CHECKPOINT_S
    states = [0]
    engine.at_step = lambda _: states.append(max(states[-1], engine.progress.state_bytes))
    measure(engine, rows)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, states[-1]


def main() -> None:
    """Measure what was asked for."""
    rows, repeat = int(number("ROWS", 1_000_000)), int(number("REPEAT", 3))
    parts: dict[str, Callable[[Path], dict[str, float]]] = {
        "file": lambda home: from_file(home, rows, repeat),
        "kafka": lambda home: from_kafka(home, rows, repeat),
        "long": lambda home: ten_times_as_long(home, rows),
    }
    wanted = os.environ.get("JOB", "")
    found: dict[str, float] = {}
    for name, part in parts.items():
        if wanted in ("", name):
            with tempfile.TemporaryDirectory() as directory:
                found |= part(Path(directory))
    last_line({"benchmark": "stream", "rows": rows, **found, "machine": describe(None)})


if __name__ == "__main__":
    main()
