"""The window jobs as they are, on random events, here and in Apache Flink: the same rows.

Events are out of order, late, NULL, duplicate and malformed. `FLINK_CASES=200` for more of each.
"""

from __future__ import annotations

import io
import json
import math
import os
import random
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from matih_ray.settings import Settings
from matih_ray.sinks.iceberg.catalog import CatalogConfig, open_catalog
from matih_ray.streaming.job import Script
from matih_ray.streaming.sql.script import CreateTable, Insert, parse_script, split
from matih_ray.testing.devstack.flink import FlinkSql

SQL = Path(__file__).parents[2] / "jobs" / "sql"
# Job, and the table that it writes to.
JOBS = {
    "session-analytics": "session_analytics",
    "agent-performance-agg": "agent_performance_metrics",
    "llm-operations-agg": "llm_operations_metrics",
}
CASES = int(os.environ.get("FLINK_CASES", "4"))
EVENTS = 300
START = datetime(2026, 1, 1)  # noqa: DTZ001 - TIMESTAMP has no zone
# How far an event may be behind the others: within the watermark's delay, or a window too late.
BEHIND_S = (0, 5, 29.999, 30, 31, 400, 2_000)
TEXTS = ("a", "b", "", "ü", "completed", "failed", "session_phase")
INTEGERS = (0, 1, -1, 7, 250, 2**31 - 1, -(2**31))
DOUBLES = (0.0, 0.1, -2.5, 1e-9, 12345.678)
DURATIONS = (None, 0, 12, 1.5, "30", " 7 ", "many", True, [1], {"x": 1})
# By type, some of them of another.
VALUES: dict[str, tuple[object, ...]] = {
    "STRING": (*TEXTS, 5, True),
    "BOOLEAN": (True, False, "true", "no"),
    "INT": (*INTEGERS, "12", "many"),
    "DOUBLE": (*DOUBLES, "0.25", "much"),
    "ARRAY<STRING>": ([], ["x", None], ["y"]),
}
# What the jobs' filters let pass, so that each case has a row that is late.
WANTED = {"entity_type": "session_phase", "action": "completed"}
# What is no JSON, or nothing like a row.
NOISE = ("", "{", "[1, 2", '{"tenant_id": ', "nonsense")


@pytest.fixture(scope="module")
def flink() -> Iterator[FlinkSql]:
    with FlinkSql() as engine:
        yield engine


def event(table: CreateTable, chance: random.Random, at: datetime) -> dict[str, object]:
    """A row of the source, with some of its values not there or of another type."""
    row: dict[str, object] = {}
    for column in table.columns:
        assert column.type is not None
        kind = str(column.type).upper()
        if column.name == "timestamp":
            row[column.name] = at.isoformat(" ", "milliseconds")
        elif column.name == "metadata":
            row[column.name] = _metadata(chance)
        elif column.not_null:
            row[column.name] = chance.choice(TEXTS[:2])
        elif chance.random() < 0.15:
            if chance.random() < 0.5:
                row[column.name] = None
        else:
            row[column.name] = chance.choice(VALUES[kind])
    return row


def _metadata(chance: random.Random) -> object:
    inside = {name: chance.choice(DURATIONS) for name in ("duration_ms", "turn_count")}
    # text that is no JSON would end both: CAST('many' AS DOUBLE) does as well, so it is left out
    usable = {k: v for k, v in inside.items() if v not in ("many", True) and not _nested(v)}
    return chance.choice([json.dumps(usable), json.dumps(usable), usable, None, "{}"])


def _nested(value: object) -> bool:
    return isinstance(value, list | dict)


def events(table: CreateTable, seed: int) -> list[str]:
    chance = random.Random(seed)
    lines: list[str] = []
    for number in range(EVENTS):
        if chance.random() < 0.04:
            lines.append(chance.choice(NOISE))
        elif lines and chance.random() < 0.04:
            lines.append(chance.choice(lines))
        else:
            behind_s = chance.choice(BEHIND_S) if chance.random() < 0.4 else 0
            at = START + timedelta(seconds=number * 20 - behind_s)
            lines.append(json.dumps(event(table, chance, at), ensure_ascii=chance.random() < 0.5))
    late = {column.name: WANTED[column.name] for column in table.columns if column.name in WANTED}
    return [*lines, json.dumps({**event(table, chance, START), **late})]


def shown(value: object) -> str:
    """A value in one form for both; sums of DOUBLE may differ in their last bits."""
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+", value):
        value = datetime.fromisoformat(value)
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return repr(value)
    if isinstance(value, int | float):
        return "NaN" if math.isnan(value) else f"{value:.10g}"
    return str(value)


@pytest.mark.parametrize("seed", range(CASES))
@pytest.mark.parametrize("job", JOBS)
def test_a_job_gives_the_rows_that_flink_gives(
    flink: FlinkSql, job: str, seed: int, tmp_path: Path
):
    text = (SQL / f"{job}.sql").read_text()
    create, insert = parse_script(text, {})
    assert isinstance(create, CreateTable)
    assert isinstance(insert, Insert)
    source = tmp_path / "events.json"
    source.write_text("\n".join(events(create, seed)) + "\n")
    options = {"connector": "filesystem", "path": str(source), "json.ignore-parse-errors": "true"}

    created, inserted = (statement for _, statement in split(text))
    files = ", ".join(f"'{k}' = '{v}'" for k, v in {**options, "format": "json"}.items())
    query = inserted[inserted.index("SELECT") :]
    declared = re.sub(r"\) WITH \(.*\)", f") WITH ({files})", created, flags=re.DOTALL)
    expected = flink.query(tmp_path / "script", [declared, query])

    settings, name = Settings(home=tmp_path), ".".join(create.path)
    overrides = {f"{name}.{key}": value for key, value in options.items()}
    tables = Script(settings, {}, io.StringIO())
    tables.prepare(parse_script((SQL / "tables" / f"{JOBS[job]}.sql").read_text(), {}))
    tables.create_tables()
    ours = Script(settings, overrides, io.StringIO())
    (prepared,) = ours.prepare(parse_script(text, {}))
    result = ours.run(prepared)
    catalog = open_catalog(CatalogConfig.from_settings(settings))
    found = catalog.load_table(("matih_analytics", JOBS[job])).scan().to_arrow()
    rows = [list(row.values()) for row in found.to_pylist()]

    assert sorted([shown(v) for v in row] for row in rows) == sorted(
        [shown(v) for v in row] for row in expected
    )
    assert result.counts.late > 0
    assert len(expected) >= 5
