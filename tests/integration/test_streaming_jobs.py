"""Whole jobs over files, against a reference that treats one row after the other."""

from __future__ import annotations

import io
import json
import random
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from matih_ray.errors import SqlInvalidError, StreamRowError
from matih_ray.settings import Settings
from matih_ray.sinks.iceberg.catalog import CatalogConfig, open_catalog
from matih_ray.streaming import pipeline
from matih_ray.streaming.job import JobResult, Script
from matih_ray.streaming.sql.script import parse_script

JOBS = Path(__file__).parents[2] / "jobs" / "sql"
START = datetime(2026, 1, 1)  # noqa: DTZ001 - TIMESTAMP has no zone
DELAY_MS = 5_000
COLUMNS = "k STRING, v INT, x DOUBLE, u STRING, ts TIMESTAMP(3)"
WATERMARK = "WATERMARK FOR ts AS ts - INTERVAL '5' SECOND"
RESULTS = (
    "COUNT(*), COUNT(v), COUNT(DISTINCT u), SUM(v), AVG(v), MIN(x), MAX(x), PERCENTILE(v, 0.5)"
)
TYPES = "n BIGINT, nv BIGINT, nu BIGINT, s INT, a INT, lo DOUBLE, hi DOUBLE, p DOUBLE"


@dataclass(frozen=True)
class Event:
    k: str | None
    v: int | None
    x: float | None
    u: str | None
    ts: int


def events_of(seed: int, count: int = 600) -> list[Event]:
    """Out of order, some far too late, with NULLs and duplicates."""
    chance = random.Random(seed)
    found: list[Event] = []
    for number in range(count):
        if found and chance.random() < 0.05:
            found.append(chance.choice(found))
            continue
        back = chance.choice([0, 500, 3_000, 4_900, 20_000]) if chance.random() < 0.4 else 0
        found.append(
            Event(
                chance.choice(["a", "b", None]),
                chance.choice([None, *range(-9, 10)]),
                chance.choice([None, chance.uniform(-1, 1)]),
                chance.choice([None, "p", "q", "r"]),
                max(0, number * chance.choice([300, 310]) - back),
            )
        )
    return found


def write(path: Path, events: list[Event], seed: int) -> int:
    """The events as JSON lines between unreadable ones, whose number is returned."""
    chance, bad = random.Random(seed), 0
    with path.open("w") as file:
        for event in events:
            if chance.random() < 0.02:
                file.write(chance.choice(["{oops", "[1, 2", '"text"', "7"]) + "\n")
                bad += 1
            at = (START + timedelta(milliseconds=event.ts)).isoformat(" ", "milliseconds")
            v = str(event.v) if event.v is not None and chance.random() < 0.05 else event.v
            row = {"k": event.k, "v": v, "x": event.x, "u": event.u, "ts": at, "more": [1]}
            file.write(json.dumps(row) + "\n")
    return bad


def millis(at: datetime) -> int:
    return round((at - START).total_seconds() * 1000)


def assigned(kind: str, ts: int) -> list[tuple[int, int]]:
    """Windows of a time, all multiples of seconds; START is a multiple of all sizes."""
    if kind == "TUMBLE":
        return [(start := ts - ts % 10_000, start + 10_000)]
    if kind == "HOP":
        last = ts - ts % 4_000
        return [(s, s + 10_000) for s in range(last, last - 12_000, -4_000) if s + 10_000 > ts]
    start = ts - ts % 12_000  # CUMULATE
    return [(start, e) for e in range(start + 4_000, start + 12_001, 4_000) if e > ts]


def reference(kind: str, events: list[Event]) -> tuple[dict, int]:
    """Rows by (key, start, end), and the number of late rows; one event after the other."""
    groups, watermark, late = defaultdict(list), -(10**18), 0
    for event in events:
        windows = [w for w in assigned(kind, event.ts) if w[1] - 1 > watermark]
        late += not windows
        for window in windows:
            groups[(event.k, *window)].append(event)
        watermark = max(watermark, event.ts - DELAY_MS)
    return groups, late


def session_reference(events: list[Event], gap: int) -> tuple[dict, int]:
    open_, closed, watermark, late = [], {}, -(10**18), 0
    for event in events:
        touching = [
            s for s in open_
            if s[0] == event.k and s[1] <= event.ts + gap and event.ts <= s[2]
        ]  # fmt: skip
        start = min([event.ts, *(s[1] for s in touching)])
        end = max([event.ts + gap, *(s[2] for s in touching)])
        if end - 1 <= watermark:
            late += 1
        else:
            open_ = [s for s in open_ if s not in touching]
            open_.append((event.k, start, end, [e for s in touching for e in s[3]] + [event]))
        watermark = max(watermark, event.ts - DELAY_MS)
        over = [s for s in open_ if s[2] - 1 <= watermark]
        open_ = [s for s in open_ if s[2] - 1 > watermark]
        closed |= {s[:3]: s[3] for s in over}
    return closed | {s[:3]: s[3] for s in open_}, late


def results_of(rows: list[Event]) -> tuple:
    v = sorted(e.v for e in rows if e.v is not None)
    x = [e.x for e in rows if e.x is not None]
    middle = (v[(len(v) - 1) // 2] + v[len(v) // 2]) / 2 if v else None
    return (
        len(rows), len(v), len({e.u for e in rows if e.u is not None}),
        sum(v) if v else None, int(sum(v) / len(v)) if v else None,
        min(x, default=None), max(x, default=None), middle,
    )  # fmt: skip


def run(text: str, home: Path, options: dict[str, str] | None = None, late: list | None = None):
    out = io.StringIO()
    script = Script(Settings(home=home), options or {}, out)
    inserts = script.prepare(parse_script(text, {}))
    script.create_tables()
    keep = (lambda batch: late.extend(batch.to_pylist())) if late is not None else (lambda _: None)
    results: list[JobResult] = [script.run(insert, pipeline.Aside(late=keep)) for insert in inserts]
    return results, out.getvalue()


def windowed(kind: str, tmp_path: Path) -> str:
    source = (
        f"CREATE TABLE t ({COLUMNS}, {WATERMARK}) WITH ('connector' = 'filesystem', 'format' = "
        f"'json', 'path' = '{tmp_path}/in', 'json.ignore-parse-errors' = 'true');"
        f"CREATE TABLE o (k STRING, ws TIMESTAMP(3), we TIMESTAMP(3), {TYPES}) WITH "
        f"('connector' = 'filesystem', 'format' = 'parquet', 'path' = '{tmp_path}/out');"
    )
    group = {
        "TUMBLE": "TUMBLE(ts, INTERVAL '10' SECOND)",
        "HOP": "HOP(ts, INTERVAL '4' SECOND, INTERVAL '10' SECOND)",
        "SESSION": "SESSION(ts, INTERVAL '2' SECOND)",
    }.get(kind)
    if group is None:
        table = "CUMULATE(TABLE t, DESCRIPTOR(ts), INTERVAL '4' SECOND, INTERVAL '12' SECOND)"
        return source + (
            f"INSERT INTO o SELECT k, window_start, window_end, {RESULTS} FROM TABLE({table}) "
            "GROUP BY k, window_start, window_end;"
        )
    start, end = (group.replace(f"{kind}(", f"{kind}_{part}(") for part in ("START", "END"))
    return source + f"INSERT INTO o SELECT k, {start}, {end}, {RESULTS} FROM t GROUP BY {group}, k;"


@pytest.mark.parametrize("kind", ["TUMBLE", "HOP", "CUMULATE", "SESSION"])
@pytest.mark.parametrize("seed", range(5))
def test_windows_are_those_of_the_reference_however_batches_are_cut(
    kind: str, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    events = events_of(seed)
    monkeypatch.setattr(pipeline, "CHUNK_ROWS", [1, 7, 64, 1000, 10**6][seed])
    (tmp_path / "in").mkdir()
    bad = write(tmp_path / "in" / "events.json", events, seed)
    late_rows: list = []
    (result,), _ = run(windowed(kind, tmp_path), tmp_path, late=late_rows)
    (file,) = (tmp_path / "out").glob("*.parquet")
    rows = pyarrow.parquet.read_table(file).to_pylist()
    found = {
        (row["k"], millis(row["ws"]), millis(row["we"])): tuple(list(row.values())[3:])
        for row in rows
    }
    assert len(found) == len(rows)
    expected, late = (
        session_reference(events, 2_000) if kind == "SESSION" else reference(kind, events)
    )
    assert found == {key: results_of(group) for key, group in expected.items()}
    assert late > 0
    assert (result.counts.read, result.counts.late, result.counts.bad) == (len(events), late, bad)
    assert len(late_rows) == late


@pytest.mark.parametrize("seed", range(3))
def test_the_session_job_runs_into_its_iceberg_table(seed: int, tmp_path: Path):
    chance = random.Random(seed)
    count = 2_000
    with (tmp_path / "in.json").open("w") as file:
        for number in range(count):
            at = (START + timedelta(seconds=number)).isoformat(" ", "milliseconds")
            metadata = {"duration_ms": number, "turn_count": "2"}
            row = {
                "tenant_id": "acme", "entity_type": "session_phase", "timestamp": at,
                "entity_id": f"s{number % 50}", "to_state": chance.choice(["completed", "open"]),
                "metadata": metadata if number % 2 else json.dumps(metadata),
            }  # fmt: skip
            file.write(json.dumps(row) + "\n")
    run((JOBS / "tables" / "session_analytics.sql").read_text(), tmp_path)
    text = (JOBS / "session-analytics.sql").read_text()
    options = {
        "state_changes_source.connector": "filesystem",
        "state_changes_source.path": str(tmp_path / "in.json"),
    }
    for _ in range(2):  # an append each time
        run(text, tmp_path, options)
    catalog = open_catalog(CatalogConfig.from_settings(Settings(home=tmp_path)))
    table = catalog.load_table(("matih_analytics", "session_analytics"))
    found: pa.Table = table.scan().to_arrow()
    assert [str(field.transform) for field in table.spec().fields] == ["hour"]
    assert found.num_rows == 6
    first = min(found.to_pylist(), key=lambda row: row["window_start"])
    assert (first["total_sessions"], first["avg_duration_ms"], first["avg_turns"]) == (50, 449.5, 2)


def test_csv_union_view_and_print(tmp_path: Path):
    (tmp_path / "a.csv").write_text("x,1,2026-01-01 00:00:00\ny,2,2026-01-01 00:00:01.5\n")
    _, out = run(
        f"""
        CREATE TABLE t (k STRING, v INT, ts TIMESTAMP(3)) WITH
          ('connector' = 'filesystem', 'format' = 'csv', 'path' = '{tmp_path}/a.csv');
        CREATE TABLE p (k STRING, v DOUBLE, ts TIMESTAMP(3)) WITH ('connector' = 'print');
        CREATE VIEW w AS SELECT k, v * 2 AS v, ts FROM t WHERE v > 1;
        INSERT INTO p SELECT * FROM t UNION ALL SELECT UPPER(k), v, ts FROM w;
        """,
        tmp_path,
    )
    assert sorted(out.splitlines()) == [
        "+I[Y, 4.0, 2026-01-01T00:00:01.500000]",
        "+I[x, 1.0, 2026-01-01T00:00:00]",
        "+I[y, 2.0, 2026-01-01T00:00:01.500000]",
    ]


def test_datagen_into_blackhole_counts_rows(tmp_path: Path):
    (result,), _ = run(
        "CREATE TABLE g (n BIGINT, s STRING) WITH ('connector' = 'datagen', 'number-of-rows' = "
        "'1000', 'fields.n.kind' = 'sequence', 'fields.n.start' = '1', 'fields.n.end' = '1000');"
        "CREATE TABLE b (n BIGINT, s STRING) WITH ('connector' = 'blackhole');"
        "INSERT INTO b SELECT n, s FROM g WHERE MOD(n, 2) = 0;",
        tmp_path,
    )
    assert (result.rows, result.counts.read) == (500, 1000)


@pytest.mark.parametrize(
    "line",
    [
        '{"k": "a", "v": "x"}',
        "{oops",
        '{"k": "a", "v": 1, "ts": "2026-01-01T00:00:00"}',
        '{"k": 1}',
    ],
)
def test_a_row_that_flink_refuses_stops_the_job_and_leaves_no_file(line: str, tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.json").write_text(line + "\n")
    text = windowed("TUMBLE", tmp_path).replace("'json.ignore-parse-errors' = 'true'", "'a' = 'b'")
    with pytest.raises(StreamRowError):
        run(text, tmp_path)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_query_must_fit_its_table(tmp_path: Path):
    text = windowed("TUMBLE", tmp_path).replace("n BIGINT", "n INT")
    with pytest.raises(SqlInvalidError, match="write a CAST"):
        run(text, tmp_path)
