"""The three window jobs over a file and over a Kafka topic, one process, into Iceberg.

`make bench-stream ROWS=1000000 REPEAT=3`. The jobs are those of `jobs/sql` as they are;
QUERY=session, QUERY=agent or QUERY=llm for one of them. Their rows are those of `stream_events.py`.
Timed is the work alone: from opening the source to the last commit. JOB=file, JOB=kafka or JOB=long
for one of the three parts. `cpu_s` is the process's, the broker's apart.

Apache Flink takes turns with ours: the same query over the same file, or over the same topic by its
own Kafka connector, with its own defaults, as many tasks as there are cores, and its rows are
written nowhere. What it takes for a thousand rows is its start-up, reported and left out of its
rows a second. Ours must have read all rows, and both must have about as many results.

JOB=long is of the agent job only. It runs ours with checkpoints over a file of ROWS and over one of
ten times as many, each in a process of its own, and tells the most memory and the most state that
either had.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

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
from tests.benchmarks.state import peak_mb
from tests.benchmarks.stream_events import (
    Event,
    agent_trace,
    events,
    llm_operation,
    state_change,
)

SQL = Path(__file__).parents[2] / "jobs" / "sql"
PARTITIONS = 12
MESSAGES_AT_ONCE = 50_000
FEW_ROWS = 1000
LONGER = 10
CHECKPOINT_S = 1.0  # of the long run; a production job's minute would hardly make one
FLINK_HEAP_MB = 4096
# A late row may be the only one of its group, and which rows are late depends on the pace.
RESULTS_APART = 0.01


@dataclass(frozen=True)
class WindowJob:
    """One of the jobs: `sql` and `table` are files, `source` is what its script reads."""

    name: str
    sql: str
    source: str
    table: str
    event: Event

    @property
    def text(self) -> str:
        """The job's script."""
        return (SQL / self.sql).read_text()


AGENT = WindowJob(
    "agent",
    "agent-performance-agg.sql",
    "agent_traces_source",
    "agent_performance_metrics.sql",
    agent_trace,
)
JOBS = (
    WindowJob(
        "session",
        "session-analytics.sql",
        "state_changes_source",
        "session_analytics.sql",
        state_change,
    ),
    AGENT,
    WindowJob(
        "llm",
        "llm-operations-agg.sql",
        "llm_ops_source",
        "llm_operations_metrics.sql",
        llm_operation,
    ),
)


class Measured(NamedTuple):
    """What one run took, and how many rows came out."""

    wall_s: float
    cpu_s: float
    results: int


def engine_of(job: WindowJob, home: Path, options: dict[str, str]) -> Engine:
    """The job, ready to run into an empty catalog or one that has its table."""
    created = Script(Settings(home=home), {}, sys.stderr)
    created.prepare(parse_script((SQL / "tables" / job.table).read_text(), {}))
    created.create_tables()
    overrides = {f"{job.source}.{key}": text for key, text in options.items()}
    script = Script(Settings(home=home), overrides, sys.stderr)
    (insert,) = script.prepare(parse_script(job.text, {}))
    return script.engine(insert, Owner(job_id=os.urandom(8).hex()))


def measure(engine: Engine, rows: int) -> Measured:
    """Run the job once."""
    wall_s, cpu_s = time.monotonic(), time.process_time()
    engine.run()
    wall_s, cpu_s = time.monotonic() - wall_s, time.process_time() - cpu_s
    if engine.pipeline.counts.read != rows:
        raise RuntimeError(f"{engine.pipeline.counts} of {rows} rows")
    return Measured(wall_s, cpu_s, engine.progress.rows_out)


def report(name: str, measured: list[Measured], rows: int) -> dict[str, float]:
    """Medians."""
    wall_s = statistics.median(one.wall_s for one in measured)
    cpu_s = statistics.median(one.cpu_s for one in measured)
    say(f"{name}: {rows / wall_s:,.0f} rows/s, {wall_s:.2f} s, {cpu_s:.2f} s of CPU")
    return {
        f"{name}_rows_per_s": round(rows / wall_s),
        f"{name}_wall_s": round(wall_s, 3),
        f"{name}_cpu_s": round(cpu_s, 2),
        f"{name}_results": measured[-1].results,
    }


def from_file(job: WindowJob, home: Path, rows: int, repeat: int) -> dict[str, float]:
    """Over a file of JSON lines."""
    path, few = write(job, home / "all.json", rows), write(job, home / "few.json", FEW_ROWS)

    def options(of: Path) -> dict[str, str]:
        return {"connector": "filesystem", "path": str(of), "format": "json"}

    return in_turns(job, "file", home, options(path), options(few), rows, repeat)


def write(job: WindowJob, path: Path, rows: int) -> Path:
    """A file of the job's events."""
    with path.open("wb") as file:
        file.writelines(line + b"\n" for line in events(job.event, rows))
    return path


def from_kafka(
    job: WindowJob, server: KafkaServer, home: Path, rows: int, repeat: int
) -> dict[str, float]:
    """Over a topic of its own, from its beginning to its end."""
    topic, few = job.name, f"few-{job.name}"
    for name, count in ((topic, rows), (few, FEW_ROWS)):
        server.create_topic(name, PARTITIONS)
        found = ((str(row).encode(), value) for row, value in enumerate(events(job.event, count)))
        while batch := list(islice(found, MESSAGES_AT_ONCE)):
            server.produce(name, batch)

    def options(of: str) -> dict[str, str]:
        return {
            "connector": "kafka",
            "topic": of,
            "properties.bootstrap.servers": server.bootstrap,
            "properties.group.id": "bench",
            "scan.startup.mode": "earliest-offset",
            "scan.bounded.mode": "latest-offset",
            "format": "json",
        }

    return in_turns(job, "kafka", home, options(topic), options(few), rows, repeat)


def in_turns(
    job: WindowJob,
    part: str,
    home: Path,
    all_: dict[str, str],
    few: dict[str, str],
    rows: int,
    repeat: int,
) -> dict[str, float]:
    """Ours and Flink over the same source, one after the other, with its start-up in between."""
    ours, theirs, begun = [], [], []
    cores = os.cpu_count() or 1
    with FlinkSql(parallelism=cores, watermark_interval_ms=200, heap_mb=FLINK_HEAP_MB) as flink:
        by_flink(job, flink, home, few)  # classes are loaded and compiled once
        for _ in range(repeat):
            ours.append(measure(engine_of(job, home, all_), rows))
            begun.append(by_flink(job, flink, home, few))
            theirs.append(by_flink(job, flink, home, all_))
    check(ours, theirs)
    return compared(f"{job.name}_{part}", ours, theirs, begun, rows)


def check(ours: list[Measured], theirs: list[Measured]) -> None:
    """Both did the same work."""
    for our, their in zip(ours, theirs, strict=True):
        if abs(our.results - their.results) > our.results * RESULTS_APART:
            raise RuntimeError(f"{our.results} results of ours, {their.results} of Flink's")


def compared(
    name: str, ours: list[Measured], theirs: list[Measured], begun: list[Measured], rows: int
) -> dict[str, float]:
    """Medians of both, and one over the other, without Flink's start-up."""
    startup_s = statistics.median(one.wall_s for one in begun)
    startup_cpu_s = statistics.median(one.cpu_s for one in begun)
    net = [Measured(a.wall_s - startup_s, a.cpu_s - startup_cpu_s, a.results) for a in theirs]
    found = {**report(name, ours, rows), **report(f"{name}_flink", net, rows)}
    ratio = found[f"{name}_rows_per_s"] / found[f"{name}_flink_rows_per_s"]
    # on a machine with much else to do, only this one says something
    cpu_ratio = found[f"{name}_flink_cpu_s"] / found[f"{name}_cpu_s"]
    say(f"{name}: {ratio:.2f} times Flink's rows a second, {cpu_ratio:.2f} a second of CPU")
    say(f"{name}: Flink's start-up took {startup_s:.2f} s, {startup_cpu_s:.2f} s of CPU")
    return {
        **found,
        f"{name}_flink_startup_s": round(startup_s, 2),
        f"{name}_flink_startup_cpu_s": round(startup_cpu_s, 2),
        f"{name}_over_flink": round(ratio, 2),
        f"{name}_over_flink_cpu": round(cpu_ratio, 2),
    }


def by_flink(job: WindowJob, flink: FlinkSql, home: Path, options: dict[str, str]) -> Measured:
    """Flink, with the query over a table of these options."""
    create, insert = (text for _, text in split(job.text))
    told = ", ".join(f"'{key}' = '{text}'" for key, text in options.items())
    declared = f"{create[: create.index(') WITH (')]}) WITH ({told})"
    process = psutil.Process(flink.pid)
    cpu_s, started = sum(process.cpu_times()[:2]), time.monotonic()
    found = flink.query(home / "flink.sql", [declared, insert[insert.index("SELECT") :]])
    wall_s = time.monotonic() - started
    return Measured(wall_s, sum(process.cpu_times()[:2]) - cpu_s, len(found))


def ten_times_as_long(home: Path, rows: int) -> dict[str, float]:
    """Memory and state of a run of the agent job, and of a longer one."""
    found: dict[str, float] = {}
    for name, count in (("short", rows), ("long", rows * LONGER)):
        path = write(AGENT, home / f"{name}.json", count)
        context = multiprocessing.get_context("spawn")  # a fork would begin with our memory
        with ProcessPoolExecutor(1, mp_context=context) as process:
            memory, state = process.submit(apart, home / name, path, count).result()
        path.unlink()
        key = f"agent_{name}"
        say(f"{key}: {count:,} rows, {memory / 1e6:,.0f} MB of memory, {state:,} bytes of state")
        found |= {f"{key}_peak_rss_bytes": memory, f"{key}_peak_state_bytes": state}
    return found


def apart(home: Path, path: Path, rows: int) -> tuple[int, int]:
    """The most memory of this process, and the most state of the job, in bytes."""
    engine = engine_of(AGENT, home, {"connector": "filesystem", "path": str(path)})
    engine.directory = CheckpointDirectory(str(home / "checkpoints"))
    engine.owner = Owner(job_id=engine.owner.job_id, epoch=engine.directory.claim())
    engine.interval_s = CHECKPOINT_S
    states = [0]
    engine.at_step = lambda _: states.append(max(states[-1], engine.progress.state_bytes))
    measure(engine, rows)
    return peak_mb() << 20, states[-1]


def for_each(
    jobs: Iterable[WindowJob], work: Callable[[WindowJob, Path], dict[str, float]]
) -> dict[str, float]:
    """What was found of each, in a directory of its own."""
    found: dict[str, float] = {}
    for job in jobs:
        with tempfile.TemporaryDirectory() as directory:
            found |= work(job, Path(directory))
    return found


def main() -> None:
    """Measure what was asked for."""
    rows, repeat = int(number("ROWS", 1_000_000)), int(number("REPEAT", 3))
    part, query = os.environ.get("JOB", ""), os.environ.get("QUERY", "")
    jobs = [job for job in JOBS if query in ("", job.name)]
    found: dict[str, float] = {}
    if part in ("", "file"):
        found |= for_each(jobs, lambda job, home: from_file(job, home, rows, repeat))
    if part in ("", "kafka"):
        with KafkaServer() as server:
            found |= for_each(jobs, lambda job, home: from_kafka(job, server, home, rows, repeat))
    if part in ("", "long") and AGENT in jobs:
        found |= for_each([AGENT], lambda _, home: ten_times_as_long(home, rows))
    if not found:
        raise SystemExit(f"nothing to measure: JOB={part} QUERY={query}")
    last_line({"benchmark": "stream", "rows": rows, **found, "machine": describe(None)})


if __name__ == "__main__":
    main()
